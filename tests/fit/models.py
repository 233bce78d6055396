# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Small losses and a small model/guide pair that the tests of the training loop share."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn


class SquaredError(nn.Module):
    """Linear regression, in double precision, with the rows it has seen (the last column)."""

    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, dim, dtype=torch.float64))
        self.rows: list[list[int]] = []

    def forward(self, x: Tensor, y: Tensor, rows: Tensor | None = None) -> Tensor:
        if rows is not None and torch.is_grad_enabled():
            self.rows.append(rows.tolist())
        return (y - x @ self.weight).square().sum()


def regression(num_data: int, dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs (N, dim), outputs (N,) and row numbers (N,), always the same."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(num_data, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_data, generator=generator, dtype=torch.float64)
    return (
        x,
        x @ torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)[:dim] + noise,
        torch.arange(num_data),
    )


class Model(PyroModule):
    """p(x | z) with batch normalisation and dropout, which both have a state of their own."""

    def __init__(self, data_dim: int = 6) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, data_dim)
        )

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x)


class Guide(PyroModule):
    """q(z | x)."""

    def __init__(self, data_dim: int = 6) -> None:
        super().__init__()
        self.net = nn.Linear(data_dim, 4)

    def forward(self, x: Tensor) -> None:
        loc, log_scale = self.net(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def pair_loss(seed: int = 0) -> nn.Module:
    """Return the negative ELBO of a new pair, the same for the same seed."""
    pyro.set_rng_seed(seed)
    return Trace_ELBO()(Model(), Guide())


def pixels(num_data: int = 40, data_dim: int = 6) -> Tensor:
    """Return intensities in [0, 1] of shape (N, data_dim), always the same."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(num_data, data_dim, generator=generator)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Assert that two states agree bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
