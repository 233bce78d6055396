# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Losses that are not finite, and parameters that get no gradient: named, before harm is done."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_deepgen.fit import NonFiniteLossError, fit
from tests.fit.models import SquaredError, assert_same, pair_loss, pixels, regression, state_of

pytestmark = pytest.mark.filterwarnings("ignore:.*Encountered NaN.*:UserWarning")


class Program(PyroModule):
    """z1 -> z2 -> x with a chosen failure at one of the sites, at calls in training."""

    def __init__(self, failure: str = "", at_call: int = 1) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self.failure, self.at_call, self.calls = failure, at_call, 0

    def forward(self, x):
        self.calls += torch.is_grad_enabled()
        fails = self.failure if torch.is_grad_enabled() and self.calls >= self.at_call else ""
        nan, inf = x.new_tensor(float("nan")), x.new_tensor(float("inf"))
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.loc.expand(len(x)), 1.0))
            scale = nan if fails == "parameter" else x.new_ones(())
            # A Bernoulli refuses to draw from NaN; a Normal draws NaN.
            z2 = pyro.sample("z2", dist.Normal(z1, scale))
            if fails == "value":
                z2 = pyro.deterministic("z3", z2 * inf)
            loc = z2 + (inf if fails == "log_prob" else 0.0)
            data = x * nan if fails == "data" else x
            pyro.sample("x", dist.Normal(loc.clamp(max=inf), 1.0), obs=data)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x, self.log_scale.exp()))
            pyro.sample("z2", dist.Normal(z1, 1.0))


FAILURES = [
    ("parameter", "z2", "the parameter 'scale' of the distribution at site 'z2' is NaN"),
    ("value", "z3", "the value of site 'z3' is not finite"),
    ("data", "x", "the observed value of site 'x' is not finite"),
    ("log_prob", "x", "the log-probability of the observed value of site 'x' is not finite"),
]


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize(("failure", "site", "words"), FAILURES)
def test_the_step_and_the_site_are_named_before_the_update(
    tmp_path, device, failure, site, words, validate
):
    path = tmp_path / "run.pt"
    # Three steps an epoch: the fifth is the second of the second epoch.
    loss = Trace_ELBO()(Program(failure, at_call=5), Guide()).to(device)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    data = torch.randn(12, device=device)
    states = []
    optimizer.register_step_post_hook(lambda *_: states.append(state_of(loss)))
    with (
        pyro.validation_enabled(validate),
        pytest.raises(NonFiniteLossError, match=f"at step 5 .epoch 2, step 2 of it.: {words}") as e,
    ):
        fit(
            loss,
            data,
            optimizer,
            num_epochs=3,
            batch_size=4,
            checkpoint=path,
            check_every=1,
            progress=False,
        )
    assert (e.value.epoch, e.value.step, e.value.site) == (2, 5, site)
    assert "the last good checkpoint is" in str(e.value) and "of step 3" in str(e.value)
    assert len(states) == 4
    assert_same(states[-1], state_of(loss))
    # The file of the first epoch is there, and a run without the failure goes on from it.
    mended = Trace_ELBO()(Program(), Guide()).to(device)
    optimizer = torch.optim.Adam(mended.parameters(), lr=0.1)
    history = fit(
        mended,
        data,
        optimizer,
        num_epochs=2,
        batch_size=4,
        checkpoint=path,
        progress=False,
    )
    assert history.num_steps == 6


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("same_noise", [True, False])
def test_a_rare_draw_is_found_again(monkeypatch, vectorize, same_noise):
    """One step in some hundred draws badly: running it again on other noise does not show it."""

    class Rare(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z1 = pyro.sample("z1", dist.Normal(self.loc, 1.0).expand([len(x)]))
                pyro.sample("z2", dist.Normal(z1, 1.0))
                pyro.sample("x", dist.Normal(torch.where(z1 > 3.5, torch.nan, z1), 1.0), obs=x)

    if not same_noise:
        monkeypatch.setattr("pyro_deepgen.fit.diagnosis.rng.restore_torch_streams", lambda *_: None)
    elbo = Trace_ELBO(num_particles=3, vectorize_particles=vectorize, max_plate_nesting=1)
    loss = elbo(Rare(), Guide())
    optimizer = torch.optim.SGD(loss.parameters(), lr=1e-9)
    with pyro.validation_enabled(False), pytest.raises(NonFiniteLossError) as raised:
        fit(loss, torch.zeros(8), optimizer, num_epochs=10_000, progress=False)
    assert raised.value.site == ("x" if same_noise else None)


def test_a_look_now_and_then_names_the_first_bad_step(tmp_path):
    class Failing(SquaredError):
        calls = 0

        def forward(self, x, y):
            self.calls += torch.is_grad_enabled()
            return super().forward(x, y) * (torch.nan if self.calls == 7 else 1.0)

    x, y, _ = regression(40)
    path = tmp_path / "run.pt"
    settings = {"num_epochs": 3, "batch_size": 4, "check_every": 5, "progress": False}
    words = "at step 7 .*the parameter 'weight' is not finite.*no checkpoint has been written yet"
    with pytest.raises(NonFiniteLossError, match=words):
        fit(Failing(), (x, y), checkpoint=path, checkpoint_every=7, **settings)
    assert not path.exists()
    with pytest.raises(NonFiniteLossError, match=r"at step 7 .*no checkpoint was asked for"):
        fit(Failing(), (x, y), **settings)


def test_a_last_update_that_spoils_the_parameters_is_not_kept(tmp_path):
    class BadSlope(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.inf

    class Loss(SquaredError):
        def forward(self, x, y):
            return super().forward(x, y) + BadSlope.apply(self.weight).sum()

    x, y, _ = regression(4)
    path = tmp_path / "run.pt"
    # One step an epoch: the loss of that step is finite, what it leaves is not.
    with pytest.raises(NonFiniteLossError, match=r"step 1 .*parameter 'weight' is not finite"):
        fit(Loss(), (x, y), num_epochs=1, checkpoint=path, progress=False)
    assert not path.exists()


class Shifted(PyroModule):
    """z -> x whose z is a Gamma, for a guide that draws from a Normal."""

    def __init__(self, shape: float = 1.0) -> None:
        super().__init__()
        self.shape = shape
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(self.shape, x.new_ones(())))
            pyro.sample("x", dist.Normal(z, self.scale), obs=x)


class RealGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, 1.0))


def test_a_value_outside_the_support_is_named_where_everything_else_is_finite():
    # The divergence of a Normal from a Gamma is infinite, and each log-probability finite: at
    # shape 1 that of a Gamma is minus its value, for negative values too.
    loss = TraceMeanField_ELBO()(Shifted(), RealGuide())
    words = "at step 1 .*the value of site 'z' lies outside the support of its distribution"
    with pyro.validation_enabled(False), pytest.raises(NonFiniteLossError, match=words) as raised:
        fit(loss, torch.zeros(30), num_epochs=1, progress=False)
    assert raised.value.site == "z"


def test_a_value_outside_the_support_is_the_reason_for_its_log_probability():
    loss = Trace_ELBO()(Shifted(2.0), RealGuide())
    words = "log-probability of the value of site 'z' is not finite, since the value lies outside"
    with pyro.validation_enabled(False), pytest.raises(NonFiniteLossError, match=words):
        fit(loss, torch.zeros(30), num_epochs=1, progress=False)


def test_a_masked_value_may_lie_outside_the_support():
    class Masked(Shifted):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                with pyro.poutine.mask(mask=x > 0):
                    pyro.sample("x", dist.Gamma(self.shape, self.scale), obs=x)
                infinite = torch.isfinite(z) / 0.0 if torch.is_grad_enabled() else 0.0
                pyro.factor("f", infinite)

    loss = Trace_ELBO()(Masked(), RealGuide())
    with pyro.validation_enabled(False), pytest.raises(NonFiniteLossError) as raised:
        fit(loss, torch.linspace(-1, 1, 8), num_epochs=1, progress=False)
    assert raised.value.site == "f"


def test_an_error_is_not_taken_for_what_is_merely_outside_the_support():
    class Faulty(Shifted):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("a fault of its own")

    loss = Trace_ELBO()(Faulty(), RealGuide())
    with pyro.validation_enabled(False), pytest.raises(RuntimeError, match="a fault of its own"):
        fit(loss, torch.zeros(30), num_epochs=1, progress=False)


def test_what_cannot_be_shown_again_is_said_to_be_so():
    class Once(SquaredError):
        calls = 0

        def forward(self, x, y):
            self.calls += torch.is_grad_enabled()
            return super().forward(x, y) * (torch.inf if self.calls == 1 else 1.0)

    x, y, _ = regression(4)
    with pytest.raises(NonFiniteLossError, match="running it again on the batch shows nothing"):
        fit(Once(), (x, y), num_epochs=1, progress=False)


def test_an_objective_that_hides_its_sites_is_looked_at_through_its_model():
    class Hiding(nn.Module):
        def __init__(self, model, guide):
            super().__init__()
            self.model, self.guide = model, guide

        def forward(self, x):
            with pyro.poutine.block():
                return Trace_ELBO()(self.model, self.guide)(x)

    loss = Hiding(Program("data"), Guide())
    with pyro.validation_enabled(False), pytest.raises(NonFiniteLossError) as raised:
        fit(loss, torch.zeros(4), num_epochs=1, progress=False)
    assert raised.value.site == "x"


def test_an_error_that_has_nothing_to_do_with_it_is_left_alone():
    class Faulty(SquaredError):
        def forward(self, x, y):
            if torch.is_grad_enabled():
                raise RuntimeError("a fault of its own")
            return super().forward(x, y)

    x, y, _ = regression(4)
    with pytest.raises(RuntimeError, match="a fault of its own"):
        fit(Faulty(), (x, y), num_epochs=1, progress=False)


# ---------------------------------------------------------------- gradients


def test_a_parameter_without_gradient_is_named_before_any_update():
    class Forgetful(SquaredError):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(2, 2)

    x, y, _ = regression(6)
    loss = Forgetful()
    before = state_of(loss)
    with pytest.raises(ValueError, match=r"depend on unused.weight, unused.bias; call requires_"):
        fit(loss, (x, y), num_epochs=1, progress=False)
    assert_same(before, state_of(loss))
    loss.unused.requires_grad_(False)
    fit(loss, (x, y), num_epochs=1, progress=False)
    assert_same({"w": before["unused.weight"]}, {"w": loss.unused.weight.detach()})


def test_a_loss_that_depends_on_no_parameter():
    class Constant(SquaredError):
        def forward(self, x, y):
            return super().forward(x, y).detach()

    x, y, _ = regression(6)
    with pytest.raises(ValueError, match="does not depend on weight"):
        fit(Constant(), (x, y), num_epochs=1, progress=False)


def test_a_parameter_that_the_optimiser_does_not_hold():
    loss = pair_loss()
    optimizer = torch.optim.Adam(loss.guide.parameters())
    with pytest.raises(ValueError, match=r"hold every parameter.*model.net.0.weight"):
        fit(loss, pixels(), optimizer, num_epochs=1, transform=torch.bernoulli, progress=False)
