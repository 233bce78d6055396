# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Discriminative RBMs against sums over all states of data, class and hidden units."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule

from pyro_deepgen.energy.discriminative_rbm import DiscriminativeRBM, LabelledUnits
from pyro_deepgen.energy.hybrid_objective import HybridObjective
from pyro_deepgen.energy.log_partition import UnknownPartitionError, all_states
from pyro_deepgen.energy.negative_phase import ContrastiveDivergence, PersistentChains
from pyro_deepgen.energy.units import BinaryUnits, GaussianUnits
from pyro_deepgen.fit import fit
from pyro_deepgen.infer import PseudoLikelihood

pytestmark = pytest.mark.usefixtures("float64")

V, H, K = 3, 4, 3
TEMPERATURE = 1.3


def machine(device: torch.device, **settings: object) -> DiscriminativeRBM:
    made = DiscriminativeRBM(V, H, K, weight_scale=1.0, temperature=TEMPERATURE, **settings)
    with torch.no_grad():
        made.visible_bias.normal_()
        made.hidden_bias.normal_()
    return made.to(device)


def table(made: DiscriminativeRBM) -> torch.Tensor:
    """The logarithm of the weight of each x and y, ``(2 ** V, K)``, summed over all h."""
    w, u = made.weight[:V], made.weight[V:]
    b, d, c = made.visible_bias[:V], made.visible_bias[V:], made.hidden_bias
    x, h = all_states(V, made.weight), all_states(H, made.weight)
    of_xh = (x @ b)[:, None] + (h @ c) + x @ w @ h.mT
    joint = of_xh[:, None] + (d[:, None] + u @ h.mT)  # (2 ** V, K, 2 ** H)
    return (joint / TEMPERATURE).logsumexp(-1)


def inputs(made: DiscriminativeRBM) -> tuple[torch.Tensor, torch.Tensor]:
    x = all_states(V, made.weight)
    return x, torch.arange(len(x), device=x.device) % K


def gradients(value: torch.Tensor, made: DiscriminativeRBM) -> torch.Tensor:
    found = torch.autograd.grad(value, list(made.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in found])


def within(draws: torch.Tensor, expected: torch.Tensor) -> bool:
    error = draws.std(0) / len(draws) ** 0.5
    return bool(((draws.mean(0) - expected).abs() <= 4 * error + 1e-12).all())


def test_the_class_given_data_is_the_enumerated_one_and_so_is_its_gradient(
    device: torch.device,
) -> None:
    made = machine(device)
    x, y = inputs(made)
    exact = table(made).log_softmax(-1)
    found = made.labels_given(x)
    assert torch.allclose(found.logits, exact, atol=1e-12)
    total = exact.gather(-1, y[:, None]).sum()
    assert torch.allclose(gradients(found.log_prob(y).sum(), made), gradients(total, made))
    of_b = gradients(found.log_prob(y).sum(), made)[made.weight.numel() :][:V]
    assert not of_b.any()  # which has no part in it


def test_joint_and_data_density_are_the_enumerated_ones(device: torch.device) -> None:
    made = machine(device).eval()
    x, y = inputs(made)
    exact = table(made) - table(made).logsumexp((0, 1))
    joint = made.log_prob(made.join(x, y))
    assert torch.allclose(joint, exact.gather(-1, y[:, None]).squeeze(-1), atol=1e-12)
    alone = -made.data_energy(x) - made.log_partition()
    assert torch.allclose(alone, exact.logsumexp(-1), atol=1e-12)


def test_draws_have_the_right_classes_and_so_has_what_is_filled_in(device: torch.device) -> None:
    made = machine(device).eval()
    x, y = made.split(made.sample((20_000,)))
    index = (x * torch.tensor([4.0, 2.0, 1.0], device=device)).sum(-1).long()
    seen = torch.bincount(index * K + y, minlength=2**V * K) / len(x)
    exact = table(made).flatten().softmax(0)
    assert ((seen - exact).abs() <= 4 * (exact * (1 - exact) / len(x)).sqrt() + 1e-12).all()
    row = all_states(V, made.weight)[5].expand(20_000, V)
    unknown = made.join(row, torch.zeros(20_000, dtype=torch.long, device=device))
    mask = torch.arange(V + K, device=device) < V
    data, label = made.split(made.impute(unknown, mask, num_steps=60))
    assert torch.equal(data, row)
    seen = torch.bincount(label, minlength=K) / len(label)
    exact = made.labels_given(row[0]).probs
    assert ((seen - exact).abs() <= 4 * (exact * (1 - exact) / len(row)).sqrt()).all()


def test_the_hybrid_loss_has_the_enumerated_value(device: torch.device) -> None:
    made = machine(device).eval()
    x, y = inputs(made)
    y = torch.where(torch.arange(len(x), device=device) < 3, -1, y)
    log_joint = table(made) - table(made).logsumexp((0, 1))
    chosen = log_joint[3:].gather(-1, y[3:, None]).sum()
    conditional = chosen - log_joint[3:].logsumexp(-1).sum()
    expected = -(0.7 * conditional + 0.2 * chosen + 0.4 * log_joint[:3].logsumexp(-1).sum())
    objective = HybridObjective(made, discriminative=0.7, generative=0.2, unlabelled=0.4)
    assert torch.isclose(objective(x, y), expected, atol=1e-12)


@pytest.mark.parametrize("chains", [True, False])
def test_in_training_the_gradient_is_that_of_the_exact_loss(
    device: torch.device, chains: bool
) -> None:
    negative = PersistentChains(200, 60) if chains else ContrastiveDivergence(60)
    made = machine(device, negative_phase=negative)
    x, y = inputs(made)
    y = torch.where(torch.arange(len(x), device=device) < 3, -1, y)
    objective = HybridObjective(made, discriminative=0.7, generative=0.2, unlabelled=0.4)
    expected = gradients(objective.eval()(x, y), made)
    objective.train()
    repeated = x.repeat(25, 1), y.repeat(25)
    draws = torch.stack([gradients(objective(*repeated) / 25, made) for _ in range(60)])
    assert within(draws, expected)
    # Planted: data without a class count as if they had the class that was drawn for them.
    wrong = HybridObjective(made, discriminative=0.7, generative=0.2).eval()
    assert not within(draws, gradients(wrong(x, made.labels_given(x).sample()), made))


def test_only_the_chains_of_generative_losses_move(device: torch.device) -> None:
    made = machine(device)
    x, y = inputs(made)
    before = made.negative_phase.chains.clone()
    HybridObjective(made)(x, y).backward()
    with torch.no_grad():
        HybridObjective(made, generative=1.0)(x, y)
    assert torch.equal(made.negative_phase.chains, before)
    HybridObjective(made, generative=1.0)(x, y).backward()
    assert not torch.equal(made.negative_phase.chains, before)


def parity(device: torch.device, count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Data whose class no linear rule gives: the parity of two units, beside one of noise."""
    x = torch.randint(0, 2, (count, V), device=device)
    return x.double(), (x[:, 0] + x[:, 1]) % 2


def accuracy(made: DiscriminativeRBM, x: torch.Tensor, y: torch.Tensor) -> float:
    return float((made.labels_given(x).logits.argmax(-1) == y).double().mean())


def test_svi_on_the_class_alone_learns_parity(device: torch.device) -> None:
    class Classifier(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.machine = DiscriminativeRBM(V, 8, 2, weight_scale=0.5)

        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            pyro.module("machine", self.machine)
            with pyro.plate("data", len(x)):
                return pyro.sample("y", self.machine.labels_given(x), obs=y)

    classifier, (x, y) = Classifier().to(device), parity(device)
    svi = SVI(classifier, lambda x, y: None, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(200):
        svi.step(x, y)
    assert accuracy(classifier.machine, x, y) == 1.0
    assert classifier(x).shape == y.shape


@pytest.mark.parametrize("compile", [False, "recorded"])
def test_fit_learns_parity_with_few_classes_known(
    device: torch.device, compile: bool | str
) -> None:
    made = DiscriminativeRBM(V, 8, 2, weight_scale=0.5).to(device)
    x, y = parity(device)
    some = torch.where(torch.arange(len(x), device=device) % 5 == 0, y, -1)
    objective = HybridObjective(made, generative=0.01, unlabelled=0.01)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    fit(
        objective,
        (x, some),
        optimizer,
        num_epochs=60,
        batch_size=100,
        progress=False,
        held_out=(x, some),
        compile=compile,
    )
    assert accuracy(made, x, y) == 1.0


def test_annealing_starts_at_independent_units_and_agrees_with_the_sum(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(device).eval()
    made.set_base(made.sample((500,)))
    states = made.visible.states(made.weight)
    law = made.path_start()
    assert torch.isclose(law.log_prob(states).logsumexp(0), states.new_zeros(()), atol=1e-12)
    bridge = made.bridge(torch.zeros((), device=device))
    constant = bridge.energy(states) + law.log_prob(states)
    assert torch.allclose(constant, constant[0], atol=1e-12)
    exact = made.exact_log_partition()
    monkeypatch.setattr(DiscriminativeRBM, "is_small", property(lambda self: False))
    with pytest.raises(UnknownPartitionError, match="estimate_log_partition"):
        made.log_prob(states)
    found = made.estimate_log_partition(500, 200, compile=False)
    assert (found.value - exact).abs() <= 4 * found.standard_error
    assert torch.isclose(made.log_prob(states).logsumexp(0), found.value.new_zeros(()), atol=0.2)


def test_gaussian_data_have_the_class_of_their_density(device: torch.device) -> None:
    made = DiscriminativeRBM(GaussianUnits(2), H, K, weight_scale=1.0, temperature=TEMPERATURE)
    made = made.to(device).eval()
    with torch.no_grad():
        made.visible.units.log_variance.normal_()
        made.visible_bias.normal_()
    x, y = torch.randn(50, 2, device=device), torch.arange(50, device=device) % K
    each = torch.stack([made.log_prob(made.join(x, 0 * y + k)) for k in range(K)], -1)
    assert torch.allclose(made.labels_given(x).logits, each.log_softmax(-1), atol=1e-12)
    assert torch.allclose(-made.data_energy(x) - made.log_partition(), each.logsumexp(-1))
    grid = torch.linspace(-25.0, 25.0, 401, device=device)
    points = torch.cartesian_prod(grid, grid)
    mass = (-made.data_energy(points) - made.log_partition()).logsumexp(0).exp() * (50 / 400) ** 2
    assert torch.isclose(mass, mass.new_ones(()), atol=1e-6)


def test_a_context_shifts_the_class(device: torch.device) -> None:
    made = DiscriminativeRBM(V, H, K, weight_scale=1.0, context_dim=2).to(device).eval()
    with torch.no_grad():
        made.bias.weight.normal_()
    context = torch.randn(5, 2, device=device)
    given = made.condition(context)
    x, y = all_states(V, made.weight)[:5], torch.arange(5, device=device) % K
    each = torch.stack([given.log_prob(made.join(x, 0 * y + k)) for k in range(K)], -1)
    assert torch.allclose(given.labels_given(x).logits, each.log_softmax(-1), atol=1e-12)


def test_the_support_is_binary_data_and_one_class(device: torch.device) -> None:
    units = LabelledUnits(BinaryUnits(2), 2).to(device)
    rows = [[0.0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 0], [0.5, 1, 1, 0]]
    inside = units.support.check(torch.tensor(rows, device=device))
    assert inside.tolist() == [True, False, False, False]
    assert units.support.is_discrete and units.support.event_dim == 1
    field = torch.randn(5, 4, device=device)
    states = units.states(field)
    weights = (states @ field.mT).softmax(0)
    assert torch.allclose(weights.mT @ states, units.mean(field))
    assert not LabelledUnits(GaussianUnits(2), 2).support.is_discrete


def test_errors_say_what_to_do(device: torch.device) -> None:
    made = machine(device)
    x, y = inputs(made)
    with pytest.raises(ValueError, match="2 classes or more"):
        DiscriminativeRBM(V, H, 1)
    with pytest.raises(ValueError, match="without the class"):
        made.labels_given(made.join(x, y))
    with pytest.raises(ValueError, match="whole numbers"):
        made.join(x, y.double())
    with pytest.raises(ValueError, match="whole numbers"):
        HybridObjective(made)(x, y[:2])
    with pytest.raises(ValueError, match="weights of 0 or more"):
        HybridObjective(made, discriminative=0.0)
    with pytest.raises(ValueError, match="weights of 0 or more"):
        HybridObjective(made, generative=-1.0)
    with pytest.raises(ValueError, match="support"):  # a class is no unit to flip
        PseudoLikelihood(made)
    assert isinstance(made.labels_given(x), dist.Categorical)
