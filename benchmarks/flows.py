# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Flows: scoring, drawing and training, beside Pyro, zuko and normflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import pyro
import pyro.distributions as dist
import torch

from pyro_deepgen import transforms
from pyro_deepgen.distributions import FlowDistribution

from .flows_contestants import (
    TRAINS,
    Flow,
    Operation,
    Sizes,
    contestant,
    linears,
    ours,
    ours_compiled,
    ours_in_svi,
)
from .flows_copies import couplings
from .harness import Case, Contestant

SIZES = Sizes()
WIDE = Sizes(hidden=(256, 256))
GLOW = ((3, 16, 16), 2, 1, 64)  # image, levels, steps of a level, hidden channels
_DOES = {
    "density": "log-density of {} points",
    "sampling": "{} samples",
    "drawing": "{} samples and their log-density",
    "training": "training step, batch {}",
    "fitting": "variational training step, {} samples",
}


@dataclass(frozen=True)
class Family:
    """A kind of flow.

    Args:
        title: what it is, for a person.
        make: makes the transform from the base to the data.
        peers: libraries that have it; for each there is a module with a function of its name.
        near_identity: start where the affine maps of all libraries are the same to first order.
        compiles_sampling: whether the graph of a draw is small enough to compile.
    """

    title: str
    make: Callable[[Sizes], transforms.Transform]
    peers: tuple[str, ...]
    near_identity: bool = False
    compiles_sampling: bool = True


def _planar(sizes: Sizes) -> transforms.Composed:
    return transforms.Composed([transforms.planar(sizes.dims) for _ in range(3 * sizes.layers)])


FAMILIES: dict[str, Family] = {
    "maf": Family(
        "MAF",
        lambda s: transforms.maf(s.dims, num_layers=s.layers, hidden_dims=s.hidden),
        ("pyro", "zuko", "normflows"),
        compiles_sampling=False,
    ),
    "real_nvp": Family(
        "RealNVP",
        lambda s: transforms.real_nvp(s.dims, num_layers=s.layers, hidden_dims=s.hidden),
        ("pyro", "zuko", "normflows"),
        near_identity=True,
    ),
    "spline_autoregressive": Family(
        "Autoregressive neural spline flow",
        lambda s: transforms.spline_autoregressive(
            s.dims, num_layers=s.layers, hidden_dims=s.hidden, num_bins=s.bins, bound=s.bound
        ),
        ("pyro", "zuko", "normflows"),
        compiles_sampling=False,
    ),
    "spline_coupling": Family(
        "Neural spline coupling flow",
        lambda s: transforms.spline_coupling(
            s.dims, num_layers=s.layers, hidden_dims=s.hidden, num_bins=s.bins, bound=s.bound
        ),
        ("pyro", "zuko", "normflows"),
    ),
    "planar": Family("Planar flow of 15 layers", _planar, ("pyro", "normflows")),
}


def our_flow(family: Family, sizes: Sizes) -> FlowDistribution:
    torch.manual_seed(0)
    transform = family.make(sizes)
    if family.near_identity:
        for layer in couplings(transform):
            with torch.no_grad():
                linears(layer.network)[-1].weight.mul_(0.01)
    base = dist.Normal(torch.zeros(sizes.dims), torch.ones(sizes.dims)).to_event(1)
    return FlowDistribution(base, transform, validate_args=False)


def _our_glow() -> FlowDistribution:
    torch.manual_seed(0)
    shape, levels, steps, hidden = GLOW
    size = torch.Size(shape).numel()
    base = dist.Normal(torch.zeros(size), torch.ones(size)).to_event(1)
    transform = transforms.glow(shape, levels, steps, hidden_channels=hidden)
    return FlowDistribution(base, transform, validate_args=False)


def case(name: str, family: str, operation: Operation, steps: int, *, sizes: Sizes = SIZES) -> Case:
    """A case with a flow of vectors."""
    kind = FAMILIES[family]
    x = torch.randn(sizes.batch, sizes.dims, generator=torch.Generator().manual_seed(1))

    def peer(library: str) -> Flow:
        module = import_module(f".flows_{library}", __package__)
        flow: Flow = getattr(module, family)(our_flow(kind, sizes).transform, sizes)
        return flow

    compiles = kind.compiles_sampling or operation != "sampling"
    wide = f", {len(sizes.hidden)} hidden layers of {sizes.hidden[0]}" if sizes == WIDE else ""
    return _case(
        name,
        kind.title + wide,
        operation,
        x,
        lambda: our_flow(kind, sizes),
        {library: partial(peer, library) for library in kind.peers},
        steps,
        compiles,
    )


def glow_case(name: str, operation: Operation, steps: int, *, batch: int = 32) -> Case:
    """A case with Glow."""
    shape = GLOW[0]
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1))

    def ready(flow: Flow) -> Flow:
        with torch.no_grad():
            flow.log_prob(x)  # the first batch sets scales and shifts
        return flow

    def make() -> FlowDistribution:
        flow = _our_glow()
        ready(ours(flow))
        return flow

    def peer() -> Flow:
        module = import_module(".flows_normflows", __package__)
        return ready(module.glow(*GLOW))

    title = f"Glow, {GLOW[1]} levels of {GLOW[2]} step, {'x'.join(map(str, shape))} images"
    return _case(name, title, operation, x, make, {"normflows": peer}, steps, True)


def _case(
    name: str,
    title: str,
    operation: Operation,
    x: torch.Tensor,
    make: Callable[[], FlowDistribution],
    peers: Mapping[str, Callable[[], Flow]],
    steps: int,
    compiles: bool,
) -> Case:
    def eager(flow: Callable[[], Flow]) -> Contestant:
        pyro.enable_validation(False)
        torch.distributions.Distribution.set_default_validate_args(False)
        return contestant(flow(), operation, x)

    def compiled() -> Contestant:
        if operation in TRAINS:
            return ours_in_svi(make(), operation, x)
        return contestant(ours_compiled(make()), operation, x)

    contestants: dict[str, Callable[[], Contestant]] = {"ours": lambda: eager(lambda: ours(make()))}
    if compiles:
        contestants["ours, compiled"] = compiled
    names = {"pyro": "Pyro"}
    for library, flow in peers.items():
        contestants[names.get(library, library)] = partial(eager, flow)
    full = f"{title}: {_DOES[operation].format(len(x))}"
    return Case(name, full, steps, ((1,),), contestants, trains=operation in TRAINS)


# How many steps make a sample of the time. Splines have the autoregressive density only: their
# other operations take seconds in the peers.
_STEPS: dict[tuple[str, Operation], int] = {
    ("maf", "density"): 5,
    ("maf", "sampling"): 1,
    ("maf", "training"): 2,
    ("real_nvp", "density"): 5,
    ("real_nvp", "sampling"): 5,
    ("real_nvp", "training"): 2,
    ("spline_coupling", "density"): 2,
    ("spline_coupling", "sampling"): 2,
    ("spline_coupling", "training"): 1,
    ("spline_autoregressive", "density"): 1,
    ("planar", "drawing"): 10,
    ("planar", "fitting"): 5,
    ("glow", "density"): 3,
    ("glow", "sampling"): 3,
    ("glow", "training"): 1,
}


def cases() -> dict[str, Callable[[], Case]]:
    """All cases with flows, by name."""
    made: dict[str, Callable[[], Case]] = {}
    for (family, operation), steps in _STEPS.items():
        name = f"flow-{family}-{operation}".replace("_", "-")
        if family == "glow":
            made[name] = partial(glow_case, name, operation, steps)
        else:
            made[name] = partial(case, name, family, operation, steps)
    # The way that goes from variable to variable, which in the peers is a pass for each.
    name = "flow-maf-sampling-wide"
    made[name] = partial(case, name, "maf", "sampling", 1, sizes=WIDE)
    return made
