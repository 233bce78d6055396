# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The no-U-turn sampler, without one chain waiting for another's tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from .compiled import compiled, repeated
from .hamiltonian import GRADIENT, POTENTIAL, Hamiltonian
from .kernel import Report
from .mass_matrix import collect
from .nuts_tree import Tree, blank, choose, grown, planted
from .state import Info, State, Values, pack, unpack
from .target import Target

# Draws and leaves between two looks at the chains; numbers in the draws' buffer.
MAX_ROWS, LEAVES_AT_ONCE, MAX_BUFFER = 256, 8, 1 << 25
INFOS = ("accept_prob", "diverging", "num_steps", "tree_depth", "energy", "potential")


class NUTS(Hamiltonian):
    """The no-U-turn sampler with multinomial sampling of trajectories.

    All chains take one leapfrog step at a time, each at its own place in its own tree: a chain
    whose tree has ended records its draw and plants the next tree while others still grow. So no
    chain waits for the longest trajectory of each draw, but only, once in up to 256 draws, for the
    chain whose trajectories were longest in sum. Each chain is the same Markov chain as alone.

    Args:
        target: a Pyro model, a distribution, or a :class:`Target`.
        step_size: the first one.
        adapt_step_size: whether the warm-up adapts it.
        adapt_mass_matrix: whether the warm-up adapts the metric.
        full_mass: whether the metric is dense.
        target_accept_prob: the mean acceptance to adapt to.
        max_tree_depth: a trajectory has at most ``2 ** max_tree_depth - 1`` steps.
        sites: the sites that this kernel moves; all by default.
        compile: see :class:`Kernel`.
        potential_fn: see :class:`Kernel`.

    Raises:
        ValueError: for numbers out of range.

    References:
        Matthew D. Hoffman, Andrew Gelman: The No-U-Turn Sampler, 2014, arXiv 1111.4246.
        Michael Betancourt: A Conceptual Introduction to Hamiltonian Monte Carlo, 2017,
        arXiv 1701.02434 (multinomial sampling).
        Du Phan, Neeraj Pradhan, Martin Jankowiak: Composable Effects for Flexible and Accelerated
        Probabilistic Programming in NumPyro, 2019, arXiv 1912.11554 (trees without recursion).
        Hugh Dance, Pierre Glaser, Peter Orbanz, Ryan Adams: Efficiently Vectorized MCMC on Modern
        Accelerators, 2025, arXiv 2503.17405 (chains out of step).

    Example:
        >>> import pyro.distributions as dist, torch
        >>> kernel = NUTS(dist.Normal(torch.tensor(3.0), 2.0), step_size=0.5, compile=False)
        >>> kernel.setup(0)
        >>> state = kernel.init({"x": torch.full((5,), 3.0)})
        >>> state, draws, info = kernel.advance(state, 10)
        >>> draws["x"].shape, bool((info["num_steps"] >= 1).all())
        (torch.Size([10, 5]), True)
    """

    def __init__(
        self,
        target: Any = None,
        *,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool = False,
        target_accept_prob: float = 0.8,
        max_tree_depth: int = 10,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(
            target,
            step_size=step_size,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            full_mass=full_mass,
            target_accept_prob=target_accept_prob,
            sites=sites,
            compile=compile,
            potential_fn=potential_fn,
        )
        if not 1 <= max_tree_depth <= 20:
            raise ValueError(f"expected max_tree_depth of 1 to 20, got {max_tree_depth}")
        self.max_tree_depth = max_tree_depth
        self._forests: dict[tuple[int, int], Tree] = {}

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel move some sites of a target."""
        super().bind(target, sites)
        step_size = self.tuning["step_size"]
        self.load_tuning({name: step_size * 0 for name in ("adapting", "collecting")})
        if not self.graphs:
            self._forests.clear()

    def open_window(self, state: State) -> None:
        """Start the next window of the warm-up; the trees themselves learn from it."""
        super().open_window(state)
        self.tuning["adapting"].fill_(float(bool(self._windows) and self.adapt_step_size))
        self.tuning["collecting"].fill_(float(self.collects_scale))

    def learn(self, state: State, info: Info) -> None:
        """Nothing: each tree has been learned from when it ended."""

    def warm_up(self, state: State, num_steps: int, report: Report | None = None) -> State:
        """Adapt for some steps; chains wait for each other at the ends of windows."""
        self.start_warmup(state, num_steps)
        while self._windows:
            state, _, _ = self.advance(state, self._windows[0].num_steps, report=report)
            self.close_window()
            self.open_window(state)
        self.end_warmup()
        return state

    def step(self, state: State) -> tuple[State, Info]:
        """Grow one tree in every chain."""
        state, _, info = self.advance(state, 1)
        return state, {name: value[0] for name, value in info.items()}

    @torch.no_grad()
    def advance(
        self, state: State, num_draws: int, thinning: int = 1, report: Report | None = None
    ) -> tuple[State, Values, Info]:
        """Draw from every chain; they wait for each other once in up to 256 draws."""
        if num_draws == 0:
            return state, {}, {}
        forest = self._forest(state)
        rows = len(forest["draws"]) - 1  # the last one is for what is not kept
        draws = []
        for first in range(0, num_draws, rows):
            wanted = min(rows, num_draws - first)
            state = self._fill(state, forest, wanted, thinning, report)
            draws.append(forest["draws"][:wanted].clone())
        kept, shapes = torch.cat(draws), self.target.shapes(self.sites)
        values = unpack(kept[:, : -len(INFOS)].mT, shapes)
        for name in self.target.sites:
            if name not in values:
                values[name] = state[name].expand(num_draws, *state[name].shape)
        return state, {name: values[name] for name in self.target.sites}, _info(kept)

    def _fill(
        self, state: State, forest: Tree, wanted: int, thinning: int, report: Report | None
    ) -> State:
        for name in self.target.sites:
            forest[f"at {name}"].copy_(state[name])
        tree = self._planted(state)
        for name, value in (tree | {"count": tree["depth"]}).items():
            forest[name].copy_(value)
        forest["limit"].fill_(wanted * thinning)
        forest["thinning"].fill_(thinning)
        grow, done = repeated(self._grow, forest["limit"]), 0
        while done < wanted:
            for _ in range(LEAVES_AT_ONCE):
                # Drawn here, where it is vectorised, and not among the compiled operations.
                forest["a_new"].normal_()
                forest["chance"].uniform_()
                row, columns, slowest = grow()
                write(forest["draws"], row, columns)
            now = int(slowest) // thinning
            if report is not None and now > done:
                report(now - done, _info(forest["draws"][done:now]))
            done = now
        moved = unpack(forest["q_last"].mT.clone(), self.target.shapes(self.sites))
        kept_back = {POTENTIAL: forest["u_last"].clone(), GRADIENT: forest["g_last"].mT.clone()}
        return {**state, **moved, **kept_back}

    def _forest(self, state: State) -> Tree:
        """The memory of the trees, which their graph changes in place."""
        chains = len(state[POTENTIAL])
        key = chains, self.max_tree_depth
        if key not in self._forests:
            device = state[POTENTIAL].device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):  # memory only
                tree = self._planted(state)
            tree |= blank(tree, self.max_tree_depth)
            q = tree["q"]
            rows = max(1, min(MAX_ROWS, MAX_BUFFER // max(1, q.numel())))
            tree |= {
                "draws": q.new_zeros(rows + 1, len(q) + len(INFOS), chains),
                **{"q_last": q, "g_last": tree["g"], "u_last": state[POTENTIAL]},
                **{"count": tree["depth"], "limit": tree["depth"], "thinning": tree["depth"][0]},
                **{f"at {name}": state[name] for name in self.target.sites},
            }
            self._forests[key] = {name: value.contiguous().clone() for name, value in tree.items()}
        return self._forests[key]

    def _planted(self, state: State) -> Tree:
        q, gradient = pack(state, self.sites).mT, state[GRADIENT].mT
        chance = torch.rand(4, len(q.mT), dtype=q.dtype, device=q.device)
        noise = {"a_new": torch.randn_like(q), "chance": chance}
        tree = planted(q, gradient, state[POTENTIAL], self.tuning["step_size"], noise)
        return tree | noise

    @compiled
    def _grow(self, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Add one leaf to every tree, and plant new ones where they end.

        Gives the row of the draw that each chain's tree now is (the last one if it is none), the
        draw with its info, and the number of draws of the slowest chain. The argument, at how many
        trees each chain stops ``(C,)``, also says whose trees: it must be nothing that is written
        to here, since the compiler would not know the two for one.
        """
        forest = self._forests[len(limit), self.max_tree_depth]
        count = forest["count"]
        others = {name: forest[f"at {name}"] for name in self.target.sites}
        trees, report = grown(forest, partial(self.leapfrog, others), self.max_tree_depth)
        thinning = forest["thinning"]
        counts = report["ended"] & (count < limit)
        count = count + counts.int()
        row = torch.where(counts & (count % thinning == 0), count // thinning - 1, -1)
        row = torch.where(row < 0, len(forest["draws"]) - 1, row).long()
        columns = {
            **report,
            "num_steps": trees["leaves"],
            "tree_depth": trees["depth"],
            "energy": trees["e_prop"],
            "potential": trees["u_prop"],
        }
        infos = [columns[name].to(trees["q"].dtype) for name in INFOS]
        self._learn_from_trees(counts, report["accept_prob"], trees["q_prop"].mT)
        last = {"q_last": trees["q_prop"], "g_last": trees["g_prop"], "u_last": trees["u_prop"]}
        trees = choose(counts, last, trees)
        fresh = planted(
            trees["q_prop"], trees["g_prop"], trees["u_prop"], self.tuning["step_size"], forest
        )
        trees = choose(report["ended"], fresh, trees) | {"count": count}
        for name, value in trees.items():
            if value is not forest[name]:
                forest[name].copy_(value)
        return row, torch.cat([trees["q_last"], torch.stack(infos)]), count.min()

    def _learn_from_trees(
        self, counts: torch.Tensor, accept_prob: torch.Tensor, q: torch.Tensor
    ) -> None:
        """Adapt to the trees that have ended; so many of all chains' are so much of a step."""
        weight = counts.to(accept_prob.dtype)
        share = weight.mean() * self.tuning["adapting"]
        seen = torch.where(counts, accept_prob, 0.0).sum() / weight.sum().clamp(min=1.0)
        before = self.tuning["step_size"].clone()
        self.averaging.update(seen, share)
        after = torch.where(share > 0, self.tuning["step_size"], before)
        self.tuning["step_size"].copy_(after)
        collect(self.tuning, q, weight * self.tuning["collecting"])


def _info(columns: torch.Tensor) -> Info:
    """What a person looks at, of draws ``(n, D + I, C)``."""
    info = dict(zip(INFOS, columns[:, -len(INFOS) :].unbind(1), strict=True))
    return {**info, "diverging": info["diverging"] > 0}


def write(rows: torch.Tensor, row: torch.Tensor, columns: torch.Tensor) -> None:
    """Put columns ``(D, C)`` into ``rows`` ``(R, D, C)``, each chain's into its row ``(C,)``."""
    rows.scatter_(0, row.expand(1, *columns.shape), columns[None])
