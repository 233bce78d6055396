# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Root finding: to machine precision, with the derivatives of the implicit function."""

from collections.abc import Callable

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_deepgen.transforms import increasing_root
from pyro_deepgen.transforms.roots import polish, tanh_log_slope, tanh_root

Function = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def cubic(s: torch.Tensor) -> Function:  # flat at the root for s = 0
    return lambda t: (t**3 - s, 3 * t**2)


def exponential(s: torch.Tensor) -> Function:  # Newton's steps are of size 1 on one side
    return lambda t: (torch.expm1(t) - s, torch.exp(t))


def mixture(s: torch.Tensor) -> Function:  # a distribution function with a plateau
    def function(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = torch.sigmoid(5 * (t + 10)), torch.sigmoid(5 * (t - 10))
        level = torch.sigmoid(s)
        return 0.3 * low + 0.7 * high - level, 1.5 * low * (1 - low) + 3.5 * high * (1 - high)

    return function


def steps(s: torch.Tensor) -> Function:  # Newton's steps alone jump to and fro
    return lambda t: (t + 0.99 * torch.sin(t) - s, 1 + 0.99 * torch.cos(t))


@precisions
@pytest.mark.parametrize("family", [cubic, exponential, mixture, steps])
def test_roots_are_those_of_bisection(
    family: Callable[[torch.Tensor], Function], dtype: torch.dtype, device: torch.device
) -> None:
    eps = torch.finfo(dtype).eps
    s = torch.cat([torch.linspace(-0.9, 4, 50), torch.tensor([0.0, 1e-6])]).to(device, dtype)
    low, high = torch.full_like(s, -60), torch.full_like(s, 70)
    root = increasing_root(family(s), low, high).double()
    function, low, high = family(s.double()), low.double(), high.double()
    for _ in range(200):
        middle = (low + high) / 2
        below = function(middle)[0] < 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    # The root that data rounded by a few units have: f moves by eps, t by that over the slope.
    reach = 8 * eps * (1 + high.abs()) * (1 + 1 / function(high)[1].clamp_min(eps ** (2 / 3)))
    assert bool(((root - high).abs() <= reach).all())


def test_few_steps_are_not_enough() -> None:
    s = torch.tensor([3.0], dtype=torch.float64)
    root = increasing_root(exponential(s), s - 60, s + 60, num_steps=3)
    assert not float((root - torch.log1p(s)).abs()) < 1e-3  # it may be nan


@precisions
def test_tanh_roots_are_exact_up_to_rounding(dtype: torch.dtype, device: torch.device) -> None:
    sizes = torch.cat([torch.logspace(-8, 4, 121), torch.linspace(0.01, 30, 100)])
    one_plus_c, s = torch.meshgrid(torch.logspace(-8, 4, 121), sizes, indexing="ij")
    for sign in (-1, 1):
        q, right = one_plus_c.to(device, dtype), sign * s.to(device, dtype)
        a, c, r = tanh_root(q, right).double(), q.double() - 1, right.double()
        size = a.abs() + (c * a.tanh()).abs() + r.abs()
        residual = (a + c * a.tanh() - r).abs()
        assert bool((residual <= 4 * torch.finfo(dtype).eps * size).all())
    assert tanh_root(torch.tensor([0.1, 1.0, 5.0]), torch.zeros(3)).tolist() == [0.0] * 3


def implicit(s: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Solve t + scale * t^3 = s."""

    def function(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return t + scale * t**3 - s, 1 + 3 * scale * t**2

    size = s.abs()
    return increasing_root(function, -size, size)


def closed_over_tanh(s: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return tanh_root(scale, s)


solvers = pytest.mark.parametrize("solve", [implicit, closed_over_tanh])


def naive_log_slope(q: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    return torch.log(1 + (q - 1) * (1 - h * h))


@pytest.mark.parametrize(
    ("log_slope", "right"),
    [(tanh_log_slope, True), (naive_log_slope, False)],
    ids=["ours", "naive"],
)
def test_log_slopes_are_exact_up_to_rounding(
    log_slope: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    right: bool,
    device: torch.device,
) -> None:
    q = torch.logspace(-8, 4, 25, dtype=torch.float32, device=device)[:, None]
    h = torch.logspace(-4, 2, 400, dtype=torch.float32, device=device).tanh()
    slope = q.double() + (1 - q.double()) * h.double() ** 2
    # What the rounding of the square and of the result do, and as much again.
    error = 1 + slope.log().abs() + (q.double() - 1).abs() * h.double() ** 2 / slope
    bound = 4 * torch.finfo(torch.float32).eps * error
    close = (log_slope(q, h).double() - slope.log()).abs() <= bound
    assert bool(close.all()) == right
    saturated = tanh_log_slope(q, torch.ones_like(h))
    assert torch.equal(saturated, torch.zeros_like(saturated))


@solvers
def test_derivatives_are_those_of_the_implicit_function(
    solve: Callable[..., torch.Tensor], float64: torch.dtype
) -> None:
    s = torch.tensor([-3.0, 0.4, 2.0], requires_grad=True)
    scale = torch.tensor([0.3, 1.5, 4.0], requires_grad=True)
    assert torch.autograd.gradcheck(solve, (s, scale))
    assert torch.autograd.gradgradcheck(solve, (s, scale))

    def second(s: torch.Tensor) -> torch.Tensor:
        (one,) = torch.autograd.grad(solve(s, scale.detach()).sum(), s, create_graph=True)
        return torch.autograd.grad(one.sum(), s, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, s)
    forward = torch.func.jvp(lambda s: solve(s, scale), (s,), (torch.ones(3),))[1]
    (backward,) = torch.autograd.grad(solve(s, scale).sum(), s)
    torch.testing.assert_close(forward, backward)


def test_one_step_would_give_wrong_second_derivatives(float64: torch.dtype) -> None:
    def once(s: torch.Tensor) -> torch.Tensor:
        root = s.detach().sqrt()
        return root - (root**2 - s) / (2 * root)

    def twice(s: torch.Tensor) -> torch.Tensor:
        return polish(lambda t: (t**2 - s, 2 * t), s.detach().sqrt())

    s = torch.tensor(9.0)
    hessian = torch.func.grad(torch.func.grad(twice))(s)
    torch.testing.assert_close(hessian, torch.tensor(-1 / 108))
    assert abs(float(torch.func.grad(torch.func.grad(once))(s)) + 1 / 108) > 1e-3


@solvers
def test_under_vmap_and_compiled_and_recorded(
    solve: Callable[..., torch.Tensor], float64: torch.dtype
) -> None:
    torch._dynamo.reset()
    s, scale = torch.randn(5), torch.rand(5) + 0.1
    expected = solve(s, scale)
    torch.testing.assert_close(torch.func.vmap(solve)(s, scale), expected)
    compiled = torch.compile(solve, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(s, scale), expected)
    slopes = torch.func.vmap(torch.func.grad(solve))(s, scale)
    recorded = make_fx(torch.func.vmap(torch.func.grad(solve)))(s + 1, scale)
    torch.testing.assert_close(recorded(s, scale), slopes)
