# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Squeeze, logit, mixtures of channels and levels against what they must equal."""

import pytest
import torch
from torch.distributions import transforms as torch_transforms

from pyro_deepgen.transforms import (
    ActNorm,
    Composed,
    InvertibleConv1x1,
    Logit,
    MultiScale,
    Squeeze,
    cholesky_affine,
    planar,
    sylvester,
)
from pyro_deepgen.transforms.image_levels import check_levels

pytestmark = pytest.mark.usefixtures("float64")


def test_squeeze_against_a_table_by_hand() -> None:
    image = torch.tensor(
        [
            [[0, 1, 2, 3], [4, 5, 6, 7]],
            [[10, 11, 12, 13], [14, 15, 16, 17]],
        ]
    ).double()
    expected = [[0, 2], [1, 3], [4, 6], [5, 7], [10, 12], [11, 13], [14, 16], [15, 17]]
    squeezed, log_det = Squeeze().forward_and_log_det(image)
    assert squeezed.tolist() == [[row] for row in expected]
    assert log_det == 0
    assert Squeeze().forward_shape((5, 2, 2, 4)) == (5, 8, 1, 2)
    assert Squeeze().inverse_shape((5, 8, 1, 2)) == (5, 2, 2, 4)


def test_squeeze_by_three_is_the_formula() -> None:
    image = torch.arange(2 * 3 * 6.0).reshape(2, 3, 6)
    squeezed = Squeeze(3)(image)
    for c, a, b, j in torch.cartesian_prod(*map(torch.arange, (2, 3, 3, 2))).tolist():
        assert squeezed[9 * c + 3 * a + b, 0, j] == image[c, a, 3 * j + b]


def test_squeeze_refuses_what_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match="multiples of 2, got 3 x 4"):
        Squeeze()(torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        Squeeze().inv(torch.zeros(6, 3, 4))
    with pytest.raises(ValueError, match="factor above 1"):
        Squeeze(1)
    with pytest.raises(ValueError, match="at least 3 dimensions"):
        Squeeze().forward_shape((4, 4))


def test_the_mixture_is_a_dense_matrix_at_every_pixel(device: torch.device) -> None:
    mix = InvertibleConv1x1(5)
    with torch.no_grad():
        for parameter in mix.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    mix.to(device)
    columns, log_det = mix.inverse_and_log_det(torch.eye(5)[:, :, None, None].to(device))
    matrix = columns[..., 0, 0].mT.detach()
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(matrix).logabsdet)
    images = torch.randn(2, 5, 3, 4).to(device)
    mixed, log_det = mix.inverse_and_log_det(images)
    torch.testing.assert_close(mixed, torch.nn.functional.conv2d(images, matrix[..., None, None]))
    torch.testing.assert_close(log_det, (12 * torch.linalg.slogdet(matrix).logabsdet).expand(2))
    inverse = torch.linalg.inv(matrix)
    expected = torch.nn.functional.conv2d(images, inverse[..., None, None])
    torch.testing.assert_close(mix(images), expected)


def test_the_mixture_starts_orthogonal_and_stays_regular() -> None:
    mix = InvertibleConv1x1(6)
    matrix = mix.inverse_and_log_det(torch.eye(6)[..., None, None])[0][..., 0, 0].mT
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(6))
    assert mix.order.sort().values.tolist() == list(range(6))
    images = torch.randn(3, 6, 2, 2)
    for _ in range(20):
        with torch.no_grad():
            for parameter in mix.parameters():
                parameter.add_(torch.randn_like(parameter))
        assert bool(mix.inverse_and_log_det(images)[0].isfinite().all())
        assert bool((mix._upper().diagonal().sign() == mix.signs).all())


def test_the_mixture_reads_one_side_of_each_factor_only() -> None:
    mix, images = InvertibleConv1x1(4), torch.randn(3, 4, 2, 2)
    expected = mix(images), mix.inv(images)
    with torch.no_grad():
        mix.lower[torch.ones(4, 4).triu() > 0] = torch.nan
        mix.upper[torch.ones(4, 4).tril() > 0] = torch.nan
    for run, images_expected in zip((mix, mix.inv), expected, strict=True):
        mix.zero_grad()
        mapped = run(images)
        torch.testing.assert_close(mapped, images_expected)
        (mapped * torch.randn_like(mapped)).sum().backward()
        of_lower, of_upper = mix.lower.grad, mix.upper.grad
        assert of_lower is not None
        assert of_upper is not None
        for gradient, read in ((of_lower, of_lower.tril(-1)), (of_upper, of_upper.triu(1))):
            assert torch.equal(gradient, read)
            assert int((read != 0).sum()) == 6


def test_single_precision_of_the_mixture(device: torch.device) -> None:
    mix, images = InvertibleConv1x1(16).float().to(device), torch.randn(4, 16, 3, 3)
    images = images.float().to(device)
    torch.testing.assert_close(mix(mix.inv(images)), images, atol=1e-5, rtol=1e-5)


def test_the_mixture_refuses_other_channels() -> None:
    with pytest.raises(ValueError, match="images with 3 channels, got shape"):
        InvertibleConv1x1(3)(torch.zeros(4, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logit_without_alpha_is_pytorchs_sigmoid(dtype: torch.dtype) -> None:
    x = torch.linspace(-8, 8, 50, dtype=dtype)
    plain, ours = torch_transforms.SigmoidTransform(), Logit()
    y, log_det = ours.forward_and_log_det(x)
    torch.testing.assert_close(y, plain(x))
    torch.testing.assert_close(log_det, plain.log_abs_det_jacobian(x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.05])
def test_logit_at_the_extremes(alpha: float, dtype: torch.dtype) -> None:
    logit = Logit(alpha)
    x = torch.tensor([-1e30, -1e4, -100.0, 0.0, 100.0, 1e4, 1e30], dtype=dtype).requires_grad_()
    y, log_det = logit.forward_and_log_det(x)
    assert bool(logit.codomain.check(y.detach()).all())
    scale = 1 - 2 * alpha
    torch.testing.assert_close(
        log_det + torch.tensor(scale).log().to(dtype), -x.abs() - 2 * (-x.abs()).exp().log1p()
    )
    (gradient,) = torch.autograd.grad(log_det.sum(), x)
    torch.testing.assert_close(gradient, -torch.tanh(x / 2))
    ends = torch.tensor([0.0, 1.0], dtype=dtype).requires_grad_()
    back, log_det = logit.inverse_and_log_det(ends)
    assert bool((back.isfinite() & log_det.isfinite()).all())
    gradients = torch.autograd.grad(back.sum() + log_det.sum(), ends)
    assert bool(gradients[0].isfinite().all())
    if alpha:
        low = torch.tensor(alpha / (1 - alpha)).log().to(dtype)
        torch.testing.assert_close(back.detach(), torch.stack([low, -low]), atol=1e-4, rtol=1e-4)


def test_logit_refuses_an_alpha_that_leaves_nothing() -> None:
    for alpha in (-0.1, 0.5, float("nan")):
        with pytest.raises(ValueError, match="from 0 to below 1/2"):
            Logit(alpha)


def test_the_pieces_enter_in_order() -> None:
    # Level by level: planes of the coarse scale first, each level's new half below.
    flow = MultiScale([Squeeze().inv, Squeeze().inv], (1, 4, 4))
    assert flow.piece_shapes == [(8, 1, 1), (2, 2, 2)]
    x = torch.arange(16.0)
    coarse = Squeeze().inv(x[:8].reshape(8, 1, 1))
    fine = Squeeze().inv(torch.cat([coarse, x[8:].reshape(2, 2, 2)]))
    assert torch.equal(flow(x), fine)
    assert torch.equal(flow.inv(fine), x)


def test_log_dets_of_the_levels_add_up() -> None:
    levels = [cholesky_affine(2), planar(4), sylvester(8)]
    flow, x = MultiScale(levels, (8,)), torch.randn(3, 8)
    h, total = levels[0].forward_and_log_det(x[:, :2])
    for level, piece in ((levels[1], x[:, 2:4]), (levels[2], x[:, 4:])):
        h, log_det = level.forward_and_log_det(torch.cat([h, piece], -1))
        total = total + log_det
    y, log_det = flow.forward_and_log_det(x)
    torch.testing.assert_close(y, h)
    torch.testing.assert_close(log_det, total)


def test_each_level_runs_once_each_way() -> None:
    calls: list[str] = []

    class Counted(Squeeze):
        def forward_and_log_det(self, x, context=None):  # type: ignore[no-untyped-def]
            calls.append("forward")
            return super().forward_and_log_det(x, context)

        def inverse_and_log_det(self, y, context=None):  # type: ignore[no-untyped-def]
            calls.append("inverse")
            return super().inverse_and_log_det(y, context)

    flow = MultiScale([Counted().inv, Counted().inv], (1, 4, 4))
    flow.forward_and_log_det(torch.randn(16))
    assert calls == ["inverse"] * 2
    flow.inverse_and_log_det(torch.randn(1, 4, 4))
    assert calls == ["inverse"] * 2 + ["forward"] * 2


def test_levels_of_one_variable_each_and_one_level() -> None:
    one = MultiScale([Composed([ActNorm((1, 2, 2)).eval()])], (1, 2, 2))
    assert one.piece_shapes == [(1, 2, 2)]
    scalars = torch_transforms.AffineTransform(1.0, 2.0)  # sees event dimensions as a batch
    flow, x = MultiScale([scalars, scalars], (4,)), torch.randn(5, 4)
    y, log_det = flow.forward_and_log_det(x)
    torch.testing.assert_close(y, torch.cat([3 + 4 * x[:, :2], 1 + 2 * x[:, 2:]], -1))
    torch.testing.assert_close(
        log_det, torch.full((5,), 6 * 2.0).double().mul(0.5).mul(torch.tensor(2.0).log())
    )


def test_levels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="even number of channels"):
        MultiScale([planar(1), planar(3)], (3,))
    with pytest.raises(ValueError, match="at least one level"):
        MultiScale([], (4,))
    with pytest.raises(ValueError, match="no more dimensions than"):
        MultiScale([Squeeze().inv], (16,))
    with pytest.raises(ValueError, match="same number of dimensions"):
        MultiScale([planar(2, context_dim=1), planar(4, context_dim=2)], (4,))


def test_shapes_say_what_would_work() -> None:
    with pytest.raises(
        ValueError, match=r"8 = 2\^3, got 28 x 28; use num_levels=2, or pad it to 32 x 32"
    ):
        check_levels((1, 28, 28), 3)
    with pytest.raises(ValueError, match=r"got 27 x 28; pad it to 28 x 28"):
        check_levels((1, 27, 28), 1)
    with pytest.raises(ValueError, match=r"\(channels, height, width\)"):
        check_levels((28, 28), 1)
