# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Probabilistic max pooling."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import one_hot


class ProbabilisticMaxPooling:
    r"""Detection units in blocks of which at most one is on, and a pooling unit over each block.

    .. math::
        P(h_{ij} = 1 | I) = \frac{\exp I_{ij}}{1 + \sum_{(i'j') \in B_\alpha} \exp I_{i'j'}},
        \quad p_\alpha = \sum_{(ij) \in B_\alpha} h_{ij}

    A block :math:`B_\alpha` of :math:`C \times C` detection units has :math:`C^2 + 1` states: one
    of its units is on, or none, and the pooling unit says whether any is. Both kinds of units
    therefore sum out of an energy that is linear in them,

    .. math:: A(I) = \sum_\alpha \log \Bigl(1 + \sum_{(ij) \in B_\alpha} \exp I_{ij}\Bigr).

    Args:
        size: the side ``C`` of a block; 1 for binary units without pooling.

    Raises:
        ValueError: for a size below 1; later, for maps that blocks do not tile.

    References:
        Convolutional deep belief networks for scalable unsupervised learning of hierarchical
        representations, Honglak Lee, Roger Grosse, Rajesh Ranganath and Andrew Y. Ng, 2009.

    Example:
        >>> import torch
        >>> pooling, field = ProbabilisticMaxPooling(2), torch.randn(5, 3, 4, 6)
        >>> h = pooling.sample(field)
        >>> pooling.pool(h).shape, bool(pooling.pool(h).max() <= 1)
        (torch.Size([5, 3, 2, 3]), True)
    """

    def __init__(self, size: int = 2) -> None:
        if size < 1:
            raise ValueError(f"expected blocks with a side of 1 or more, got {size}")
        self.size = size

    def pooled_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the pooling units above detection units.

        Raises:
            ValueError: if blocks do not tile the detection units.
        """
        if height < 1 or width < 1 or height % self.size or width % self.size:
            raise ValueError(
                f"expected maps of detection units that blocks of {self.size} x {self.size} tile, "
                f"got {height} x {width}: change the image's size, padding, filter_size or "
                "pool_size (a map has the image's side + 2 padding - filter_size + 1 units a side)"
            )
        return height // self.size, width // self.size

    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """``A``, from fields of detection units ``(..., K, H, W)`` to ``(...)``."""
        return self._with_none(field).logsumexp(0).sum((-1, -2, -3))

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """Probabilities of the detection units, ``(..., K, H, W)``."""
        return self._joined(self._with_none(field).softmax(0)[:-1])

    def entropy(self, mean: torch.Tensor) -> torch.Tensor:
        """Entropy ``(...)`` of independent blocks with probabilities ``(..., K, H, W)``."""
        entropy: torch.Tensor = torch.special.entr(self._probs(mean)).sum(0).sum((-1, -2, -3))
        return entropy

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """A draw of the detection units given their fields, ``(..., K, H, W)``."""
        padded = self._with_none(field)
        return self._drawn((padded - padded.amax(0)).exp())

    def sample_from(self, mean: torch.Tensor) -> torch.Tensor:
        """A draw of the detection units given their probabilities, ``(..., K, H, W)``."""
        return self._drawn(self._probs(mean))

    def pool(self, h: torch.Tensor) -> torch.Tensor:
        """The pooling units ``(..., K, H / C, W / C)``, or their means, of detection units'."""
        return self._blocks(h).sum(0)

    def spread(self, field: torch.Tensor) -> torch.Tensor:
        """What acts on pooling units ``(..., K, H / C, W / C)``, as it acts on detection units."""
        return field.repeat_interleave(self.size, -1).repeat_interleave(self.size, -2)

    def log2_states(self, shape: tuple[int, int, int]) -> float:
        """The binary logarithm of the number of states of detection units ``(K, H, W)``."""
        rows, columns = self.pooled_shape(*shape[1:])
        return shape[0] * rows * columns * math.log2(self.size**2 + 1)

    def states(self, shape: tuple[int, int, int], like: torch.Tensor) -> torch.Tensor:
        """All states ``(S, K, H, W)`` of detection units of a shape ``(K, H, W)``."""
        units, (rows, columns) = self.size**2, self.pooled_shape(*shape[1:])
        num_blocks = shape[0] * rows * columns
        choices = [torch.arange(units + 1, device=like.device)] * num_blocks
        chosen = torch.cartesian_prod(*choices).reshape(-1, shape[0], rows, columns)
        return self._joined(one_hot(chosen, units + 1)[..., :-1].to(like.dtype).movedim(-1, 0))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"

    def _blocks(self, units: torch.Tensor) -> torch.Tensor:
        """From ``(..., H, W)`` to ``(C * C, ..., H / C, W / C)``.

        The units of a block come first, as sums over a last dimension so short are slow.
        """
        rows, columns = self.pooled_shape(*units.shape[-2:])
        tiled = units.unflatten(-1, (columns, self.size)).unflatten(-3, (rows, self.size))
        places = range(self.size)
        return torch.stack([tiled[..., i, :, j] for i in places for j in places])

    def _joined(self, blocks: torch.Tensor) -> torch.Tensor:
        """The inverse of ``_blocks``."""
        tiled = blocks.unflatten(0, (self.size, self.size)).movedim(0, -2).movedim(0, -1)
        units: torch.Tensor = tiled.flatten(-2).flatten(-3, -2)
        return units

    def _with_none(self, field: torch.Tensor) -> torch.Tensor:
        """The fields of all states of each block; that of none on, which is 0, is the last."""
        blocks = self._blocks(field)
        return torch.cat([blocks, torch.zeros_like(blocks[:1])])

    def _probs(self, mean: torch.Tensor) -> torch.Tensor:
        """Probabilities of all states of each block from those of its units."""
        blocks = self._blocks(mean)
        return torch.cat([blocks, (1 - blocks.sum(0, keepdim=True)).clamp_min(0)])

    def _drawn(self, weights: torch.Tensor) -> torch.Tensor:
        """Units of one state a block, whose last is none on, by weights of the states."""
        # One uniform number a block, which falls into the stretch of one state.
        until = weights.cumsum(0)
        point = torch.rand_like(until[0]) * until[-1]
        reached = (until[:-1] > point).to(weights.dtype)
        return self._joined(reached.diff(dim=0, prepend=torch.zeros_like(reached[:1])))
