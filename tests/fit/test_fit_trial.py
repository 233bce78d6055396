# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The call before the first step: what it finds in the data, and that it leaves no trace."""

import pyro
import pytest
import torch

from pyro_deepgen.fit import NonFiniteLossError, fit
from tests.fit.models import assert_same, pair_loss, pixels, state_of

pytestmark = pytest.mark.filterwarnings("ignore:.*Encountered NaN.*:UserWarning")


@pytest.mark.parametrize("validate", [False, True])
def test_a_nan_in_the_first_batch_is_named_with_the_site(validate):
    """With validation it is the trial call that fails, before any step."""
    data = pixels().bernoulli()
    data[3, 2] = torch.nan
    words = r"parameter 'loc' .* at site 'z' is NaN; the data of this batch hold NaN or infinity"
    with (
        pyro.validation_enabled(validate),
        pytest.raises(NonFiniteLossError, match=words) as raised,
    ):
        fit(pair_loss(), data, num_epochs=1, batch_size=40, progress=False)
    assert raised.value.site == "z"
    assert raised.value.step == (0 if validate else 1)


def test_a_transform_that_refuses_a_nan_is_told_from_one_that_fails():
    data = pixels()
    data[3, 2] = torch.nan
    settings = {"transform": torch.bernoulli, "num_epochs": 1, "progress": False}
    with pytest.raises(NonFiniteLossError, match="the data of this batch hold NaN or infinity"):
        fit(pair_loss(), data, **settings)
    with pytest.raises(RuntimeError, match="p_in"):
        fit(pair_loss(), pixels() + 2, **settings)


def test_a_trial_that_fails_leaves_no_trace():
    loss = pair_loss()
    loss.model.net[1].eval()
    data = pixels().bernoulli()
    before, stream = state_of(loss), torch.get_rng_state()
    for wrong in ({"data": data.double()}, {"data": (data, data)}, {"held_out": data[:, :3]}):
        with pytest.raises(ValueError, match=r"expected|batches"):
            fit(loss, **{"data": data, "num_epochs": 1, "progress": False, **wrong})
        assert torch.equal(stream, torch.get_rng_state())
        assert_same(before, state_of(loss))
        assert not loss.model.net[1].training and loss.model.net[3].training
