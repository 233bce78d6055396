# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The semi-supervised variational autoencoder (M2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from ..nn import MLP, as_shape, as_size, evaluating
from .checks import check_network, probe
from .conditional import Conditional, as_conditional, with_params_shape
from .labels import check_labels, class_probs_of, known_or, one_hot_labels
from .likelihoods import BernoulliLikelihood
from .pair import Pair
from .posteriors import DiagonalNormalPosterior
from .shapes import batch_shape_of, center, check_in_support, data_plates, parameter_of
from .wiring import Family, Network, as_prior, conditional_of, feed, plain


class SemiSupervisedVAE(Pair):
    r"""The model M2: data with a class :math:`y` that is known for some of them.

    The model is :math:`y \sim \mathrm{Cat}(\pi)`, :math:`z \sim p(z)`,
    :math:`x \sim p_\theta(x | y, z)`; the guide is :math:`q_\phi(y | x)\, q_\phi(z | x, y)`. One
    batch may mix data with and without a label: ``pair.model(x, y)`` takes whole numbers ``y`` of
    shape ``batch`` with ``-1`` where the label is unknown, or ``y=None`` for none known. Sites:
    ``"y"`` (one-hot), ``"z"``, ``"x"``, in the plate ``"data"``.

    Under ``TraceEnum_ELBO`` the classes are enumerated in the guide, exactly: the loss of a datum
    with label is :math:`-\mathcal L(x, y)` and of one without is
    :math:`-\sum_y q(y | x) (\mathcal L(x, y) - \log q(y | x))`. A known label is a distribution
    with all its mass on the label, in the model (times :math:`\pi_y`) and in the guide, so
    likelihoods and posteriors of other engines are right too (``Trace_ELBO`` samples the classes).

    In training mode, with labels given, the model has one more observed site ``"label"``: the
    classifier's :math:`\alpha \log q_\phi(y | x)` at the known labels, without which they would not
    train the classifier. In evaluation mode the site is left out, so the loss is the bound.

    Args:
        encoder: network from ``(N, *data_shape)`` and one-hot ``(N, num_classes)`` to the
            parameters of :math:`q(z | x, y)`.
        decoder: network from ``(N, latent_dim)`` and ``(N, num_classes)`` to the likelihood's.
        classifier: network from ``(N, *data_shape)`` to ``num_classes`` logits.
        latent_dim: number of latent dimensions.
        num_classes: number of classes.
        class_probs: prior probabilities :math:`\pi` of shape ``(num_classes,)``; default equal.
        classification_weight: :math:`\alpha`, for each labelled datum. The paper takes
            0.1 x (number of data) / (number of labelled data).
        likelihood: family of :math:`p(x | y, z)`; default Bernoulli.
        prior: distribution of ``z``; default standard normal.
        posterior: family of :math:`q(z | x, y)`; default diagonal normal.
        name: prefix of the parameters in Pyro's global store.

    Raises:
        ValueError: if the parts do not fit together; when called, if ``y`` is not of an integer
            type, not of the batch's shape, or (under validation) not in ``{-1, ..., num_classes -
            1}``.

    References:
        Semi-Supervised Learning with Deep Generative Models, Kingma, Rezende, Mohamed, Welling,
        2014, arXiv:1406.5298.

    Example:
        >>> import torch
        >>> from pyro.infer import TraceEnum_ELBO
        >>> pair = semi_supervised_vae((1, 4, 4), 2, num_classes=3, hidden_dims=(16,))
        >>> loss = TraceEnum_ELBO(max_plate_nesting=1)(pair.model, pair.guide)
        >>> x, y = torch.zeros(5, 1, 4, 4), torch.tensor([0, 2, -1, -1, 1])
        >>> bool(loss(x, y).isfinite())
        True
        >>> pair.classify(x).sum(-1).allclose(torch.ones(5))
        True
    """

    def __init__(
        self,
        encoder: Network,
        decoder: Network,
        classifier: Network,
        latent_dim: int,
        num_classes: int,
        *,
        class_probs: torch.Tensor | Sequence[float] | None = None,
        classification_weight: float = 1.0,
        likelihood: Family | None = None,
        prior: TorchDistributionMixin | None = None,
        posterior: Family | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if classification_weight < 0:
            raise ValueError(
                f"expected a classification_weight of 0 or more, got {classification_weight}"
            )
        self.latent_dim = latent_dim = as_size(latent_dim, "latent_dim")
        self.num_classes = num_classes = as_size(num_classes, "num_classes")
        self.classification_weight = classification_weight
        self.encoder, self.decoder, self.classifier = encoder, decoder, classifier
        self.likelihood = as_conditional(likelihood or BernoulliLikelihood(), "likelihood")
        self.posterior = as_conditional(posterior or DiagonalNormalPosterior(), "posterior")
        self.prior = as_prior(prior, latent_dim)
        logits = class_probs_of(class_probs, num_classes).log()
        self.register_buffer("class_logits", logits.to(parameter_of(classifier).dtype))
        latent, classes = (latent_dim,), (num_classes,)
        self.data_shape = check_network(decoder, self.likelihood, "decoder", None, latent, classes)
        check_network(
            encoder, self.posterior, "encoder", latent, self.data_shape, classes, prior=self.prior
        )
        logits = probe(classifier, "classifier", self.data_shape)
        if tuple(logits.shape) != (1, num_classes):
            raise ValueError(
                f"expected the classifier to give {num_classes} logits a datum, got an output of "
                f"shape {tuple(logits.shape[1:])}"
            )

    def encode(self, x: torch.Tensor, y: torch.Tensor) -> TorchDistributionMixin:
        """The posterior :math:`q(z | x, y)`, with one-hot ``y`` of shape ``(*batch, K)``."""
        batch_shape_of(x, self.data_shape)
        return conditional_of(
            self.encoder, self.posterior, [x, y], len(self.data_shape), "posterior"
        )

    def decode(self, z: torch.Tensor, y: torch.Tensor) -> TorchDistributionMixin:
        """The likelihood :math:`p(x | y, z)`, with one-hot ``y`` of shape ``(*batch, K)``."""
        return conditional_of(self.decoder, self.likelihood, [z, y], 1, "likelihood")

    def _class_logits(self, x: torch.Tensor) -> torch.Tensor:
        return feed(self.classifier, [x], len(self.data_shape)).log_softmax(-1)

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Class probabilities :math:`q(y | x)`, of shape ``(*batch, num_classes)``."""
        batch_shape_of(x, self.data_shape)
        return self._class_logits(x).exp()

    def sample(
        self, num_samples: int, y: torch.Tensor | int | None = None, *, mean: bool = False
    ) -> torch.Tensor:
        """Draw data, of the classes ``y`` of shape ``()`` or ``(num_samples,)`` where given.

        Networks run in evaluation mode.
        """
        num_samples = as_size(num_samples, "num_samples")
        if y is None:
            labels = dist.OneHotCategorical(logits=self.class_logits).sample((num_samples,))
        else:
            y = torch.as_tensor(y, device=self.class_logits.device)
            y = y.expand(num_samples) if y.dim() == 0 else y
            labels = self._one_hot(check_labels(y, (num_samples,), self.num_classes))
        with evaluating(self):
            likelihood = self.decode(self.prior.sample((num_samples,)), labels)
            return center(likelihood) if mean else likelihood.sample()

    def _one_hot(self, y: torch.Tensor) -> torch.Tensor:
        return one_hot_labels(y, self.num_classes, self.class_logits.dtype)

    def generate(
        self,
        x: torch.Tensor | None = None,
        y: torch.Tensor | None = None,
        *,
        data_size: int | None = None,
    ) -> torch.Tensor:
        """Model: ``y`` and ``z`` from their priors, ``x`` from the likelihood."""
        if x is not None:
            batch = batch_shape_of(x, self.data_shape)
        else:
            batch = torch.Size() if y is None else y.shape
        logits = self.class_logits
        with data_plates(batch, data_size):
            if y is not None:
                check_labels(y, batch, self.num_classes)
                known, labels = y >= 0, self._one_hot(y)
                pyro.factor("y_prior", torch.where(known, (labels * logits).sum(-1), 0.0))
                if x is not None and self.training and self.classification_weight:
                    classes = dist.OneHotCategorical(logits=self._class_logits(x)).mask(known)
                    with poutine.scale(scale=self.classification_weight):
                        pyro.sample("label", classes, obs=labels)
                logits = known_or(y, logits)
            classes = pyro.sample("y", dist.OneHotCategorical(logits=logits))
            z = pyro.sample("z", plain(self.prior))
            likelihood = self.decode(z, classes)
            if x is not None:
                check_in_support(x, likelihood)
            result: torch.Tensor = pyro.sample("x", likelihood, obs=x)
        return result

    def recognize(
        self, x: torch.Tensor, y: torch.Tensor | None = None, *, data_size: int | None = None
    ) -> torch.Tensor:
        """Guide: ``y`` from the classifier where unknown, ``z`` from the posterior."""
        batch = batch_shape_of(x, self.data_shape)
        with data_plates(batch, data_size):
            logits = self._class_logits(x)
            if y is not None:
                logits = known_or(check_labels(y, batch, self.num_classes), logits)
            classes = pyro.sample(
                "y", dist.OneHotCategorical(logits=logits), infer={"enumerate": "parallel"}
            )
            result: torch.Tensor = pyro.sample("z", self.encode(x, classes))
        return result


def semi_supervised_vae(
    data_shape: int | Sequence[int],
    latent_dim: int,
    num_classes: int,
    hidden_dims: Sequence[int] = (500,),
    *,
    class_probs: torch.Tensor | Sequence[float] | None = None,
    classification_weight: float = 1.0,
    likelihood: Conditional | None = None,
    prior: TorchDistributionMixin | None = None,
    posterior: Conditional | None = None,
    activation: Callable[[], nn.Module] = nn.Softplus,
    name: str | None = None,
) -> SemiSupervisedVAE:
    """Make a :class:`SemiSupervisedVAE` with fully connected networks.

    Args:
        data_shape: shape of one datum, or its number of dimensions.
        latent_dim: number of latent dimensions.
        num_classes: number of classes.
        hidden_dims: units of the hidden layers of encoder and classifier; the decoder has them
            reversed.
        class_probs: prior class probabilities; default equal.
        classification_weight: weight of the classifier's log-probability of known labels.
        likelihood: a :class:`Conditional`; default Bernoulli.
        prior: any distribution over latent vectors; default standard normal.
        posterior: a :class:`Conditional`; default diagonal normal.
        activation: makes the nonlinearity.
        name: prefix of the parameters in Pyro's global store.

    Returns:
        The pair.

    Example:
        >>> semi_supervised_vae(5, 2, num_classes=3).num_classes
        3
    """
    data_shape, latent_dim = as_shape(data_shape), as_size(latent_dim, "latent_dim")
    num_classes = as_size(num_classes, "num_classes")
    likelihood = with_params_shape(likelihood or BernoulliLikelihood(), "likelihood")
    posterior = with_params_shape(posterior or DiagonalNormalPosterior(), "posterior")
    encoder = MLP(
        data_shape,
        hidden_dims,
        posterior.params_shape((latent_dim,)),
        context_dim=num_classes,
        activation=activation,
    )
    decoder = MLP(
        latent_dim,
        hidden_dims[::-1],
        likelihood.params_shape(data_shape),
        context_dim=num_classes,
        activation=activation,
    )
    classifier = MLP(data_shape, hidden_dims, num_classes, activation=activation)
    return SemiSupervisedVAE(
        encoder,
        decoder,
        classifier,
        latent_dim,
        num_classes,
        class_probs=class_probs,
        classification_weight=classification_weight,
        likelihood=likelihood,
        prior=prior,
        posterior=posterior,
        name=name,
    )
