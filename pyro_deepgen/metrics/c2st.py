# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The classifier two-sample test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .samples import as_vectors

_BATCH = 200
_RATE = 1e-3
_TESTED = 0.1  # of a network's data, which say when it has been trained enough
_TOLERANCE = 1e-4  # the least fall of the loss on them that is a gain
_PATIENCE = 10  # epochs without a gain of any network, after which training ends


def c2st(
    x: Tensor,
    y: Tensor,
    *,
    num_folds: int = 5,
    hidden_dims: Sequence[int] | None = None,
    max_epochs: int = 1000,
    seed: int = 0,
) -> Tensor:
    r"""How well a neural network tells two samples apart: the accuracy on held-out data.

    .. math:: \mathrm{C2ST} = \frac{1}{2N} \sum_{n=1}^N
        \left( [c_{-n}(x_n) = 0] + [c_{-n}(y_n) = 1] \right)

    with :math:`c_{-n}` a classifier trained on the folds that do not hold the datum. It is 0.5 if
    the laws are equal, with a standard error of :math:`0.5 / \sqrt{2N}`; 1 if they are disjoint;
    and never above :math:`(1 + \mathrm{TV}) / 2`, with the total variation distance, but for noise.

    The classifier is the benchmark's: both samples are shifted and scaled by mean and standard
    deviation of the first; two hidden layers of :math:`10 D` rectified linear units; Adam with
    batches of 200. The benchmark trains until the training loss no longer falls. Here a tenth of a
    network's data is kept from it, the weights with the least loss on them are taken, and training
    ends 10 epochs after the last gain, which keeps networks from learning data by heart. The folds
    are trained at once. The global random streams stay as they are.

    Args:
        x: sample of shape ``(N, ...)``, flattened to ``N`` vectors of ``D`` dimensions; the
            reference, if one of the two is.
        y: sample of the same shape.
        num_folds: number of folds of the cross-validation.
        hidden_dims: number of units of every hidden layer; default ``(10 * D, 10 * D)``.
        max_epochs: end of training, if it does not end before.
        seed: fixes folds, starting weights and batches.

    Returns:
        The accuracy, a tensor without dimensions.

    Raises:
        ValueError: if the samples differ in shape, dtype or size, have fewer data than folds, or
            hold what is not finite.

    References:
        Revisiting Classifier Two-Sample Tests, Lopez-Paz, Oquab, 2017, arXiv:1610.06545.
        Benchmarking Simulation-Based Inference, Lueckmann, Boelts, Greenberg, Goncalves, Macke,
        2021, arXiv:2101.04653.

    Example:
        >>> import torch
        >>> x, y = torch.randn(2, 500, 2)
        >>> bool((c2st(x, y) - 0.5).abs() < 0.1), bool(c2st(x, y + 5) > 0.95)
        (True, True)
    """
    x, y = as_vectors(x, y)
    _require_comparable(x, y, num_folds)
    generator = torch.Generator(x.device).manual_seed(seed)
    center, scale = x.mean(0), x.std(0)
    # What is constant in the first sample has no scale; a difference there still shows.
    scale = torch.where(scale > 0, scale, 1.0)
    data = ((torch.cat([x, y]) - center) / scale).detach()
    target = torch.cat([x.new_zeros(len(x)), x.new_ones(len(y))])
    folds = torch.randperm(len(data), generator=generator, device=x.device).tensor_split(num_folds)
    hidden = [10 * x.shape[1]] * 2 if hidden_dims is None else list(hidden_dims)
    networks = _Networks([x.shape[1], *hidden, 1], num_folds, data, generator)
    with torch.enable_grad():
        _train(networks, data, target, folds, max_epochs, generator)
    with torch.no_grad():
        right = [
            ((networks(data.expand(num_folds, -1, -1))[k] > 0) == (target > 0.5))[fold]
            for k, fold in enumerate(folds)
        ]
    return torch.cat(right).to(x.dtype).mean()


def _require_comparable(x: Tensor, y: Tensor, num_folds: int) -> None:
    if x.shape != y.shape:
        raise ValueError(
            "expected two samples of the same shape, since the accuracy of equal laws is one half "
            f"only for as many data of each, got {tuple(x.shape)} and {tuple(y.shape)} "
            "(flattened); leave some out of the larger one"
        )
    if num_folds < 2 or len(x) < num_folds:
        raise ValueError(
            f"expected 2 folds or more, and in each sample as many data, got {num_folds} folds "
            f"and {len(x)} data; give more data, or fewer folds"
        )
    if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        raise ValueError(
            "expected finite samples, got NaN or infinity: look at how they were drawn, or leave "
            "those data out and say how many"
        )


class _Networks:
    """As many networks as folds, of the same sizes, each with its own weights."""

    def __init__(
        self, sizes: Sequence[int], num: int, like: Tensor, generator: torch.Generator
    ) -> None:
        self.layers = []
        for before, after in pairwise(sizes):
            limit = (6 / (before + after)) ** 0.5
            bias, weight = (
                like.new_empty(num, rows, after).uniform_(-limit, limit, generator=generator)
                for rows in (1, before)
            )
            self.layers.append((bias.requires_grad_(), weight.requires_grad_()))

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``(num, B, D)`` points to ``(num, B)`` log-odds of the second sample."""
        for k, (bias, weight) in enumerate(self.layers):
            x = torch.baddbmm(bias, torch.relu(x) if k else x, weight)
        return x.squeeze(-1)


def _train(
    networks: _Networks,
    data: Tensor,
    target: Tensor,
    folds: Sequence[Tensor],
    max_epochs: int,
    generator: torch.Generator,
) -> None:
    """Minimise the cross-entropy of each network on the folds other than its own."""
    parts = [torch.cat([f for j, f in enumerate(folds) if j != k]) for k in range(len(folds))]
    size = min(len(part) for part in parts)  # folds differ by one datum at most
    chosen = torch.stack([part[:size] for part in parts])
    # The parts are in the order of the folds: mixed, so that the tests are of all other folds.
    mixed = torch.rand(chosen.shape, generator=generator, device=data.device).argsort(1)
    tests, trained = chosen.gather(1, mixed).tensor_split([ceil(_TESTED * size)], 1)
    parameters = [p for layer in networks.layers for p in layer]
    optimizer = torch.optim.Adam(parameters, _RATE, fused=True)
    kept = [p.detach().clone() for p in parameters]
    best = _losses(networks, data, target, tests).detach()
    waited = 0
    for _ in range(max_epochs):
        order = torch.rand(trained.shape, generator=generator, device=data.device).argsort(1)
        for batch in trained.gather(1, order).split(_BATCH, 1):
            optimizer.zero_grad()
            _losses(networks, data, target, batch).sum().backward()
            optimizer.step()
        with torch.no_grad():
            found = _losses(networks, data, target, tests)
            better = found < best - _TOLERANCE
            best = torch.where(better, found, best)
            for old, new in zip(kept, parameters, strict=True):
                old.copy_(torch.where(better[:, None, None], new, old))
        waited = 0 if bool(better.any()) else waited + 1
        if waited >= _PATIENCE:
            break
    with torch.no_grad():
        for old, new in zip(kept, parameters, strict=True):
            new.copy_(old)


def _losses(networks: _Networks, data: Tensor, target: Tensor, batch: Tensor) -> Tensor:
    """The cross-entropy of each network on its row of a ``(num, B)`` batch."""
    odds = networks(data[batch])
    return (softplus(odds) - odds * target[batch]).mean(1)
