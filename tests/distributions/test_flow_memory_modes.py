# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a flow remembers in recordings, under function transforms, and in guides."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.tracing.device_only import device_only
from tests.distributions.flows import by_inverse, counting_flow, inverses

pytestmark = pytest.mark.usefixtures("float64")


def plain_draw(flow: FlowDistribution) -> tuple[torch.Tensor, torch.Tensor]:
    y = flow.rsample()
    return y, flow.log_prob(y)


def recorded(function: Callable[..., Any], argument: torch.Tensor) -> Any:
    with device_only():
        return make_fx(function)(argument)


def test_recordings_remember_their_own_draws_only() -> None:
    flow = counting_flow()
    made: list[torch.Tensor] = []

    def record(zero: torch.Tensor) -> Any:
        made.append(flow.rsample())
        return made[0] + zero, flow.log_prob(made[0])

    graph = recorded(record, torch.zeros(2))
    assert inverses(flow) == 0
    torch.manual_seed(7)
    y, score = graph(torch.zeros(2))
    torch.testing.assert_close(score, by_inverse(flow, y), rtol=0, atol=1e-10)

    count = inverses(flow)
    outside = flow.rsample()
    recorded(lambda zero: flow.log_prob(outside) + zero, torch.zeros(()))
    assert inverses(flow) == count + 1

    def unscored(zero: torch.Tensor) -> torch.Tensor:
        made.append(flow.rsample())
        return made[-1] + zero

    recorded(unscored, torch.zeros(2))
    assert flow._memory is not None
    assert flow._memory.is_of(made[-1])
    flow.log_prob(made[-1])
    assert inverses(flow) == count + 2


def test_function_transforms_see_the_inverse() -> None:
    flow = counting_flow()

    def draw(zero: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, score = plain_draw(flow)
        return y + zero, score

    y, score = torch.func.vmap(draw, randomness="same")(torch.zeros(4))
    assert inverses(flow) == 1
    torch.testing.assert_close(score, by_inverse(flow, y), rtol=0, atol=1e-10)
    outside = flow.sample()
    slope = torch.func.grad(lambda shift: flow.log_prob(outside + shift))(torch.zeros(()))
    assert slope.isfinite()
    torch.func.vmap(lambda shift: flow.log_prob(outside) + shift)(torch.zeros(2))
    assert inverses(flow) == 4


def test_inference_mode_sees_the_inverse() -> None:
    flow = counting_flow()
    with torch.inference_mode():
        y, score = plain_draw(flow)
    assert inverses(flow) == 1
    torch.testing.assert_close(score, by_inverse(flow, y.clone()).detach(), rtol=0, atol=1e-10)


def test_torch_compile_sees_the_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile Pyro's part of it takes many seconds; the question that is asked does not."""
    flow = counting_flow()
    outside = flow.rsample()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    flow.log_prob(outside)
    plain_draw(flow)
    assert inverses(flow) == 2


@pytest.mark.parametrize("plate", [False, True])
def test_a_guide_scores_its_draw_without_an_inverse(plate: bool) -> None:
    """A plate makes an instance of its own for the site, which draws and scores."""
    flow = counting_flow()

    def guide() -> None:
        if plate:
            with pyro.plate("data", 10, subsample_size=5):
                pyro.sample("z", flow)
        else:
            pyro.sample("z", flow)

    for _ in range(2):
        trace = pyro.poutine.trace(guide).get_trace()
        trace.log_prob_sum()
        assert inverses(flow) == 0
        scale = 2 if plate else 1
        expected = scale * by_inverse(flow, trace.nodes["z"]["value"]).sum()
        torch.testing.assert_close(trace.log_prob_sum(), expected, rtol=0, atol=1e-9)
        flow.transform.parts[1].inverses = 0  # type: ignore[attr-defined]
