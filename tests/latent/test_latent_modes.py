# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Drawing and imputing run in evaluation mode, and every module has its own mode again after."""

from typing import Any

import pytest
import torch
from torch import nn

from pyro_deepgen.latent import (
    VAE,
    ConditionalVAE,
    HierarchicalVAE,
    SemiSupervisedVAE,
)
from pyro_deepgen.nn import evaluating, join_context


class Noisy(nn.Module):
    """A network that depends on the mode, from an input and an optional context."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size_in, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, size_out)
        )

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        output: torch.Tensor = self.layers(join_context(x, y, 0 if y is None else y.shape[-1]))
        return output


PAIRS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "vae": (lambda: VAE(Noisy(6, 4), Noisy(2, 6), 2), ()),
    "conditional": (
        lambda: ConditionalVAE(Noisy(9, 4), Noisy(5, 6), 2, 3, prior_network=Noisy(3, 4)),
        (torch.eye(3)[[0, 1, 2, 0]],),
    ),
    "semi_supervised": (
        lambda: SemiSupervisedVAE(Noisy(9, 4), Noisy(5, 6), Noisy(6, 3), 2, 3),
        (torch.tensor([0, 1, 2, 0]),),
    ),
    "hierarchical": (
        lambda: HierarchicalVAE([Noisy(6, 6), Noisy(3, 4)], [Noisy(3, 6), Noisy(2, 6)], (3, 2)),
        (),
    ),
}


@pytest.mark.parametrize(("make", "context"), PAIRS.values(), ids=PAIRS)
def test_users_methods_run_in_evaluation_mode(make: Any, context: tuple[Any, ...]) -> None:
    pair, x = make(), torch.bernoulli(torch.full((4, 6), 0.5))
    pair.model(x, *context)  # moves the statistics, so that the modes differ
    mask = torch.tensor([True, False] * 3)
    calls = {
        "sample": lambda: pair.sample(4, *context, mean=True),
        "reconstruct": lambda: pair.reconstruct(x, *context),
        "reconstruct_sample": lambda: pair.reconstruct(x, *context, sample=True),
        "impute": lambda: pair.impute(x, mask, *context, num_steps=2),
    }
    if isinstance(pair, HierarchicalVAE):
        calls["latents"] = lambda: pair.latents(x)["z2"]
    frozen = next(m for m in pair.modules() if isinstance(m, nn.Dropout)).eval()
    modes = [m.training for m in pair.modules()]
    before = {n: b.clone() for n, b in pair.named_buffers()}
    for name, call in calls.items():
        torch.manual_seed(0)
        result = call()
        assert [m.training for m in pair.modules()] == modes, name
        assert not frozen.training and pair.training
        assert all(torch.equal(b, before[n]) for n, b in pair.named_buffers()), name
        with evaluating(pair):
            torch.manual_seed(0)
            assert torch.equal(result, call()), name


def test_the_modes_come_back_after_an_error() -> None:
    pair = VAE(Noisy(6, 4), Noisy(2, 6), 2)
    with pytest.raises(ValueError, match="data of shape"):
        pair.reconstruct(torch.zeros(4, 5))
    with pytest.raises(ValueError, match="boolean mask"):
        pair.impute(torch.zeros(4, 6), torch.ones(6))
    assert all(m.training for m in pair.modules())
    assert torch.is_grad_enabled()
