# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Composition with the transforms of PyTorch and Pyro."""

import copy
import pickle
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms as T
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import constraints
from torch.distributions.transforms import IndependentTransform, ReshapeTransform, StackTransform

from pyro_deepgen.transforms import CholeskyAffine, Composed, Planar, planar, radial
from tests.transforms.checks import check_inverse, check_log_det

pytestmark = pytest.mark.usefixtures("float64")


def two_by_three() -> Composed:
    """Return scalar, vector and matrix transforms, from a vector of 6 to a matrix."""
    return Composed(
        [
            T.AffineTransform(torch.arange(6.0), 2.0),
            planar(6),
            ReshapeTransform((6,), (2, 3)),
            radial(3),
            IndependentTransform(T.AffineTransform(torch.zeros(3), torch.tensor([1.0, 2, 3])), 1),
        ]
    )


def test_parts_of_different_event_dims() -> None:
    flow = two_by_three()
    assert flow.domain.event_dim == 1
    assert flow.codomain.event_dim == 2
    assert flow.forward_shape((5, 6)) == (5, 2, 3)
    assert flow.inverse_shape((5, 2, 3)) == (5, 6)
    x = torch.randn(4, 6)
    check_log_det(flow, x)
    check_inverse(flow, x)
    law = dist.TransformedDistribution(dist.Normal(torch.zeros(6), 1.0).to_event(1), [flow])
    assert law.event_shape == (2, 3)
    assert law.log_prob(law.sample((4,))).shape == (4,)


def test_compositions_are_taken_apart() -> None:
    a, b, c = planar(2), radial(2), planar(2)
    exp = T.ExpTransform()
    flow = Composed([Composed([a, b]), dist.transforms.ComposeTransformModule([c]), exp])
    assert [type(part).__name__ for part in flow] == ["Planar", "Radial", "Planar", "Foreign"]
    assert len(flow) == 4
    assert set(flow.parameters()) == {p for part in (a, b, c) for p in part.parameters()}
    whole = Composed([T.ComposeTransform([a, b]), c.inv])
    assert list(whole)[:2] == [a, b]
    assert list(whole)[2].inv is c


def test_pyros_own_flow_is_not_stale_after_a_step_and_can_be_copied() -> None:
    spline = T.Spline(2, count_bins=4)
    flow = Composed([spline, planar(2)])
    x = torch.randn(5, 2)
    y, log_det = flow.forward_and_log_det(x)
    (y.sum() + log_det.sum()).backward()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.allclose(flow(x), y)
    check_log_det(flow, x)
    check_inverse(flow, x)
    other = copy.deepcopy(flow)
    torch.testing.assert_close(other(x), flow(x))
    assert set(spline.parameters()) <= set(flow.inv.parameters())


def test_tensors_of_foreign_parts_move_are_saved_and_copied() -> None:
    swap = T.Permute(torch.tensor([1, 2, 0]))
    scale = T.AffineTransform(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]))
    stack = StackTransform([T.ExpTransform(), T.AffineTransform(torch.ones(4), 2.0)], dim=-2)
    flow = Composed([swap, IndependentTransform(scale, 1), T.SigmoidTransform().inv.inv])
    x = torch.randn(5, 3)
    y, back = flow(x), flow.inv(flow(x))
    torch.testing.assert_close(back, x)
    saved = flow.state_dict()
    assert {n.rpartition(".")[2] for n in saved} == {
        "permutation",
        "base_transform_0_loc",
        "base_transform_0_scale",
    }
    other = Composed(
        [
            T.Permute(torch.tensor([0, 1, 2])),
            IndependentTransform(T.AffineTransform(torch.ones(3), torch.ones(3)), 1),
            T.SigmoidTransform(),
        ]
    )
    other.inv(other(x))  # computes the inverse of its own permutation
    other.load_state_dict(saved)
    torch.testing.assert_close(other(x), y)
    torch.testing.assert_close(other.inv(y), x)
    for same in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        torch.testing.assert_close(same(x), y)
    assert flow.float()(x.float()).dtype == torch.float32
    assert scale.scale.dtype == torch.float64  # that of the caller stays
    assert len(Composed([stack]).state_dict()) == 1
    inverse = Composed([T.SigmoidTransform().inv])
    x = torch.rand(4)
    torch.testing.assert_close(copy.deepcopy(inverse)(x), torch.logit(x))


def test_a_module_inside_a_foreign_part_is_trained() -> None:
    a, b = T.Spline(2), T.Spline(2)
    flow = Composed([StackTransform([a, b], dim=-2)])
    assert set(flow.parameters()) == {*a.parameters(), *b.parameters()}
    x = torch.randn(5, 2, 2)
    y = flow(x)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(1.0)
    assert not torch.allclose(flow(x), y)
    torch.testing.assert_close(copy.deepcopy(flow)(x), flow(x))


def test_parameters_and_graphs_of_foreign_parts_are_reached() -> None:
    scale, inner = nn.Parameter(torch.tensor(2.0)), torch.tensor(0.5, requires_grad=True)
    flow = Composed([T.AffineTransform(0.0, scale), T.AffineTransform(2 * inner, 1.0)])
    assert [id(p) for p in flow.parameters()] == [id(scale)]
    x = torch.randn(3)
    y = flow(x)
    torch.testing.assert_close(y, 2 * x + 1)
    slopes = torch.autograd.grad(y.sum(), [scale, inner])
    torch.testing.assert_close(slopes, (x.sum(), torch.tensor(6.0)))
    flow.load_state_dict({n: t + 1 for n, t in flow.state_dict().items()}, assign=True)
    torch.testing.assert_close(flow(x), 3 * x + 2)


def test_wrong_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one transform"):
        Composed([])
    with pytest.raises(ValueError, match="expected a bijective transform, got AbsTransform"):
        Composed([T.AbsTransform()])
    with pytest.raises(ValueError, match="condition one of Pyro's conditional transforms"):
        Composed([T.conditional_planar(2, 3)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"context_dim \[2, 3\]"):
        Composed([planar(2, context_dim=2), planar(2, context_dim=3)])


def test_plain_svi_trains_a_flow_that_is_an_attribute_of_a_model() -> None:
    # The guide can be exact: the posterior of z is its prior moved by the data, a normal.
    class Guide(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.flow = Composed([CholeskyAffine(2), planar(2)])

        def forward(self) -> None:
            base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [self.flow]))

    target = dist.MultivariateNormal(
        torch.tensor([1.0, -1.0]), torch.tensor([[1.0, 0.8], [0.8, 2.0]])
    )
    guide = Guide()
    before = {name: p.clone() for name, p in guide.named_parameters()}
    svi = SVI(
        lambda: pyro.sample("z", target),
        guide,
        pyro.optim.Adam({"lr": 0.05}),
        Trace_ELBO(num_particles=64, vectorize_particles=True),
    )
    losses = [svi.step() for _ in range(200)]
    assert all(not torch.equal(p, before[name]) for name, p in guide.named_parameters())
    assert sum(losses[-20:]) / 20 < 0.05 < losses[0]


def test_log_determinants_are_taken_the_cheaper_way(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    for way in ("forward_and_log_det", "inverse_and_log_det"):
        run = getattr(Planar, way)

        def counted(*args: Any, run: Any = run, way: str = way) -> Any:
            passes.append(way)
            return run(*args)

        monkeypatch.setattr(Planar, way, counted)
    part, x = planar(2), torch.randn(3, 2)
    y, expected = part.forward_and_log_det(x)
    for fast, way in [(False, "forward_and_log_det"), (True, "inverse_and_log_det")]:
        part.inverse_is_fast = fast
        passes.clear()
        log_dets = [
            part.log_abs_det_jacobian(x, y),
            -part.inv.log_abs_det_jacobian(y, x),
            Composed([part]).log_abs_det_jacobian(x, y),
            -Composed([part.inv]).log_abs_det_jacobian(y, x),
            -Composed([part]).inv.log_abs_det_jacobian(y, x),
        ]
        assert passes == [way] * 5
        for log_det in log_dets:
            torch.testing.assert_close(log_det, expected)


def test_domains_of_compositions() -> None:
    flow = Composed([T.SigmoidTransform().inv, planar(2), T.SigmoidTransform()])
    assert flow.domain.event_dim == flow.codomain.event_dim == 1
    assert bool(flow.codomain.check(torch.tensor([0.2, 0.9])))
    assert not bool(flow.domain.check(torch.tensor([0.2, 1.9])))
    assert isinstance(Planar(2).domain, type(constraints.real_vector))
