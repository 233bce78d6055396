# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The trees of the no-U-turn sampler against a plain one, which keeps all of its leaves."""

import math
from typing import Any
from unittest import mock

import pytest
import torch

from pyro_deepgen.mcmc import nuts_tree
from pyro_deepgen.mcmc.nuts_tree import MAX_ENERGY_ERROR, Tree, blank, grown, planted

pytestmark = pytest.mark.usefixtures("float64")
CHAINS, DIM, MAX_DEPTH = 90, 2, 5


def potential_of(q: torch.Tensor) -> torch.Tensor:
    """A ridge with steep ends, in columns ``(2, C)``."""
    return 0.5 * (q[0] ** 2 + (q[1] - q[0] ** 2) ** 2) + 0.01 * q[1] ** 4


def leapfrog(q: torch.Tensor, a: torch.Tensor, g: torch.Tensor, step: torch.Tensor) -> Any:
    a = a - 0.5 * step * g
    q = q + step * a
    g = torch.func.grad(lambda x: potential_of(x).sum())(q)
    return q, a - 0.5 * step * g, g, potential_of(q)


def turns(momenta: list[torch.Tensor]) -> bool:
    """Whether a part of a trajectory turns back; from all of its momenta in order."""
    course = torch.stack(momenta).sum(0) - (momenta[0] + momenta[-1]) / 2
    return bool(momenta[0] @ course <= 0 or momenta[-1] @ course <= 0)


def plain_tree(start: Any, step: float, chances: Any, max_depth: int) -> dict[str, Any]:
    """One chain's tree as the paper has it; ``chances`` has the uniform numbers of each leaf."""
    q, a, g, potential = start
    first = float(potential + 0.5 * a @ a)
    leaves, proposal, weight, accept, count = [(q, a, g)], q, 0.0, 0.0, 0
    forwards, depth = bool(chances[0][0] < 0.5), 0
    while True:
        new: list[Any] = []
        chosen, sub_weight, failed, diverged = None, -math.inf, False, False
        while len(new) < 2**depth and not failed:
            q, a, g = new[-1] if new else leaves[-1 if forwards else 0]
            columns = (x[:, None] for x in (q, a, g))
            moved = leapfrog(*columns, torch.tensor(step if forwards else -step))
            q, a, g = (x[:, 0] for x in moved[:3])
            error = float(moved[3][0] + 0.5 * a @ a) - first
            count += 1
            chance = chances[count]
            accept += min(1.0, math.exp(-error)) if error < 700 else 0.0
            sub_weight = float(torch.logaddexp(torch.tensor(sub_weight), torch.tensor(-error)))
            if math.log(chance[2]) < -error - sub_weight:
                chosen = q
            new.append((q, a, g))
            diverged = error > MAX_ENERGY_ERROR
            # All parts of 2, 4, 8, ... leaves that this leaf completes, from their momenta.
            parts = [n for n in (2**k for k in range(1, depth + 1)) if len(new) % n == 0]
            failed = diverged or any(turns([x[1] for x in new[-n:]]) for n in parts)
        if not failed:
            if math.log(chance[3]) < sub_weight - weight:
                proposal = chosen
            weight = math.log(math.exp(weight) + math.exp(sub_weight))
            leaves = leaves + new if forwards else new[::-1] + leaves
            depth += 1
        if failed or turns([x[1] for x in leaves]) or depth == max_depth:
            result = {"q_prop": proposal, "depth": depth, "leaves": count, "weight": weight}
            return {**result, "diverging": diverged, "accept_prob": accept / count}
        forwards = bool(chance[1] < 0.5)


def compare(max_depth: int = MAX_DEPTH) -> tuple[bool, Tree]:
    """Grow trees by both, with the same random numbers: whether they agree, and what they are."""
    q, a = torch.randn(DIM, CHAINS), torch.randn(DIM, CHAINS)
    g, potential = torch.func.grad(lambda x: potential_of(x).sum())(q), potential_of(q)
    steps = torch.linspace(-3.5, 0.9, CHAINS).exp()
    chances = torch.rand(2**max_depth, 4, CHAINS)
    noise = {"a_new": a, "chance": chances[0]}
    tree = planted(q, g, potential, torch.tensor(1.0), noise) | {"step": steps}
    tree |= blank(tree, max_depth)
    ended: dict[int, dict[str, Any]] = {}
    for i in range(1, 2**max_depth):
        tree, report = grown({**tree, "chance": chances[i]}, leapfrog, max_depth)
        for c in report["ended"].nonzero()[:, 0].tolist():
            ended.setdefault(c, {n: v[..., c].clone() for n, v in (tree | report).items()})
    agree = True
    for c in range(CHAINS):
        start = (q[:, c], a[:, c], g[:, c], potential[c])
        plain = plain_tree(start, float(steps[c]), chances[:, :, c].tolist(), max_depth)
        found = ended.get(c)
        agree &= found is not None and all(
            torch.allclose(found[name], torch.as_tensor(value).to(found[name]))
            for name, value in plain.items()
        )
    names = ("depth", "diverging", "leaves")
    return agree, {name: torch.stack([ended[c][name] for c in ended]) for name in names}


@pytest.mark.parametrize("max_depth", [1, 2, MAX_DEPTH])
def test_trees_are_those_of_the_paper(max_depth: int) -> None:
    agree, found = compare(max_depth)
    assert agree
    assert found["depth"].max() == max_depth
    assert found["leaves"].max() == 2**max_depth - 1
    if max_depth == MAX_DEPTH:  # trees of all kinds were among them
        assert set(found["depth"].tolist()) == set(range(MAX_DEPTH + 1))
        assert found["diverging"].any()
        assert (found["leaves"] < 2 ** found["depth"] - 1 + 2 ** found["depth"]).any()


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_leaf_compared_with_the_wrong_ones_is_found(shift: int) -> None:
    right = nuts_tree._turns_within

    def wrong(t: Tree) -> torch.Tensor:
        result = right(leaf := {**t, "sub_leaf": (t["sub_leaf"] + shift).clamp(min=0)})
        t |= {name: leaf[name] for name in ("mark_a", "mark_sum")}
        return result

    with mock.patch.object(nuts_tree, "_turns_within", wrong):
        assert not compare()[0]


@pytest.mark.parametrize("bug", ["no checks within", "no course"])
def test_a_wrong_end_is_found(bug: str) -> None:
    if bug == "no checks within":
        patch = mock.patch.object(nuts_tree, "_turns_within", lambda t: t["u_prop"] != t["u_prop"])
    else:
        patch = mock.patch.object(nuts_tree, "_turns", lambda a, b, _: (a * b).sum(-2) <= 0)
    with patch:
        assert not compare()[0]


def test_what_is_no_number_ends_a_tree() -> None:
    q = torch.zeros(1, 3)
    noise = {"a_new": torch.ones(1, 3), "chance": torch.full((4, 3), 0.3)}
    tree = planted(q, q, q[0], torch.tensor(1.0), noise)
    tree |= blank(tree, 4) | noise
    values = torch.tensor([torch.nan, torch.inf, 1e4])
    tree, report = grown(tree, lambda q, a, g, s: (q + 1, a, g, values), 4)
    assert report["diverging"].all() and report["ended"].all()
    assert (report["accept_prob"] == 0).all() and (tree["q_prop"] == 0).all()
