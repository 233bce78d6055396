# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a latent space: what stands where, and errors."""

import numpy as np
import pytest
import torch

from pyro_deepgen.plots import (
    latent_map,
    manifold,
    manifold_codes,
    traversal,
    traversal_codes,
)


def test_latent_map_colours_each_point_by_its_class(device):
    z = torch.randn(90, 2, device=device, requires_grad=True)
    y = torch.tensor([0, 3, 7], device=device).repeat(30)
    axes = latent_map(z, y).axes[0]
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0", "3", "7"]
    named = [tuple(handle.get_facecolor()[0][:3]) for handle in legend.legend_handles]
    points = axes.collections[0]
    places = {
        tuple(place): color
        for place, color in zip(
            points.get_offsets().data.tolist(), points.get_facecolors(), strict=True
        )
    }
    for place, label in zip(z.detach().double().cpu().tolist(), y.tolist(), strict=True):
        assert np.allclose(places[tuple(place)][:3], named[[0, 3, 7].index(label)])


def test_latent_map_without_classes_has_no_legend():
    axes = latent_map(torch.randn(10, 2)).axes[0]
    assert axes.get_legend() is None
    assert len(axes.collections[0].get_offsets()) == 10


def test_latent_map_errors():
    z = torch.randn(30, 2)
    with pytest.raises(ValueError, match=r"shape \(N, 2\), got \(30, 3\); choose two"):
        latent_map(torch.randn(30, 3))
    with pytest.raises(ValueError, match=r"shape \(30,\), one class a code, got \(29,\)"):
        latent_map(z, torch.zeros(29))
    with pytest.raises(ValueError, match=r"at most 20 classes .* got 30"):
        latent_map(z, torch.arange(30))
    with pytest.raises(ValueError, match="must hold 2 names, got 1"):
        latent_map(z, torch.arange(30) % 2, class_names=["a"])


def test_traversal_codes_change_one_dimension_at_a_time(device):
    z = torch.randn(6, device=device, dtype=torch.float64, requires_grad=True)
    values = torch.linspace(-2, 2, 5)
    codes = traversal_codes(z, values, dims=[4, 1])
    assert codes.shape == (10, 6)
    assert codes.dtype == torch.float64
    assert not codes.requires_grad
    for row, d in enumerate([4, 1]):
        block = codes[5 * row : 5 * row + 5]
        assert torch.equal(block[:, d].cpu(), values.double())
        others = [k for k in range(6) if k != d]
        assert torch.equal(block[:, others], z.detach()[others].expand(5, 5))


def test_traversal_labels_rows_and_columns():
    axes = traversal(torch.rand(6, 1, 8, 8), [-1.5, -0.0, 1.25], dims=[2, 0]).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["-1.50", "0.00", "1.25"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["$z_{3}$", "$z_{1}$"]


def test_traversal_errors():
    with pytest.raises(ValueError, match="2 dimensions x 3 values = 6 images, got 5"):
        traversal(torch.rand(5, 8, 8), [-1.0, 0.0, 1.0], dims=[0, 1])
    with pytest.raises(ValueError, match="0 values"):
        traversal(torch.rand(5, 8, 8), [], dims=[0, 1])
    for z, dims in ((torch.zeros(1, 3), [0]), (torch.zeros(3), [3]), (torch.zeros(3), [-1])):
        with pytest.raises(ValueError, match="expected one code"):
            traversal_codes(z, [0.0], dims)


def test_manifold_codes_are_uniform_in_probability():
    codes, values = manifold_codes(7, dtype=torch.float64)
    u = torch.distributions.Normal(0.0, 1.0).cdf(codes)
    steps = (torch.arange(7, dtype=torch.float64) + 0.5) / 7
    assert codes.shape == (49, 2)
    assert bool((values.diff() > 0).all())
    torch.testing.assert_close(u[:7, 0], steps)
    torch.testing.assert_close(u[::7, 1], steps.flip(0))


def test_manifold_has_its_axes_the_right_way_round():
    codes, values = manifold_codes(4)
    # An image as bright as z1, or z2: brightness must rise with the axis of that name.
    for k in (0, 1):
        shade = torch.distributions.Normal(0.0, 1.0).cdf(codes[:, k])
        axes = manifold(shade[:, None, None].expand(-1, 8, 8), values).axes[0]
        array = np.asarray(axes.images[0].get_array())[:, :, 0]
        ticks, labels = (
            (axes.get_xticks(), axes.get_xticklabels()),
            (axes.get_yticks(), axes.get_yticklabels()),
        )[k]
        for tick, label in zip(ticks, labels, strict=True):
            seen = array[4, round(tick)] if k == 0 else array[round(tick), 4]
            expected = torch.distributions.Normal(0.0, 1.0).cdf(
                torch.tensor(float(label.get_text()))
            )
            assert float(seen) == pytest.approx(float(expected), abs=0.01)


def test_manifold_errors():
    with pytest.raises(ValueError, match="3 x 3 = 9, got 8"):
        manifold(torch.rand(8, 8, 8), [-1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="at least 2, got 1"):
        manifold_codes(1)
