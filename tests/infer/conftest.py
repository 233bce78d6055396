# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Tests of objectives run in double precision, on the device under test."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def on_device(float64: torch.dtype, device: torch.device) -> Iterator[None]:
    """Make new tensors live on the device under test, in double precision."""
    if device.type == "cpu":
        yield
        return
    torch.set_default_device(device)
    yield
    torch.set_default_device(None)
