# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The runner: draws, blocks, streams, resuming."""

import copy
from typing import Any

import pyro
import pytest
import torch
from pyro.infer.autoguide.initialization import init_to_sample

from pyro_deepgen.mcmc.block_gibbs import BlockGibbs
from pyro_deepgen.mcmc.chains import Chains
from pyro_deepgen.mcmc.kernel import Kernel
from pyro_deepgen.mcmc.run import StoppedRunError, run
from pyro_deepgen.mcmc.state import Info, State, Values
from tests.mcmc.walk import Walk, X, model


def walk(**kwargs: Any) -> Walk:
    return Walk(model, **{"compile": False, **kwargs})


def quietly(kernel: Kernel, *args: Any, **kwargs: Any) -> Chains:
    return run(kernel, *args, progress=False, **kwargs)


def test_draws_are_constrained_and_have_the_posterior_moments(device: torch.device) -> None:
    chains = quietly(walk(), 150, 60, 400, args=(X.to(device),))
    samples = chains.get_samples(group_by_chain=True)
    assert {n: v.shape for n, v in samples.items()} == {
        "loc": (400, 150),
        "rate": (400, 150),
        "parts": (400, 150, 3),
    }
    assert bool((samples["rate"] > 0).all())
    torch.testing.assert_close(samples["parts"].sum(-1), torch.ones(400, 150, device=device))
    means = {"loc": X.sum() / 5, "rate": 1.5, "parts": 1 / 3}
    for name, mean in means.items():
        each = samples[name].mean(1)  # one figure a chain: the chains are independent
        error = each.std(0) / 400**0.5
        assert bool(((each.mean(0) - mean).abs() < 4 * error).all()), name
    sd = samples["loc"].var(1).mean() ** 0.5
    assert abs(float(sd) - 5**-0.5) < 0.05


def test_the_flat_draws_are_chain_after_chain() -> None:
    chains = quietly(walk(), 7, 0, 3)
    grouped, flat = chains.get_samples(group_by_chain=True), chains.get_samples()
    assert torch.equal(flat["parts"][7:14], grouped["parts"][1])
    assert flat["parts"].data_ptr() == grouped["parts"].data_ptr()  # no second copy
    assert chains.get_samples(num_samples=5)["loc"].shape == (5,)
    assert chains.get_extra_fields()["accept_prob"].shape == (21,)
    assert chains.get_extra_fields(group_by_chain=True)["accept_prob"].shape == (3, 7)


@pytest.mark.parametrize("block_size", [1, 4, None])
def test_the_block_size_does_not_change_the_draws(block_size: int | None) -> None:
    pyro.set_rng_seed(2)
    expected = quietly(walk(), 10, 5, 3, block_size=10)
    pyro.set_rng_seed(2)
    assert_same(quietly(walk(), 10, 5, 3, block_size=block_size), expected)


def test_a_seed_fixes_the_draws() -> None:
    draws = []
    for seed in (1, 1, 2):
        pyro.set_rng_seed(seed)
        draws.append(quietly(walk(), 10, 5, 3))
    assert_same(draws[0], draws[1])
    assert not torch.equal(draws[0].samples["loc"], draws[2].samples["loc"])


def test_thinning_keeps_every_so_many_steps() -> None:
    pyro.set_rng_seed(3)
    every = quietly(walk(), 12, 5, 3)
    pyro.set_rng_seed(3)
    third = quietly(walk(), 4, 5, 3, thinning=3)
    for name, value in every.samples.items():
        close(third.samples[name], value[:, 2::3])
    assert torch.equal(third.info["accept_prob"], every.info["accept_prob"][:, 2::3])


@pytest.mark.parametrize("compile", [False, "recorded"])
def test_resumed_draws_are_those_of_one_run(compile: bool | str) -> None:
    pyro.set_rng_seed(4)
    whole = quietly(walk(compile=compile), 20, 10, 3)
    pyro.set_rng_seed(4)
    kernel = walk(compile=compile)
    first = quietly(kernel, 8, 10, 3)
    second = quietly(kernel, 12, resume=first)
    assert_same(first.followed_by(second), whole)
    # Another kernel object takes the tuning over.
    pyro.set_rng_seed(4)
    first = quietly(walk(compile=compile), 8, 10, 3)
    assert_same(first.followed_by(quietly(walk(compile=compile), 12, resume=first)), whole)


def test_resuming_needs_the_tuning() -> None:
    first = quietly(walk(), 8, 10, 3)
    assert float(first.tuning["scale"]) != pytest.approx(0.7)
    kernel = walk()
    second = quietly(kernel, 2, resume=first)
    assert torch.equal(kernel.tuning["scale"], first.tuning["scale"])
    assert torch.equal(second.tuning["scale"], first.tuning["scale"])


def test_resumed_chains_are_held_against_the_target() -> None:
    first = quietly(walk(), 3, 0, 6, args=(X,))
    quietly(walk(), 3, resume=first, args=(X.clone(),))
    with pytest.raises(ValueError, match=r"another density.*initial_params"):
        quietly(walk(), 3, resume=first, args=(X + 0.1,))
    with pytest.raises(ValueError, match="expected no num_chains with resume"):
        quietly(walk(), 3, num_chains=6, resume=first)
    poor = Walk(lambda: pyro.sample("loc", pyro.distributions.Normal(0.0, 1.0)), compile=False)
    with pytest.raises(ValueError, match="'rate'"):
        quietly(poor, 3, resume=first, args=())


def test_a_second_run_leaves_the_draws_of_the_first_alone() -> None:
    kernel = walk()
    first = quietly(kernel, 5, 5, 3)
    kept = copy.deepcopy((first.samples, first.info, first.state, first.tuning))
    quietly(kernel, 5, 5, resume=first)
    quietly(kernel, 5, 5, 3, args=(X + 1,))
    for before, after in zip(
        kept, (first.samples, first.info, first.state, first.tuning), strict=True
    ):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_has_no_density_runs_and_resumes() -> None:
    class Coins:
        blocks = {"heads": (3,)}

        def sample_block(self, block: str, values: Values) -> torch.Tensor:
            return torch.bernoulli(torch.full_like(values[block], 0.5))

    kernel = BlockGibbs(Coins(), compile=False)
    chains = quietly(kernel, 50, 0, 100)
    assert chains.anchor_potential is None
    both = chains.followed_by(quietly(kernel, 50, resume=chains)).get_samples()["heads"]
    assert abs(float(both.mean()) - 0.5) < 4 * 0.5 / both.numel() ** 0.5


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"num_chains": 0}, "num_chains"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"thinning": 0}, "thinning"),
        ({"block_size": 0}, "block_size"),
        ({"save_params": ["lock"]}, "'lock'.*'loc'"),
        ({"args": X}, r"args to be a tuple .* got Tensor: for one argument write args=\(x,\)"),
        ({"initial_params": {}, "init_strategy": init_to_sample}, "or an init_strategy, got both"),
    ],
)
def test_bad_arguments_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quietly(walk(), **{"num_samples": 2, "warmup_steps": 0, **wrong})


def test_a_site_that_nothing_moves_is_named() -> None:
    with pytest.raises(ValueError, match=r"no kernel moves 'loc', 'parts', .* moves \['rate'\]"):
        quietly(walk(sites=["rate"]), 2, 0)


# ---------------------------------------------------------------- streams, parts, ends


def test_a_callback_gets_all_draws_and_the_result_none() -> None:
    blocks: list[tuple[Values, Info]] = []
    pyro.set_rng_seed(5)
    kept = quietly(walk(), 10, 5, 3)
    pyro.set_rng_seed(5)
    streamed = quietly(
        walk(), 10, 5, 3, block_size=4, callback=lambda draws, info: blocks.append((draws, info))
    )
    assert [len(info["accept_prob"][0]) for _, info in blocks] == [3, 3, 4]
    for name, value in kept.samples.items():
        close(torch.cat([draws[name] for draws, _ in blocks], 1), value)
    assert streamed.samples == {} and streamed.num_samples == 0
    with pytest.raises(ValueError, match="keep=True"):
        streamed.summary()
    # It can be resumed all the same.
    assert quietly(walk(), 2, resume=streamed).num_samples == 2


def test_both_a_callback_and_the_draws() -> None:
    blocks: list[Values] = []
    chains = quietly(walk(), 4, 0, 3, callback=lambda d, i: blocks.append(d), keep=True)
    assert torch.equal(blocks[0]["loc"], chains.samples["loc"])


def test_some_sites_only() -> None:
    chains = quietly(walk(), 4, 0, 3, save_params=["parts"])
    assert list(chains.samples) == ["parts"]
    assert quietly(walk(), 2, resume=chains).samples.keys() == {"loc", "rate", "parts"}


class Fails(Walk):
    """Raises at the step `at`, counted from 1."""

    at, error, count = 0, KeyboardInterrupt(), 0

    def step(self, state: State) -> tuple[State, Info]:
        self.count += 1
        if self.count == self.at:
            raise self.error
        return super().step(state)


def test_an_interrupt_returns_the_finished_blocks() -> None:
    pyro.set_rng_seed(6)
    whole = quietly(walk(), 10, 5, 3)
    pyro.set_rng_seed(6)
    kernel = Fails(model, compile=False)
    kernel.at = 5 + 8
    with pytest.warns(UserWarning, match="interrupted after 7 of 10 draws"):
        chains = quietly(kernel, 10, 5, 3, block_size=3)
    n = chains.num_samples
    for name, value in whole.samples.items():
        close(chains.samples[name], value[:, :n])
    assert torch.equal(chains.state["loc"], chains.samples["loc"][:, -1])  # they go on from there
    assert chains.info["accept_prob"].shape == (3, n)


def test_an_interrupt_before_the_first_draws_is_raised() -> None:
    kernel = Fails(model, compile=False)
    kernel.at = 3
    with pytest.raises(KeyboardInterrupt):
        quietly(kernel, 10, 5, 3)


def test_a_failure_keeps_the_draws() -> None:
    kernel = Fails(model, compile=False)
    kernel.at, kernel.error = 9, ZeroDivisionError("nought")
    with pytest.raises(StoppedRunError, match=r"after 5 of 10 draws.*nought") as caught:
        quietly(kernel, 10, 0, 3, block_size=5)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.chains.num_samples == 5
    assert quietly(walk(), 2, resume=caught.value.chains).num_samples == 2
    kernel = Fails(model, compile=False)
    kernel.at, kernel.error = 2, ZeroDivisionError("nought")
    with pytest.raises(ZeroDivisionError):
        quietly(kernel, 10, 0, 3)


def test_a_second_run_with_new_data_records_no_graph() -> None:
    kernel = walk(compile="recorded")
    quietly(kernel, 3, 2, 3, args=(X,))
    graphs = [graph for graph, _ in kernel.graphs.values()]
    assert len(graphs) == 2  # init and step
    chains = quietly(kernel, 200, 50, 3, args=(X + 100,))
    quietly(kernel, 3, resume=chains)
    for before, (after, _) in zip(graphs, kernel.graphs.values(), strict=True):
        assert before is after
    assert bool((chains.samples["loc"][:, -1] > 20).all())  # the graph sees the new data


def test_the_bar_tells_acceptance_and_divergences(capfd: pytest.CaptureFixture[str]) -> None:
    run(walk(), 5, 5, 3)
    shown = capfd.readouterr().err
    assert "3 chains, draws: 100%" in shown and "acceptance" in shown and "divergences" in shown
    run(walk(), 5, 5, 3, progress=False)
    assert capfd.readouterr().err == ""


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    # Transforms of blocks of another size may round in another way; the chains do not.
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def assert_same(a: Chains, b: Chains) -> None:
    assert a.samples.keys() == b.samples.keys()
    for name, value in a.samples.items():
        close(value, b.samples[name])
    for mine, theirs in ((a.info, b.info), (a.state, b.state), (a.tuning, b.tuning)):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert torch.equal(value, theirs[name]), name
