# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The value of a loss: on a batch, and on held-out data."""

from collections.abc import Callable

import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

from . import rng
from .batches import TensorBatches
from .parallel import Ranks

# Keeps the streams of held-out data apart from those of the training batches.
_HELD_OUT = 0x48454C44


def require_scalar(value: object) -> Tensor:
    """Return `value`, the loss of a batch.

    Raises:
        ValueError: if it is no tensor of one element.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"expected loss(*batch) to be a tensor of one element, the sum over the batch, got "
            f"{got}; sum it, or use an objective such as Trace_ELBO()(pair.model, pair.guide)"
        )
    return value.reshape(())


def mean_held_out(
    loss: nn.Module,
    data: TensorBatches,
    prepare: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
    seed: int,
    ranks: Ranks,
) -> float:
    """Return the mean loss of held-out data, with the same noise each time it is asked for.

    Buffers become those of the first process; training modes and random streams stay.
    """
    ranks.copy_first_(list(loss.buffers()))
    modes = [(module, module.training) for module in loss.modules()]
    total = torch.zeros((), dtype=torch.float64, device=ranks.device)
    loss.eval()
    try:
        with (
            torch.set_grad_enabled(needs_graph(loss)),
            rng.branched(ranks.device, rng.seed_of(seed, _HELD_OUT, ranks.rank)),
        ):
            for batch in data.in_order():
                if batch.tensors is not None:
                    total += require_scalar(loss(*prepare(batch.tensors))).detach().double()
    finally:
        for module, mode in modes:
            module.training = mode
    ranks.sum_([total])
    return float(total) / data.num_data


def needs_graph(loss: nn.Module) -> bool:
    """Say whether the loss refuses to run without gradients, as Pyro's TraceEnum_ELBO does."""
    return any(isinstance(getattr(m, "elbo", None), TraceEnum_ELBO) for m in loss.modules())
