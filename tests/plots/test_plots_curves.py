# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a training run: what stands where, and errors."""

from types import SimpleNamespace

import pytest

from pyro_deepgen.plots import history


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
