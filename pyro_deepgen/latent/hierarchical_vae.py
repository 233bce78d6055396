# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The variational autoencoder with several stochastic layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn

from ..nn import MLP, as_shape, as_size, as_sizes, evaluating
from .checks import check_network
from .conditional import Conditional, as_conditional, with_params_shape
from .likelihoods import BernoulliLikelihood
from .pair import Pair
from .posteriors import DiagonalNormalPosterior
from .shapes import batch_shape_of, center, check_in_support, data_plates
from .wiring import Family, Network, as_prior, conditional_of, plain


class HierarchicalVAE(Pair):
    r"""A variational autoencoder with :math:`L` stochastic layers.

    The model runs from the top, :math:`z_L \sim p(z_L)`, :math:`z_l \sim p_\theta(z_l | z_{l+1})`,
    :math:`x \sim p_\theta(x | z_1)`; the guide from the data, :math:`z_1 \sim q_\phi(z_1 | x)`,
    :math:`z_{l+1} \sim q_\phi(z_{l+1} | z_l)`. Sites: ``"z1"`` (next to the data), ..., ``"zL"``
    and ``"x"``, in the plate ``"data"``.

    Args:
        encoders: :math:`L` networks: from ``(N, *data_shape)`` to the parameters of
            :math:`q(z_1 | x)`, then from ``(N, latent_dims[l])`` to those of the next layer.
        decoders: :math:`L` networks: from ``(N, latent_dims[0])`` to the likelihood's parameters,
            then from ``(N, latent_dims[l])`` to those of :math:`p(z_l | z_{l+1})`.
        latent_dims: number of dimensions of each layer, from the data upwards.
        likelihood: family of :math:`p(x | z_1)`; default Bernoulli.
        prior: distribution of the top layer; default standard normal.
        posterior: family of the guide's and the model's inner conditionals; default diagonal
            normal.
        name: prefix of the parameters in Pyro's global store.

    Raises:
        ValueError: if the numbers of networks and layers differ, or the parts do not fit together.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> import torch
        >>> pair = hierarchical_vae(6, latent_dims=(3, 2), hidden_dims=((8,), (8,)))
        >>> pair.sample(5).shape
        torch.Size([5, 6])
        >>> sorted(n for n in pair.latents(torch.zeros(4, 6)))
        ['z1', 'z2']
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        decoders: Sequence[nn.Module],
        latent_dims: Sequence[int],
        *,
        likelihood: Family | None = None,
        prior: TorchDistributionMixin | None = None,
        posterior: Family | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.latent_dims = latent_dims = as_sizes(latent_dims, "latent_dims")
        if not len(encoders) == len(decoders) == len(latent_dims) > 0:
            raise ValueError(
                "expected one encoder, one decoder and one size for each stochastic layer, got "
                f"{len(encoders)} encoders, {len(decoders)} decoders and latent_dims="
                f"{latent_dims}"
            )
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)
        self.likelihood = as_conditional(likelihood or BernoulliLikelihood(), "likelihood")
        self.posterior = as_conditional(posterior or DiagonalNormalPosterior(), "posterior")
        self.prior = as_prior(prior, self.latent_dims[-1])
        shapes = [(dim,) for dim in self.latent_dims]
        self.data_shape = check_network(
            decoders[0], self.likelihood, "decoders[0]", None, shapes[0]
        )
        below = [self.data_shape, *shapes]
        for i, encoder in enumerate(encoders):
            prior = self.prior if i == len(shapes) - 1 else None
            name = f"encoders[{i}]"
            check_network(encoder, self.posterior, name, shapes[i], below[i], prior=prior)
        for i, decoder in enumerate(decoders[1:], start=1):
            check_network(decoder, self.posterior, f"decoders[{i}]", shapes[i - 1], shapes[i])

    def _conditional(self, network: Network, z: torch.Tensor) -> TorchDistributionMixin:
        return conditional_of(network, self.posterior, [z], 1, "inner conditional")

    def encode(self, x: torch.Tensor) -> TorchDistributionMixin:
        """The posterior :math:`q(z_1 | x)` of the layer next to the data."""
        batch_shape_of(x, self.data_shape)
        return conditional_of(
            self.encoders[0], self.posterior, [x], len(self.data_shape), "posterior"
        )

    def decode(self, z1: torch.Tensor) -> TorchDistributionMixin:
        """The likelihood :math:`p(x | z_1)` for ``z1`` of shape ``(*batch, latent_dims[0])``."""
        return conditional_of(self.decoders[0], self.likelihood, [z1], 1, "likelihood")

    def latents(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """One draw of every layer from the guide, ``{"z1": (*batch, latent_dims[0]), ...}``.

        Networks run in evaluation mode.
        """
        with evaluating(self):
            draws = {"z1": self.encode(x).sample()}
            for i, network in enumerate(self.encoders[1:], start=1):
                draws[f"z{i + 1}"] = self._conditional(network, draws[f"z{i}"]).sample()
            return draws

    def sample(self, num_samples: int, *, mean: bool = False) -> torch.Tensor:
        """Draw data from the top layer down, or the likelihood's means.

        Networks run in evaluation mode.
        """
        with evaluating(self):
            z = self.prior.sample((as_size(num_samples, "num_samples"),))
            for network in reversed(self.decoders[1:]):
                z = self._conditional(network, z).sample()
            likelihood = self.decode(z)
            return center(likelihood) if mean else likelihood.sample()

    def generate(
        self, x: torch.Tensor | None = None, *, data_size: int | None = None
    ) -> torch.Tensor:
        """Model: the layers from the top down, then ``x`` from the likelihood."""
        batch = () if x is None else batch_shape_of(x, self.data_shape)
        decoders = self.decoders
        with data_plates(batch, data_size):
            z = pyro.sample(f"z{len(decoders)}", plain(self.prior))
            for i in reversed(range(1, len(decoders))):
                z = pyro.sample(f"z{i}", self._conditional(decoders[i], z))
            likelihood = self.decode(z)
            if x is not None:
                check_in_support(x, likelihood)
            result: torch.Tensor = pyro.sample("x", likelihood, obs=x)
        return result

    def recognize(self, x: torch.Tensor, *, data_size: int | None = None) -> torch.Tensor:
        """Guide: the layers from the data upwards."""
        with data_plates(batch_shape_of(x, self.data_shape), data_size):
            z = pyro.sample("z1", self.encode(x))
            for i, network in enumerate(self.encoders[1:], start=2):
                z = pyro.sample(f"z{i}", self._conditional(network, z))
        return z


def hierarchical_vae(
    data_dim: int | Sequence[int],
    latent_dims: Sequence[int] = (100, 50),
    hidden_dims: Sequence[Sequence[int]] = ((200, 200), (100, 100)),
    *,
    likelihood: Conditional | None = None,
    prior: TorchDistributionMixin | None = None,
    posterior: Conditional | None = None,
    activation: Callable[[], nn.Module] = nn.Tanh,
    name: str | None = None,
) -> HierarchicalVAE:
    """Make a :class:`HierarchicalVAE` with fully connected networks.

    The defaults are the two-layer architecture of Burda, Grosse and Salakhutdinov (2016).

    Args:
        data_dim: number of dimensions, or shape, of one datum.
        latent_dims: number of dimensions of each stochastic layer, from the data upwards.
        hidden_dims: for each stochastic layer, the hidden layers between it and the one below (or
            the data), in the encoder; the decoder has them reversed.
        likelihood: a :class:`Conditional`; default Bernoulli.
        prior: distribution of the top layer; default standard normal.
        posterior: a :class:`Conditional`; default diagonal normal.
        activation: makes the nonlinearity.
        name: prefix of the parameters in Pyro's global store.

    Returns:
        The pair.

    Raises:
        ValueError: if ``hidden_dims`` does not have one entry a stochastic layer.

    Example:
        >>> hierarchical_vae(784).latent_dims
        (100, 50)
    """
    latent_dims = as_sizes(latent_dims, "latent_dims")
    if not isinstance(hidden_dims, Sequence) or len(hidden_dims) != len(latent_dims):
        raise ValueError(
            f"expected hidden_dims with one entry for each of the {len(latent_dims)} stochastic "
            f"layers, such as {((200, 200),) * len(latent_dims)}, got {hidden_dims!r}"
        )
    likelihood = with_params_shape(likelihood or BernoulliLikelihood(), "likelihood")
    posterior = with_params_shape(posterior or DiagonalNormalPosterior(), "posterior")
    data_shape = as_shape(data_dim)
    below = [data_shape, *((dim,) for dim in latent_dims)]
    encoders, decoders = [], []
    for i, (dim, hidden) in enumerate(zip(latent_dims, hidden_dims, strict=True)):
        family = likelihood if i == 0 else posterior
        encoders.append(
            MLP(below[i], hidden, posterior.params_shape((dim,)), activation=activation)
        )
        decoders.append(
            MLP(dim, hidden[::-1], family.params_shape(below[i]), activation=activation)
        )
    return HierarchicalVAE(
        encoders,
        decoders,
        latent_dims,
        likelihood=likelihood,
        prior=prior,
        posterior=posterior,
        name=name,
    )
