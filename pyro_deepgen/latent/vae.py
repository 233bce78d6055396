# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The variational autoencoder."""

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


class VAE(Pair):
    r"""A variational autoencoder as a Pyro model and guide.

    The model is :math:`z \sim p(z)`, :math:`x \sim p_\theta(x | z)`, with the decoder network
    giving the parameters of the likelihood; the guide is :math:`z \sim q_\phi(z | x)`, with the
    encoder network giving those of the posterior. Sites: ``"z"`` and ``"x"``, in the plate
    ``"data"``. ``pair.model(x)`` and ``pair.guide(x)`` take ``x`` of shape
    ``(*batch, *data_shape)``, and ``data_size=N`` where ``x`` is a part of ``N`` data whose
    log-probability is wanted. ``pair.model()`` draws one datum.

    Args:
        encoder: network from ``(N, *data_shape)`` to the posterior's parameters.
        decoder: network from ``(N, latent_dim)`` to the likelihood's parameters.
        latent_dim: number of latent dimensions.
        likelihood: family of :math:`p(x | z)`: a :class:`Conditional`, anything with
            ``condition(context)``, or a function from the decoder's output to a distribution.
            Default: :class:`BernoulliLikelihood`.
        prior: any Pyro distribution over vectors of ``latent_dim`` numbers, or a
            ``DistributionModule``. Default: standard normal.
        posterior: family of :math:`q(z | x)`. Default: :class:`DiagonalNormalPosterior`.
        name: prefix of the parameters in Pyro's global store.

    Raises:
        ValueError: if the networks, the families and ``latent_dim`` do not fit together.

    References:
        Auto-Encoding Variational Bayes, Kingma, Welling, 2014, arXiv:1312.6114.
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models, Rezende,
        Mohamed, Wierstra, 2014, arXiv:1401.4082.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> pair = VAE(nn.Linear(6, 4), nn.Linear(2, 6), latent_dim=2)
        >>> pair.encode(torch.zeros(5, 6)).event_shape, pair.decode(torch.zeros(5, 2)).event_shape
        (torch.Size([2]), torch.Size([6]))
        >>> pair.sample(3).shape
        torch.Size([3, 6])
    """

    def __init__(
        self,
        encoder: Network,
        decoder: Network,
        latent_dim: int,
        *,
        likelihood: Family | None = None,
        prior: TorchDistributionMixin | None = None,
        posterior: Family | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.latent_dim = latent_dim = as_size(latent_dim, "latent_dim")
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = as_conditional(likelihood or BernoulliLikelihood(), "likelihood")
        self.posterior = as_conditional(posterior or DiagonalNormalPosterior(), "posterior")
        self.prior = as_prior(prior, latent_dim)
        self.data_shape = check_network(decoder, self.likelihood, "decoder", None, (latent_dim,))
        check_network(
            encoder, self.posterior, "encoder", (latent_dim,), self.data_shape, prior=self.prior
        )

    def encode(self, x: torch.Tensor) -> TorchDistributionMixin:
        """The posterior :math:`q(z | x)` of data of shape ``(*batch, *data_shape)``."""
        batch_shape_of(x, self.data_shape)
        return conditional_of(self.encoder, self.posterior, [x], len(self.data_shape), "posterior")

    def decode(self, z: torch.Tensor) -> TorchDistributionMixin:
        """The likelihood :math:`p(x | z)` for latents of shape ``(*batch, latent_dim)``."""
        return conditional_of(self.decoder, self.likelihood, [z], 1, "likelihood")

    def sample(self, num_samples: int, *, mean: bool = False) -> torch.Tensor:
        """Draw data of shape ``(num_samples, *data_shape)``, or the likelihood's means.

        Networks run in evaluation mode.
        """
        with evaluating(self):
            z = self.prior.sample((as_size(num_samples, "num_samples"),))
            likelihood = self.decode(z)
            return center(likelihood) if mean else likelihood.sample()

    def generate(
        self, x: torch.Tensor | None = None, *, data_size: int | None = None
    ) -> torch.Tensor:
        """Model: ``z`` from the prior, ``x`` from the likelihood."""
        batch = () if x is None else batch_shape_of(x, self.data_shape)
        with data_plates(batch, data_size):
            likelihood = self.decode(pyro.sample("z", plain(self.prior)))
            if x is not None:
                check_in_support(x, likelihood)
            result: torch.Tensor = pyro.sample("x", likelihood, obs=x)
        return result

    def recognize(self, x: torch.Tensor, *, data_size: int | None = None) -> torch.Tensor:
        """Guide: ``z`` from the posterior given ``x``."""
        with data_plates(batch_shape_of(x, self.data_shape), data_size):
            result: torch.Tensor = pyro.sample("z", self.encode(x))
        return result


def vae(
    data_shape: int | Sequence[int],
    latent_dim: int,
    hidden_dims: Sequence[int] = (200, 200),
    *,
    likelihood: Conditional | None = None,
    prior: TorchDistributionMixin | None = None,
    posterior: Conditional | None = None,
    activation: Callable[[], nn.Module] = nn.ReLU,
    name: str | None = None,
) -> VAE:
    """Make a :class:`VAE` with fully connected networks.

    Args:
        data_shape: shape of one datum, or its number of dimensions.
        latent_dim: number of latent dimensions.
        hidden_dims: units of the encoder's hidden layers; the decoder has them reversed.
        likelihood: a :class:`Conditional`; default Bernoulli.
        prior: any distribution over latent vectors; default standard normal.
        posterior: a :class:`Conditional`; default diagonal normal.
        activation: makes the nonlinearity.
        name: prefix of the parameters in Pyro's global store.

    Returns:
        The pair.

    Example:
        >>> vae((1, 8, 8), 2, hidden_dims=(64,)).data_shape
        (1, 8, 8)
    """
    data_shape, latent_dim = as_shape(data_shape), as_size(latent_dim, "latent_dim")
    likelihood = with_params_shape(likelihood or BernoulliLikelihood(), "likelihood")
    posterior = with_params_shape(posterior or DiagonalNormalPosterior(), "posterior")
    encoder = MLP(
        data_shape, hidden_dims, posterior.params_shape((latent_dim,)), activation=activation
    )
    decoder = MLP(
        latent_dim, hidden_dims[::-1], likelihood.params_shape(data_shape), activation=activation
    )
    return VAE(
        encoder,
        decoder,
        latent_dim,
        likelihood=likelihood,
        prior=prior,
        posterior=posterior,
        name=name,
    )
