# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Restricted Boltzmann machines: training, Gibbs sampling, annealed importance sampling."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_deepgen.energy import RBM, NegativeLogProb, PersistentChains
from pyro_deepgen.energy.annealing import Annealed
from pyro_deepgen.fit import fit
from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.mcmc import BlockGibbs, ais
from pyro_deepgen.tracing import CompiledFunction

from .boltzmann_harness import Race, Races, Worker
from .boltzmann_peers import (
    ByHand,
    ByHandFromHidden,
    Draw,
    ScikitLearn,
    Start,
    by_bernoulli,
    by_uniform,
)
from .boltzmann_rbms import Rbms
from .harness import Array, NotHereError

# The rate makes no difference to the speed. With a large one the first steps of chains of hidden
# units, drawn before the weights change, are others than those of chains of visible ones.
RATE, REPEATS, STEPS = 1e-5, 16, 3


@dataclass(frozen=True)
class Size:
    """How large the work is.

    Args:
        visible: visible units.
        hidden: hidden units.
        data: training data.
        batch: data of a batch, and persistent chains.
        chains: numbers of chains of Gibbs sampling.
        updates: updates of all chains in one sample.
        annealed: chains of annealing.
        temperatures: of annealing, in one sample.
        compile: whether ours are compiled where they can be.
    """

    visible: int = 784
    hidden: int = 500
    data: int = 5000
    batch: int = 100
    chains: tuple[int, ...] = (100, 1000, 10_000)
    updates: tuple[int, ...] = (200, 20, 2)
    annealed: int = 1000
    temperatures: int = 100
    compile: bool = True


def images(size: Size) -> torch.Tensor:
    """Binarised training images of MNIST ``(N, V)``, or noise for another number of pixels."""
    generator = torch.Generator().manual_seed(0)
    if size.visible != 784:
        noise = torch.rand(size.data, size.visible, generator=generator)
        return (noise < 0.2).float()
    path = Path(os.environ.get("PYRO_DEEPGEN_DATA", "")) / "mnist.npz"
    if not path.exists():
        raise NotHereError("no mnist.npz in the folder that PYRO_DEEPGEN_DATA names")
    with np.load(path) as file:
        x = torch.from_numpy(file["x_train"][: size.data]).reshape(-1, 784)
    return torch.bernoulli(x.float() / 255, generator=generator)


def start_of(size: Size, scale: float) -> Start:
    """Random parameters; of some size where chains should have something to do."""
    generator = torch.Generator().manual_seed(1)
    shapes = (size.visible, size.hidden), (size.visible,), (size.hidden,)
    w, b, c = (torch.randn(shape, generator=generator) for shape in shapes)
    return Start(scale * w, 10 * scale * (b - 1), 10 * scale * (c - 1))


def machine_of(start: Start, chains: int = 1) -> RBM:
    """Ours, with parameters."""
    machine = RBM(*start.weight.shape, negative_phase=PersistentChains(chains))
    put(machine, start)
    return machine


@torch.no_grad()
def put(machine: Any, start: Start) -> None:
    """Give parameters their values."""
    parameters = machine.weight, machine.visible_bias, machine.hidden_bias
    for parameter, value in zip(parameters, start.copies(), strict=True):
        parameter.copy_(value)


def anew(machine: RBM) -> None:
    """Let persistent chains begin with fair coins."""
    chains = machine.get_buffer("negative_phase.chains")
    chains.bernoulli_(0.5)


def summary(before: Start, parameters: list[torch.Tensor]) -> Array:
    """What parameters have moved by: norms, and sums with random signs, ``(15,)``."""
    generator = torch.Generator().manual_seed(2)
    numbers = []
    for old, new in zip(before.copies(), parameters, strict=True):
        change = (new.detach() - old).flatten()
        signs = torch.randint(2, (4, len(change)), generator=generator) * 2.0 - 1
        numbers += [*(signs @ change), change.norm()]
    found: Array = torch.stack(numbers).numpy()
    return found


# ---------------------------------------------------------------- training


def training(size: Size, where: str = "cpu") -> Race:
    """Epochs of persistent contrastive divergence with one step, and plain gradient steps."""

    def prepared() -> tuple[torch.Tensor, Start]:
        if where == "cuda" and not torch.cuda.is_available():
            raise NotHereError("no CUDA device")
        return images(size), start_of(size, 0.01)

    def worker(
        begin: Callable[[Start], Any],
        step: Callable[[Any, Any], Any],
        parameters: Callable[[Any], list[torch.Tensor]],
        batches: Any,
        start: Start,
        epoch: Callable[[Any], Any] | None = None,
    ) -> Worker:
        def outcome() -> Array:
            found = []
            for _ in range(REPEATS):
                trained = begin(start)
                for batch in batches[:STEPS]:
                    step(trained, batch)
                found.append(summary(start, parameters(trained)))
            return np.stack(found)

        timed = begin(start)

        def work() -> None:
            if epoch is not None:
                epoch(timed)
                return
            for batch in batches:
                step(timed, batch)

        return Worker(work, outcome)

    def ours(kind: type[SVI] | type[CompiledSVI]) -> Worker:
        x, start = prepared()
        machine = machine_of(start, size.batch)
        name = f"machine of {kind.__name__}"  # their parameters share Pyro's store
        store = pyro.get_param_store()
        for known in list(store.keys()):
            if known.startswith(name):
                del store[known]

        def model(x: torch.Tensor) -> None:
            pyro.module(name, machine)
            with pyro.plate("data", len(x)):
                pyro.sample("v", machine, obs=x)

        make: Any = pyro.optim  # whose optimisers are made when it is imported
        settings: Any = {} if kind is SVI or size.compile else {"backend": None}
        guide, optim = (lambda x: None), make.SGD({"lr": RATE / size.batch})
        svi = kind(model, guide, optim, Trace_ELBO(), **settings)

        def begin(start: Start) -> Any:
            put(machine, start)
            anew(machine)
            return svi

        def step(svi: Any, x: torch.Tensor) -> None:
            with pyro.validation_enabled(False):
                svi.step(x)

        def parameters(svi: Any) -> list[torch.Tensor]:
            return [machine.weight, machine.visible_bias, machine.hidden_bias]

        return worker(begin, step, parameters, x.split(size.batch), start)

    def by_fit() -> Worker:
        x, start = prepared()
        machine = machine_of(start, size.batch)
        loss = NegativeLogProb(machine)
        # The loop divides the loss by the size of the batch.
        optimizer = torch.optim.SGD(loss.parameters(), RATE)

        def begin(start: Start) -> Any:
            put(machine, start)
            anew(machine)
            return loss

        def step(loss: Any, x: torch.Tensor) -> None:
            settings: Any = {"num_epochs": 1, "batch_size": size.batch, "progress": False}
            fit(loss, x, optimizer, **settings)

        def parameters(loss: Any) -> list[torch.Tensor]:
            return [machine.weight, machine.visible_bias, machine.hidden_bias]

        batches = x.split(size.batch)
        return worker(begin, step, parameters, batches, start, lambda loss: step(loss, x))

    def hand(kind: type[ByHand], draw: Draw) -> Worker:
        x, start = prepared()

        def begin(start: Start) -> ByHand:
            return kind(start, size.batch, RATE, draw)

        return worker(begin, kind.step, kind.parameters, x.split(size.batch), start)

    def sklearn() -> Worker:
        x, start = prepared()
        seeds = iter(range(1000))

        def begin(start: Start) -> ScikitLearn:
            return ScikitLearn(start, size.batch, RATE, next(seeds))

        batches = [batch.numpy() for batch in x.split(size.batch)]
        return worker(begin, ScikitLearn.step, ScikitLearn.parameters, batches, start)

    workers: dict[str, Callable[[], Worker]] = {
        "CompiledSVI": lambda: ours(CompiledSVI),
        "SVI": lambda: ours(SVI),
        "fit, not compiled": by_fit,
        "PyTorch by hand": lambda: hand(ByHand, by_bernoulli),
        "PyTorch by hand, faster coins": lambda: hand(ByHand, by_uniform),
        "PyTorch by hand, faster coins, chains of hidden units": lambda: hand(
            ByHandFromHidden, by_uniform
        ),
        "scikit-learn `BernoulliRBM`": sklearn,
    }
    if where == "cuda":
        workers = {name: workers[name] for name in ("CompiledSVI", "SVI", "PyTorch by hand")}
    title = f"RBM {size.visible}-{size.hidden}: PCD-1 on {size.data:,} images, batch {size.batch}"
    return Race("rbm-training", title, "epoch", 1, workers)


# ---------------------------------------------------------------- Gibbs sampling


def gibbs(size: Size) -> Races:
    """Updates of chains: hidden units given visible ones, and back."""
    races = [
        _gibbs(size, chains, updates)
        for chains, updates in zip(size.chains, size.updates, strict=True)
    ]
    title = f"RBM {size.visible}-{size.hidden}: Gibbs updates"
    return Races("rbm-gibbs", title, races)


def _gibbs(size: Size, chains: int, updates: int) -> Race:
    start = start_of(size, 0.03)
    first = torch.bernoulli(torch.full((chains, size.visible), 0.3))
    signs = torch.randint(2, (8, size.visible)) * 2.0 - 1

    def worker(update: Callable[[Any], Any], first: Any) -> Worker:
        state = [first]

        def work() -> None:
            for _ in range(updates):
                state[0] = update(state[0])

        def outcome() -> Array:
            means = [np.asarray(update(first), dtype=np.float32).mean(0) for _ in range(REPEATS)]
            found: Array = np.stack(means) @ signs.numpy().T
            return found

        return Worker(work, outcome)

    def ours(compiled: bool) -> Worker:
        machine = machine_of(start)

        def update(x: torch.Tensor) -> torch.Tensor:
            return machine.transition(x, 1)

        backend = "inductor" if size.compile else None
        graph = CompiledFunction(update, modules=[machine], backend=backend)
        return worker(torch.no_grad()(graph if compiled else update), first)

    def hand(draw: Draw) -> Worker:
        return worker(ByHand(start, 1, RATE, draw).gibbs, first)

    def sklearn() -> Worker:
        return worker(ScikitLearn(start, 1, RATE).gibbs, first.numpy())

    workers: dict[str, Callable[[], Worker]] = {
        "`transition`, compiled": lambda: ours(True),
        "`transition`": lambda: ours(False),
        "PyTorch by hand": lambda: hand(by_bernoulli),
        "PyTorch by hand, faster coins": lambda: hand(by_uniform),
        "scikit-learn `BernoulliRBM.gibbs`": sklearn,
        "rbms": lambda: worker(Rbms(start).gibbs, first),
    }
    amount = chains * updates
    return Race("rbm-gibbs", f"{chains:,} chains", "update", amount, workers, 5, per_unit=False)


# ---------------------------------------------------------------- annealed importance sampling


def annealing(size: Size) -> Race:
    """Temperatures of annealed importance sampling."""
    start = start_of(size, 0.03)
    few = max(1, size.annealed // 20)

    def worker(anneal: Callable[[int, int], torch.Tensor]) -> Worker:
        def outcome() -> Array:
            weights = [anneal(few, 20).double().mean() for _ in range(REPEATS)]
            found: Array = torch.stack(weights)[:, None].numpy()
            return found

        def work() -> None:
            anneal(size.annealed, size.temperatures)

        return Worker(work, outcome)

    def ours(compiled: bool) -> Worker:
        path = Annealed(machine_of(start))
        how: bool | str = compiled and (True if size.compile else "recorded")
        kernel = BlockGibbs(path, compile=how)

        def anneal(chains: int, temperatures: int) -> torch.Tensor:
            settings: Any = {"num_chains": chains, "num_steps": temperatures}
            result = ais(path, kernel=kernel, schedule="linear", tune=False, **settings)
            return result.log_weights

        return worker(anneal)

    def hand(draw: Draw) -> Worker:
        return worker(ByHand(start, 1, RATE, draw).anneal)

    workers: dict[str, Callable[[], Worker]] = {
        "`ais`, compiled": lambda: ours(True),
        "`ais`": lambda: ours(False),
        "PyTorch by hand": lambda: hand(by_bernoulli),
        "PyTorch by hand, faster coins": lambda: hand(by_uniform),
        "rbms": lambda: worker(Rbms(start).anneal),
    }
    title = f"RBM {size.visible}-{size.hidden}: annealing, {size.annealed:,} chains"
    amount = size.temperatures / 10_000
    return Race("rbm-ais", title, "run of 10,000 temperatures", amount, workers, 3)


CASES: dict[str, Callable[[], Race | Races]] = {
    "rbm-training": lambda: training(Size()),
    "rbm-gibbs": lambda: gibbs(Size()),
    "rbm-ais": lambda: annealing(Size()),
    "rbm-training-gpu": lambda: training(Size(), "cuda"),
}
