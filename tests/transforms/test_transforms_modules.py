# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What every transform must do as a module, and where PyTorch and Pyro take a transform."""

import copy
import io
import pickle
import weakref
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_deepgen.transforms import Transform
from tests.tables import TRANSFORMS, named
from tests.transforms.checks import assert_near, context_for, image, is_real
from tests.transforms.row import TransformRow

pytestmark = pytest.mark.usefixtures("float64")
every = pytest.mark.parametrize("row", **named(TRANSFORMS))
in_context = pytest.mark.parametrize(
    "row", **named([r for r in TRANSFORMS if r.make().context_dim])
)
without_context = pytest.mark.parametrize(
    "row", **named([r for r in TRANSFORMS if not r.make().context_dim])
)
trained = pytest.mark.parametrize(
    "row", **named([r for r in TRANSFORMS if list(r.make().parameters())])
)

Pass = Callable[..., tuple[torch.Tensor, ...]]


def both_ways(transform: Transform, context: torch.Tensor | None) -> Pass:
    """Return a function of x and y that makes a pass in each direction."""

    def run(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        there = transform.forward_and_log_det(x, context)
        back = transform.inverse_and_log_det(y, context)
        return *there, *back

    return run


def assert_same(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for f, e in zip(found, expected, strict=True):
        assert_near(f, e, 1e-10)


@every
def test_under_vmap(row: TransformRow) -> None:
    transform = row.make_changed()
    context, x = context_for(transform), row.points(4)
    y = image(transform, x, context)
    run = both_ways(transform, context)
    assert_same(torch.func.vmap(run)(x, y), run(x, y))


@every
def test_compiled_as_one_graph(row: TransformRow) -> None:
    torch._dynamo.reset()
    transform = row.make_changed()
    context, x = context_for(transform), row.points(4)
    y = image(transform, x, context)
    run = both_ways(transform, context)
    assert_same(torch.compile(run, fullgraph=True, backend="eager")(x, y), run(x, y))


@without_context
def test_calls_compiled_as_one_graph(row: TransformRow) -> None:
    torch._dynamo.reset()
    transform = row.make_changed()
    x = row.points(4)
    compiled = torch.compile(lambda x: transform.inv(transform(x)), fullgraph=True, backend="eager")
    assert_near(compiled(x), x)


@every
def test_recorded_operations_give_other_points_their_values(row: TransformRow) -> None:
    transform = row.make_changed()
    context, x = context_for(transform), row.points(4)
    run = both_ways(transform, context)
    recorded = make_fx(run)(x, image(transform, x, context))
    x = row.points(4)
    y = image(transform, x, context)
    assert_same(recorded(x, y), run(x, y))


@every
def test_keeps_no_tensor(row: TransformRow) -> None:
    transform = row.make_changed().with_cache(1)
    context, x = context_for(transform, 4), row.points(4)
    y, log_det = transform.forward_and_log_det(x, context)
    back, log_det_back = transform.inverse_and_log_det(y, context)
    references = [weakref.ref(t) for t in (x, y, log_det, back, log_det_back)]
    del x, y, log_det, back, log_det_back
    assert [r() for r in references] == [None] * 5


@every
def test_copies_after_a_pass_map_alike(row: TransformRow) -> None:
    transform = row.make_changed()
    context, x = context_for(transform, 4), row.points(4)
    y = transform.forward_and_log_det(x, context)[0]  # with a graph, which a copy must not hold
    run = both_ways(transform, context)
    expected = run(x, y)
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert_same(both_ways(other, context)(x, y), expected)
        ours = {id(p) for p in transform.parameters()}
        assert not ours & {id(p) for p in other.parameters()}


@every
def test_state_dict_round_trip(row: TransformRow) -> None:
    transform, other = row.make_changed(), row.make_changed()
    context, x = context_for(transform, 4), row.points(4)
    y = image(transform, x, context)
    file = io.BytesIO()
    torch.save(transform.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same(both_ways(other, context)(x, y), both_ways(transform, context)(x, y))


@every
def test_moves_to_another_precision_and_device(row: TransformRow, device: torch.device) -> None:
    transform = row.make()
    context, x = context_for(transform, 4), row.points(4)
    y = image(transform, x, context)
    expected = both_ways(transform, context)(x, y)
    transform.to(device).float()
    context = None if context is None else context.to(device).float()
    found = both_ways(transform, context)(x.to(device).float(), y.to(device).float())
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == torch.float32
        assert f.device.type == device.type
        assert_near(f.double().cpu(), e, 1e-3)


@every
def test_the_inverse_is_a_module_with_the_same_parameters(row: TransformRow) -> None:
    transform = row.make_changed()
    inverse = transform.inv
    assert isinstance(inverse, Transform)
    assert inverse.inv.inv == inverse
    assert [id(p) for p in inverse.parameters()] == [id(p) for p in transform.parameters()]
    context, x = context_for(transform, 4), row.points(4)
    y, log_det = transform.forward_and_log_det(x, context)
    back, log_det_back = inverse.forward_and_log_det(y, context)
    assert_near(back, x)
    assert_near(log_det_back, -log_det)
    other = copy.deepcopy(inverse)
    assert_near(other.forward_and_log_det(y, context)[0], back, 1e-12)
    assert list(inverse.state_dict()) == list(other.state_dict())
    assert inverse.domain.event_dim == transform.codomain.event_dim
    assert inverse.context_dim == transform.context_dim


@trained
def test_a_step_through_the_inverse_changes_the_transform(row: TransformRow) -> None:
    transform = row.make_changed(0.3 * row.noise)
    context, x = context_for(transform, 4), row.points(4)
    y = image(transform, x, context)
    inverse = transform.inv
    optimiser = torch.optim.SGD(inverse.parameters(), lr=0.1)
    back, log_det = inverse.forward_and_log_det(y, context)
    (back.sum() + log_det.sum()).backward()
    nn.utils.clip_grad_norm_(inverse.parameters(), 1.0)
    optimiser.step()
    # The same objects as before the step: what a cache would answer.
    moved, log_det_moved = transform.forward_and_log_det(x, context)
    assert not torch.allclose(moved, y)
    back, log_det_back = inverse.forward_and_log_det(moved, context)
    assert_near(back, x)
    assert_near(log_det_back, -log_det_moved)


@without_context
def test_as_one_of_pytorchs_transforms(row: TransformRow) -> None:
    transform = row.make_changed()
    x = row.points(2, 3)
    y, log_det = transform.forward_and_log_det(x)
    assert transform.bijective
    assert_near(transform(x), y, 1e-12)
    assert_near(transform.inv(y), x)
    assert_near(transform.log_abs_det_jacobian(x, y), log_det)
    assert_near(transform.inv.log_abs_det_jacobian(y, x), -log_det)
    assert transform.forward_shape(x.shape) == y.shape
    assert transform.inverse_shape(y.shape) == x.shape
    # A quantile of the logistic is in its codomain up to rounding.
    assert bool(transform.codomain.check(y).all())


@without_context
@pytest.mark.parametrize("library", ["torch", "pyro", "module"])
def test_in_transformed_distributions(row: TransformRow, library: str) -> None:
    transform = row.make_changed()
    zeros = torch.zeros(row.shape)
    normal = is_real(transform.domain)
    base = dist.Normal(zeros, 1.0) if normal else dist.Uniform(zeros, zeros + 1)
    base = base.to_event(len(row.shape))
    parts = [transform]
    if library == "torch":
        law = torch.distributions.TransformedDistribution(base, parts)
    elif library == "pyro":
        law = dist.TransformedDistribution(base, parts)
    else:
        law = dist.TransformedDistribution(base, dist.transforms.ComposeTransformModule(parts))
    y = law.rsample((5,))
    assert law.batch_shape == ()
    assert y.shape == (5, *law.event_shape)
    x, log_det = transform.inverse_and_log_det(y)
    assert_near(law.log_prob(y), base.log_prob(x) + log_det)
    if library != "torch":
        assert law.expand((2,)).sample().shape == (2, *law.event_shape)


@in_context
def test_conditioned(row: TransformRow) -> None:
    transform = row.make_changed()
    context, x = context_for(transform, 5, 1), row.points(3)
    assert context is not None
    context.requires_grad_()
    at = transform.condition(context)
    assert at.context_dim == 0
    assert [id(p) for p in at.parameters()] == [id(p) for p in transform.parameters()]
    assert at.state_dict().keys() == {f"transform.{n}" for n in transform.state_dict()}
    y, log_det = at.forward_and_log_det(x)
    events = at.codomain.event_dim
    assert y.shape[: y.dim() - events] == log_det.shape == (5, 3)
    assert_same((y, log_det), transform.forward_and_log_det(x, context))
    assert_same(at.inverse_and_log_det(y), transform.inverse_and_log_det(y, context))
    assert_near(at.inv(y), x.expand_as(at.inv(y)))
    assert at.forward_shape(x.shape) == y.shape
    (gradient,) = torch.autograd.grad(log_det.sum(), context)
    assert bool(gradient.abs().sum() > 0)
    assert at.float().context.dtype == torch.float32

    law = dist.TransformedDistribution(
        dist.Normal(torch.zeros(row.shape), 1.0).to_event(len(row.shape)),
        [transform.double().condition(context[:, 0].detach())],
    )
    assert law.batch_shape == (5,)
    y = law.sample((2,))
    assert y.shape == (2, 5, *law.event_shape)
    assert law.log_prob(y).shape == (2, 5)


@in_context
def test_a_missing_or_wrong_context_is_refused(row: TransformRow) -> None:
    transform = row.make()
    x, size = row.points(3), transform.context_dim
    with pytest.raises(ValueError, match=r"call condition\(context\) first"):
        transform(x)
    with pytest.raises(ValueError, match=r"call condition\(context\) first"):
        transform.inv(torch.zeros(transform.forward_shape(x.shape)))
    for wrong in (torch.zeros(3, size + 1), torch.zeros(())):
        with pytest.raises(ValueError, match=f"whose last dimension is {size}"):
            transform.forward_and_log_det(x, wrong)
        with pytest.raises(ValueError, match=f"whose last dimension is {size}"):
            transform.condition(wrong)


@without_context
def test_a_context_that_nothing_asks_for_is_refused(row: TransformRow) -> None:
    transform = row.make()
    x, context = row.points(3), torch.zeros(3, 1)
    with pytest.raises(ValueError, match="takes no context"):
        transform.condition(context)
    with pytest.raises(ValueError, match="expected no context"):
        transform.forward_and_log_det(x, context)
    with pytest.raises(ValueError, match="expected no context"):
        transform.inverse_and_log_det(image(transform, x, None), context)


@pytest.mark.parametrize("row", **named([r for r in TRANSFORMS if r.shape]))
def test_a_wrong_event_shape_is_refused(row: TransformRow) -> None:
    transform = row.make()
    context = context_for(transform)
    y = image(transform, row.points(), context)
    for bad_x, bad_y in [(row.points()[..., 0], y[..., 0]), (torch.tensor(0.5), torch.tensor(0.5))]:
        with pytest.raises(ValueError, match=r"expected in its (co)?domain a tensor"):
            transform.forward_and_log_det(bad_x, context)
        with pytest.raises(ValueError, match=r"expected in its (co)?domain a tensor"):
            transform.inverse_and_log_det(bad_y, context)
    if transform.domain_shape is not None:
        with pytest.raises(ValueError, match="whose last dimensions are"):
            transform.forward_and_log_det(torch.zeros(2, *(s + 1 for s in row.shape)), context)
        with pytest.raises(ValueError, match="expected a shape that ends in"):
            transform.forward_shape((2, *(s + 1 for s in row.shape)))
