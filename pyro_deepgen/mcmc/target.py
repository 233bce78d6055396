# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What chains sample from: sites with supports, and a potential over all chains at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributions import constraints
from torch.distributions.transforms import Transform, identity_transform

from .state import Values, pack, unpack


@dataclass(frozen=True)
class Site:
    """One unknown of a target.

    Args:
        shape: shape of its value in one chain, as the chain holds it (unconstrained).
        transform: from the support to the values that the chain holds; the identity for a discrete
            site.
        support: the constraint that its values in the target's own terms satisfy.
        dtype: of its values.
        plate_dims: how many of the leading dimensions of ``shape`` are plates.
        values: of a finite discrete site, the possible values ``(K, *element_shape)`` of each of
            its elements, where ``element_shape`` ends ``shape``; else ``None``.

    Example:
        >>> import torch
        >>> from torch.distributions import biject_to, constraints
        >>> scale = Site(torch.Size([3]), biject_to(constraints.positive).inv, constraints.positive)
        >>> bool((scale.transform.inv(torch.randn(5, 3)) > 0).all()), scale.is_discrete
        (True, False)
    """

    shape: torch.Size
    transform: Transform = field(default_factory=lambda: identity_transform)
    support: Any = constraints.real
    dtype: torch.dtype = torch.float32
    plate_dims: int = 0
    values: torch.Tensor | None = None

    @property
    def is_discrete(self) -> bool:
        """Whether the support is discrete."""
        return bool(self.support.is_discrete)


class Target(ABC):
    r"""A density over named sites, known up to a factor.

    .. math:: p(q) \propto \exp(-U(q))

    Chains hold unconstrained values ``q``; the potential ``U`` contains the Jacobian of the
    transforms.

    Args:
        sites: the unknowns, by name, in a fixed order.
        device: where the chains live.

    Example:
        >>> import torch
        >>> class Ring(Target):
        ...     sites, device = {"x": Site(torch.Size([2]))}, torch.device("cpu")
        ...     def potential(self, values):
        ...         return 8 * (values["x"].norm(dim=-1) - 2) ** 2
        ...     def start(self, num_chains):
        ...         return {"x": torch.randn(num_chains, 2)}
        >>> potential, gradient = Ring().potential_and_gradient({"x": 2 * torch.eye(2)}, ["x"])
        >>> potential.tolist(), gradient.tolist()
        ([0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]])
    """

    sites: dict[str, Site]
    device: torch.device

    @abstractmethod
    def potential(self, values: Values) -> torch.Tensor:
        """The potential ``U`` of every chain.

        Args:
            values: unconstrained values ``(C, *shape)`` of all sites.

        Returns:
            ``(C,)``; infinite outside of the support.
        """

    @abstractmethod
    def start(self, num_chains: int) -> Values:
        """Values ``(num_chains, *shape)``, unconstrained, where the chains may start."""

    def shapes(self, sites: Sequence[str]) -> dict[str, torch.Size]:
        """The shapes of some sites in one chain."""
        return {name: self.sites[name].shape for name in sites}

    def potential_and_gradient(
        self, values: Values, sites: Sequence[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The potential of every chain, and its gradient by some sites.

        Args:
            values: unconstrained values ``(C, *shape)`` of all sites.
            sites: the continuous sites by which to differentiate.

        Returns:
            ``(C,)`` and ``(C, D)``, packed in the order of ``sites``.
        """
        shapes = self.shapes(sites)
        position = pack(values, sites).detach().requires_grad_()
        with torch.enable_grad():
            potential = self.potential({**values, **unpack(position, shapes)})
            if potential.requires_grad:
                (gradient,) = torch.autograd.grad(potential.sum(), position, allow_unused=True)
            else:
                gradient = None
        if gradient is None:  # a flat density
            gradient = torch.zeros_like(position)
        return potential.detach(), gradient

    def explain(self, values: Values) -> str:
        """Say where the potential or its gradient is not finite.

        Args:
            values: unconstrained values ``(1, *shape)`` of all sites, of one chain.
        """
        sites = [name for name, site in self.sites.items() if not site.is_discrete]
        found = []
        if not sites:
            potential = self.potential(values)
        else:
            potential, gradient = self.potential_and_gradient(values, sites)
            for name, part in unpack(gradient, self.shapes(sites)).items():
                if not part.isfinite().all():
                    found.append(f"the gradient at the site {name!r} is not finite")
        if not potential.isfinite().all():
            found.insert(0, f"the potential is {potential.item()}")
        return "; ".join(found)

    def constrain(self, values: Mapping[str, torch.Tensor]) -> Values:
        """Values in the target's own terms; any batch shape ``(*batch, *shape)``."""
        return {name: self.sites[name].transform.inv(value) for name, value in values.items()}

    def unconstrain(self, values: Mapping[str, torch.Tensor]) -> Values:
        """Values as chains hold them; any batch shape."""
        return {name: self.sites[name].transform(value) for name, value in values.items()}
