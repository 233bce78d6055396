# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One pass of an autoregressive network in slices, one for each variable."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from math import prod

import torch
from torch import nn

Step = Callable[[int, torch.Tensor], torch.Tensor]
"""Gives the values of a variable, ``(N,)``, from its place in the order and ``(N, P)``."""


class Blocks(nn.Module):
    r"""The rectangles that make up what a block triangular mask shows of a weight matrix.

    With inputs and units in the order of their degrees, the mask is a staircase. It is cut in
    halves: the variables of the left half, those of the right half, and between them one full
    rectangle, by which all units of the right see those of the left. The halves are cut again, down
    to single variables. No entry that the mask hides is in a rectangle.

    Args:
        in_degrees: degree of every input.
        out_degrees: degree of every unit, from 0 to :math:`D - 1`.
        num_variables: number of variables :math:`D`.
        own: whether the inputs are units, of degrees from 0, which units of the same degree see
            as soon as they are known themselves; else they are the variables, of degrees from 1.

    Example:
        >>> import torch
        >>> degrees = torch.tensor([3, 1, 2, 0])
        >>> blocks = Blocks(degrees.tolist(), degrees.tolist(), 4, own=True)
        >>> pieces = blocks(degrees[:, None] >= degrees)
        >>> [tuple(piece.shape) for piece in pieces]
        [(1, 1), (1, 1), (1, 1), (2, 2), (1, 1), (1, 1), (1, 1)]
        >>> all(bool(piece.all()) for piece in pieces)  # none is hidden
        True
    """

    def __init__(
        self,
        in_degrees: Sequence[int],
        out_degrees: Sequence[int],
        num_variables: int,
        *,
        own: bool,
    ) -> None:
        super().__init__()
        row_starts = starts_of(out_degrees, num_variables)
        column_starts = starts_of([degree - (not own) for degree in in_degrees], num_variables)
        self.ranges = [
            (
                (row_starts[rows[0]], row_starts[rows[1]]),
                (column_starts[columns[0]], column_starts[columns[1]]),
            )
            for rows, columns in _rectangles(0, num_variables)
            if own or rows != columns
        ]
        # Those of one shape are cut out together: half of them are for single variables.
        cut_shapes = [(r[1] - r[0], c[1] - c[0]) for r, c in self.ranges]
        shapes = sorted(set(cut_shapes))
        alike = [[i for i, s in enumerate(cut_shapes) if s == shape] for shape in shapes]
        self.stacks = [(len(a), *shape) for a, shape in zip(alike, shapes, strict=True)]
        self.sizes = [prod(stack) for stack in self.stacks]
        self.in_stacks = [i for places in alike for i in places]
        self.places = sorted(range(len(cut_shapes)), key=self.in_stacks.__getitem__)
        self.rows: torch.Tensor  # the units in the order of their degrees
        self.index: torch.Tensor
        rows, index = self._order(in_degrees, out_degrees)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("index", index, persistent=False)

    def set_degrees(self, in_degrees: Sequence[int], out_degrees: Sequence[int]) -> None:
        """Let the inputs and units have the same degrees in another order."""
        rows, index = self._order(in_degrees, out_degrees)
        self.rows.copy_(rows)
        self.index.copy_(index)

    def _order(
        self, in_degrees: Sequence[int], out_degrees: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows in the order of their degrees, and the entries of all rectangles."""
        rows = torch.tensor(out_degrees).argsort(stable=True)
        columns = torch.tensor(in_degrees).argsort(stable=True)
        entries = rows[:, None] * len(in_degrees) + columns
        cuts = [entries[slice(*r), slice(*c)].reshape(-1) for r, c in self.ranges]
        return rows, torch.cat([entries.new_zeros(0), *(cuts[i] for i in self.in_stacks)])

    def forward(self, weight: torch.Tensor) -> list[torch.Tensor]:
        """Cut a weight matrix, each rectangle contiguous, in the order in which they are needed."""
        shown = weight.reshape(-1).index_select(0, self.index)
        pieces: list[torch.Tensor] = []
        for flat, stack in zip(torch.split_with_sizes(shown, self.sizes), self.stacks, strict=True):
            pieces += flat.view(stack).unbind()
        return [pieces[place] for place in self.places]


Range = tuple[int, int]


def _rectangles(low: int, high: int) -> Iterator[tuple[Range, Range]]:
    """Yield the ranges of variables of the rows and columns of each rectangle, first to last."""
    if high - low == 1:
        yield (low, high), (low, high)
        return
    middle = (low + high) // 2
    yield from _rectangles(low, middle)
    yield (middle, high), (low, middle)
    yield from _rectangles(middle, high)


def starts_of(degrees: Sequence[int], num_variables: int) -> list[int]:
    """Return the number of units below each degree from 0 to ``num_variables``.

    Args:
        degrees: degrees of the units.
        num_variables: number of variables.

    Example:
        >>> starts_of([2, 1, 0, 1], 3)
        [0, 1, 3, 4]
    """
    in_order = sorted(degrees)
    return [bisect_left(in_order, degree) for degree in range(num_variables + 1)]


class SlicedPass:
    r"""One pass in which the variables come to be known one by one.

    The units of a degree are computed when the variables that they see are known, all layers from
    the first to the last, and then never again. What a half of the variables adds to the units of
    the next is one product for each layer. So the products are those of one pass over all
    variables, most of the work being in a few large ones; nothing is written in place.

    Tensors have the units first, so that slices of units are contiguous.

    Args:
        starts: for each layer, the number of units before those of each variable (see
            :func:`starts_of`).
        products: source, target and rectangles of each weight matrix; sources are the variables (0)
            and the hidden layers (from 1), targets the hidden layers (from 0) and the last layer.
        activations: the nonlinearity of each hidden layer.
        step: gives each variable from its parameters.

    Example:
        >>> import torch
        >>> blocks = Blocks([1, 2, 3], [0, 1, 2], 3, own=False)(torch.ones(3, 3))
        >>> run = SlicedPass([[0, 1, 2, 3]], [(0, 0, blocks)], [], lambda k, sums: sums[:, 0] + 1)
        >>> run([torch.zeros(3, 5)])[:, 0]  # each is 1 more than the sum of those before it
        tensor([1., 2., 4.])
    """

    def __init__(
        self,
        starts: Sequence[Sequence[int]],
        products: Sequence[tuple[int, int, Sequence[torch.Tensor]]],
        activations: Sequence[Callable[[torch.Tensor], torch.Tensor]],
        step: Step,
    ) -> None:
        self.starts = starts
        self.products = [(source, target, iter(blocks)) for source, target, blocks in products]
        self.activations = list(activations)
        self.step = step
        self.known: list[list[torch.Tensor]] = [[] for _ in starts]

    def __call__(self, sums: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return all variables, ``(D, N)``, from the biases of each layer, ``(units, N)``."""
        self._run(0, len(self.starts[0]) - 1, list(sums))
        return torch.cat(self.known[0])

    def _run(self, low: int, high: int, sums: list[torch.Tensor]) -> None:
        """Make known a range of variables; the sums are complete but for what the range adds."""
        if high - low == 1:
            self._make_known(low, sums)
            return
        middle = (low + high) // 2
        left, right = [], []
        for start, total in zip(self.starts, sums, strict=True):
            sizes = (start[middle] - start[low], start[high] - start[middle])
            first, second = torch.split_with_sizes(total, sizes)
            left.append(first)
            right.append(second)
        self._run(low, middle, left)
        for source, target, blocks in self.products:
            block = next(blocks)
            if block.numel():
                known = self.known[source][low:middle]
                inputs = known[0] if len(known) == 1 else torch.cat(known)
                right[target] = torch.addmm(right[target], block, inputs)
        self._run(middle, high, right)

    def _make_known(self, variable: int, sums: list[torch.Tensor]) -> None:
        """Compute the units of one variable, from layer to layer, and the variable."""
        for source, target, blocks in self.products:
            if source == 0:  # no unit sees the variable that it is for
                continue
            block = next(blocks)
            inputs = self.activations[source - 1](sums[source - 1])
            self.known[source].append(inputs)
            if block.numel():
                sums[target] = torch.addmm(sums[target], block, inputs)
        value = self.step(variable, sums[-1].mT)
        self.known[0].append(value.unsqueeze(0))
