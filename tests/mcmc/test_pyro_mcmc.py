# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Kernels under `pyro.infer.MCMC`, which runs one chain after another."""

import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC

from pyro_deepgen.mcmc.run import run
from pyro_deepgen.mcmc.state import Info, State
from tests.mcmc.walk import Walk, X, model


def mcmc(kernel: Any, num_samples: int, warmup_steps: int, **kwargs: Any) -> MCMC:
    return MCMC(kernel, num_samples, warmup_steps, disable_progbar=True, **kwargs)


class Counts(Walk):
    """Notes every state, and how often each part of the protocol was called."""

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        super().setup(warmup_steps, *args, **kwargs)
        self.calls: list[str] = []
        self.starts: list[State] = []

    def init(self, state: State) -> State:
        self.calls.append("init")
        self.starts.append(state)
        return super().init(state)

    def start_warmup(self, state: State, num_steps: int) -> None:
        self.calls.append(f"start_warmup {num_steps}")

    def step(self, state: State) -> tuple[State, Info]:
        self.calls.append("step")
        return super().step(state)

    def adapt(self, state: State, info: Info, num_steps: int) -> None:
        self.calls.append(f"adapt {num_steps}")
        super().adapt(state, info, num_steps)

    def end_warmup(self) -> None:
        self.calls.append("end_warmup")


def test_the_protocol_is_called_in_order() -> None:
    kernel = Counts(model, compile=False)
    mcmc(kernel, 3, 2).run(X)
    warmup = ["init", "start_warmup 2", "step", "adapt 1", "step", "adapt 2", "end_warmup"]
    assert kernel.calls == [*warmup, "step", "step", "step"]


def test_draws_are_constrained_and_have_the_posterior_moments() -> None:
    runner = mcmc(Walk(model, compile="recorded"), 3000, 300)
    runner.run(X)
    samples = runner.get_samples()
    assert {n: tuple(v.shape) for n, v in samples.items()} == {
        "loc": (3000,),
        "rate": (3000,),
        "parts": (3000, 3),
    }
    torch.testing.assert_close(samples["parts"].sum(-1), torch.ones(3000))
    ess = runner.diagnostics()["loc"]["n_eff"]
    assert abs(float(samples["loc"].mean()) - float(X.sum() / 5)) < 4 * (0.2 / float(ess)) ** 0.5


def test_a_chain_is_that_of_the_runner() -> None:
    initial = {"loc": torch.tensor(0.3), "rate": torch.tensor(0.1), "parts": torch.zeros(2)}
    kernel = Walk(model, compile=False)
    pyro.set_rng_seed(7)
    chains = run(
        kernel,
        20,
        10,
        args=(X,),
        progress=False,
        initial_params={n: v[None] for n, v in initial.items()},
    )
    runner = mcmc(Walk(model, compile=False), 20, 10, initial_params=initial)
    # The runner's setup leaves the generator alone; here it draws, so that it is seeded after.
    runner.kernel = runner.sampler.kernel = Seeded(model, compile=False)
    runner.sampler.kernel.initial_params = initial
    runner.run(X)
    for name, value in chains.get_samples().items():
        torch.testing.assert_close(runner.get_samples()[name], value, rtol=1e-5, atol=1e-6)


class Seeded(Walk):
    def init(self, state: State) -> State:
        pyro.set_rng_seed(7)
        return super().init(state)


def test_initial_params_are_honoured_and_forgotten() -> None:
    kernel = Counts(model, compile=False)
    initial = {"loc": torch.tensor(9.0), "rate": torch.tensor(0.5), "parts": torch.ones(2)}
    mcmc(kernel, 1, 0, initial_params=initial).run(X)
    assert {n: v[0].tolist() for n, v in kernel.starts[0].items()} == {
        "loc": 9.0,
        "rate": 0.5,
        "parts": [1.0, 1.0],
    }
    mcmc(kernel, 1, 0).run(X)
    assert float(kernel.starts[0]["loc"]) != 9.0


def test_bad_initial_params_name_the_site() -> None:
    bad = {"loc": torch.tensor(float("nan")), "rate": torch.tensor(0.5), "parts": torch.ones(2)}
    with pytest.raises(ValueError, match="'loc'"):
        mcmc(Walk(model, compile=False), 1, 0, initial_params=bad).run(X)


def test_two_chains_in_sequence_start_and_adapt_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 2)
    starts = torch.tensor([5.0, -5.0])
    initial = {"loc": starts, "rate": torch.zeros(2), "parts": torch.zeros(2, 2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the chains run in sequence
        runner = mcmc(Walk(model, compile=False), 5, 0, num_chains=2, initial_params=initial)
    runner.run(X)
    grouped = runner.get_samples(group_by_chain=True)["loc"]
    assert grouped.shape == (2, 5)
    assert bool((grouped[0] > 0).all()) and bool((grouped[1] < 0).all())
    assert set(runner.diagnostics()["acceptance rate"]) == {"chain 0", "chain 1"}


def test_two_chains_in_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 3)
    runner = mcmc(Walk(model, compile=False), 20, 10, num_chains=2)
    runner.run(X)
    grouped = runner.get_samples(group_by_chain=True)
    assert grouped["parts"].shape == (2, 20, 3)
    torch.testing.assert_close(grouped["parts"].sum(-1), torch.ones(2, 20))
    assert not torch.equal(grouped["loc"][0], grouped["loc"][1])


def test_one_kernel_object_serves_many_runs() -> None:
    kernel = Walk(model, compile="recorded")
    first = mcmc(kernel, 30, 20)
    first.run(X)
    graphs = list(kernel.graphs)
    assert len(graphs) == 2
    before = first.get_samples()["loc"].clone()
    second = mcmc(kernel, 300, 200)
    second.run(X + 100)
    assert list(kernel.graphs) == graphs
    assert torch.equal(first.get_samples()["loc"], before)
    assert float(second.get_samples()["loc"][-1]) > 20


def test_summary_and_diagnostics(capsys: pytest.CaptureFixture[str]) -> None:
    runner = mcmc(Walk(model, compile=False), 50, 20)
    runner.run(X)
    runner.summary()
    shown = capsys.readouterr().out
    assert "loc" in shown and "Number of divergences: 0" in shown
    found = runner.diagnostics()
    assert 0 < found["acceptance rate"]["chain 0"] < 1
    assert found["divergences"]["chain 0"] == []


def test_divergences_are_counted_among_the_draws() -> None:
    class Diverges(Counts):
        def step(self, state: State) -> tuple[State, Info]:
            state, info = super().step(state)
            count = self.calls.count("step")
            return state, {**info, "diverging": torch.full((1,), count in (1, 3, 5))}

    runner = mcmc(Diverges(model, compile=False), 4, 2)
    runner.run(X)
    assert runner.diagnostics()["divergences"] == {"chain 0": [0, 2]}


def test_the_bar_shows_the_info(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "PYTEST_XDIST_WORKER"):  # Pyro shows no bar where it sees one of them
        monkeypatch.delenv(name, raising=False)
    MCMC(Walk(model, compile=False), 5, 5).run(X)
    assert "accept_prob" in capsys.readouterr().err


def test_save_params_and_hooks() -> None:
    stages: list[str] = []
    runner = mcmc(
        Walk(model, compile=False),
        4,
        2,
        save_params=["rate"],
        hook_fn=lambda kernel, samples, stage, i: stages.append(f"{stage} {i}"),
    )
    runner.run(X)
    assert list(runner.get_samples()) == ["rate"]
    assert stages == ["Warmup 0", "Warmup 1", "Sample 0", "Sample 1", "Sample 2", "Sample 3"]


def test_a_potential_of_ones_own() -> None:
    kernel = Walk(potential_fn=lambda values: values["q"].square().sum() / 2, compile=False)
    runner = mcmc(kernel, 20, 5, initial_params={"q": torch.tensor([1.0, 2.0])})
    runner.run()
    assert runner.get_samples()["q"].shape == (20, 2)


def test_a_model_with_a_plate_and_a_whole_number() -> None:
    def counted() -> None:
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("items", 3):
            pyro.sample("count", dist.Poisson(rate), obs=torch.tensor([1.0, 2.0, 0.0]))

    runner = mcmc(Walk(counted, compile=False), 10, 5)
    runner.run()
    assert bool((runner.get_samples()["rate"] > 0).all())
