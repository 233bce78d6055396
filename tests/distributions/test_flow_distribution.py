# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Flow distributions against laws that are known: shapes, plates, contexts, parts of all kinds."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms as T
from scipy.stats import kstest
from torch import nn
from torch.distributions import constraints

from pyro_deepgen.distributions import BufferedDistribution, FlowDistribution
from pyro_deepgen.transforms import CholeskyAffine, Composed, cholesky_affine, planar
from tests.distributions.flows import (
    affine_flow,
    counting_flow,
    inverses,
    known_normal,
    standard_normal,
)

pytestmark = pytest.mark.usefixtures("float64")

FAILURE_RATE = 1e-6


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_an_affine_flow_is_the_normal_distribution_that_it_should_be(
    batch: tuple[int, ...],
) -> None:
    flow, known = affine_flow().expand(batch), known_normal().expand(batch)
    y = known.sample((50,))
    torch.testing.assert_close(flow.log_prob(y), known.log_prob(y), rtol=0, atol=1e-10)
    drawn = flow.rsample((50,))
    assert drawn.shape == y.shape
    torch.testing.assert_close(flow.log_prob(drawn), known.log_prob(drawn), rtol=0, atol=1e-10)


@pytest.mark.parametrize("draw", ["sample", "rsample"])
def test_draws_follow_the_law(draw: str) -> None:
    flow, known, num = affine_flow(), known_normal(), 20_000
    whitened = getattr(flow, draw)((num,)).detach() - known.loc
    for i in range(3):
        scale = known.variance[i].sqrt()
        assert kstest((whitened[:, i] / scale).numpy(), "norm").pvalue > FAILURE_RATE
    products = whitened.unsqueeze(-1) * whitened.unsqueeze(-2)
    error = products.std(0) / num**0.5
    assert ((products.mean(0) - known.covariance_matrix).abs() < 5 * error).all()
    # The planted bug: draws of the transform without its shift.
    wrong = ((whitened + known.loc)[:, 0] / known.variance[0].sqrt()).numpy()
    assert kstest(wrong, "norm").pvalue < FAILURE_RATE


def image_flow() -> FlowDistribution:
    """Return a flow from 12 numbers to an image of 3 channels, scaled by channel."""
    # PyTorch's log-determinant counts a scale once, however many it is broadcast to.
    scale = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1).expand(3, 2, 2)
    parts = [
        cholesky_affine(12),
        T.ReshapeTransform((12,), (3, 2, 2)),
        T.AffineTransform(torch.zeros(3, 2, 2), scale, event_dim=3),
    ]
    return FlowDistribution(standard_normal(12), parts)


def image_log_prob(y: torch.Tensor) -> torch.Tensor:
    scale = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1).expand(3, 2, 2)
    return dist.Normal(0.0, scale).to_event(3).log_prob(y)  # type: ignore[no-any-return]


def scalar_flow() -> FlowDistribution:
    return FlowDistribution(dist.Normal(0.5, 2.0), T.ExpTransform())


def joined_flow() -> FlowDistribution:
    """Return a flow whose base's batch dimension is the transform's event."""
    return FlowDistribution(dist.Normal(torch.zeros(3), torch.ones(3)), CholeskyAffine(3))


def outer_flow() -> FlowDistribution:
    """Return a flow whose base has more event dimensions than the transform."""
    return FlowDistribution(dist.Normal(torch.zeros(2, 3), 1.0).to_event(2), CholeskyAffine(3))


def mixed_flow() -> FlowDistribution:
    """Return elementwise parts between one of vectors."""
    return FlowDistribution(
        dist.Normal(torch.zeros(2), 1.0),
        [T.AffineTransform(1.0, 2.0), CholeskyAffine(2), T.ExpTransform()],
    )


def many_flow() -> FlowDistribution:
    """Return a batch of flows, which a transform with a batch of shifts makes of one base."""
    shifts = torch.arange(4.0).unsqueeze(-1).expand(4, 2)
    return FlowDistribution(standard_normal(2), T.AffineTransform(shifts, 1.0, event_dim=1))


CASES: dict[str, Any] = {
    "image": (image_flow, (), (3, 2, 2), image_log_prob),
    "scalar": (scalar_flow, (), (), lambda y: dist.LogNormal(0.5, 2.0).log_prob(y)),
    "joined": (joined_flow, (), (3,), lambda y: standard_normal(3).log_prob(y)),
    "outer": (outer_flow, (), (2, 3), lambda y: standard_normal(3).log_prob(y).sum(-1)),
    "mixed": (mixed_flow, (), (2,), lambda y: dist.LogNormal(1.0, 2.0).log_prob(y).sum(-1)),
    "many": (
        many_flow,
        (4,),
        (2,),
        lambda y: dist.Normal(torch.arange(4.0)[:, None], 1.0).log_prob(y).sum(-1),
    ),
}


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_events_and_batches_of_any_shape(case: Any, batch: tuple[int, ...]) -> None:
    make, own_batch, event, log_prob = case
    flow = make()
    assert (flow.batch_shape, flow.event_shape) == (own_batch, event)
    flow = flow.expand(batch + own_batch)
    y = flow.sample((5,))
    assert y.shape == (5, *batch, *own_batch, *event)
    assert flow.support.check(y).shape == y.shape[: y.dim() - len(event)]
    for value in (y, y.clone()):
        score = flow.log_prob(value)
        assert score.shape == (5, *batch, *own_batch)
        torch.testing.assert_close(score, log_prob(y), rtol=0, atol=1e-10)


def test_parts_in_a_list_are_the_composition() -> None:
    flow = counting_flow()
    y = flow.sample((5,))
    whole = FlowDistribution(flow.base, Composed(list(flow.transform.parts)[:2]))  # type: ignore[attr-defined]
    last = flow.transform.parts[2].plain  # type: ignore[attr-defined]
    expected = whole.log_prob(last.inv(y)) - last.log_abs_det_jacobian(y, y)
    torch.testing.assert_close(flow.log_prob(y.clone()), expected)


def test_transforms_of_pyro_and_torch_leave_nothing_behind() -> None:
    spline = T.Spline(2, count_bins=4)
    nested = T.ComposeTransform([spline, T.SigmoidTransform()])
    flow = FlowDistribution(standard_normal(2), [nested, T.SigmoidTransform().inv])
    assert len(list(flow.parameters())) == 4
    y = flow.sample((5,))
    before = flow.log_prob(y)
    with torch.no_grad():
        for parameter in spline.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = flow.log_prob(y)
    assert (after - before).abs().max() > 1e-3
    known = dist.TransformedDistribution(standard_normal(2), [spline])
    torch.testing.assert_close(after, known.log_prob(y.clone()))
    inverted = FlowDistribution(standard_normal(2), spline.inv)
    known = dist.TransformedDistribution(standard_normal(2), [spline.inv])
    torch.testing.assert_close(inverted.log_prob(y), known.log_prob(y.clone()))


def test_inside_and_outside_of_a_bounded_base() -> None:
    """The inverse leads outside where the flow has no mass: no error, and no gradient of NaN."""
    base = dist.Uniform(torch.zeros(2), torch.ones(2)).to_event(1)
    flow = FlowDistribution(base, CholeskyAffine(2, scale_tril=2 * torch.eye(2)))
    score = flow.log_prob(torch.tensor([[1.9, 0.1], [2.1, 0.1]]))
    assert score.exp().tolist() == [0.25, 0.0]
    cold = flow.with_temperature(0.5).log_prob(torch.tensor([[1.1, 0.9], [1.6, 0.9]]))
    assert cold.exp().tolist() == [1.0, 0.0]
    gamma = FlowDistribution(dist.Gamma(2.0, 1.0), T.AffineTransform(1.0, 1.0))
    y = torch.tensor([2.0, 0.5], requires_grad=True)
    score = gamma.log_prob(y)
    assert score.tolist() == [-1.0, -torch.inf]
    (slope,) = torch.autograd.grad(score[0], y)
    assert slope.tolist() == [0.0, 0.0]


def test_a_context_gives_a_batch_of_distributions() -> None:
    flow = FlowDistribution(
        standard_normal(2), [cholesky_affine(2, context_dim=3), T.Permute(torch.tensor([1, 0]))]
    )
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    context = torch.randn(4, 1, 3)
    given = flow.condition(context)
    assert given.batch_shape == (4, 1)
    assert given.expand((4, 5)).sample().shape == (4, 5, 2)
    assert flow.expand((5,)).condition(context).batch_shape == (4, 5)
    assert {id(p) for p in given.parameters()} == {id(p) for p in flow.parameters()}
    y = torch.randn(4, 5, 2)
    affine: Any = flow.transform.parts[0]  # type: ignore[attr-defined]
    loc, tril, _ = affine._terms(context)
    known = dist.MultivariateNormal(loc, scale_tril=tril)
    torch.testing.assert_close(given.log_prob(y), known.log_prob(y.flip(-1)))


@pytest.mark.parametrize("subsample", [None, 4])
def test_plates_and_subsamples(subsample: int | None) -> None:
    flow, known, data = affine_flow(), known_normal(), torch.randn(12, 3)

    def program(d: Any) -> None:
        with pyro.plate("outer", 2, dim=-2), pyro.plate("data", 12, subsample_size=subsample) as i:
            pyro.sample("z", d)
            pyro.sample("x", d, obs=data[i])

    trace = pyro.poutine.trace(program).get_trace(flow)
    replayed = pyro.poutine.trace(pyro.poutine.replay(program, trace=trace)).get_trace(known)
    for t in (trace, replayed):
        t.compute_log_prob()
    assert trace.nodes["z"]["value"].shape == (2, subsample or 12, 3)
    for name in ("z", "x"):
        torch.testing.assert_close(
            trace.nodes[name]["log_prob"], replayed.nodes[name]["log_prob"], rtol=0, atol=1e-9
        )


def test_temperature_scales_the_base() -> None:
    flow = affine_flow()
    given = flow.with_temperature(0.3)
    cold = dist.MultivariateNormal(known_normal().loc, scale_tril=0.3 * known_normal().scale_tril)
    y = cold.sample((20,))
    torch.testing.assert_close(given.log_prob(y), cold.log_prob(y), rtol=0, atol=1e-9)
    drawn = given.expand((2,)).rsample((5,))
    torch.testing.assert_close(given.log_prob(drawn), cold.log_prob(drawn), rtol=0, atol=1e-9)
    assert next(given.parameters()) is next(flow.parameters())
    assert list(flow.state_dict()) == list(affine_flow().state_dict())
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive temperature"):
            flow.with_temperature(temperature)
    of_flow = FlowDistribution(flow, planar(3))
    with pytest.raises(ValueError, match="a base with a mean"):
        of_flow.with_temperature(0.5)


def test_a_flow_as_the_base_of_a_flow() -> None:
    inner = counting_flow()
    outer = FlowDistribution(inner, CholeskyAffine(2, scale_tril=2 * torch.eye(2)))
    y = outer.rsample((5,))
    score = outer.log_prob(y)
    assert inverses(outer) == 0
    torch.testing.assert_close(score, outer.log_prob(y.clone()))
    assert outer.base is inner
    whole = FlowDistribution(inner.base, [*inner.transform.parts, outer.transform])  # type: ignore[attr-defined,list-item]
    torch.testing.assert_close(score, whole.log_prob(y.clone()))


def test_parameters_are_found_and_move() -> None:
    base = dist.Normal(nn.Parameter(torch.zeros(2)), torch.ones(2)).to_event(1)
    flow = FlowDistribution(base, [planar(2), T.AffineTransform(torch.zeros(2), 2.0, event_dim=1)])
    assert isinstance(flow.base, BufferedDistribution)
    assert len(list(flow.parameters())) == 4
    assert flow.float().sample().dtype == torch.float32
    assert flow.has_rsample
    assert not FlowDistribution(dist.Poisson(3.0), T.AffineTransform(0.0, 2.0)).has_rsample
    assert isinstance(flow.support, type(constraints.real_vector))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: FlowDistribution(standard_normal(2), []), "at least one transform"),
        (lambda: FlowDistribution(standard_normal(2), None), "a list of transforms, got NoneType"),  # type: ignore[arg-type]
        (lambda: FlowDistribution(standard_normal(2), T.AbsTransform()), "bijective transform"),
        (lambda: FlowDistribution(standard_normal(2), [nn.Linear(2, 2)]), "transform, got Linear"),  # type: ignore[list-item]
        (
            lambda: FlowDistribution(
                standard_normal(2), [T.conditional_spline(2, 3, hidden_dims=[4])]
            ),
            "condition one of Pyro's conditional transforms",
        ),
        (lambda: FlowDistribution(standard_normal(2), planar(3)), r"\(3,\), got shape|\(3,\), got"),
        (lambda: FlowDistribution(dist.Normal(0.0, 1.0), planar(1)), "at least the 1 dimensions"),
        (lambda: affine_flow().condition(torch.zeros(3)), "depend on a context"),
        (lambda: affine_flow().log_prob(torch.zeros(4)), r"last dimensions are \(3,\)"),
        (lambda: affine_flow().log_prob(torch.full((3,), torch.nan)), "RealVector|Real"),
        (lambda: counting_flow(3).sample(), "context with 3 dimensions"),
        (lambda: counting_flow(3).log_prob(torch.zeros(2)), "context with 3 dimensions"),
        (lambda: counting_flow(3).condition(torch.zeros(4)), "last dimension is 3"),
    ],
)
def test_errors_say_what_to_do(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()
