# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Binary MNIST, split at random, and how many nats its images take."""

from __future__ import annotations

from typing import Any

import torch

from pyro_deepgen.datasets import Binarize, mnist

SHAPE = (28, 28)
FIXED = Binarize("fixed")


def load(train: int, valid: int, test: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Binary images for training, validation and test, ``(N, 784)`` each.

    Args:
        train: number of training images; the same ones first, whatever the number.
        valid: number of others of the training file, at random, too.
        test: number of test images, the first ones.
        device: where they go.
    """
    data = mnist(protocol="gray")
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0))
    parts = (data.x_train[order[:train]], data.x_train[order[-valid:]], data.x_test[:test])
    return tuple(FIXED(part.flatten(1)).to(device) for part in parts)


@torch.no_grad()
def nats(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Minus the log-probability of each image."""
    return torch.cat([-model.log_prob(part) for part in x.split(250)]).double()
