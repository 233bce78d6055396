# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What every distribution of the library must do."""

import copy
import io
import math
import pickle
from typing import Any

import pyro
import pytest
import torch
from scipy.stats import chi2
from torch import nn
from torch.distributions import Distribution

from tests.autoregressive.rows import AUTOREGRESSIVE_ROWS
from tests.tables import DISTRIBUTIONS, DistributionRow, named

FAILURE_RATE = 1e-6  # of one chi-square test on right samples

# A flow has no mean in closed form, and a mean of classes means nothing.
WITHOUT_MEAN = {"buffered_flow", "buffered_categorical", "flow", "flow_positive"}
WITHOUT_MEAN |= {name for name, *_ in AUTOREGRESSIVE_ROWS} - {"linear_gaussian"}

every = pytest.mark.parametrize("row", **named(DISTRIBUTIONS))
continuous = pytest.mark.parametrize("row", **named([r for r in DISTRIBUTIONS if r.box]))
modules = pytest.mark.parametrize(
    "row", **named([r for r in DISTRIBUTIONS if issubclass(r.cls, nn.Module)])
)


def cells(row: DistributionRow, num: int) -> tuple[torch.Tensor, float]:
    """Return the midpoints of a grid on the row's box, flattened, and the volume of a cell."""
    assert row.box is not None
    axes, volume = [], 1.0
    for low, high in row.box:
        width = (high - low) / num
        axes.append(low + width * (torch.arange(num) + 0.5))
        volume *= width
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    return (points if len(axes) > 1 else points[:, 0]), volume


@torch.no_grad()
def probabilities(row: DistributionRow, d: Any, bins: int) -> torch.Tensor:
    """Return the probability of each value, or of each of `bins` cells along every axis."""
    if row.box is None:
        return torch.as_tensor(d.log_prob(d.enumerate_support()).exp())
    fine, dim = 16 if len(row.box) > 1 else 64, len(row.box)
    points, volume = cells(row, bins * fine)
    mass = (d.log_prob(points).exp() * volume).reshape((bins, fine) * dim)
    return mass.sum(tuple(range(1, 2 * dim, 2))).reshape(-1)


def counts(row: DistributionRow, d: Any, draws: torch.Tensor, bins: int) -> torch.Tensor:
    """Count draws in the cells of `probabilities`."""
    if row.box is None:
        event_dims = tuple(range(2, 2 + len(d.event_shape)))
        same = draws == d.enumerate_support().unsqueeze(1)
        return (same.all(event_dims) if event_dims else same).sum(-1).double()
    low, high = torch.tensor(row.box).T
    index = ((draws.reshape(len(draws), -1) - low) / (high - low) * bins).long()
    flat = index[:, 0] if len(row.box) == 1 else index[:, 0] * bins + index[:, 1]
    return torch.bincount(flat, minlength=bins ** len(row.box)).double()


def p_value(observed: torch.Tensor, probs: torch.Tensor) -> float:
    """Return the p-value of Pearson's test; cells that expect fewer than 10 are joined."""
    expected = probs * observed.sum()
    small = expected < 10
    groups = [expected[~small], expected[small].sum().reshape(1)]
    seen = [observed[~small], observed[small].sum().reshape(1)]
    e, o = torch.cat(groups), torch.cat(seen)
    if e[-1] < 10:  # too few even together
        e, o = e[:-1], o[:-1]
    return float(chi2.sf(float(((o - e) ** 2 / e).sum()), len(e) - 1))


@every
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_shapes(row: DistributionRow, batch: tuple[int, ...], device: torch.device) -> None:
    d = row.make().expand(batch)
    if isinstance(d, nn.Module):
        d = d.to(device)
    event = tuple(d.event_shape)
    assert tuple(d.batch_shape) == batch
    assert d().shape == batch + event
    for sample_shape in [(), (4,), (5, 4)]:
        x = d.sample(sample_shape)
        assert not x.requires_grad
        assert x.shape == sample_shape + batch + event
        assert d.log_prob(x).shape == sample_shape + batch
        assert bool(d.support.check(x).all())
    if d.has_rsample:
        assert d.rsample((4,)).shape == (4, *batch, *event)
    if d.has_enumerate_support:
        assert d.enumerate_support().shape[1:] == batch + event
        assert d.enumerate_support(expand=False).shape[1:] == (1,) * len(batch) + event


@every
def test_an_expanded_distribution_scores_as_the_original(row: DistributionRow) -> None:
    d = row.make()
    wide = d.expand((2, 3))
    x = wide.sample()
    torch.testing.assert_close(wide.log_prob(x), d.log_prob(x))
    assert wide.expand((4, 2, 3)).log_prob(x).shape == (4, 2, 3)
    with pytest.raises((ValueError, RuntimeError)):
        wide.expand((2, 5))


@modules
def test_expand_shares_parameters_and_buffers(row: DistributionRow) -> None:
    d = row.make()
    wide = d.expand((3,))
    tensors, shared = d.state_dict(keep_vars=True), wide.state_dict(keep_vars=True)
    assert tensors
    assert tensors.keys() == shared.keys()
    assert all(shared[name] is tensors[name] for name in tensors)


@every
def test_probabilities_sum_to_one(row: DistributionRow, float64: torch.dtype) -> None:
    d = row.make()
    if row.box is None:
        assert abs(float(probabilities(row, d, 1).sum()) - 1) < 1e-10
    else:
        # The midpoint rule on some 1,000 points an axis; a spline's density has kinks.
        assert abs(float(probabilities(row, d, 60).sum()) - 1) < 1e-4


@every
def test_samples_agree_with_log_prob(row: DistributionRow, float64: torch.dtype) -> None:
    d, bins = row.make(), 40
    probs = probabilities(row, d, bins)
    observed = counts(row, d, d.sample((20_000,)), bins)
    assert p_value(observed, probs) > FAILURE_RATE


@every
def test_the_chi_square_test_notices_a_wrong_sampler(
    row: DistributionRow, float64: torch.dtype
) -> None:
    d, bins = row.make(), 40
    probs = probabilities(row, d, bins)
    draws = d.sample((20_000,))
    if row.box is None:
        few = torch.rand(len(draws), *[1] * len(d.event_shape)) < 0.1
        wrong = torch.where(few, d.enumerate_support()[0], draws)
    else:
        wrong = draws + 0.1 * draws.std(0)
    assert p_value(counts(row, d, wrong, bins), probs) < FAILURE_RATE


@pytest.mark.parametrize("row", **named([r for r in DISTRIBUTIONS if r.name not in WITHOUT_MEAN]))
def test_mean_and_variance_are_those_of_the_probabilities(
    row: DistributionRow, float64: torch.dtype
) -> None:
    d = row.make()
    if row.box is None:
        points, mass = d.enumerate_support(), probabilities(row, d, 1)
    else:
        points, volume = cells(row, 800)
        mass = d.log_prob(points).exp() * volume
    mass = mass.reshape((-1,) + (1,) * (points.dim() - 1))
    mean = (mass * points).sum(0)
    torch.testing.assert_close(d.mean, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(d.variance, (mass * (points - mean) ** 2).sum(0), atol=1e-4, rtol=0)


@every
def test_inside_plates(row: DistributionRow) -> None:
    d = row.make()
    data = d.sample((12,))

    def model(subsample_size: int | None) -> torch.Tensor:
        with pyro.plate("data", 12, subsample_size=subsample_size) as index:
            return pyro.sample("x", d, obs=data[index])

    full = pyro.poutine.trace(model).get_trace(None)
    full.compute_log_prob()
    torch.testing.assert_close(full.nodes["x"]["log_prob"], d.log_prob(data))
    part = pyro.poutine.trace(model).get_trace(4)
    part.compute_log_prob()
    index = part.nodes["data"]["value"]
    torch.testing.assert_close(part.nodes["x"]["log_prob"], 3 * d.log_prob(data[index]))

    with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 3, dim=-1):
        assert pyro.sample("x", d).shape == (2, 3, *d.event_shape)


@every
def test_copies_score_alike(row: DistributionRow) -> None:
    d = row.make()
    x = d.sample((7,))
    before = d.log_prob(x)
    before.sum()  # a graph that a copy must not hold
    for other in (copy.deepcopy(d), pickle.loads(pickle.dumps(d)), copy.deepcopy(d.expand((1,)))):
        assert isinstance(other, Distribution)
        torch.testing.assert_close(other.log_prob(x), before)


@modules
def test_state_dict_round_trip(row: DistributionRow) -> None:
    d, other = row.make(), row.make()
    with torch.no_grad():
        for tensor in other.state_dict().values():
            if tensor.is_floating_point():  # an order is no number to change
                tensor.mul_(1.1)
    x = d.sample((7,))
    assert not torch.allclose(d.log_prob(x), other.log_prob(x))
    file = io.BytesIO()
    torch.save(d.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(d.log_prob(x), other.log_prob(x))


@modules
def test_modules_move_to_another_precision_and_device(
    row: DistributionRow, device: torch.device
) -> None:
    d = row.make()
    x = d.sample((7,))
    before = d.log_prob(x)
    d = d.double().to(device)
    wide = x.double() if x.is_floating_point() else x
    after = d.log_prob(wide.to(device))
    assert after.dtype == torch.float64
    assert d.sample().device.type == device.type
    torch.testing.assert_close(after.float().cpu(), before, atol=1e-4, rtol=1e-4)


@modules
def test_as_attribute_of_a_pyro_module(row: DistributionRow) -> None:
    class Model(pyro.nn.PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.d = row.make()

        def forward(self) -> torch.Tensor:
            return pyro.sample("x", self.d)

    model = Model()
    assert {n for n, _ in model.named_parameters()} == {
        f"d.{n}" for n, _ in model.d.named_parameters()
    }
    trace = pyro.poutine.trace(model).get_trace()
    assert math.isfinite(trace.log_prob_sum().item())
