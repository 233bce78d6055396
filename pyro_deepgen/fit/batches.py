# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Minibatches whose order depends on the seed and the epoch alone."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from . import rng
from .parallel import Ranks

Data = Tensor | Sequence[Tensor] | DataLoader[Any]
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """One step's data: this process's tensors (None: its share is empty), and the whole count."""

    tensors: tuple[Tensor, ...] | None
    count: int | Tensor


def as_tensors(data: object, name: str) -> tuple[Tensor, ...]:
    """Return `data` as a tuple of tensors.

    Raises:
        ValueError: if it is none, or the tensors differ in their leading size, or are empty.
    """
    tensors = (data,) if isinstance(data, Tensor) else data
    if not isinstance(tensors, tuple | list) or not all(isinstance(t, Tensor) for t in tensors):
        raise ValueError(
            f"expected {name} to be a tensor or a tuple of tensors, got {type(data).__name__}; "
            f"{_way_out(data, name)}"
        )
    sizes = [t.shape[0] if t.dim() else None for t in tensors]
    if not sizes or None in sizes or len(set(sizes)) != 1 or sizes[0] == 0:
        raise ValueError(
            f"expected the tensors of {name} to share a leading size of at least 1, got the "
            f"shapes {[tuple(t.shape) for t in tensors]}"
        )
    return tuple(tensors)


def _way_out(data: object, name: str) -> str:
    parts = data if isinstance(data, tuple | list) else (data,)
    if any(isinstance(part, np.ndarray) for part in parts):
        return f"make tensors by torch.from_numpy (of {name}, or of each part of it)"
    if hasattr(data, "x_train"):
        return f"give {name}.x_train, or {name}.x_test to evaluate on"
    if isinstance(data, Dataset):
        way_out = "a DataLoader of it" if name == "data" else "its tensors"
        return f"give {way_out}" + (f", or {name}.tensors" if hasattr(data, "tensors") else "")
    return "give the arguments of loss(...) in their order"


class TensorBatches:
    """Batches of tensors, in an order that (seed, epoch) fixes; any position can be resumed."""

    resumable = True

    def __init__(
        self, tensors: tuple[Tensor, ...], batch_size: int, seed: int, ranks: Ranks
    ) -> None:
        self.tensors = tensors
        self.batch_size = batch_size
        self.seed = seed
        self.ranks = ranks
        self.num_data = tensors[0].shape[0]
        self.num_steps = -(-self.num_data // batch_size)

    def fingerprint(self) -> str:
        """Return what tells these data from others, most of the time, whatever device has them."""
        first = [t[:16].detach().cpu().contiguous() for t in self.tensors]
        bits = [rows.reshape(-1).view(torch.uint8).numpy().tobytes() for rows in first]
        return ", ".join(
            f"{t.dtype} of {tuple(t.shape[1:])} with checksum {zlib.crc32(b):08x}"
            for t, b in zip(first, bits, strict=True)
        )

    def sample(self) -> tuple[Tensor, ...]:
        """Return a batch to try the loss on, the same in every process."""
        return self._moved(tensor[: self.batch_size] for tensor in self.tensors)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch in random order, from step `start` on."""
        generator = torch.Generator().manual_seed(rng.seed_of(self.seed, epoch))
        order = torch.randperm(self.num_data, generator=generator).to(self.tensors[0].device)
        for share, count in self._shares(start):
            own = order[share]
            if own.numel() == 0:
                yield Batch(None, count)
            else:
                yield Batch(
                    self._moved(t.index_select(0, own.to(t.device)) for t in self.tensors), count
                )

    def in_order(self) -> Iterator[Batch]:
        """Yield the batches of the data as they lie."""
        for share, count in self._shares(0):
            empty = share.start == share.stop
            yield Batch(None if empty else self._moved(t[share] for t in self.tensors), count)

    def _shares(self, start: int) -> Iterator[tuple[slice, int]]:
        for step in range(start, self.num_steps):
            begin = step * self.batch_size
            end = min(begin + self.batch_size, self.num_data)
            yield self.ranks.share_of(begin, end), end - begin

    def _moved(self, tensors: Iterator[Tensor]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(self.ranks.device, non_blocking=True) for tensor in tensors)


class LoaderBatches:
    """Batches of a DataLoader, whose shuffling is made a function of (seed, epoch)."""

    resumable = False

    def __init__(self, loader: "DataLoader[Any]", seed: int, ranks: Ranks) -> None:
        self.loader = loader
        self.seed = seed
        self.ranks = ranks
        self.batch_size = loader.batch_size
        self.num_data = len(loader.dataset) if hasattr(loader.dataset, "__len__") else None
        self.num_steps = len(loader) if self.num_data is not None else None
        self.sharded = isinstance(loader.sampler, DistributedSampler)

    def fingerprint(self) -> None:
        """Return nothing: a loader need not give the same data twice."""

    def sample(self) -> tuple[Tensor, ...]:
        """Return a batch to try the loss on.

        Raises:
            ValueError: if the loader has no batch.
        """
        with rng.branched(self.ranks.device):
            for batch in self.loader:
                return self._moved(self._checked(batch))
        raise ValueError("expected a DataLoader with at least one batch, got an empty one")

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch; a loader starts at its beginning only.

        Raises:
            ValueError: if there are none.
        """
        assert start == 0
        end = object()
        seed = rng.seed_of(self.seed, epoch)
        # A sampler draws its order from the global stream when its first index is asked for.
        with rng.branched(self.ranks.device, seed):
            if isinstance(self.loader.generator, torch.Generator):
                self.loader.generator.manual_seed(seed)
            for sampler in (self.loader.sampler, self.loader.batch_sampler):
                set_epoch = getattr(sampler, "set_epoch", None)
                if set_epoch is not None:
                    set_epoch(epoch)
            iterator = iter(self.loader)
            batch = next(iterator, end)
        if batch is end:
            raise ValueError(
                f"expected batches in epoch {epoch + 1}, but the DataLoader gave none; give one "
                "that can be gone through again and again"
            )
        while batch is not end:
            yield self._share(self._checked(batch))
            batch = next(iterator, end)

    def _share(self, tensors: tuple[Tensor, ...]) -> Batch:
        count = tensors[0].shape[0]
        if self.ranks.size == 1:
            return Batch(self._moved(tensors), count)
        if self.sharded:
            total = torch.tensor(count, device=self.ranks.device)
            self.ranks.sum_([total])
            return Batch(self._moved(tensors), total)
        share = self.ranks.share_of(0, count)
        if share.start == share.stop:
            return Batch(None, count)
        return Batch(self._moved(tuple(t[share] for t in tensors)), count)

    @staticmethod
    def _checked(batch: object) -> tuple[Tensor, ...]:
        return as_tensors(batch, "a batch of the DataLoader")

    def _moved(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(self.ranks.device, non_blocking=True) for tensor in tensors)


Batches = TensorBatches | LoaderBatches


def make_batches(data: Data, batch_size: int, seed: int, ranks: Ranks) -> Batches:
    """Return the batches of what the user calls data."""
    if isinstance(data, DataLoader):
        return LoaderBatches(data, seed, ranks)
    return TensorBatches(as_tensors(data, "data"), batch_size, seed, ranks)
