# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Networks of one batch dimension on any number of them."""

import pytest
import torch
from torch import nn

from pyro_deepgen.nn import MLP, apply_batched


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 1, 3), (0,)])
def test_equals_a_loop_over_the_batch(batch: tuple[int, ...], float64: torch.dtype) -> None:
    network = nn.Conv2d(2, 4, 3, padding=1)
    x = torch.randn(*batch, 2, 5, 5)
    out = apply_batched(network, x, 3)
    assert out.shape == (*batch, 4, 5, 5)
    rows = zip(out.reshape(-1, 4, 5, 5), x.reshape(-1, 2, 5, 5), strict=True)
    for row, image in rows:
        torch.testing.assert_close(row, network(image.unsqueeze(0))[0])


def test_contexts_broadcast_with_the_input(float64: torch.dtype) -> None:
    network = MLP((2, 2), (4,), 3, context_dim=2)
    x, y = torch.randn(5, 2, 2), torch.randn(6, 1, 2)
    out = apply_batched(network, x, 2, y)
    assert out.shape == (6, 5, 3)
    for i in range(6):
        for j in range(5):
            expected = network(x[j].unsqueeze(0), y[i])[0]
            torch.testing.assert_close(out[i, j], expected)


def test_gradients_are_those_of_the_loop(float64: torch.dtype) -> None:
    network = nn.Linear(3, 2)
    x = torch.randn(4, 1, 3, requires_grad=True)
    y = torch.randn(2, 3)

    def f(x: torch.Tensor) -> torch.Tensor:
        return apply_batched(lambda a, b: network(a * b).tanh(), x, 1, y)

    assert f(x).shape == (4, 2, 2)
    assert torch.autograd.gradcheck(f, (x,))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"at least 3 dimensions, got shape \(8, 8\)"):
        apply_batched(nn.Identity(), torch.zeros(8, 8), 3)
    with pytest.raises(ValueError, match=r"Flatten to keep the batch dimension of 6"):
        apply_batched(nn.Flatten(0), torch.zeros(2, 3, 4), 1)
    with pytest.raises(ValueError, match=r"keep the batch dimension of 6, got .* shape \(\)"):
        apply_batched(lambda x: x.sum(), torch.zeros(2, 3, 4), 1)
    with pytest.raises(RuntimeError):
        apply_batched(lambda x, y: x, torch.zeros(5, 4), 1, torch.zeros(3, 2))
