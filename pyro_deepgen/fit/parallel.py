# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one model: what they share, and how."""

import atexit
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import rng

T = TypeVar("T")


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _launched_with_others() -> bool:
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def own_device(loss: nn.Module, device: torch.device) -> torch.device:
    """Move `loss` to the accelerator of this process where a script names only ``"cuda"``."""
    if device.type != "cuda" or not _launched_with_others():
        return device
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if own != device:
        loss.to(own)
    torch.cuda.set_device(own)
    return own


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; with one process every method does nothing or next to nothing."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: torch.device) -> "Ranks":
        """Return the process group, made here if the processes have none yet."""
        if not dist.is_available():
            return cls(0, 1, device)
        if not dist.is_initialized():
            if not _launched_with_others():
                return cls(0, 1, device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            # Kept until the end of the script: a second run in it needs the group again.
            atexit.register(_leave)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def share_of(self, start: int, stop: int) -> slice:
        """Return this process's part of the range; the parts are disjoint and cover it."""
        width = stop - start
        return slice(
            start + width * self.rank // self.size, start + width * (self.rank + 1) // self.size
        )

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, with one message for each dtype."""
        if self.size == 1:
            return
        groups: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            groups[tensor.dtype].append(tensor)
        for group in groups.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in group])
            for tensor, part in zip(group, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def copy_first_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the first process, bit for bit."""
        if self.size == 1 or not tensors:
            return
        # As bytes: every dtype travels, in one message.
        parts = [t.detach().to(self.device).contiguous().reshape(-1) for t in tensors]
        flat = torch.cat([part.view(torch.uint8) for part in parts])
        dist.broadcast(flat, src=0)
        received = flat.split([part.numel() * part.element_size() for part in parts])
        with torch.no_grad():
            for tensor, part in zip(tensors, received, strict=True):
                # A clone is aligned for the dtype; a slice of the bytes need not be.
                tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in some process."""
        return any(self.gather(flag))

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what the first process makes; what it raises as ValueError, all raise."""
        if self.size == 1:
            return make()
        message: list[Any] = [None, None]
        if self.first:
            try:
                message[0] = make()
            except ValueError as error:
                message[1] = str(error)
        dist.broadcast_object_list(message, src=0)
        if message[1] is not None:
            raise ValueError(message[1])
        return message[0]  # type: ignore[no-any-return]

    def require_equal(self, **values: object) -> None:
        """Raise where the processes were not given the same.

        Raises:
            ValueError: naming the first value that differs; going on would hang.
        """
        everywhere = self.gather(values)
        for name in values:
            seen = [other[name] for other in everywhere]
            if any(value != seen[0] for value in seen):
                raise ValueError(
                    f"every process must be given the same {name}, got {seen} by rank; "
                    "give each the whole data: fit takes the shares itself"
                )

    def part_streams(self) -> None:
        """Give each process but the first its own random streams."""
        if self.size == 1:
            return
        # The draw follows the first process's stream, so a later run differs from this one;
        # the stream is then put back, so that one process more or less does not move it.
        with rng.branched(self.device):
            draw = int(torch.randint(2**62, ()))
        base = self.from_first(lambda: draw)
        if not self.first:
            rng.set_seed(rng.seed_of(base, self.rank))
