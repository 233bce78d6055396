# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Discrepancies of samples against closed forms."""

import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.metrics import (
    gaussian_kernel,
    inverse_multiquadric_kernel,
    median_bandwidth,
    mmd,
    parzen_bandwidth,
    parzen_log_likelihood,
    polynomial_kernel,
)


def mmd_of_gaussians(mean: torch.Tensor, var_p: float, var_q: float, sigma: float) -> torch.Tensor:
    """The squared discrepancy of N(0, var_p I) and N(mean, var_q I) under the Gaussian kernel."""

    def expected(shift: torch.Tensor, variance: float) -> torch.Tensor:
        total = sigma**2 + variance
        dim = len(shift)
        return (sigma**2 / total) ** (dim / 2) * torch.exp(-shift.square().sum() / (2 * total))

    zero = torch.zeros_like(mean)
    return expected(zero, 2 * var_p) + expected(zero, 2 * var_q) - 2 * expected(mean, var_p + var_q)


def repeated(estimate, size: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard error of an estimate over independent samples."""
    draws = torch.stack([estimate() for _ in range(size)])
    return draws.mean(), draws.std() / size**0.5


def test_mmd_of_two_gaussians_is_the_closed_form(
    float64: torch.dtype, device: torch.device
) -> None:
    mean = torch.tensor([0.5, -0.3], device=device)
    exact = mmd_of_gaussians(mean, 1.0, 2.0, 1.5)

    def estimate() -> torch.Tensor:
        x = torch.randn(100, 2, device=device)
        y = mean + 2**0.5 * torch.randn(150, 2, device=device)
        return mmd(x, y, gaussian_kernel(1.5), block=64)

    found, error = repeated(estimate)
    assert (found - exact).abs() < 4 * error


def test_the_biased_estimate_fails_that_test(float64: torch.dtype) -> None:
    """Keeping the pairs of a datum with itself adds about (1 - E k) / n for each sample."""
    kernel = gaussian_kernel(1.5)

    def biased() -> torch.Tensor:
        x, y = torch.randn(100, 2), torch.randn(100, 2)
        return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()

    found, error = repeated(biased)
    assert found > 4 * error


def test_only_a_characteristic_kernel_tells_coins_from_a_gaussian(float64: torch.dtype) -> None:
    """Two fair coins at +-1 and a standard normal share mean and variance."""

    def estimate(kernel):
        def draw() -> torch.Tensor:
            coins = torch.randint(0, 2, (300, 1)).double() * 2 - 1
            return mmd(coins, torch.randn(300, 1), kernel)

        return repeated(draw)

    for kernel in (gaussian_kernel(0.5), inverse_multiquadric_kernel(0.5)):
        found, error = estimate(kernel)
        assert found > 4 * error
    found, error = estimate(polynomial_kernel(2))
    assert found.abs() < 4 * error
    found, error = estimate(polynomial_kernel(4))  # the fourth moments differ: 1 and 3
    assert found > 4 * error


def test_equal_laws_have_no_discrepancy_and_images_are_flattened(float64: torch.dtype) -> None:
    found, error = repeated(lambda: mmd(torch.randn(60, 1, 3, 3), torch.randn(50, 1, 3, 3)))
    assert found.abs() < 4 * error


def test_mmd_has_gradients(float64: torch.dtype) -> None:
    x = torch.randn(5, 2, requires_grad=True)
    y = torch.randn(4, 2)
    assert torch.autograd.gradcheck(lambda x: mmd(x, y, inverse_multiquadric_kernel(1.0)), (x,))


@pytest.mark.parametrize(("bandwidth", "shift"), [(0.003, 0.0), (0.2, 100.0)])
def test_distances_keep_their_digits_in_single_precision(bandwidth: float, shift: float) -> None:
    """With a bandwidth that is small beside the data, and for data far from 0."""
    samples = torch.rand(50, 784) + shift
    x = samples[:10] + bandwidth / 8
    exact = parzen_log_likelihood(samples.double(), x.double(), bandwidth)
    found = parzen_log_likelihood(samples, x, bandwidth).double()
    # The exponent of the nearest is about 784 / 128 = 6, a sum of 784 terms: in float32 off by
    # less than 784 * 1.2e-7 * 6 = 6e-4; the constant, below 4000, by 5e-4.
    assert (found - exact).abs().max() < 1.1e-3
    expanded = torch.cdist(x, samples, compute_mode="use_mm_for_euclid_dist").square()
    wrong = (expanded.double() - torch.cdist(x.double(), samples.double()).square()).abs()
    assert wrong.diagonal().max() / (2 * bandwidth**2) > 0.1


def test_samples_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of dimensions"):
        mmd(torch.zeros(5, 2), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="at least 2 data"):
        mmd(torch.zeros(1, 2), torch.zeros(5, 2))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_samples_that_are_not_floating_point_are_refused(dtype: torch.dtype) -> None:
    images = torch.randint(0, 2, (10, 1, 4, 4)).to(dtype)
    for call in (
        lambda: mmd(images, images),
        lambda: median_bandwidth(images, images),
        lambda: parzen_log_likelihood(images, images, 0.1),
        lambda: parzen_log_likelihood(images.float(), images, 0.1),
    ):
        with pytest.raises(ValueError, match=rf"floating-point samples, got {dtype}; give x.float"):
            call()


def test_samples_of_two_dtypes_arrays_and_numbers_are_refused() -> None:
    x = torch.rand(5, 2)
    with pytest.raises(ValueError, match=r"one dtype, got torch.float32 and torch.float64; give"):
        mmd(x, x.double())
    with pytest.raises(ValueError, match=r"tensors, got ndarray; make one by torch.as_tensor"):
        mmd(x.numpy(), x)
    with pytest.raises(ValueError, match=r"shape \(n, ...\), got one number"):
        parzen_log_likelihood(x[0, 0], x[0, 0], 0.1)
    with pytest.raises(ValueError, match=r"got shapes \(0, 2\) and \(5, 2\)"):
        parzen_log_likelihood(x[:0], x, 0.1)


def test_numbers_are_vectors_of_one_dimension() -> None:
    x, y = torch.rand(5), torch.rand(6)
    assert mmd(x, y) == mmd(x[:, None], y[:, None])
    assert torch.equal(
        parzen_log_likelihood(x, y, 0.1), parzen_log_likelihood(x[:, None], y[:, None], 0.1)
    )


def test_a_bandwidth_of_zero_is_refused() -> None:
    constant = torch.ones(10, 2)
    with pytest.raises(ValueError, match=r"got 0.0: most data are the same .*gaussian_kernel\("):
        mmd(constant, constant)
    assert mmd(constant, constant, gaussian_kernel(1.0)) == 0
    for kernel in (gaussian_kernel, inverse_multiquadric_kernel):
        for bandwidth in (0.0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="positive bandwidth"):
                kernel(bandwidth)


def test_the_median_distance() -> None:
    x, y = torch.zeros(4, 2), torch.tensor([[3.0, 4.0]]).expand(4, 2)
    assert float(median_bandwidth(x, y)) == 5


def test_parzen_is_a_mixture_of_gaussians(float64: torch.dtype, device: torch.device) -> None:
    samples = torch.randn(7, 1, 2, 2, device=device)
    x = torch.randn(11, 1, 2, 2, device=device)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(7, device=device)),
        dist.Normal(samples.flatten(1), 0.3).to_event(1),
    )
    found = parzen_log_likelihood(samples, x, 0.3, block=4)
    torch.testing.assert_close(found, mixture.log_prob(x.flatten(1)))


def test_parzen_bandwidth_is_the_best_on_held_out_data(float64: torch.dtype) -> None:
    samples, held_out = torch.randn(300, 1), torch.randn(300, 1)
    candidates = [0.01, 0.1, 0.3, 1.0, 5.0]
    best = parzen_bandwidth(samples, held_out, candidates)
    scores = [float(parzen_log_likelihood(samples, held_out, c).mean()) for c in candidates]
    assert scores[candidates.index(best)] == max(scores)
    assert best not in (0.01, 5.0)
    with pytest.raises(ValueError, match="at least one candidate"):
        parzen_bandwidth(samples, held_out, [])
    with pytest.raises(ValueError, match="positive bandwidth"):
        parzen_log_likelihood(samples, held_out, 0.0)
