# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a training run and of a density: what stands where, and errors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pyro_deepgen.plots import density, history

BOX = ((-2.0, 4.0), (-1.0, 3.0))


def test_history_shows_the_elbo_of_each_epoch():
    losses = SimpleNamespace(train=[3.0, 2.0, 1.5], held_out=[3.5, 2.5, 2.0])
    axes = history(losses).axes[0]
    train, held_out = axes.lines
    assert train.get_xdata().tolist() == [1, 2, 3]
    assert train.get_ydata().tolist() == [-3.0, -2.0, -1.5]
    assert held_out.get_ydata().tolist() == [-3.5, -2.5, -2.0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["training", "held out"]


def test_history_without_held_out_data_and_of_one_epoch():
    axes = history(SimpleNamespace(train=[2.0], held_out=[]), label="bound").axes[0]
    assert len(axes.lines) == 1
    assert axes.get_ylabel() == "bound"
    with pytest.raises(ValueError, match="holds no epoch"):
        history(SimpleNamespace(train=[], held_out=[]))


def test_density_has_its_axes_the_right_way_round(device):
    mean = torch.tensor([3.0, 0.0], device=device)
    samples = (mean + torch.randn(20, 2, device=device)).requires_grad_()

    def log_prob(z):
        assert z.device.type == device.type
        # Far from normalised: exp of it would overflow.
        return 5000 - (z - mean).square().sum(-1)

    axes = density(log_prob, BOX, samples).axes[0]
    image = axes.images[0]
    array = np.asarray(image.get_array())
    row, column = np.unravel_index(array.argmax(), array.shape)
    left, right, bottom, top = image.get_extent()
    assert image.origin == "lower"
    assert left + (column + 0.5) / 200 * (right - left) == pytest.approx(3.0, abs=0.03)
    assert bottom + (row + 0.5) / 200 * (top - bottom) == pytest.approx(0.0, abs=0.02)
    assert array.max() == 1
    points = np.asarray(axes.collections[0].get_offsets())
    assert np.allclose(points, samples.detach().cpu().numpy())
    assert axes.get_xlim() == BOX[0]
    assert axes.get_ylim() == BOX[1]


def test_density_may_be_zero_in_places():
    def log_prob(z):
        return torch.where(z[:, 0] > 0, -z.square().sum(-1), -torch.inf)

    array = np.asarray(density(log_prob, BOX).axes[0].images[0].get_array())
    assert array[:, :60].max() == 0
    assert array.max() == 1


def test_density_follows_the_dtype_of_the_samples():
    seen = set()

    def log_prob(z):
        seen.add((z.dtype, z.requires_grad, torch.is_grad_enabled()))
        return -z.square().sum(-1)

    density(log_prob, BOX, torch.zeros(3, 2, dtype=torch.float64))
    density(log_prob, BOX)
    assert seen == {(torch.float64, False, False), (torch.float32, False, False)}


def test_density_errors():
    def gaussian(z):
        return -z.square()

    with pytest.raises(ValueError, match=r"must map shape \(N, 2\) to \(N,\), got \(10000, 2\)"):
        density(gaussian, BOX)
    with pytest.raises(ValueError, match="low < high"):
        density(lambda z: -z.square().sum(-1), ((1.0, -1.0), (0.0, 1.0)))
    with pytest.raises(ValueError, match=r"samples must have shape \(N, 2\), got \(5, 3\)"):
        density(lambda z: -z.square().sum(-1), BOX, torch.zeros(5, 3))
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(ValueError, match="finite somewhere"):
            density(lambda z, bad=bad: z[:, 0] * 0 + bad, BOX)
