# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Autoregressive distributions: scoring, drawing and training, beside what peers have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import pyro
import torch

from pyro_deepgen.autoregressive import MADE, NADE, RNADE, AutoregressiveDistribution

from .flows_contestants import TRAINS, Flow, Operation, Parameter, contestant, ours_in_svi
from .harness import Case, Contestant, NotHereError

_DOES = {
    "density": "log-density of {} points",
    "sampling": "{} samples",
    "training": "training step, batch {}",
}


@dataclass(frozen=True)
class Family:
    """A kind of distribution.

    Args:
        title: what it is, for a person.
        make: makes ours from the number of variables and of hidden units.
        peers: a title and a way to make each of the others from ours, ``module:function``.
        dims: number of variables.
        hidden: number of hidden units.
    """

    title: str
    make: Callable[[int, int], AutoregressiveDistribution]
    peers: dict[str, str]
    dims: int = 256
    hidden: int = 512


FAMILIES: dict[str, Family] = {
    "made": Family(
        "MADE of binary variables",
        lambda dims, hidden: MADE(dims, (hidden,), validate_args=False),
        {
            "Pyro's `AutoRegressiveNN`": "autoregressive_peers:pyro_made",
            "zuko's `MaskedMLP`": "autoregressive_peers:zuko_made",
        },
    ),
    "nade": Family(
        "NADE of binary variables",
        lambda dims, hidden: NADE(dims, hidden, validate_args=False),
        {"PyTorch by hand, variable by variable": "autoregressive_by_hand:nade_by_hand"},
        hidden=256,
    ),
    "rnade": Family(
        "RNADE with 10 components",
        lambda dims, hidden: RNADE(dims, hidden, 10, validate_args=False),
        {},
        dims=64,
        hidden=64,
    ),
}


def ours(model: AutoregressiveDistribution, *, naive: bool = False) -> Flow:
    """Our distribution, as it is; or drawn from by a pass of the whole network a variable."""
    sample = model.naive_sample if naive else model.sample

    def draw(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = sample((size,))
        return x, model.log_prob(x)

    parameters = [Parameter(p) for p in model.parameters()]
    return Flow(parameters, model.log_prob, lambda size: sample((size,)), draw)


def ours_compiled(model: AutoregressiveDistribution) -> Flow:
    """Our distribution, its log-density as one graph of ``torch.compile``."""
    plain = ours(model)
    score = torch.compile(model.log_prob, fullgraph=True)
    return Flow(plain.parameters, score, plain.sample, plain.draw)


def our_model(family: Family) -> AutoregressiveDistribution:
    """Ours, the same each time."""
    torch.manual_seed(0)
    return family.make(family.dims, family.hidden)


def case(
    name: str,
    family: str | Family,
    operation: Operation,
    steps: int,
    *,
    batch: int = 128,
    device: str = "cpu",
) -> Case:
    """A case with one family."""
    kind = FAMILIES[family] if isinstance(family, str) else family
    generator = torch.Generator().manual_seed(1)
    points = torch.bernoulli(torch.full((batch, kind.dims), 0.3), generator=generator)

    def model() -> Any:
        if device == "cuda" and not torch.cuda.is_available():
            raise NotHereError("no CUDA device")
        return our_model(kind).to(device)

    def eager(flow: Callable[[], Flow]) -> Contestant:
        pyro.enable_validation(False)
        torch.distributions.Distribution.set_default_validate_args(False)
        return contestant(flow(), operation, points.to(device))

    def compiled() -> Contestant:
        if operation in TRAINS:
            return ours_in_svi(model(), operation, points.to(device))
        return eager(lambda: ours_compiled(model()))

    def peer(way: str) -> Flow:
        module, function = way.split(":")
        made: Flow = getattr(import_module(f".{module}", __package__), function)(model())
        return made

    contestants: dict[str, Callable[[], Contestant]] = {
        "ours": lambda: eager(lambda: ours(model()))
    }
    if operation == "sampling":
        naive = "ours, a pass of the whole network for each variable"
        contestants[naive] = lambda: eager(lambda: ours(model(), naive=True))
    else:
        contestants["ours, compiled"] = compiled
    for title, way in kind.peers.items():
        contestants[title] = partial(eager, partial(peer, way))
    full = (
        f"{kind.title}, {kind.dims} variables, {kind.hidden} hidden units: "
        f"{_DOES[operation].format(batch)}{', on a GPU' if device == 'cuda' else ''}"
    )
    return Case(name, full, steps, ((1,),), contestants, trains=operation in TRAINS)


# The operation, how many steps make a sample of the time, and the number of points.
_CASES: dict[tuple[str, Operation], tuple[int, int]] = {
    ("made", "density"): (10, 128),
    ("made", "training"): (5, 128),
    ("made", "sampling"): (1, 16),
    ("nade", "density"): (2, 128),
    ("nade", "training"): (1, 128),
    ("nade", "sampling"): (2, 16),
    ("rnade", "sampling"): (5, 1),
}


def cases() -> dict[str, Callable[[], Case]]:
    """All cases, by name."""
    made: dict[str, Callable[[], Case]] = {}
    for (family, operation), (steps, batch) in _CASES.items():
        name = f"autoregressive-{family}-{operation}"
        made[name] = partial(case, name, family, operation, steps, batch=batch)
    for family in ("made", "nade"):
        name = f"autoregressive-{family}-training-gpu"
        made[name] = partial(case, name, family, "training", 20, batch=128, device="cuda")
    return made
