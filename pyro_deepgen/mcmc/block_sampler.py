# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What can draw some of its unknowns given the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import nn
from torch.distributions import constraints

from .state import Values
from .target import Site, Target


@runtime_checkable
class BlockSampler(Protocol):
    r"""Anything that can draw each block of its unknowns from its law given the other blocks.

    An object needs no base class for it, only these two. A machine with visible units ``v`` and
    hidden units ``h`` draws ``h`` from :math:`p(h | v)` and ``v`` from :math:`p(v | h)`.

    Example:
        >>> import torch
        >>> class Pair:  # two normal variables of unit variance and correlation 0.8
        ...     blocks = {"a": (), "b": ()}
        ...     def sample_block(self, block, values):
        ...         other = values["b" if block == "a" else "a"]
        ...         return 0.8 * other + 0.6 * torch.randn_like(other)
        >>> isinstance(Pair(), BlockSampler)
        True
    """

    @property
    def blocks(self) -> Iterable[str]:
        """The names of the blocks, in the order in which they are drawn.

        A mapping from the names to the shapes of one chain's values, where the object is used
        without a target that knows them.
        """

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        """Draw a block given the others.

        Args:
            block: its name.
            values: of all blocks, each ``(C, *shape)``; not to be changed in place.

        Returns:
            The new values of the block, ``(C, *shape)``, drawn for each chain by itself.
        """


class BlockTarget(Target):
    """The unknowns of a block sampler, where nothing but itself is known about them.

    Chains start with zeros everywhere, whence ``sample_block`` leads into the support. The
    potential is the sampler's ``energy(**values)``, if it has one. A sampler of one block that has
    a ``support`` keeps its chains in the target's own terms.

    Args:
        sampler: with ``blocks`` that map names to shapes.

    Raises:
        ValueError: if the shapes are not given.

    Example:
        >>> import torch
        >>> class Coins:
        ...     blocks = {"heads": (3,)}
        ...     def sample_block(self, block, values):
        ...         return torch.bernoulli(torch.full_like(values[block], 0.5))
        >>> target = BlockTarget(Coins())
        >>> target.start(10)["heads"].shape
        torch.Size([10, 3])
    """

    def __init__(self, sampler: BlockSampler) -> None:
        blocks: Any = sampler.blocks
        if not isinstance(blocks, Mapping):
            raise ValueError(
                f"expected {type(sampler).__name__}.blocks to be a dictionary from names to the "
                f"shapes of one chain's values, got {blocks!r}: give the shapes, or BlockGibbs a "
                "target beside the sampler"
            )
        self.sampler = sampler
        state = sampler.state_dict().values() if isinstance(sampler, nn.Module) else ()
        like = next((t for t in state if t.is_floating_point()), torch.empty(0))
        self.device = like.device
        # A distribution's one block has the support of the distribution.
        support = getattr(sampler, "support", None) if len(blocks) == 1 else None
        self.sites = {
            name: Site(torch.Size(shape), support=support or constraints.real, dtype=like.dtype)
            for name, shape in blocks.items()
        }

    @property
    def blocks(self) -> Iterable[str]:
        """The sampler's blocks."""
        return self.sampler.blocks

    def sample_block(self, block: str, values: Values) -> torch.Tensor:
        """Draw a block given the others, by the sampler."""
        return self.sampler.sample_block(block, values)

    def start(self, num_chains: int) -> Values:
        """Zeros."""
        return {
            name: torch.zeros(num_chains, *site.shape, dtype=site.dtype, device=self.device)
            for name, site in self.sites.items()
        }

    def potential(self, values: Values) -> torch.Tensor:
        """The sampler's energy ``(C,)``.

        Raises:
            ValueError: if it has none.
        """
        if not hasattr(self.sampler, "energy"):
            raise ValueError(
                f"{type(self.sampler).__name__} has no energy(**values), so that only BlockGibbs "
                "can move its blocks"
            )
        return cast(torch.Tensor, self.sampler.energy(**values))
