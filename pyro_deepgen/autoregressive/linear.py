# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The fully visible belief net without hidden units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..nn import MaskedLinear
from .masked_distribution import MaskedDistribution, masked_network
from .outputs import BinaryOutput, Output
from .real_outputs import GaussianOutput


class LinearAutoregressive(MaskedDistribution):
    r"""A fully visible belief net: each variable depends on those before it linearly.

    .. math:: \theta_d = b_d + \sum_{j < d} w_{dj} x_j

    With binary outputs a logistic regression of each variable on those before it, with classes a
    multinomial one on their one-hot vectors. With Gaussian outputs, whose standard deviations
    :math:`\sigma_d` do not depend on the variables, it is the normal distribution with precision
    matrix :math:`(I - W)^T \mathrm{diag}(\sigma^{-2}) (I - W)`, and every normal distribution is
    one. It has :math:`O(D^2)` parameters, and a draw takes :math:`O(D^2)`.

    Args:
        num_variables: number of variables :math:`D`.
        output: the family of one variable: binary by default, :class:`CategoricalOutput`,
            :class:`GaussianOutput` or :class:`MixtureOutput`.
        order: indices of the variables from the first to the last; by default that of the indices.
        context_dim: number of dimensions of a context, which shifts all parameters linearly
            (not the Gaussian scales).
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, or the order is not a permutation.

    References:
        Frey, Graphical models for machine learning and digital communication, MIT Press, 1998.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> model, eye = LinearAutoregressive(3, GaussianOutput()), torch.eye(3)
        >>> mean, cov = model.mean, model.covariance_matrix
        >>> x = torch.randn(5, 3)
        >>> normal = dist.MultivariateNormal(mean, cov)
        >>> torch.allclose(model.log_prob(x), normal.log_prob(x), atol=1e-5)
        True
    """

    log_scale: nn.Parameter | None

    def __init__(
        self,
        num_variables: int,
        output: Output | None = None,
        *,
        order: Sequence[int] | None = None,
        context_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        output = output or BinaryOutput()
        gaussian = isinstance(output, GaussianOutput)
        network = masked_network(
            num_variables,
            (),
            output,
            num_parameters=1 if gaussian else None,
            order=order,
            context_dim=context_dim,
        )
        super().__init__([network], output, validate_args=validate_args)
        self.log_scale = nn.Parameter(torch.zeros(num_variables)) if gaussian else None

    def complete(
        self, parameters: torch.Tensor, variable: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Add the log-scales of Gaussian outputs, which are no function of the variables."""
        if self.log_scale is None:
            return parameters
        log_scale: torch.Tensor = self.log_scale
        if variable is not None:
            log_scale = log_scale.index_select(0, variable)
        return torch.cat([parameters, log_scale.unsqueeze(-1).expand_as(parameters)], -1)

    @property
    def mean(self) -> torch.Tensor:
        """The mean of a Gaussian one, :math:`(I - W)^{-1} b`, of shape ``(*batch_shape, D)``.

        Raises:
            NotImplementedError: for other outputs, whose mean has no closed form.
        """
        zeros = self._zeros()
        shift = self.conditionals(zeros, self._given_context())[..., 0]
        mean = torch.linalg.solve(self._unmixing(), shift.unsqueeze(-1)).squeeze(-1)
        result: torch.Tensor = mean.expand(self.batch_shape + self.event_shape)
        return result

    @property
    def covariance_matrix(self) -> torch.Tensor:
        """The covariance matrix of a Gaussian one, of shape ``(D, D)``.

        Raises:
            NotImplementedError: for other outputs, whose covariance has no closed form.
        """
        self._zeros()
        assert self.log_scale is not None
        root: torch.Tensor = torch.linalg.solve(self._unmixing(), self.log_scale.exp().diag())
        return root @ root.mT

    @property
    def variance(self) -> torch.Tensor:
        """The variances of a Gaussian one, of shape ``(*batch_shape, D)``.

        Raises:
            NotImplementedError: for other outputs, whose variances have no closed form.
        """
        return self.covariance_matrix.diagonal().expand(self.batch_shape + self.event_shape)

    def _zeros(self) -> torch.Tensor:
        if self.log_scale is None:
            raise NotImplementedError(
                f"moments are in closed form with a GaussianOutput only, got {self.output!r}"
            )
        return torch.zeros_like(self.log_scale)

    def _unmixing(self) -> torch.Tensor:
        """The matrix :math:`I - W`, from the variables to their noise."""
        layer = self._network(0).layers[0]
        assert isinstance(layer, MaskedLinear)
        weight = layer.weight * layer.mask
        return torch.eye(len(weight), dtype=weight.dtype, device=weight.device) - weight
