# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A MADE under many masks, and as likelihood or posterior in a compiled step."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_deepgen.autoregressive import (
    MADE,
    NADE,
    AutoregressiveDistribution,
    CategoricalOutput,
    OrderlessNADE,
)
from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.tracing import TracingError
from tests.autoregressive.models import changed
from tests.autoregressive.test_autoregressive_structure import (
    allowed,
    change_pattern,
    gradient_pattern,
)

pytestmark = pytest.mark.usefixtures("float64")

KINDS: dict[str, Any] = {
    "deep": lambda **k: MADE(6, (30, 25), skip=True, activation=nn.Tanh, **k),
    "one_layer": lambda **k: MADE(6, (40,), activation=nn.Tanh, **k),
    "classes": lambda **k: MADE(6, (40, 30), CategoricalOutput(3), skip=True, **k),
}


def shuffled(kind: str, num_masks: int = 4, **options: Any) -> MADE:
    made = changed(KINDS[kind](num_masks=num_masks, shuffle_units=True, **options))
    assert isinstance(made, MADE)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_units_have_the_same_degrees_in_another_order(kind: str) -> None:
    made = shuffled(kind)
    first, *others = [network.degrees()[1:-1] for network in made.networks]
    for other in others:
        for before, after in zip(first, other, strict=True):
            assert torch.equal(before.sort().values, after.sort().values)
            # A unit keeps its degree by chance: one of six or so does.
            assert float((before == after).double().mean()) < 0.6
    plain = KINDS[kind](num_masks=4)
    same = [network.degrees()[1:-1] for network in plain.networks]
    assert all(torch.equal(a, b) for other in same for a, b in zip(same[0], other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_shuffled_units_see_the_variables_before_and_no_others(kind: str) -> None:
    made = shuffled(kind)
    pattern = change_pattern if kind == "classes" else gradient_pattern
    for mask in range(4):
        assert torch.equal(pattern(made, mask), allowed(made.orders[mask]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_over_shuffled_masks_sums_to_one_and_draws_quickly(kind: str) -> None:
    made = shuffled(kind)
    total = made.log_prob(made.enumerate_support()).logsumexp(0)
    assert abs(float(total.detach().exp()) - 1) < 1e-8
    draws = []
    for draw in (made.sample, made.naive_sample):
        torch.manual_seed(2)
        draws.append(draw((100,)))
    assert torch.equal(*draws)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_state_has_the_degrees(kind: str) -> None:
    made, other = shuffled(kind), shuffled(kind)
    x = made.sample((20,))
    assert not torch.allclose(other.log_prob(x), made.log_prob(x))
    other.load_state_dict(made.state_dict())
    torch.testing.assert_close(other.log_prob(x), made.log_prob(x))
    torch.manual_seed(0)
    draws = made.sample((20,))
    torch.manual_seed(0)
    assert torch.equal(other.sample((20,)), draws)


def test_degrees_of_another_network_are_refused() -> None:
    made = shuffled("one_layer")
    state = made.state_dict()
    state["networks.0.degrees_0"] = torch.zeros(40, dtype=torch.long)
    with pytest.raises(ValueError, match="expected for layer 1 the degrees"):
        made.load_state_dict(state)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_training_scores_are_those_of_the_masks(kind: str, shuffle: bool) -> None:
    made = changed(KINDS[kind](num_masks=3, shuffle_units=shuffle, context_dim=2)).train()
    given = made.condition(torch.randn(5, 2))
    x = given.sample()
    with torch.no_grad():
        each = [made.score(x, given._given_context(), mask) for mask in range(3)]
    seen = [given.log_prob(x).detach() for _ in range(60)]
    taken = [[torch.allclose(score, value) for value in each] for score in seen]
    assert all(sum(row) == 1 for row in taken)
    counts = torch.tensor(taken).sum(0)
    # Of 60 draws each mask has 20, with a standard deviation of 3.7.
    assert bool(((counts - 20).abs() < 15).all())


# ---------------------------------------------------------------- compiled steps


class Observed(PyroModule):
    """A model of data under a distribution."""

    def __init__(self, d: AutoregressiveDistribution) -> None:
        super().__init__()
        self.d = d

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.d, obs=x)


def nothing(x: torch.Tensor) -> None:
    """Say nothing: there are no latents."""


LIKELIHOODS: dict[str, Any] = {
    "masks": lambda: KINDS["deep"](num_masks=5, shuffle_units=True),
    "masks_of_classes": lambda: KINDS["classes"](num_masks=5),
    "orderless": lambda: OrderlessNADE(6, (9, 8)),
    "nade": lambda: NADE(6, 8),
}


def gradients_both_ways(model: Any, guide: Any, *args: torch.Tensor) -> list[list[torch.Tensor]]:
    """Return losses and gradients of the recorded graph and of the program, for the same draws."""
    parameters = [*model.parameters(), *(guide.parameters() if guide is not nothing else ())]
    svi = CompiledSVI(model, guide, torch.optim.SGD(parameters, 0.1), Trace_ELBO(), backend=None)
    svi.compiled.gradients(parameters, *args)  # recording draws, too
    both = []
    for seed in range(6):
        torch.manual_seed(seed)
        loss, recorded = svi.compiled.gradients(parameters, *args)
        torch.manual_seed(seed)
        program = Trace_ELBO().differentiable_loss(model, guide, *args)
        expected = torch.autograd.grad(program, parameters)
        torch.testing.assert_close([loss, *recorded], [program.detach(), *expected])
        both.append([loss, *recorded])
    return both


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_recorded_graph_draws_the_masks_anew(name: str) -> None:
    pyro.settings.set(module_local_params=True)
    model = Observed(LIKELIHOODS[name]()).train()
    x = torch.randint(2, (30, 2)).double()[:, [0, 1, 1, 0, 0, 1]]  # 2 bits in 6 variables
    losses = {float(loss) for loss, *_ in gradients_both_ways(model, nothing, x)}
    assert len(losses) == 1 if name == "nade" else len(losses) > 2
    optim = torch.optim.Adam(model.parameters(), 0.05)
    svi = CompiledSVI(model, nothing, optim, Trace_ELBO(), backend=None, check_every=1)
    for _ in range(30):
        svi.step(x)
    with torch.no_grad():
        assert float(-model.d.log_prob(x).sum()) < 0.8 * min(losses)


class Switches(PyroModule):
    """Four switches, of which noise shows the sums of neighbours."""

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((4,), 0.4)).to_event(1))
            pyro.sample("x", dist.Normal(z + z.roll(1, -1), 0.7).to_event(1), obs=x)


class Posterior(PyroModule):
    """A MADE given the data, for the switches."""

    def __init__(self) -> None:
        super().__init__()
        self.made = MADE(4, (16,), context_dim=4, skip=True)

    def forward(self, x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.made.condition(x))


def exact_bound(x: torch.Tensor, posterior: Posterior) -> tuple[float, float]:
    """Return the evidence and the bound of data, both by enumeration."""
    z = MADE(4, (1,)).enumerate_support().unsqueeze(1)
    prior = dist.Bernoulli(torch.full((4,), 0.4)).to_event(1).log_prob(z)
    joint = prior + dist.Normal(z + z.roll(1, -1), 0.7).to_event(1).log_prob(x)
    with torch.no_grad():
        log_q = posterior.made.condition(x).log_prob(z.expand(-1, len(x), -1))
    bound = (log_q.exp() * (joint - log_q)).sum(0)
    return float(joint.logsumexp(0).mean()), float(bound.mean())


def test_a_made_is_the_posterior_of_a_discrete_latent() -> None:
    pyro.settings.set(module_local_params=True)
    z = torch.bernoulli(torch.full((200, 4), 0.4))
    x = z + z.roll(1, -1) + 0.7 * torch.randn(200, 4)
    model, guide = Switches(), Posterior()
    gradients_both_ways(model, guide, x)
    evidence, start = exact_bound(x, guide)
    optim = torch.optim.Adam(guide.parameters(), 0.02)
    svi = CompiledSVI(model, guide, optim, Trace_ELBO(), backend=None, check_every=50)
    for step in range(400):
        optim.param_groups[0]["lr"] = 0.02 * (1 - step / 400)
        svi.step(x)
    assert svi.compiled.num_recordings <= 2  # one for the optimiser's first step
    _, end = exact_bound(x, guide)
    assert end < evidence
    assert evidence - end < min(0.05, 0.1 * (evidence - start))


def test_draws_of_several_masks_are_refused_with_their_line() -> None:
    pyro.settings.set(module_local_params=True)
    guide = Posterior()
    guide.made = MADE(4, (16,), num_masks=2, context_dim=4)
    x = torch.randn(5, 4)
    optim = torch.optim.Adam(guide.parameters(), 0.02)
    svi = CompiledSVI(Switches(), guide, optim, Trace_ELBO(), backend=None)
    with pytest.raises(TracingError, match=r"pyro\.infer\.SVI"):
        svi.step(x)
