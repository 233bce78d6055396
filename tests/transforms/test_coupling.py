# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Coupling layers: masks, what the network sees and computes, and the flows made of them."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from pyro_deepgen.nn import CouplingMLP, CouplingResNet
from pyro_deepgen.transforms import (
    Additive,
    Affine,
    Composed,
    Coupling,
    DiagonalScaling,
    RationalQuadratic,
    Transform,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
    coupling_layers,
    halves_mask,
    nice,
    real_nvp,
    spline_coupling,
)
from pyro_deepgen.transforms.equation import each_parameter
from tests.transforms.checks import jacobian

pytestmark = pytest.mark.usefixtures("float64")

Mask = Callable[[bool], torch.Tensor]
MASKS: dict[str, Mask] = {
    "halves": lambda flip: halves_mask(5, flip),
    "alternating": lambda flip: alternating_mask(5, flip),
    "alternating_two": lambda flip: alternating_mask(2, flip),
    "checkerboard": lambda flip: checkerboard_mask((2, 3, 5), flip),
    "channels": lambda flip: channel_mask((3, 2, 2), flip),
}
masks = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


class Recorder(nn.Module):
    """A network that remembers what it is called with, and gives numbers made of all of it."""

    def __init__(self, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.outputs = outputs
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        total = torch.sin(x.flatten(1) * torch.arange(1, x[0].numel() + 1)).sum(-1)
        steps = torch.arange(1.0, 1 + torch.Size(self.outputs).numel()).reshape(self.outputs)
        return 0.1 * total.reshape(-1, *[1] * len(self.outputs)) * steps.cos()


def recorded(mask: torch.Tensor, num_parameters: int) -> tuple[Recorder, tuple[int, ...]]:
    """Return a recorder for a mask, and the shape of what it should see."""
    whole = tuple(mask.shape)
    rows = mask.flatten(1).any(1) if mask.dim() > 1 else mask
    if mask.dim() > 1 and not bool((mask == rows[:, None, None]).all()):
        return Recorder((*whole, num_parameters)), whole
    num_kept = int(rows.sum())
    changed = (len(mask) - num_kept, *whole[1:])
    return Recorder((*changed, num_parameters)), (num_kept, *whole[1:])


# ---------------------------------------------------------------- masks


@masks
def test_a_mask_and_its_flip_cover_every_variable_once(mask: Mask) -> None:
    one, other = mask(False), mask(True)
    assert one.dtype == other.dtype == torch.bool
    assert bool((one ^ other).all())
    assert bool(one.any())
    assert bool(other.any())


def test_masks_are_those_of_the_papers() -> None:
    assert halves_mask(4).tolist() == [True, True, False, False]
    assert alternating_mask(3, flip=True).tolist() == [False, True, False]
    board = checkerboard_mask((3, 4, 6))
    for c, i, j in [(0, 0, 0), (1, 2, 3), (2, 3, 3), (0, 1, 0)]:
        assert bool(board[c, i, j]) == ((i + j) % 2 == 0)
    channels = channel_mask((3, 2, 2))
    assert channels[:2].all() and not channels[2].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: halves_mask(1), "expected two dimensions or more"),
        (lambda: alternating_mask(1), "expected two dimensions or more"),
        (lambda: halves_mask(2.5), "expected as num_dims a positive whole number"),  # type: ignore[arg-type]
        (lambda: checkerboard_mask((4, 4)), r"\(channels, height, width\)"),
        (lambda: checkerboard_mask((3, 1, 1)), "two pixels or more"),
        (lambda: channel_mask((1, 4, 4)), "squeeze it first"),
    ],
)
def test_masks_that_cannot_be_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- one layer


@masks
@pytest.mark.parametrize("flip", [False, True])
def test_kept_variables_stay_and_the_others_depend_on_themselves_and_on_them(
    mask: Mask, flip: bool
) -> None:
    kept = mask(flip)
    network, _ = recorded(kept, 2)
    layer = Coupling(Affine(), network, kept)
    x = torch.randn(3, *kept.shape, requires_grad=True)
    y, log_det = layer.forward_and_log_det(x)
    assert torch.equal(y[:, kept], x[:, kept])
    rows = jacobian(x, y, kept.dim(), kept.dim())
    flat = kept.flatten()
    among_changed = rows[:, ~flat][:, :, ~flat]
    assert torch.equal(among_changed, torch.diag_embed(among_changed.diagonal(dim1=1, dim2=2)))
    assert bool((rows[:, ~flat][:, :, flat] != 0).all())
    diagonal = among_changed.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(diagonal.log().sum(-1), log_det)


@masks
@pytest.mark.parametrize("flip", [False, True])
def test_the_network_sees_what_is_kept_and_runs_once_a_pass(mask: Mask, flip: bool) -> None:
    kept = mask(flip)
    network, shape = recorded(kept, 11)
    layer = Coupling(RationalQuadratic(4), network, kept)
    x = torch.randn(6, *kept.shape)
    y, _ = layer.forward_and_log_det(x)
    layer.inverse_and_log_det(y)
    assert len(network.seen) == 2
    assert torch.equal(*network.seen)
    (seen, _) = network.seen
    assert seen.shape[1:] == shape
    if shape == tuple(kept.shape):  # an image with holes
        assert torch.equal(seen, x * kept)
    else:
        assert torch.equal(seen.flatten(1), x[:, kept])


def test_image_networks_see_images_for_any_batch_shape() -> None:
    mask = checkerboard_mask((1, 4, 4))
    network = CouplingResNet(1, 1, 2, channels=4, num_blocks=1, context_dim=3)
    layer = Coupling(Affine(), network, mask, context_dim=3)
    context = torch.randn(5, 1, 3)
    x = torch.randn(2, 1, 4, 4)
    y, log_det = layer.forward_and_log_det(x, context)
    assert y.shape == (5, 2, 1, 4, 4)
    assert log_det.shape == (5, 2)
    one, log_det_one = layer.forward_and_log_det(x[1], context[3, 0])
    torch.testing.assert_close(one, y[3, 1])
    torch.testing.assert_close(log_det_one, log_det[3, 1])


@pytest.mark.parametrize(
    "mask",
    [torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool), torch.tensor([0.0, 1.0])],
)
def test_a_mask_that_is_none_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="a tensor of truth values of the event's shape"):
        Coupling(Additive(), nn.Identity(), mask)


def test_a_network_with_the_wrong_outputs_is_refused() -> None:
    layer = Coupling(Affine(), CouplingMLP(2, (4,), 1, 3), halves_mask(3))
    with pytest.raises(ValueError, match=r"2 parameters for each .* \(1, 2\), got shape \(5, 1, 3"):
        layer(torch.zeros(5, 3))


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "parameters last": lambda: torch.randn(5, 3, 2),
    "parameters in the middle": lambda: torch.randn(5, 2, 3).mT,
    "parameters first": lambda: torch.randn(2, 5, 3).movedim(0, -1),
    "images": lambda: torch.randn(5, 2, 3, 4, 4).movedim(1, -1),
    "expanded": lambda: torch.randn(1, 2, 3).mT.expand(5, 3, 2),
    "one variable": lambda: torch.randn(2),
}


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_parameters_come_apart_and_their_gradients_have_their_layout(
    make: Callable[[], torch.Tensor],
) -> None:
    parameters = make().requires_grad_()
    apart = each_parameter(parameters)
    expected = parameters.unbind(-1)
    assert len(apart) == len(expected)
    assert all(map(torch.equal, apart, expected))
    weights = [torch.randn_like(part) for part in expected]
    gradient, wanted = (
        torch.autograd.grad(parts, parameters, weights) for parts in (apart, expected)
    )
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=0)
    if 0 not in parameters.stride():
        assert gradient[0].stride() == parameters.stride()


def test_the_scale_of_the_affine_equation_is_bounded_and_its_tails_have_gradients() -> None:
    affine, raw = Affine(2.0), torch.tensor([-1e8, -3.0, 0.0, 1e-4, 50.0, 1e8], requires_grad=True)
    theta = torch.stack([torch.zeros_like(raw), raw], -1)
    y, log_scale = affine.forward_and_log_slope(torch.ones(6), theta)
    assert bool((log_scale.abs() <= 2).all() & (log_scale.diff() > 0)[1:-1].all())
    torch.testing.assert_close(log_scale, raw / (1 + raw**2 / 4).sqrt())
    torch.testing.assert_close(y, log_scale.exp())
    (slope,) = torch.autograd.grad(log_scale.sum(), raw)
    assert float(slope[2]) == 1
    assert bool((slope[1:5] > 0).all())


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan")])
def test_a_bound_that_bounds_nothing_is_refused(bound: float) -> None:
    for make in (Affine, lambda b: RationalQuadratic(8, bound=b)):
        with pytest.raises(ValueError, match="expected a positive bound"):
            make(bound)


# ---------------------------------------------------------------- flows

FLOWS: dict[str, Callable[..., Composed]] = {
    "nice": nice,
    "real_nvp": real_nvp,
    "spline_coupling": spline_coupling,
}
flows = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)


@flows
@pytest.mark.parametrize("mask", ["halves", "alternating"])
def test_flows_start_near_the_identity_and_mix_all_variables(
    make: Callable[..., Composed], mask: str
) -> None:
    flow = make(5, num_layers=3, hidden_dims=(16,), mask=mask, activation=nn.Tanh)
    x = torch.randn(50, 5, requires_grad=True)
    y, _ = flow.forward_and_log_det(x)
    assert float((y - x).detach().norm() / x.detach().norm()) < 0.2
    # What the last of three layers changes depends on everything.
    rows = jacobian(x, y, 1, 1).abs().amax(0)
    assert bool((rows[changed_by(flow.parts[2], 5)] > 0).all())


def changed_by(layer: Any, size: int) -> torch.Tensor:
    """Return which variables a layer changes."""
    with torch.no_grad():
        x = torch.randn(100, size)
        return (layer(x) != x).any(0)


@flows
def test_layers_exchange_the_parts(make: Callable[..., Composed]) -> None:
    flow = make(5, num_layers=4, hidden_dims=(8,))
    changed = [changed_by(layer, 5) for layer in list(flow.parts)[:4]]
    for one, following in pairwise(changed):
        assert torch.equal(one, ~following)


def test_nice_keeps_volumes_but_for_its_scaling_and_takes_a_context() -> None:
    flow = nice(3, hidden_dims=(8,), context_dim=2)
    scaling = flow.parts[-1]
    assert isinstance(scaling, DiagonalScaling)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter))
    x, context = torch.randn(7, 3), torch.randn(7, 2)
    y, log_det = flow.forward_and_log_det(x, context)
    torch.testing.assert_close(log_det, scaling.log_scale.sum().expand(7))
    torch.testing.assert_close(flow.condition(context).inv(y), x)
    other = flow.forward_and_log_det(x, context + 1)[0]
    assert bool((other != y).any(0).all())


def test_own_equations_go_into_the_same_layers() -> None:
    layers = coupling_layers(4, lambda: Affine(1.0), num_layers=2, hidden_dims=())
    assert all(isinstance(layer.equation, Affine) for layer in layers)
    with pytest.raises(ValueError, match=r"expected as mask one of \['alternating', 'halves'\]"):
        coupling_layers(4, Affine, num_layers=1, hidden_dims=(), mask="thirds")  # type: ignore[arg-type]


def train(flow: Transform, draws: torch.Tensor, num_steps: int) -> float:
    """Maximise the likelihood of draws; return the last mean log-density without its constant."""
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(num_steps):
        optimiser.zero_grad()
        x, log_det = flow.inverse_and_log_det(draws)
        loss = (0.5 * x.square().sum(-1) - log_det).mean()
        loss.backward()
        optimiser.step()
    return -float(loss.detach())


@flows
def test_training_lifts_the_likelihood_of_a_bent_density(make: Callable[..., Composed]) -> None:
    z = torch.randn(500, 2)
    draws = torch.stack([z[:, 0], (0.5 * z[:, 1] + z[:, 0] ** 2 - 1) / 2], -1)
    truth = float(-0.5 * z.square().sum(-1).mean()) - math.log(0.25)
    flow = make(2, num_layers=4, hidden_dims=(32,))
    assert train(flow, draws, 1) < truth - 0.7  # the standard normal law is about 1.2 below
    assert train(flow, draws, 150) > truth - 0.3
