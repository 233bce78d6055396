# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""All values of a vector of discrete variables."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from .outputs import BinaryOutput, Output

MAX_EVENTS = 2**20


def enumerate_events(
    output: Output, event_shape: Sequence[int], like: torch.Tensor
) -> torch.Tensor:
    """List all values of an event of discrete variables.

    Args:
        output: the family of one variable.
        event_shape: shape of an event.
        like: a tensor of the dtype and device of binary values.

    Returns:
        The values, of shape ``(S, *event_shape)``; those of classes are whole numbers.

    Raises:
        ValueError: if the variables are real, or there are more than :math:`2^{20}` values.

    Example:
        >>> import torch
        >>> from pyro_deepgen.autoregressive import CategoricalOutput
        >>> events = enumerate_events(CategoricalOutput(3), (2,), torch.zeros(()))
        >>> events.unique(dim=0).shape
        torch.Size([9, 2])
    """
    size = prod(event_shape)
    if output.num_values is None:
        raise ValueError(f"expected discrete variables to enumerate, got {output!r}")
    num = output.num_values**size
    if num > MAX_EVENTS:
        raise ValueError(
            f"expected at most {MAX_EVENTS} values to enumerate, got {output.num_values} of each "
            f"of {size} variables"
        )
    place_values = output.num_values ** torch.arange(size, device=like.device)
    digits = torch.arange(num, device=like.device)[:, None] // place_values % output.num_values
    if isinstance(output, BinaryOutput):
        digits = digits.to(like.dtype)
    return digits.reshape((num, *event_shape))
