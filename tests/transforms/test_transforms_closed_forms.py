# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Planar, radial and Sylvester flows, affine maps and quantiles against what they must equal."""

import copy

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.transforms import (
    CholeskyAffine,
    ContextParameters,
    Planar,
    Quantile,
    Radial,
    Sylvester,
    Transform,
    planar,
    radial,
    sylvester,
)
from pyro_deepgen.transforms.sylvester import _orthonormal

pytestmark = pytest.mark.usefixtures("float64")


def enlarge(transform: Transform, factor: float) -> None:
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.copy_(factor * torch.randn_like(parameter))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("make", [planar, radial, sylvester])
def test_inverses_are_right_for_large_parameters_and_far_points(
    make: type[Transform], dtype: torch.dtype, device: torch.device
) -> None:
    y = 10 ** torch.linspace(-3, 3, 200)[:, None] * torch.randn(200, 3)
    y = y.to(device, dtype)
    for _ in range(30):
        transform = make(3).to(device, dtype)
        enlarge(transform, 2.0)
        x, log_det = transform.inverse_and_log_det(y)
        assert bool(x.isfinite().all() & log_det.isfinite().all())
        # Forth again, the error is that of rounding x and the largest thing it is added to.
        back = transform(x)
        size = 1e3 + x.abs().amax(-1, keepdim=True) + y.abs().amax(-1, keepdim=True)
        assert bool(((back - y).abs() <= 30 * torch.finfo(dtype).eps * size).all())


def test_the_pushes_of_a_planar_flow_lie_along_one_direction_and_are_invertible() -> None:
    for _ in range(50):
        flow = planar(4)
        enlarge(flow, 3.0)
        w, u, b, q = flow._terms(None)
        torch.testing.assert_close(1 + w @ u, q, atol=1e-9, rtol=1e-9)
        assert bool(q > 0)
        x = torch.randn(10, 4)
        torch.testing.assert_close(flow(x), x + u * torch.tanh(x @ w + b)[:, None])


@pytest.mark.parametrize("size", [1, 5])
def test_flows_start_near_the_identity_and_contain_it(size: int) -> None:
    x = torch.randn(100, size)
    for make in (planar, radial, sylvester):
        push = (make(size)(x) - x).norm(dim=-1).mean()
        assert bool(push < 0.5 * x.norm(dim=-1).mean())
    flow = planar(size)
    with torch.no_grad():
        flow.values.u.zero_()
    torch.testing.assert_close(flow(x), x)
    with torch.no_grad():
        flow.values.u.normal_()
        flow.values.w.zero_()
    y, log_det = flow.forward_and_log_det(x)
    torch.testing.assert_close(log_det, torch.zeros(100))
    (log_det.sum() + y.sum()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in flow.parameters() if p.grad is not None)


def test_radial_at_its_center_has_finite_gradients() -> None:
    flow = radial(3)
    center = flow.values.center.detach().clone().requires_grad_()
    for run in (flow.forward_and_log_det, flow.inverse_and_log_det):
        y, log_det = run(center)
        torch.testing.assert_close(y, center)
        gradients = torch.autograd.grad(y.sum() + log_det, [center, *flow.parameters()])
        assert all(bool(g.isfinite().all()) for g in gradients)
    slope = torch.autograd.functional.jacobian(flow, center)
    log_det = flow.forward_and_log_det(center)[1]
    torch.testing.assert_close(torch.logdet(slope), log_det)


def test_householder_products_are_orthonormal_and_those_of_the_reflections() -> None:
    reflections = torch.randn(5, 4)
    product = torch.eye(5)
    for v in reflections.T:
        product = product @ (torch.eye(5) - 2 * torch.outer(v, v) / (v @ v))
    torch.testing.assert_close(_orthonormal(reflections, 3), product[:, :3])
    columns = _orthonormal(torch.randn(2, 7, 4), 4)
    torch.testing.assert_close(columns.mT @ columns, torch.eye(4).expand(2, 4, 4))


def test_a_sylvester_flow_of_one_unit_is_a_planar_flow() -> None:
    flow, same = sylvester(3, 1), planar(3)
    enlarge(flow, 1.0)
    direction, r, r_tilde, b, q = flow._terms(None)
    torch.testing.assert_close((1 + r * r_tilde).reshape(1), q)
    w, u = (direction * r_tilde)[:, 0], (direction * r)[:, 0]
    free = torch.log((torch.exp(q[0]) - 1) / (torch.e - 1))  # m(free) = q - 1
    with torch.no_grad():
        same.values.w.copy_(w)
        same.values.u.copy_(u + (free - (q[0] - 1)) * w / (w @ w))
        same.values.b.copy_(b[0])
    x = torch.randn(10, 3)
    for found, expected in zip(
        flow.forward_and_log_det(x), same.forward_and_log_det(x), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_the_product_of_diagonals_is_continuous_where_it_is_small() -> None:
    flow = sylvester(2)
    for free in (0.0, 1e-12, 1e-7, 1.1e-6, 1e-5):
        with torch.no_grad():
            flow.values.triangles.fill_(free)
            flow.values.diagonal.fill_(0.7)
        _, r, r_tilde, _, q = flow._terms(None)
        products = 1 + r.diagonal() * r_tilde.diagonal()
        torch.testing.assert_close(products, q, atol=1e-15, rtol=0)
        (gradient,) = torch.autograd.grad(r[0, 0], flow.values.triangles)
        torch.testing.assert_close(
            gradient[0, 0], 1 - torch.exp(torch.tensor(-1.0)), atol=1e-5, rtol=0
        )


def test_cholesky_affine_makes_the_multivariate_normal() -> None:
    tril = torch.tensor([[2.0, 0.0, 0.0], [-1.0, 0.5, 0.0], [0.3, 0.7, 3.0]])
    loc = torch.tensor([1.0, -2.0, 0.5])
    base = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    law = dist.TransformedDistribution(base, [CholeskyAffine(3, loc=loc, scale_tril=tril)])
    y = law.sample((7,))
    expected = dist.MultivariateNormal(loc, scale_tril=tril).log_prob(y)
    torch.testing.assert_close(law.log_prob(y), expected)


LAWS = {
    "exponential": lambda: dist.Exponential(torch.tensor(2.0)),
    "cauchy": lambda: dist.Cauchy(torch.tensor([0.0, 1.0]), torch.tensor(0.5)),
    "gumbel": lambda: dist.Gumbel(torch.tensor(1.0), torch.tensor(3.0)),
    "log_normal": lambda: dist.LogNormal(torch.tensor(1.0), torch.tensor(0.5)),
    "uniform": lambda: dist.Uniform(torch.tensor(-1.0), torch.tensor(3.0)),
}


@pytest.mark.parametrize("name", LAWS)
def test_quantiles_turn_uniform_noise_into_the_distribution(name: str) -> None:
    law = LAWS[name]()
    base = dist.Uniform(torch.tensor(0.0), torch.tensor(1.0))
    made = dist.TransformedDistribution(base, [Quantile(law)])
    assert made.batch_shape == law.batch_shape
    y = made.sample((6,))
    torch.testing.assert_close(made.log_prob(y), law.log_prob(y))
    torch.testing.assert_close(Quantile(law).inv(y), law.cdf(y))
    ends = torch.tensor([0.0, 1.0]).reshape(2, *(1 for _ in law.batch_shape))
    assert bool(Quantile(law)(ends).isfinite().all())


def test_quantiles_of_a_distribution_with_parameters_train_and_move() -> None:
    loc = nn.Parameter(torch.zeros(()))
    quantile = Quantile(dist.Normal(loc, torch.ones(())))
    assert [id(p) for p in quantile.parameters()] == [id(loc)]
    x = torch.rand(5)
    before = quantile(x)
    with torch.no_grad():
        loc.add_(1.0)
    torch.testing.assert_close(quantile(x), before + 1)
    other = copy.deepcopy(quantile)
    with torch.no_grad():
        loc.add_(1.0)
    torch.testing.assert_close(other(x), before + 1)
    other.load_state_dict(quantile.state_dict(), assign=True)
    torch.testing.assert_close(other(x), before + 2)
    assert quantile.float()(x.float()).dtype == torch.float32


def test_parameters_of_a_context_start_near_their_initial_values() -> None:
    initial = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor(3.0)}
    values = ContextParameters(initial, 4, (16,))
    a, b = values(torch.randn(1000, 4))
    assert a.shape == (1000, 2)
    assert b.shape == (1000,)
    assert bool(((a - initial["a"]).abs() < 0.5).all())
    assert bool((a.std(0) > 1e-4).all())


def test_wrong_arguments_are_refused() -> None:
    for cls in (Planar, Radial, Sylvester, CholeskyAffine):
        for wrong in (0, -1, 2.5):
            with pytest.raises(ValueError, match="num_dims"):
                cls(wrong)
        with pytest.raises(ValueError, match="context_dim"):
            cls(2, context_dim=-1)
    with pytest.raises(ValueError, match="num_units of at most num_dims = 2"):
        Sylvester(2, 3)
    with pytest.raises(ValueError, match="expected loc of shape"):
        CholeskyAffine(2, loc=torch.zeros(3))
    for wrong in (torch.ones(2, 2), -torch.eye(2), torch.eye(3)):
        with pytest.raises(ValueError, match="lower triangular"):
            CholeskyAffine(2, scale_tril=wrong)
    with pytest.raises(ValueError, match="distribution of scalars"):
        Quantile(dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pytest.raises(ValueError, match="icdf and cdf"):
        Quantile(dist.Gamma(torch.tensor(2.0), torch.tensor(1.0)))
