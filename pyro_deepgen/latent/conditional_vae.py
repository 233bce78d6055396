# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The conditional variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from ..nn import MLP, as_shape, as_size, evaluating
from .checks import check_network
from .conditional import Conditional, as_conditional, with_params_shape
from .likelihoods import BernoulliLikelihood
from .pair import Pair
from .posteriors import DiagonalNormalPosterior
from .shapes import batch_shape_of, center, check_in_support, data_plates
from .wiring import Family, Network, as_prior, conditional_of, plain


class ConditionalVAE(Pair):
    r"""A variational autoencoder of data :math:`x` given a condition :math:`y`.

    The model is :math:`z \sim p_\theta(z | y)`, :math:`x \sim p_\theta(x | z, y)`; the guide is
    :math:`z \sim q_\phi(z | x, y)`. Sites: ``"z"`` and ``"x"``, in the plate ``"data"``; ``y`` is
    an argument: ``pair.model(x, y)``, ``pair.guide(x, y)``, ``pair.model(None, y)`` to draw.

    Args:
        encoder: network from ``(N, *data_shape)`` and ``(N, context_dim)`` to the posterior's
            parameters.
        decoder: network from ``(N, latent_dim)`` and ``(N, context_dim)`` to the likelihood's.
        latent_dim: number of latent dimensions.
        context_dim: number of dimensions of ``y`` (one-hot vectors for classes).
        likelihood: family of :math:`p(x | z, y)`; default Bernoulli.
        prior: a distribution over vectors of ``latent_dim`` numbers, which then does not depend on
            ``y`` (default: standard normal).
        prior_network: network from ``(N, context_dim)`` to the parameters of the family
            ``posterior``: a prior that depends on ``y``. Give this or ``prior``.
        posterior: family of :math:`q(z | x, y)`; default diagonal normal.
        name: prefix of the parameters in Pyro's global store.

    Raises:
        ValueError: if the parts do not fit together, or if both priors are given; when called, if
            ``y`` does not have shape ``(*batch, context_dim)``.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models, Sohn,
        Lee, Yan, 2015 (NeurIPS).

    Example:
        >>> import torch
        >>> pair = conditional_vae((1, 4, 4), 2, context_dim=3, hidden_dims=(16,))
        >>> y = torch.eye(3)
        >>> pair.sample(3, y).shape
        torch.Size([3, 1, 4, 4])
    """

    def __init__(
        self,
        encoder: Network,
        decoder: Network,
        latent_dim: int,
        context_dim: int,
        *,
        likelihood: Family | None = None,
        prior: TorchDistributionMixin | None = None,
        prior_network: Network | None = None,
        posterior: Family | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if prior is not None and prior_network is not None:
            raise ValueError(
                "expected prior (independent of y) or prior_network (dependent on y, made by "
                "learn_prior=True), got both"
            )
        self.latent_dim = latent_dim = as_size(latent_dim, "latent_dim")
        self.context_dim = context_dim = as_size(context_dim, "context_dim")
        self.encoder, self.decoder, self.prior_network = encoder, decoder, prior_network
        self.likelihood = as_conditional(likelihood or BernoulliLikelihood(), "likelihood")
        self.posterior = as_conditional(posterior or DiagonalNormalPosterior(), "posterior")
        self.prior = as_prior(prior, latent_dim) if prior_network is None else None
        latent, context = (latent_dim,), (context_dim,)
        self.data_shape = check_network(decoder, self.likelihood, "decoder", None, latent, context)
        check_network(
            encoder, self.posterior, "encoder", latent, self.data_shape, context, prior=self.prior
        )
        if prior_network is not None:
            check_network(prior_network, self.posterior, "prior_network", latent, context)

    def _check_context(self, y: torch.Tensor) -> None:
        if y.dim() == 0 or y.shape[-1] != self.context_dim or not y.is_floating_point():
            raise ValueError(
                f"expected y to be floating point of shape (*batch, {self.context_dim}), got "
                f"{y.dtype} of shape {tuple(y.shape)}; for classes use "
                f"torch.nn.functional.one_hot(labels, {self.context_dim}).float()"
            )

    def prior_given(self, y: torch.Tensor) -> TorchDistributionMixin:
        """The prior :math:`p(z | y)` for conditions of shape ``(*batch, context_dim)``."""
        self._check_context(y)
        if self.prior_network is not None:
            return conditional_of(self.prior_network, self.posterior, [y], 1, "prior")
        assert self.prior is not None
        prior: TorchDistributionMixin = plain(self.prior).expand(y.shape[:-1])
        return prior

    def encode(self, x: torch.Tensor, y: torch.Tensor) -> TorchDistributionMixin:
        """The posterior :math:`q(z | x, y)` of ``(*batch, *data_shape)``."""
        self._check_context(y)
        batch_shape_of(x, self.data_shape)
        return conditional_of(
            self.encoder, self.posterior, [x, y], len(self.data_shape), "posterior"
        )

    def decode(self, z: torch.Tensor, y: torch.Tensor) -> TorchDistributionMixin:
        """The likelihood :math:`p(x | z, y)` for latents of shape ``(*batch, latent_dim)``."""
        self._check_context(y)
        return conditional_of(self.decoder, self.likelihood, [z, y], 1, "likelihood")

    def sample(self, num_samples: int, y: torch.Tensor, *, mean: bool = False) -> torch.Tensor:
        """Draw data given ``y``, with networks in evaluation mode.

        Args:
            num_samples: number of draws.
            y: one condition for all, of shape ``(context_dim,)``, or one for each draw,
                ``(num_samples, context_dim)``.
            mean: give the likelihood's means instead of draws.
        """
        num_samples = as_size(num_samples, "num_samples")
        self._check_context(y)
        if tuple(y.shape[:-1]) not in ((), (1,), (num_samples,)):
            raise ValueError(
                f"expected one condition, or one for each of the {num_samples} draws, got y of "
                f"shape {tuple(y.shape)}"
            )
        y = y.expand(num_samples, y.shape[-1])
        with evaluating(self):
            likelihood = self.decode(self.prior_given(y).sample(), y)
            return center(likelihood) if mean else likelihood.sample()

    def generate(
        self,
        x: torch.Tensor | None = None,
        y: torch.Tensor | None = None,
        *,
        data_size: int | None = None,
    ) -> torch.Tensor:
        """Model: ``z`` from the prior given ``y``, ``x`` from the likelihood."""
        y = self._required(y, x)
        batch = y.shape[:-1] if x is None else batch_shape_of(x, self.data_shape)
        with data_plates(batch, data_size):
            likelihood = self.decode(pyro.sample("z", self.prior_given(y)), y)
            if x is not None:
                check_in_support(x, likelihood)
            result: torch.Tensor = pyro.sample("x", likelihood, obs=x)
        return result

    def recognize(
        self, x: torch.Tensor, y: torch.Tensor | None = None, *, data_size: int | None = None
    ) -> torch.Tensor:
        """Guide: ``z`` from the posterior given ``x`` and ``y``."""
        y = self._required(y, x)
        with data_plates(batch_shape_of(x, self.data_shape), data_size):
            result: torch.Tensor = pyro.sample("z", self.encode(x, y))
        return result

    def _required(self, y: torch.Tensor | None, x: torch.Tensor | None) -> torch.Tensor:
        if y is None:
            raise ValueError(
                f"expected a condition y of shape (*batch, {self.context_dim}): call "
                "model(x, y) and guide(x, y); for data without a condition use VAE"
            )
        self._check_context(y)
        if x is not None:
            batch = batch_shape_of(x, self.data_shape)
            try:
                fits = torch.broadcast_shapes(batch, y.shape[:-1]) == batch
            except RuntimeError:
                fits = False
            if not fits:
                raise ValueError(
                    f"expected a condition for each datum of the batch {tuple(batch)}, got y of "
                    f"shape {tuple(y.shape)}"
                )
        return y


def conditional_vae(
    data_shape: int | Sequence[int],
    latent_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] = (200, 200),
    *,
    likelihood: Conditional | None = None,
    prior: TorchDistributionMixin | None = None,
    posterior: Conditional | None = None,
    learn_prior: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
    name: str | None = None,
) -> ConditionalVAE:
    """Make a :class:`ConditionalVAE` with fully connected networks.

    Args:
        data_shape: shape of one datum, or its number of dimensions.
        latent_dim: number of latent dimensions.
        context_dim: number of dimensions of the condition.
        hidden_dims: units of the encoder's hidden layers; the decoder has them reversed.
        likelihood: a :class:`Conditional`; default Bernoulli.
        prior: any distribution over latent vectors, which then does not depend on the condition;
            default standard normal.
        posterior: a :class:`Conditional`; default diagonal normal.
        learn_prior: let the prior depend on the condition, through a network with the encoder's
            hidden layers; not together with ``prior``.
        activation: makes the nonlinearity.
        name: prefix of the parameters in Pyro's global store.

    Returns:
        The pair.

    Raises:
        ValueError: if ``prior`` is given with ``learn_prior``; as :class:`ConditionalVAE`.

    Example:
        >>> conditional_vae(5, 2, context_dim=3, learn_prior=True).prior is None
        True
    """
    data_shape, latent_dim = as_shape(data_shape), as_size(latent_dim, "latent_dim")
    context_dim = as_size(context_dim, "context_dim")
    likelihood = with_params_shape(likelihood or BernoulliLikelihood(), "likelihood")
    posterior = with_params_shape(posterior or DiagonalNormalPosterior(), "posterior")
    latent_params = posterior.params_shape((latent_dim,))
    encoder = MLP(
        data_shape, hidden_dims, latent_params, context_dim=context_dim, activation=activation
    )
    decoder = MLP(
        latent_dim,
        hidden_dims[::-1],
        likelihood.params_shape(data_shape),
        context_dim=context_dim,
        activation=activation,
    )
    prior_network = None
    if learn_prior:
        prior_network = MLP(context_dim, hidden_dims, latent_params, activation=activation)
    return ConditionalVAE(
        encoder,
        decoder,
        latent_dim,
        context_dim,
        likelihood=likelihood,
        prior=prior,
        prior_network=prior_network,
        posterior=posterior,
        name=name,
    )
