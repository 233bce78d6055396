# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A distribution as a target."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import Transform, identity_transform
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pyro_deepgen.tracing import device_only

from .finite_support import finite_values
from .mixture_support import is_mixture
from .one_of_many import without_nan
from .reached import Reached
from .starts import draw_starts, uniform_draws
from .state import Values
from .target import Site, Target

SITE = "x"


class DistributionTarget(Target):
    r"""A distribution, known at least up to a factor, over the one site ``"x"``.

    .. math:: U(q) = E(x(q)) - \log \Bigl|\frac{\partial x}{\partial q}\Bigr|

    where :math:`E` is ``energy``, which need not be normalised, or minus ``log_prob`` where there
    is no energy. All chains are evaluated as one batch. They start uniformly in a cube of
    unconstrained values; those of a ``MixtureSameFamily`` from its draws.

    Args:
        distribution: has ``energy(x)`` or ``log_prob(x)``, for values ``(C, *batch, *event)``, and
            ``event_shape``; ``batch_shape``, of which every element is a part of ``x``, is ``()``
            and ``support`` is the reals where it has none.

    Raises:
        ValueError: if it has neither, for a support without a bijection, and at a call that does
            not give one number a chain.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> gamma = DistributionTarget(dist.Gamma(2.0, torch.ones(3)))
        >>> q = gamma.start(num_chains=7)
        >>> x = gamma.constrain(q)["x"]
        >>> bool((x > 0).all()), gamma.potential(q).shape
        (True, torch.Size([7]))
    """

    def __init__(self, distribution: Any) -> None:
        if not (hasattr(distribution, "energy") or hasattr(distribution, "log_prob")):
            raise ValueError(
                f"expected an object with energy(x) or log_prob(x), got {type(distribution)}"
            )
        if not hasattr(distribution, "event_shape"):
            raise ValueError(
                f"{type(distribution).__name__} does not say what its values look like: expected "
                "an attribute event_shape beside energy(x)"
            )
        self.distribution, self._reached = distribution, Reached(distribution)
        shape = torch.Size(getattr(distribution, "batch_shape", ())) + distribution.event_shape
        support = getattr(distribution, "support", constraints.real)
        like = _example(distribution, shape)
        self.device = like.device
        values = None
        transform: Transform = identity_transform
        if support.is_discrete:
            values = finite_values(distribution, like)
        else:
            try:
                transform = biject_to(support).inv
            except NotImplementedError as error:
                raise ValueError(
                    f"{type(distribution).__name__} has the support {support}, to which no "
                    f"bijection from unconstrained values is registered ({error}): see "
                    "torch.distributions.biject_to"
                ) from error
            shape = torch.Size(transform.forward_shape(shape))
        self.sites = {SITE: Site(shape, transform, support, like.dtype, 0, values)}

    def potential(self, values: Values) -> torch.Tensor:
        """The potential of every chain."""
        return self.potential_of(self.distribution, values)

    def potential_of(self, distribution: Any, values: Values) -> torch.Tensor:
        """The potential of another distribution with the same shape and support.

        Args:
            distribution: the other one; it may give each of the chains its own density.
            values: unconstrained values ``(C, *shape)`` of the site.

        Returns:
            ``(C,)``.
        """
        (value,) = values.values()
        inverse = self.sites[SITE].transform.inv
        # While a graph is recorded, its recorder does this.
        with device_only() if get_proxy_mode() is None else nullcontext():
            x = inverse(value)
            if hasattr(distribution, "energy"):
                energy = distribution.energy(x)
            else:
                energy = -distribution.log_prob(x)
            if energy.dim() == 0 or len(energy) != len(value):
                raise ValueError(
                    f"expected one energy or log_prob for each of the {len(value)} chains, got the "
                    f"shape {tuple(energy.shape)} for values {tuple(x.shape)}"
                )
            potential = energy.reshape(len(value), -1).sum(-1)
            if not self.sites[SITE].is_discrete:
                log_jacobian = inverse.log_abs_det_jacobian(value, x)
                potential = potential - log_jacobian.reshape(len(value), -1).sum(-1)
        return without_nan(potential)

    def is_current(self) -> bool:
        """Whether graphs of the distribution are still right, also after it was trained."""
        return self._reached.is_same(Reached(self.distribution))

    def start(self, num_chains: int) -> Values:
        """Draw starts of finite density and gradient."""
        return draw_starts(self, self._draw, num_chains)

    def _draw(self, num_chains: int) -> Values:
        site = self.sites[SITE]
        # From one cube chains would find the modes of a mixture by other weights than its own.
        if (site.is_discrete and site.values is None) or is_mixture(site.support):
            return self.unconstrain({SITE: self.distribution.sample((num_chains,)).to(site.dtype)})
        return uniform_draws(self.sites, self.device, num_chains)


def _example(distribution: Any, shape: torch.Size) -> torch.Tensor:
    """A tensor with the dtype and on the device of a distribution's values."""
    if isinstance(distribution, nn.Module):
        for tensor in chain(distribution.parameters(), distribution.buffers()):
            if tensor.dtype.is_floating_point:
                return tensor.new_empty(())
    if hasattr(distribution, "energy"):
        return torch.empty(())
    with torch.no_grad():
        draw: torch.Tensor = distribution.sample()
    return draw
