# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Where a run's draws are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .state import Info, Values


class DrawsStore:
    """Draws and info of all chains, in tensors made for all of them when the first ones come.

    Args:
        num_samples: how many draws a chain will have.
        kept: names of the sites that are kept; if there are none, info is not kept either.
    """

    def __init__(self, num_samples: int, kept: Sequence[str]) -> None:
        self.num_samples, self.kept, self.count = num_samples, kept, 0
        self.samples: Values = {}
        self.info: Info = {}

    def add(self, values: Values, info: Info, size: int) -> None:
        """Write a block ``(C, n, *shape)`` behind those before."""
        for store, items in ((self.samples, values), (self.info, info)):
            for name, value in items.items() if self.kept else ():
                if name not in store:
                    shape = (len(value), self.num_samples, *value.shape[2:])
                    store[name] = torch.empty(shape, dtype=value.dtype, device=value.device)
                store[name][:, self.count : self.count + size] = value
        self.count += size

    def parts(self) -> tuple[Values, Info]:
        """What has been written."""
        samples = {name: value[:, : self.count] for name, value in self.samples.items()}
        return samples, {name: value[:, : self.count] for name, value in self.info.items()}
