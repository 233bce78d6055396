# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a transform is held against: the Jacobian by autograd, round trips, the integral."""

from typing import Any

import torch
from torch.distributions import constraints

from pyro_deepgen.transforms import Transform

TOLERANCE = 1e-6  # in double precision


def context_for(transform: Transform, *batch: int) -> torch.Tensor | None:
    """Draw contexts, or none where the transform takes none."""
    return torch.randn(*batch, transform.context_dim) if transform.context_dim else None


def jacobian(points: torch.Tensor, images: torch.Tensor, in_dim: int, out_dim: int) -> torch.Tensor:
    """Return the matrix of derivatives at each point, `(*batch, D, D)`.

    An image depends on its own point only, so the rows for all points come in one pass.
    """
    batch = points.shape[: points.dim() - in_dim]
    flat = images.reshape(*batch, -1)
    rows = []
    for i in range(flat.shape[-1]):
        (row,) = torch.autograd.grad(flat[..., i].sum(), points, retain_graph=True)
        rows.append(row.reshape(*batch, -1))
    assert images.dim() - out_dim == len(batch)
    return torch.stack(rows, -2)


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def check_log_det(
    transform: Transform, x: torch.Tensor, context: torch.Tensor | None = None
) -> None:
    """Compare both log-determinants with those of the Jacobians at points of the domain."""
    dims = transform.domain.event_dim, transform.codomain.event_dim
    for way, points in (("forward", x), ("inverse", image(transform, x, context))):
        points = points.detach().requires_grad_()
        images, log_det = getattr(transform, f"{way}_and_log_det")(points, context)
        ends = dims if way == "forward" else dims[::-1]
        assert log_det.shape == points.shape[: points.dim() - ends[0]]
        matrix = jacobian(points, images, *ends)
        assert_near(log_det.detach(), torch.linalg.slogdet(matrix).logabsdet)


def check_inverse(
    transform: Transform, x: torch.Tensor, context: torch.Tensor | None = None
) -> None:
    """Go there and back, from both sides, and compare the two log-determinants."""
    with torch.no_grad():
        y, log_det = transform.forward_and_log_det(x, context)
        back, log_det_back = transform.inverse_and_log_det(y, context)
        assert_near(back, x)
        assert_near(log_det_back, -log_det)
        if is_real(transform.codomain):
            y = 3 * torch.randn_like(y)  # points that no x was chosen for
            x, log_det = transform.inverse_and_log_det(y, context)
            there, log_det_there = transform.forward_and_log_det(x, context)
            assert_near(there, y)
            assert_near(log_det_there, -log_det)


def image(transform: Transform, x: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    with torch.no_grad():
        return transform.forward_and_log_det(x, context)[0]


def is_real(constraint: Any) -> bool:
    """Whether a constraint is all real numbers, of any event dimension."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint is constraints.real or isinstance(constraint, type(constraints.real))


def integral(transform: Transform, draws: torch.Tensor, num: int = 600) -> float:
    """Integrate the density of the image of a standard normal or a uniform law in the plane.

    The midpoint rule on a box that holds all draws and a margin around them.
    """
    base_is_uniform = bool(((draws >= 0) & (draws <= 1)).all())
    context = context_for(transform)
    y = image(transform, draws, context)
    low, high = y.amin(0), y.amax(0)
    margin = 0.0 if not is_real(transform.codomain) else 0.3
    low, high = low - margin * (high - low), high + margin * (high - low)
    steps = (torch.arange(num) + 0.5) / num
    axes = [low[i] + (high[i] - low[i]) * steps for i in (0, 1)]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        x, log_det = transform.inverse_and_log_det(grid, context)
        base = 0.0 if base_is_uniform else torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
        density = (base + log_det).exp()
    return float(density.sum() * (high - low).prod() / num**2)
