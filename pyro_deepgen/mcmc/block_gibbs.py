# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Gibbs sampling of what can draw its own blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .block_sampler import BlockSampler, BlockTarget
from .compiled import compiled
from .kernel import Kernel
from .state import Info, State, Values
from .target import Site, Target


class BlockGibbs(Kernel):
    r"""Draws each block in turn from its law given the others, by a ``sample_block``.

    .. math:: x_b' \sim p(x_b | x_1', \dots, x_{b-1}', x_{b+1}, \dots, x_B)

    Args:
        target: a :class:`BlockSampler`; or, with ``sampler``, whatever other kernels take, such as
            a Pyro model some of whose sites have known conditionals.
        sampler: what draws the blocks, where the target itself does not: its blocks are the names
            of sites, its values are in the model's own terms.
        sites: the blocks to draw; all by default.
        compile: see :class:`Kernel`.

    Raises:
        ValueError: if the target is no block sampler and there is no other; later, for a block that
            is no site of the target, a site that is no block, or a draw of a wrong shape.

    References:
        Stochastic Relaxation, Gibbs Distributions, and the Bayesian Restoration of Images, Stuart
        Geman and Donald Geman, 1984.

    Example:
        >>> import torch
        >>> class Pair:  # two normal variables of unit variance and correlation 0.8
        ...     blocks = {"a": (), "b": ()}
        ...     def sample_block(self, block, values):
        ...         other = values["b" if block == "a" else "a"]
        ...         return 0.8 * other + 0.6 * torch.randn_like(other)
        >>> kernel = BlockGibbs(Pair(), compile=False)
        >>> kernel.setup(0)
        >>> state, _, _ = kernel.advance(kernel.init(kernel.target.start(10_000)), num_draws=30)
        >>> bool(((state["a"] * state["b"]).mean() - 0.8).abs() < 0.06)
        True
    """

    def __init__(
        self,
        target: Any,
        sampler: BlockSampler | None = None,
        *,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
    ) -> None:
        self.sampler: BlockSampler = target if sampler is None else sampler
        if not isinstance(self.sampler, BlockSampler):
            raise ValueError(
                f"BlockGibbs expected an object with blocks and sample_block(block, values), got "
                f"{type(self.sampler).__name__}: give one as the target, or as sampler beside it"
            )
        if sampler is None and not isinstance(target, Target):
            target = BlockTarget(target)
        super().__init__(target, sites=sites, compile=compile)

    def discrete_sites(self) -> tuple[str, ...]:
        """The blocks, which a model must not sum out."""
        return tuple(self.sampler.blocks)

    def suits(self, site: Site) -> bool:
        """Any site that is a block."""
        return True

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel draw some blocks of a target."""
        blocks = tuple(self.sampler.blocks)
        chosen = self._chosen_sites if sites is None else sites
        if chosen is not None:
            for site in chosen:
                if site not in blocks:
                    raise ValueError(
                        f"BlockGibbs cannot move the site {site!r}: the blocks of "
                        f"{type(self.sampler).__name__} are {list(blocks)}"
                    )
            blocks = tuple(block for block in blocks if block in chosen)
        super().bind(target, blocks)

    def init(self, state: State) -> State:
        """The sites alone."""
        return self.values(state)

    @compiled
    def step(self, state: State) -> tuple[State, Info]:
        """Draw every block in every chain."""
        values: Values = self.target.constrain(self.values(state))
        for name in self.sites:
            drawn = self.sampler.sample_block(name, dict(values))
            if drawn.shape != values[name].shape:
                raise ValueError(
                    f"{type(self.sampler).__name__}.sample_block({name!r}, ...) must give values "
                    f"of the shape {tuple(values[name].shape)}, chains first, and gave "
                    f"{tuple(drawn.shape)}"
                )
            values[name] = drawn.to(values[name].dtype)
        moved = {name: values[name] for name in self.sites}
        moved = {name: self.target.sites[name].transform(value) for name, value in moved.items()}
        accept_prob = torch.ones(len(drawn), device=drawn.device)
        return {**state, **moved}, {"accept_prob": accept_prob}
