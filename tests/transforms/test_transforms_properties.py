# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What every transform must get right: its log-determinant, its inverse, its gradients."""

import pytest
import torch

from pyro_deepgen.transforms import Planar
from tests.tables import TRANSFORMS, named
from tests.transforms.checks import (
    assert_near,
    check_inverse,
    check_log_det,
    context_for,
    image,
    integral,
    jacobian,
)
from tests.transforms.row import TransformRow

pytestmark = pytest.mark.usefixtures("float64")
every = pytest.mark.parametrize("row", **named(TRANSFORMS))
planes = pytest.mark.parametrize("row", **named([r for r in TRANSFORMS if r.shape == (2,)]))
smooth = pytest.mark.parametrize("row", **named([r for r in TRANSFORMS if r.smooth]))
trained = pytest.mark.parametrize(
    "row", **named([r for r in TRANSFORMS if list(r.make().parameters())])
)
Batch = tuple[int, ...]
batches = pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)


@every
@batches
def test_log_det_is_that_of_the_jacobian(
    row: TransformRow, batch: Batch, device: torch.device
) -> None:
    for transform in (row.make(), row.make_changed()):
        transform.to(device)
        context = context_for(transform, *batch)
        context = None if context is None else context.to(device)
        check_log_det(transform, row.points(*batch).to(device), context)


@every
@batches
def test_inverse_is_the_way_back(row: TransformRow, batch: Batch, device: torch.device) -> None:
    for transform in (row.make(), row.make_changed()):
        transform.to(device)
        context = context_for(transform, *batch)
        context = None if context is None else context.to(device)
        check_inverse(transform, row.points(*batch).to(device), context)


@every
def test_a_batch_is_its_points_one_by_one(row: TransformRow) -> None:
    transform = row.make_changed()
    x, context = row.points(2, 3), context_for(transform, 2, 3)
    y, log_det = transform.forward_and_log_det(x, context)
    for i in range(2):
        for j in range(3):
            at = None if context is None else context[i, j]
            y_one, log_det_one = transform.forward_and_log_det(x[i, j], at)
            assert_near(y_one, y[i, j], 1e-10)
            assert_near(log_det_one, log_det[i, j], 1e-10)
            x_one, _ = transform.inverse_and_log_det(y[i, j], at)
            assert_near(x_one, x[i, j])


@planes
def test_densities_in_the_plane_integrate_to_one(row: TransformRow) -> None:
    for transform in (row.make(), row.make_changed(0.1 * row.noise)):
        assert integral(transform, row.points(20_000)) == pytest.approx(1, abs=2e-3)


@every
def test_gradients_of_the_inverse_are_those_of_the_implicit_function(row: TransformRow) -> None:
    # x = g(y, theta) solves f(x, theta) = y: dx/dtheta = -J^-1 df/dtheta, by a dense solve.
    transform = row.make_changed()
    parameters = list(transform.parameters())
    context = context_for(transform, 3)
    leaves = parameters if context is None else [*parameters, context.requires_grad_()]
    y = image(transform, row.points(3), context)
    x, _ = transform.inverse_and_log_det(y, context)
    weights = torch.randn_like(x)
    point = x.detach().requires_grad_()
    there, _ = transform.forward_and_log_det(point, context)
    matrix = jacobian(point, there, transform.domain.event_dim, transform.codomain.event_dim)
    adjoint = torch.linalg.solve(matrix.mT, weights.reshape(*matrix.shape[:-1], 1))
    expected = (
        torch.autograd.grad(there, leaves, -adjoint.reshape(there.shape), allow_unused=True)
        if leaves
        else ()
    )
    found = torch.autograd.grad(x, leaves, weights, allow_unused=True) if leaves else ()
    for e, f in zip(expected, found, strict=True):
        assert (e is None) == (f is None)
        if e is not None and f is not None:
            assert bool(f.isfinite().all())
            assert_near(f, e, 1e-6 * max(1.0, float(e.abs().max())))


@every
def test_gradients_agree_with_finite_differences(row: TransformRow) -> None:
    transform = row.make_changed()
    context = context_for(transform)
    x = row.points().requires_grad_()
    y = image(transform, x, context).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: transform.forward_and_log_det(x, context), x)
    assert torch.autograd.gradcheck(lambda y: transform.inverse_and_log_det(y, context), y)


@smooth
def test_second_derivatives_agree_with_finite_differences(row: TransformRow) -> None:
    transform = row.make_changed(0.3 * row.noise)
    context = context_for(transform)
    x = row.points().requires_grad_()
    y = image(transform, x, context).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: transform.forward_and_log_det(x, context), x)
    assert torch.autograd.gradgradcheck(lambda y: transform.inverse_and_log_det(y, context), y)


@trained
def test_the_map_and_its_log_det_move_every_parameter(row: TransformRow) -> None:
    transform = row.make_changed()
    parameters = list(transform.parameters())
    x, context = row.points(8), context_for(transform, 8)
    y, log_det = transform.forward_and_log_det(x, context)
    loss = (torch.randn_like(y) * y).sum() + log_det.sum()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


# ---------------------------------------------------------------- the checks find planted bugs


class FlippedSign(Planar):
    """Gives the log-determinant of the forward map for the inverse."""

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, log_det = super().inverse_and_log_det(y, context)
        return x, -log_det


class MissingFactor(Planar):
    """Forgets to double the log-determinant of a map that is the same planar flow twice."""

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, log_det = super().forward_and_log_det(x, context)
        return super().forward_and_log_det(x, context)[0], log_det

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, log_det = super().inverse_and_log_det(y, context)
        return super().inverse_and_log_det(y, context)[0], log_det


class InexactInverse(Planar):
    """Takes the first of Newton's steps for the root."""

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return y - (self.forward_and_log_det(y)[0] - y), -self.forward_and_log_det(y)[1]


def changed(cls: type[Planar]) -> Planar:
    """Return a map far from the identity, whose log-determinants are far from 0."""
    flow = cls(2)
    with torch.no_grad():
        flow.values.w.copy_(torch.tensor([1.0, 0.5]))
        flow.values.u.copy_(torch.tensor([1.0, 1.0]))
    return flow


@pytest.mark.parametrize("cls", [FlippedSign, MissingFactor, InexactInverse])
def test_the_jacobian_finds_planted_bugs(cls: type[Planar]) -> None:
    with pytest.raises(AssertionError):
        check_log_det(changed(cls), torch.randn(3, 2))


@pytest.mark.parametrize("cls", [FlippedSign, InexactInverse])
def test_the_round_trip_finds_planted_bugs(cls: type[Planar]) -> None:
    with pytest.raises(AssertionError):
        check_inverse(changed(cls), torch.randn(3, 2))


@pytest.mark.parametrize("cls", [FlippedSign, MissingFactor])
def test_the_integral_finds_planted_bugs(cls: type[Planar]) -> None:
    assert integral(changed(cls), torch.randn(20_000, 2)) != pytest.approx(1, abs=0.02)
