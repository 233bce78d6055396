# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""M2: known and unknown labels in one batch, enumerated exactly; the classifier's own term."""

import warnings
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import distributions as td
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from pyro_deepgen.latent import SemiSupervisedVAE, semi_supervised_vae
from pyro_deepgen.nn import MLP

PI = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
LABELS = torch.tensor([2, -1, 0, -1, 1])


def make(weight: float = 0.7) -> SemiSupervisedVAE:
    return semi_supervised_vae(
        4, 2, 3, (8,), class_probs=3 * PI, classification_weight=weight, activation=nn.Tanh
    )


def data() -> torch.Tensor:
    return torch.bernoulli(torch.full((len(LABELS), 4), 0.4))


def bounds(pair: Any, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return L(x, y) for each class and datum, (K, B), with given noise of shape (K, B, 2)."""
    rows = []
    for k in range(3):
        y = one_hot(torch.full((len(x),), k), 3).to(x.dtype)
        loc, log_scale = pair.encoder(x, y).chunk(2, -1)
        z = loc + log_scale.exp() * noise[k]
        logits = pair.decoder(z, y)
        likelihood = td.Bernoulli(logits=logits).log_prob(x).sum(-1)
        prior = td.Normal(0.0, 1.0).log_prob(z).sum(-1)
        posterior = td.Normal(loc, log_scale.exp()).log_prob(z).sum(-1)
        rows.append(likelihood + prior + PI[k].to(x.dtype).log() - posterior)
    return torch.stack(rows)


def by_hand(pair: Any, x: torch.Tensor, y: torch.Tensor | None, noise: torch.Tensor) -> Any:
    """Return each datum's loss with the classes enumerated by hand."""
    joint, log_q = bounds(pair, x, noise), pair.classifier(x).log_softmax(-1)
    losses = []
    for i in range(len(x)):
        label = -1 if y is None else int(y[i])
        if label >= 0:
            extra = pair.classification_weight * log_q[i, label] if pair.training else 0.0
            losses.append(-joint[label, i] - extra)
        else:
            losses.append(-(log_q[i].exp() * (joint[:, i] - log_q[i])).sum())
    return torch.stack(losses)


def enumerated(pair: Any, *args: torch.Tensor | None, **kwargs: Any) -> tuple[Any, torch.Tensor]:
    """Return the loss under enumeration, and the noise that it drew."""
    torch.manual_seed(3)
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
        pair.model, pair.guide, *args, **kwargs
    )
    torch.manual_seed(3)
    assert args[0] is not None
    return loss, torch.normal(torch.zeros(3, len(args[0]), 2), torch.ones(3, len(args[0]), 2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("labels", [LABELS, torch.full((5,), -1), LABELS.clamp(min=0), None])
def test_the_loss_is_the_sum_over_classes(
    training: bool, labels: torch.Tensor | None, float64: torch.dtype
) -> None:
    pair, x = make().train(training), data()
    pyro.settings.set(module_local_params=True)
    loss, noise = enumerated(pair, x, labels)
    expected = by_hand(pair, x, labels, noise)
    torch.testing.assert_close(loss, expected.sum())
    parameters = list(pair.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected.sum(), parameters, allow_unused=True, materialize_grads=True),
    )
    scaled, noise = enumerated(pair, x, labels, data_size=50)
    torch.testing.assert_close(scaled, 10 * by_hand(pair, x, labels, noise).sum())


def test_all_unknown_is_no_labels_at_all(float64: torch.dtype) -> None:
    pair, x = make(), data()
    pyro.settings.set(module_local_params=True)
    without, _ = enumerated(pair, x)
    unknown, _ = enumerated(pair, x, torch.full((5,), -1))
    torch.testing.assert_close(without, unknown)


def test_known_labels_are_certain_for_other_engines(float64: torch.dtype) -> None:
    pair, x = make().eval(), data()
    pyro.settings.set(module_local_params=True)
    for _ in range(20):
        guide = poutine.trace(pair.guide).get_trace(x, LABELS)
        drawn = guide.nodes["y"]["value"].argmax(-1)
        assert torch.equal(drawn[LABELS >= 0], LABELS[LABELS >= 0])
        model = poutine.trace(poutine.replay(pair.model, guide)).get_trace(x, LABELS)
        assert bool(model.log_prob_sum().isfinite())
        other = {"y": one_hot((drawn + 1) % 3, 3).to(x.dtype)}
        wrong = poutine.trace(poutine.condition(pair.model, other)).get_trace(x, LABELS)
        assert bool(wrong.log_prob_sum() < -9e3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y\n.*enumerate", category=UserWarning)
        loss = Trace_ELBO(num_particles=3)(pair.model, pair.guide)
        assert bool(loss(x, LABELS).isfinite())


def test_the_label_site_exists_only_in_training_with_labels() -> None:
    pair, x = make(), data()
    pyro.settings.set(module_local_params=True)

    def sites(*args: torch.Tensor | None) -> set[str]:
        return set(poutine.trace(pair.model).get_trace(*args).nodes)

    assert "label" in sites(x, LABELS)
    assert "label" not in sites(x)
    assert "label" not in sites(None, LABELS)
    pair.eval()
    assert "label" not in sites(x, LABELS)
    assert "label" not in set(poutine.trace(make(0.0).model).get_trace(x, LABELS).nodes)


def test_known_labels_train_the_classifier_by_cross_entropy(float64: torch.dtype) -> None:
    pair, x, y = make(), data(), LABELS.clamp(min=0)
    pyro.settings.set(module_local_params=True)
    parameters = list(pair.classifier.parameters())
    loss, _ = enumerated(pair, x, y)
    expected = 0.7 * cross_entropy(pair.classifier(x), y, reduction="sum")
    torch.testing.assert_close(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    )
    pair.eval()  # the bound alone leaves it where it is
    loss, _ = enumerated(pair, x, y)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert all(g is None or not bool(g.any()) for g in gradients)


def test_class_probabilities(float64: torch.dtype) -> None:
    pair, x = make(), data()
    torch.testing.assert_close(pair.class_logits.exp(), PI)
    torch.testing.assert_close(pair.classify(x), pair.classifier(x).softmax(-1))
    wide = pair.classify(x.expand(2, 5, 4))
    torch.testing.assert_close(wide[1], pair.classify(x))
    torch.testing.assert_close(
        semi_supervised_vae(4, 2, 3).class_logits.exp(), torch.full((3,), 1 / 3)
    )


class ShowsClass(nn.Module):
    """A decoder whose data tell the class without doubt."""

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 100 * y - 50


def test_samples_have_the_classes_asked_for() -> None:
    pair = SemiSupervisedVAE(
        MLP(3, (4,), 4, context_dim=3), ShowsClass(), MLP(3, (4,), 3), 2, 3, class_probs=PI
    )
    y = torch.tensor([0, 2, 1, 1])
    assert torch.equal(pair.sample(4, y).argmax(-1), y)
    assert torch.equal(pair.sample(4, torch.tensor(2)).argmax(-1), torch.full((4,), 2))
    num = 4000
    shares = pair.sample(num).mean(0)
    errors = (PI * (1 - PI) / num).sqrt()
    assert bool(((shares - PI).abs() < 4 * errors).all())
    shares = pair.model(None, torch.full((num,), -1)).mean(0)
    assert bool(((shares - PI).abs() < 4 * errors).all())
    assert not bool(((shares - PI.flip(0)).abs() < 4 * errors).all())


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(5), "whole numbers.*float32"),
        (torch.zeros(5, dtype=torch.bool), "whole numbers.*bool"),
        (torch.zeros(4, dtype=torch.long), r"shape \(5,\), got \(4,\)"),
        (one_hot(LABELS.clamp(min=0)), r"shape \(5,\), got \(5, 3\)"),
        (torch.full((5,), 3), "between -1 .* and 2, got values from 3 to 3"),
        (torch.full((5,), -2), "between -1 .* and 2, got values from -2"),
    ],
)
def test_wrong_labels(y: torch.Tensor, message: str) -> None:
    pair, x = make(), data()
    for program in (pair.model, pair.guide):
        with pytest.raises(ValueError, match=message):
            program(x, y)
    with pytest.raises(ValueError, match=message):
        pair.sample(5, y)


def test_wrong_parts() -> None:
    with pytest.raises(ValueError, match="classification_weight of 0 or more, got -1"):
        make(-1.0)
    for probs in (torch.ones(2), torch.tensor([0.5, 0.5, 0.0])):
        with pytest.raises(ValueError, match="3 positive class_probs"):
            semi_supervised_vae(4, 2, 3, class_probs=probs)
    encoder, decoder = MLP(4, (), 4, context_dim=3), MLP(2, (), 4, context_dim=3)
    with pytest.raises(ValueError, match=r"classifier to give 3 logits a datum, .* shape \(2,\)"):
        SemiSupervisedVAE(encoder, decoder, MLP(4, (), 2), 2, 3)
