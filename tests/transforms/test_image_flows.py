# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""RealNVP and Glow for images: their parts, shapes, contexts, and as distributions."""

from collections import Counter
from itertools import pairwise, product
from math import log
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.nn import CouplingCNN
from pyro_deepgen.transforms import (
    ActNorm,
    Coupling,
    Dequantize,
    InvertibleConv1x1,
    Logit,
    MultiScale,
    Squeeze,
    glow,
    real_nvp,
)
from tests.transforms.checks import check_inverse, check_log_det

pytestmark = pytest.mark.usefixtures("float64")

SMALL: dict[str, Any] = {"hidden_channels": 4}


def normal(size: int) -> dist.Distribution:
    return dist.Normal(torch.zeros(size), torch.ones(size)).to_event(1)


def parts(flow: MultiScale) -> list[list[str]]:
    """Name the parts of each level that move or mix variables, from the data to the base."""
    names = []
    for level in reversed(list(flow)):
        found = []
        for part in reversed(list(level)):  # type: ignore[call-overload]
            inner = getattr(part, "transform", part)
            if isinstance(inner, Coupling):
                found.append(type(inner.split).__name__)
            elif not isinstance(inner, ActNorm):
                found.append(type(inner).__name__)
        names.append(found)
    return names


def test_real_nvp_has_the_layers_of_the_paper() -> None:
    flow = real_nvp((1, 28, 28), num_blocks=1, **SMALL)
    level = ["MaskedSplit"] * 3 + ["Squeeze"] + ["SliceSplit"] * 3
    assert parts(flow) == [level, level, ["MaskedSplit"] * 4]
    assert flow.piece_shapes == [(4, 7, 7), (4, 7, 7), (2, 14, 14)]
    couplings = [m for m in flow.modules() if isinstance(m, Coupling)]
    assert Counter(map(type, flow.modules()))[ActNorm] == len(couplings) == 16
    for level_parts in flow:
        masks = [
            m.split.mask[0, 0, 0].item()
            for m in level_parts.modules()
            if isinstance(m, Coupling) and hasattr(m.split, "mask")
        ]
        assert all(a != b for a, b in pairwise(masks))  # in turn


def test_glow_has_the_steps_of_the_paper() -> None:
    flow = glow((1, 28, 28), 2, 3, **SMALL)
    level = ["Squeeze", *["InvertibleConv1x1", "SliceSplit"] * 3]
    assert parts(flow) == [level, level]
    assert flow.piece_shapes == [(8, 7, 7), (2, 14, 14)]
    kinds = Counter(map(type, flow.modules()))
    assert kinds[ActNorm] == kinds[InvertibleConv1x1] == kinds[Coupling] == kinds[CouplingCNN] == 6
    assert kinds[Squeeze] == 2


@pytest.mark.parametrize("make", [real_nvp, glow])
def test_a_flat_vector_becomes_an_image(make: Any, device: torch.device) -> None:
    transform = make((1, 28, 28), **SMALL)
    flow = FlowDistribution(normal(784), transform).to(device).float()
    images = torch.rand(3, 1, 28, 28).to(device).float()
    assert flow.event_shape == (1, 28, 28)
    scores = flow.log_prob(images)
    assert scores.shape == (3,)
    with torch.no_grad():
        drawn = flow.sample((2,))
        assert drawn.shape == (2, 1, 28, 28)
        x, log_det = transform.inverse_and_log_det(drawn)
        torch.testing.assert_close(transform(x), drawn, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            transform.forward_and_log_det(x)[1], -log_det, atol=1e-2, rtol=1e-4
        )
    scores.sum().backward()
    assert all(p.grad is not None for p in flow.parameters())


@pytest.mark.parametrize("make", [real_nvp, glow])
def test_the_density_depends_on_a_class(make: Any) -> None:
    options = {"num_blocks": 1} if make is real_nvp else {"num_steps": 2}
    transform = make((1, 4, 4), num_levels=1, context_dim=3, **options, **SMALL)
    classes, images = torch.eye(3), torch.randn(5, 1, 1, 4, 4)
    transform.inverse_and_log_det(images[:, 0], classes[[0, 1, 2, 0, 1]])
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    flow = FlowDistribution(normal(16), transform)
    scores = flow.condition(classes).log_prob(images)
    assert scores.shape == (5, 3)
    assert bool((scores[:, 0] != scores[:, 1]).all())
    torch.testing.assert_close(scores[:, 2], flow.condition(classes[2]).log_prob(images[:, 0]))
    check_log_det(transform, torch.randn(3, 16), classes)
    check_inverse(transform, torch.randn(3, 16), classes)


def test_a_network_sees_no_other_image_of_its_batch() -> None:
    flow, images = real_nvp((2, 4, 4), num_levels=1, num_blocks=1, **SMALL), torch.randn(6, 2, 4, 4)
    flow.inverse_and_log_det(images)
    together, alone = flow.inverse_and_log_det(images), flow.inverse_and_log_det(images[:1])
    torch.testing.assert_close(together[1][:1], alone[1])


def test_fits_stripes_from_whole_numbers_to_probabilities() -> None:
    # Each row of an image has one level, to which every pixel adds 0 or 1.
    num_levels = 8

    def draw(num: int) -> torch.Tensor:
        rows = torch.randint(num_levels - 1, (num, 1, 4, 1))
        return (rows + torch.randint(2, (num, 1, 4, 4))).double()

    row = [(r + torch.tensor(b)).tolist() for r in range(7) for b in product((0, 1), repeat=4)]
    counts = Counter(map(tuple, row)).values()
    entropy = -sum(n / len(row) * log(n / len(row)) for n in counts) / 4  # of a pixel

    flow = FlowDistribution(
        normal(16),
        [glow((1, 4, 4), 2, 3, hidden_channels=16), Logit(0.05), Dequantize((1, 4, 4), num_levels)],
    )
    optimiser = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for _ in range(150):
        loss = -flow.log_prob(draw(64)).mean() / 16
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        scores = -flow.log_prob(draw(1000)) / 16
    error = float(scores.std()) / 1000**0.5
    # Above the entropy, as a bound must be, and well below that of levels without structure.
    assert entropy - 4 * error < float(scores.mean()) < 0.85 * log(num_levels) - 4 * error
    drawn = flow.sample((200,))
    assert bool(flow.support.check(drawn).all())
    assert bool(drawn.std(-1).mean() < 0.8 * drawn.std(-2).mean())


@pytest.mark.parametrize("make", [real_nvp, glow])
def test_images_that_cannot_be_halved_are_refused_with_what_would_work(make: Any) -> None:
    with pytest.raises(ValueError, match="use num_levels=2, or pad it to 32 x 32"):
        make((1, 28, 28), num_levels=3)
    with pytest.raises(ValueError, match=r"\(channels, height, width\)"):
        make((28, 28))
    with pytest.raises(ValueError, match="num_levels a positive"):
        make((1, 28, 28), num_levels=0)
    with pytest.raises(ValueError, match="positive whole number"):
        make((1, 4, 4), hidden_channels=0)


def test_the_network_of_glow_starts_at_the_identity_and_checks_its_inputs() -> None:
    flow = glow((1, 4, 4), 1, 1, **SMALL)
    coupling = next(m for m in flow.modules() if isinstance(m, Coupling))
    x = torch.randn(3, 4, 2, 2)
    assert torch.equal(coupling(x), x)
    net = CouplingCNN(2, 2, 2, channels=4, context_dim=3)
    with pytest.raises(ValueError, match=r"shape \(N, 2, H, W\), got \(3, 4, 2, 2\)"):
        net(x, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="a context with 3 dimensions, got 0"):
        net(x[:, :2])
    assert all(isinstance(m, nn.Conv2d) for m in (net.first, net.second, net.last))
