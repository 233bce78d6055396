# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What the shared tests of all kernels start from."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def default_device(device: torch.device) -> Iterator[torch.device]:
    """Let models make their tensors on the device under test."""
    if device.type == "cpu":
        yield device
    else:
        with device:
            yield device
