# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Both of Pyro's training routes, without waiting for the device, with every kind of parameter."""

import copy
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_deepgen.distributions import DistributionModule
from pyro_deepgen.infer import ImportanceWeightedELBO, MeanFieldELBO
from pyro_deepgen.latent import hierarchical_vae, vae

OBJECTIVES = [
    *(ImportanceWeightedELBO(3, g) for g in ("iwae", "stl", "dreg", "vimco")),
    ImportanceWeightedELBO(1, "stl"),
    MeanFieldELBO(1),
    MeanFieldELBO(3, "stl"),
]
STOPPING = [
    ImportanceWeightedELBO(1, "stl"),
    ImportanceWeightedELBO(3, "dreg"),
    MeanFieldELBO(1, "stl"),
]


class NoWaiting(TorchDispatchMode):
    """Refuses operations whose result Python must read from the device."""

    _WAITING = ("_local_scalar_dense", "is_nonzero", "item", "nonzero", "equal", "_to_copy.cpu")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self._WAITING:
            raise RuntimeError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def batch(device: torch.device, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.bernoulli(torch.full((5, 6), 0.4)).to(device, dtype)


def pairs() -> list[Any]:
    return [
        vae(6, 2, hidden_dims=(8,)),
        hierarchical_vae(6, latent_dims=(3, 2), hidden_dims=((8,), (8,))),
    ]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_step_waits_for_the_device(objective: Any, device: torch.device) -> None:
    pyro.enable_validation(False)
    x = batch(device)
    for pair in pairs():
        with NoWaiting():
            objective.differentiable_loss(pair.model, pair.guide, x).backward()
            objective.loss_and_grads(pair.model, pair.guide, x)
            objective.loss(pair.model, pair.guide, x)
    pyro.enable_validation(True)


def test_waiting_is_found(device: torch.device) -> None:
    pyro.enable_validation(False)
    pair = pairs()[0]

    class Waits(MeanFieldELBO):
        def differentiable_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = super().differentiable_loss(*args, **kwargs)
            return loss if loss.detach().item() > -1e9 else -loss

    with pytest.raises(RuntimeError, match="waits for the device"), NoWaiting():
        Waits().differentiable_loss(pair.model, pair.guide, batch(device))
    pyro.enable_validation(True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_module_route(objective: Any, dtype: torch.dtype, device: torch.device) -> None:
    pyro.settings.set(module_local_params=True)
    x = batch(device, dtype)
    for pair in pairs():
        pair.to(device, dtype)
        before = copy.deepcopy(pair.state_dict())
        elbo = objective(pair.model, pair.guide)
        optim = torch.optim.SGD(elbo.parameters(), lr=1e-3)
        loss = elbo(x)
        assert loss.shape == () and loss.dtype == dtype and loss.device.type == device.type
        loss.backward()
        optim.step()
        same = [n for n, v in pair.state_dict().items() if torch.equal(v, before[n])]
        assert set(same) <= {n for n, _ in pair.named_buffers()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_store_route(objective: Any, dtype: torch.dtype, device: torch.device) -> None:
    x = batch(device, dtype)
    pair = pairs()[0].to(device, dtype)
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), objective)
    before = svi.evaluate_loss(x)
    first = {n: p.detach().clone() for n, p in pair.named_parameters()}
    loss = svi.step(x)
    assert isinstance(before, float) and isinstance(loss, float)
    assert abs(before - loss) < 20
    assert not any(torch.equal(p, first[n]) for n, p in pair.named_parameters())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_loss_without_gradients_has_the_same_value(objective: Any, device: torch.device) -> None:
    x = batch(device)
    pair = pairs()[1]
    objective.loss(pair.model, pair.guide, x)  # finds the plates

    def seeded(no_grad: bool) -> torch.Tensor:
        pyro.set_rng_seed(3)
        if no_grad:
            return torch.as_tensor(objective.loss(pair.model, pair.guide, x))
        loss = objective.differentiable_loss(pair.model, pair.guide, x)
        assert loss.requires_grad
        return loss.detach()

    with_grad = seeded(False)
    if objective.gradient == "stl" and isinstance(objective, MeanFieldELBO):
        assert not torch.allclose(seeded(True), with_grad)  # a closed form, of less variance
    else:
        assert torch.allclose(seeded(True), with_grad)


@pytest.mark.parametrize("objective", [ImportanceWeightedELBO(3, "dreg"), MeanFieldELBO(2)])
def test_finding_the_plates_leaves_no_trace(objective: Any, device: torch.device) -> None:
    # A resumed run makes a new objective, and must go on as the one that was interrupted.
    x, pair = batch(device), pairs()[0]
    fresh = copy.deepcopy(objective)

    def next_loss(tested: Any) -> torch.Tensor:
        pyro.set_rng_seed(5)
        return torch.as_tensor(tested.loss(pair.model, pair.guide, x))

    first = next_loss(objective)
    assert torch.equal(next_loss(objective), first)
    assert torch.equal(next_loss(fresh), first)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_running_statistics_are_updated_once(
    objective: Any, momentum: float | None, device: torch.device
) -> None:
    objective = copy.deepcopy(objective)
    objective._nestings.clear()
    norm = nn.BatchNorm1d(6, momentum=momentum)
    pair = vae(6, 2, hidden_dims=(8,))
    pair.encoder = nn.Sequential(norm, pair.encoder)
    alone = copy.deepcopy(norm)
    for _ in range(2):
        x = batch(device)
        objective.differentiable_loss(pair.model, pair.guide, x).backward()
        alone(x)
    assert int(norm.num_batches_tracked) == 2
    assert torch.equal(norm.running_mean, alone.running_mean)
    assert torch.equal(norm.running_var, alone.running_var)
    assert norm.weight.grad is not None


class Located(DistributionModule):
    """A normal distribution that owns its location."""

    support = dist.constraints.real
    has_rsample = True

    def __init__(self) -> None:
        super().__init__(())
        self.location = nn.Parameter(torch.tensor(0.6))

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        return self.location + torch.randn(self.shape(torch.Size(sample_shape)))

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return dist.Normal(self.location, 1.0).log_prob(self.broadcast(value))


@pytest.mark.parametrize("objective", STOPPING)
def test_parameters_that_a_distribution_owns_are_stopped(objective: Any) -> None:
    located = Located()

    def model() -> None:
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(torch.tensor(0.6), 1.0))

    def guide() -> None:
        with pyro.plate("data", 4):
            pyro.sample("z", located)

    # The guide is the posterior: only stopped parameters give a gradient without variance.
    objective.differentiable_loss(model, guide).backward()
    assert located.location.grad is not None
    assert float(located.location.grad.abs()) < 1e-12


@pytest.mark.parametrize("objective", STOPPING)
def test_parameters_that_a_transform_owns_are_stopped(objective: Any) -> None:
    flow = dist.transforms.AffineAutoregressive(pyro.nn.AutoRegressiveNN(2, [4], param_dims=[1, 1]))
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)

    def program() -> None:
        with pyro.plate("data", 4):
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))

    objective.differentiable_loss(frozen(program, flow), program).backward()
    grads = [p.grad for p in flow.parameters() if p.grad is not None]
    assert grads and max(float(g.abs().max()) for g in grads) < 1e-9


def frozen(program: Any, flow: nn.Module) -> Any:
    """The same program without gradients for the flow."""
    still = copy.deepcopy(flow).requires_grad_(False)
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)

    def run() -> None:
        with pyro.plate("data", 4):
            pyro.sample("z", dist.TransformedDistribution(base, [still]))

    return run


@pytest.mark.parametrize("objective", STOPPING)
def test_a_parameter_of_both_keeps_the_models_gradient(objective: Any) -> None:
    shared = torch.tensor(0.6, requires_grad=True)
    x = torch.tensor([3.0, -0.5, 4.0, 1.3])

    def model() -> None:
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(shared, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide() -> None:
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal((shared + x) / 2, 0.5**0.5))

    # The guide is the posterior: in expectation the gradient is that of the evidence, which all
    # comes from the model.
    rows = []
    for _ in range(300):
        shared.grad = None
        objective.differentiable_loss(model, guide).backward()
        rows.append(shared.grad)
    grads = -torch.stack(rows)  # type: ignore[arg-type]
    exact = float(((x - 0.6) / 2).sum())
    error = grads.std() / len(grads) ** 0.5
    assert float((grads.mean() - exact).abs() / error) < 4
    assert float(grads.mean().abs() / error) > 10


def test_one_objective_serves_models_of_different_nesting() -> None:
    """Their arguments have the same number of dimensions; their plates do not."""
    flat, square = vae(6, 2, (4,)), vae((2, 6), 2, (4,))
    x = torch.zeros(5, 2, 6)
    objective = ImportanceWeightedELBO(3)
    for pair in (square, flat, square):
        loss = objective.loss(pair.model, pair.guide, x)
        expected = ImportanceWeightedELBO(3).loss(pair.model, pair.guide, x)
        assert loss.isfinite()
        assert expected.isfinite()
    assert len(objective._nestings) == 2
