# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Figures name their scale, and change with it as a density does."""

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.latent import vae
from pyro_deepgen.metrics import LikelihoodFigure, active_units, bits_per_dimension, rescale


def test_bits_per_dimension_do_not_depend_on_the_unit(float64: torch.dtype) -> None:
    """Grey levels 0 to 255, and the same divided by 256."""
    levels = 256 * torch.rand(7, 10)
    in_levels = dist.Normal(128.0, 60.0).expand([10]).to_event(1).log_prob(levels)
    in_units = dist.Normal(0.5, 60.0 / 256).expand([10]).to_event(1).log_prob(levels / 256)
    bits = bits_per_dimension(in_levels, 10, 1.0)
    torch.testing.assert_close(bits, bits_per_dimension(in_units, 10, 1 / 256))
    torch.testing.assert_close(in_units, rescale(in_levels, 10, 1 / 256))
    wrong = bits_per_dimension(in_units, 10, 1.0)  # the bin of the other unit: off by 8 bits
    torch.testing.assert_close(bits - wrong, torch.full((7,), 8.0))


def test_a_uniform_code_needs_eight_bits() -> None:
    discrete = torch.full((3,), -784 * log(256))
    torch.testing.assert_close(bits_per_dimension(discrete, 784, 1.0), torch.full((3,), 8.0))


def test_a_figure_prints_its_unit_scale_and_error(float64: torch.dtype) -> None:
    values = torch.tensor([-1.0, -2.0, -3.0])
    figure = LikelihoodFigure.nats(values, "grey levels / 16")
    assert figure.value == pytest.approx(-2)
    assert figure.standard_error == pytest.approx(1 / 3**0.5)
    assert "nats" in str(figure)
    assert "grey levels / 16" in str(figure)
    bits = LikelihoodFigure.bits(values, 2, 1 / 16, "grey levels / 16")
    assert bits.value == pytest.approx((2 + 2 * log(16)) / (2 * log(2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bits_per_dimension(torch.zeros(2), 0, 1.0), "num_dims of 1 or more"),
        (lambda: bits_per_dimension(torch.zeros(2), 3, 0.0), "positive bin_width"),
        (lambda: rescale(torch.zeros(2), 3, -1.0), "positive factor"),
        (lambda: LikelihoodFigure.nats(torch.zeros(1), "s"), r"N of 2 or more"),
        (lambda: LikelihoodFigure.nats(torch.zeros(2, 2), "s"), r"shape \(N,\)"),
    ],
)
def test_arguments_without_meaning_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_units_that_ignore_the_data_are_inactive(device: torch.device) -> None:
    """The first of three latent means follows the data, with variance 1 over them."""
    pair = vae(4, 3, ()).to(device)
    with torch.no_grad():
        last = pair.encoder.layers[-1]
        last.weight.zero_()
        last.bias.zero_()
        last.weight[0, 0] = 1.0
        last.weight[1, 1] = 0.05  # variance 0.0025: below the threshold
    x = torch.randn(2000, 4, device=device)
    units = active_units(pair.guide, x, num_particles=1, batch_size=300)
    assert units.num_active == 1
    assert units.active.tolist() == [True, False, False]
    torch.testing.assert_close(units.variance[0], x[:, 0].var())
    assert active_units(pair.guide, x, threshold=1e-3).num_active == 2
    assert pair.training


def test_an_unknown_site_is_named() -> None:
    pair = vae(4, 3, ())
    with pytest.raises(ValueError, match=r"'z3' in the guide, got \['z'\]"):
        active_units(pair.guide, torch.zeros(5, 4), site="z3")


def test_active_units_that_would_say_nothing_are_refused() -> None:
    pair = vae(4, 3, ())
    x = torch.rand(5, 4).round()
    with pytest.raises(ValueError, match="at least 2 data, got 1"):
        active_units(pair.guide, x[:1])
    with pytest.raises(ValueError, match=r"observes \['x'\], as a model does; give the guide"):
        active_units(pair.model, x)
    with pytest.raises(ValueError, match="num_particles to be an integer of at least 1, got 0"):
        active_units(pair.guide, x, num_particles=0)
    with pytest.raises(ValueError, match="batch_size to be an integer of at least 1, got 0"):
        active_units(pair.guide, x, batch_size=0)


def test_a_guide_may_have_factors_and_computed_sites() -> None:
    pair = vae(4, 3, ())

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.deterministic("twice", 2 * x, event_dim=1)
            pyro.factor("weight", x.sum(-1), has_rsample=False)
        pair.guide(x)

    assert active_units(guide, torch.rand(5, 4)).variance.shape == (3,)
