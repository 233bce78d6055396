# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What is shown and said of a loss that is compiled, and of one that cannot be."""

import time

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.optim import SGD

from pyro_deepgen.fit import NonFiniteLossError, fit, loop
from pyro_deepgen.latent import GaussianLikelihood, vae
from pyro_deepgen.tracing import TracingError
from tests.fit.models import SquaredError, pixels, regression

pytestmark = pytest.mark.usefixtures("float64")


# ---------------------------------------------------------------- what is shown


def test_the_bar_says_that_the_loss_is_compiled(capsys):
    shown = {}
    for compile in (False, "recorded", "eager"):
        loss, data = SquaredError(), regression(30)[:2]
        history = fit(loss, data, num_epochs=2, batch_size=20, compile=compile)
        shown[compile] = capsys.readouterr().err
        assert (history.compile_seconds > 0) == (compile is not False)
        figure = f", compilation {history.compile_seconds:.1f} s]"
        assert (figure in shown[compile]) == (compile is not False)
        assert shown[compile].split("\r")[-1].startswith("epoch 2/2:")
    assert "ing:" not in shown[False]
    assert "\rrecording: " in shown["recorded"] and "epoch 1/2, recording: " in shown["recorded"]
    assert "\rcompiling: " in shown["eager"] and "epoch 1/2, compiling: " in shown["eager"]


def test_the_rate_is_that_of_the_steps(monkeypatch):
    """The loss waits whenever its Python runs: in the trial, and twice while it is recorded."""
    bars = []

    class Kept(loop.Progress):
        def close(self):
            bars.append(self.bar.format_dict)
            super().close()

    class Slow(SquaredError):
        def forward(self, x, y):
            time.sleep(0.5)
            return super().forward(x, y)

    monkeypatch.setattr(loop, "Progress", Kept)
    history = fit(Slow(), regression(20)[:2], num_epochs=1, batch_size=10, compile="recorded")
    assert 1.0 <= history.compile_seconds < history.seconds
    assert bars[0]["n"] == 2 and bars[0]["elapsed"] < 0.5


# ---------------------------------------------------------------- errors


class Branching(PyroModule):
    """A model that looks at a value."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            loc = z if z.sum() > 0 else -z
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


class Simple(PyroModule):
    """Its guide."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc.expand(len(x)), 1.0))


def test_a_program_that_is_no_graph():
    loss = Trace_ELBO()(Branching(), Simple())
    words = r"test_fit_compile.*z.sum\(\) > 0.*after sampling 'z'.*compile=False"
    with pytest.raises(TracingError, match=words):
        fit(loss, torch.randn(9), num_epochs=1, progress=False, compile="recorded")
    assert fit(loss, torch.randn(9), num_epochs=1, progress=False).num_steps == 1


@pytest.mark.parametrize("compile", ["inductr", None, 1])
def test_an_unknown_backend(compile):
    with pytest.raises(ValueError, match=rf"expected compile to be True, False.*{compile!r}"):
        fit(SquaredError(), regression(9)[:2], num_epochs=1, compile=compile)


def test_a_parameter_without_gradient():
    loss = SquaredError()
    loss.unused = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"does not depend on unused.weight, unused.bias"):
        fit(loss, regression(9)[:2], num_epochs=1, progress=False, compile="recorded")


@pytest.mark.filterwarnings("ignore:.*Encountered NaN.*:UserWarning")
@pytest.mark.parametrize("check_every", [1, 4])
@pytest.mark.parametrize("failure", ["data", "parameter"])
def test_what_is_not_finite_is_named_by_step_and_site(failure, check_every):
    texts = []
    for compile in (False, "recorded"):
        pyro.set_rng_seed(2)
        data = pixels().double()
        if failure == "data":
            data[17, 2] = torch.nan
        pair = vae(6, 2, (8,), likelihood=GaussianLikelihood(), name="pair")
        loss = Trace_ELBO()(pair.model, pair.guide)
        optimizer = SGD(loss.parameters(), lr=1e-3 if failure == "data" else 1e3)
        with pyro.validation_enabled(False), pytest.raises(NonFiniteLossError) as caught:
            settings = {"num_epochs": 9, "batch_size": 5, "check_every": check_every}
            fit(loss, data, optimizer, progress=False, compile=compile, **settings)
        assert caught.value.step > 1 and caught.value.site is not None
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
