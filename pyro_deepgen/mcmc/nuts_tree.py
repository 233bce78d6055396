# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The trees of the no-U-turn sampler, one leaf at a time, each chain at its own place."""

from __future__ import annotations

from collections.abc import Callable

import torch

Tree = dict[str, torch.Tensor]
# Gives, from positions, momenta, gradients (D, C) and step sizes (C,), the same one step on, and
# the potentials (C,). Chains come last, so that each operation runs along contiguous memory.
Leapfrog = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]

MAX_ENERGY_ERROR = 1000.0


def planted(
    q: torch.Tensor,
    gradient: torch.Tensor,
    potential: torch.Tensor,
    step_size: torch.Tensor,
    noise: Tree,
) -> Tree:
    """Trees of one leaf each, with new momenta.

    Args:
        q: positions ``(D, C)``.
        gradient: of the potential ``(D, C)``.
        potential: ``(C,)``.
        step_size: for the whole tree ``()``.
        noise: ``a_new``, standard normal ``(D, C)``, and ``chance``, uniform ``(4, C)``; those of
            one step serve one step.

    Returns:
        The moving edge ``q, a, g`` and the resting edge ``q_rest, a_rest, g_rest``, which change
        places when the direction ``sign`` does; the proposal; ``sum``, the sum of momenta;
        ``weight``, the logarithm of the sum of ``exp(-H)`` relative to the first leaf's; ``depth``;
        ``accept`` and ``leaves``, the sum of acceptances and their number.
    """
    a = noise["a_new"]
    zeros = torch.zeros_like(potential)
    energy = potential + 0.5 * a.square().sum(0)
    return {
        **{"q": q, "a": a, "g": gradient, "q_rest": q, "a_rest": a, "g_rest": gradient},
        **{"q_prop": q, "g_prop": gradient, "u_prop": potential, "e_prop": energy},
        **{"sum": a, "weight": zeros, "start": energy, "accept": zeros},
        "sign": _sign(noise["chance"][0]),
        "step": step_size.expand_as(potential),
        "depth": torch.zeros_like(potential, dtype=torch.int32),
        "leaves": torch.zeros_like(potential, dtype=torch.int32),
        **sprouted(a),
    }


def sprouted(like: torch.Tensor) -> Tree:
    """Sub-trees without a leaf: number of leaves, weight and sum of momenta."""
    return {
        "sub_leaf": torch.zeros_like(like[0], dtype=torch.int32),
        "sub_weight": torch.full_like(like[0], -torch.inf),
        "sub_sum": torch.zeros_like(like),
    }


def blank(tree: Tree, max_depth: int) -> Tree:
    """What a sub-tree's first leaf overwrites: its proposal, and momenta at checkpoints."""
    q, potential = tree["q"], tree["u_prop"]
    marks = q.new_zeros(max(1, max_depth - 1), *q.shape)
    return {
        **{"q_sub": q, "g_sub": tree["g"], "u_sub": potential, "e_sub": potential},
        **{"mark_a": marks, "mark_sum": marks},
    }


def grown(tree: Tree, leapfrog: Leapfrog, max_depth: int) -> tuple[Tree, Tree]:
    """Add one leaf to every tree, and join sub-trees that are full.

    A sub-tree doubles its tree. Its leaves propose by their weights, and it replaces the tree's
    proposal with probability ``min(1, its weight / the tree's)``. Within it, leaf ``n`` is compared
    with the first leaves of the full halves that it ends, which wait at checkpoints: one for each
    bit that is set in ``n``.

    Args:
        tree: from ``planted``, ``blank``, or the last call.
        leapfrog: the integrator.
        max_depth: doublings of a tree.

    Returns:
        The trees, and of each whether it has ended, whether by a divergence, and the acceptance.
    """
    t = dict(tree)
    q, a, g, potential = leapfrog(t["q"], t["a"], t["g"], t["sign"] * t["step"])
    energy = potential + 0.5 * a.square().sum(0)
    error = (energy - t["start"]).nan_to_num(torch.inf)
    diverging = error > MAX_ENERGY_ERROR
    t |= {"q": q, "a": a, "g": g, "leaves": t["leaves"] + 1}
    t["accept"] = t["accept"] + (-error).exp().clamp(max=1.0)

    t["sub_weight"] = torch.logaddexp(t["sub_weight"], -error)
    taken = t["chance"][2].log() < -error - t["sub_weight"]
    leaf = {"q": q, "g": g, "u": potential, "e": energy}
    for name, value in leaf.items():
        t[f"{name}_sub"] = torch.where(taken, value, t[f"{name}_sub"])
    t["sub_sum"] = t["sub_sum"] + a
    turning = _turns_within(t)
    t["sub_leaf"] = t["sub_leaf"] + 1

    full = t["sub_leaf"] == 1 << t["depth"]
    failed = turning | diverging
    joins = full & ~failed
    moves = joins & (t["chance"][3].log() < t["sub_weight"] - t["weight"])
    for name in leaf:
        t[f"{name}_prop"] = torch.where(moves, t[f"{name}_sub"], t[f"{name}_prop"])
    t["sum"] = torch.where(joins, t["sum"] + t["sub_sum"], t["sum"])
    t["weight"] = torch.where(joins, torch.logaddexp(t["weight"], t["sub_weight"]), t["weight"])
    t["depth"] = t["depth"] + joins.int()
    whole = _turns(a, t["a_rest"], t["sum"])
    ended = failed | (joins & (whole | (t["depth"] == max_depth)))
    report = {"ended": ended, "diverging": diverging, "accept_prob": t["accept"] / t["leaves"]}

    # The next sub-tree of a tree that goes on may start at the other edge.
    sign = torch.where(joins, _sign(t["chance"][1]), t["sign"])
    turned = sign != t["sign"]
    for name in ("q", "a", "g"):
        moving, resting = t[name], t[f"{name}_rest"]
        t[name] = torch.where(turned, resting, moving)
        t[f"{name}_rest"] = torch.where(turned, moving, resting)
    t["sign"] = sign
    return choose(joins, sprouted(a), t), report


def choose(chosen: torch.Tensor, ones: Tree, others: Tree) -> Tree:
    """Take from one dictionary where ``chosen`` ``(C,)``; else, and other names, from the other."""
    return others | {name: torch.where(chosen, value, others[name]) for name, value in ones.items()}


def _turns_within(t: Tree) -> torch.Tensor:
    """Whether a sub-tree's new leaf makes a U-turn with the start of a part that it ends."""
    a, total, leaf = t["a"], t["sub_sum"], t["sub_leaf"]
    place = torch.arange(len(t["mark_a"]), device=a.device, dtype=torch.int32)[:, None]
    # The leaf's bits but the last say how many checkpoints are in use; the ones at its end, how
    # many parts it ends.
    used = ((leaf >> (place + 1)) & 1).sum(0, dtype=torch.int32)
    ones = (2 << place) - 1
    ends = ((leaf & ones) == ones).sum(0, dtype=torch.int32)
    written = ((place == used) & (leaf & 1 == 0))[:, None]
    t["mark_a"] = torch.where(written, a, t["mark_a"])
    t["mark_sum"] = torch.where(written, total, t["mark_sum"])
    looked_at = (place <= used) & (place > used - ends)
    between = total - t["mark_sum"] + t["mark_a"]
    return (_turns(t["mark_a"], a, between) & looked_at).any(0)


def _turns(first: torch.Tensor, last: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Whether whitened momenta at the ends of a trajectory point against its course."""
    course = total - 0.5 * (first + last)
    return ((first * course).sum(-2) <= 0) | ((last * course).sum(-2) <= 0)


def _sign(chance: torch.Tensor) -> torch.Tensor:
    return torch.where(chance < 0.5, 1.0, -1.0).to(chance.dtype)
