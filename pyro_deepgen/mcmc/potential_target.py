# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A potential function as a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from .one_of_many import one_of_many, without_nan
from .state import Values
from .target import Site, Target


class PotentialTarget(Target):
    r"""The density :math:`p(q) \propto \exp(-U(q))` of a function :math:`U` over the reals.

    Args:
        potential_fn: :math:`U`, from a dictionary of unconstrained values ``(*shape)`` of one chain
            to a scalar, as in Pyro; ``torch.func.vmap`` runs it for all chains.
        example: values ``(*shape)`` of one chain, for names, shapes and dtypes.

    Raises:
        ValueError: if there is no example, or if one is not a floating-point tensor; at ``start``,
            which nobody but the user knows.

    Example:
        >>> import torch
        >>> target = PotentialTarget(lambda q: q["a"].square().sum() / 2, {"a": torch.zeros(3)})
        >>> target.potential({"a": torch.ones(5, 3)}).tolist()
        [1.5, 1.5, 1.5, 1.5, 1.5]
    """

    def __init__(
        self,
        potential_fn: Callable[[Values], torch.Tensor],
        example: Mapping[str, torch.Tensor] | None,
    ) -> None:
        if not example:
            raise ValueError(
                "a potential_fn does not say what its values look like: expected initial_params, "
                "a tensor for each name in the dictionary that potential_fn takes"
            )
        for name, value in example.items():
            if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
                raise ValueError(
                    f"initial_params: expected a floating-point tensor for {name!r}, got {value!r}"
                )
        self.potential_fn = potential_fn
        self.sites = {n: Site(value.shape, dtype=value.dtype) for n, value in example.items()}
        self.device = next(iter(example.values())).device

    def potential(self, values: Values) -> torch.Tensor:
        """The potential of every chain."""
        with one_of_many():
            potential = torch.func.vmap(self.potential_fn)(values)
        if potential.dim() != 1:
            raise ValueError(
                "expected a potential_fn that gives a scalar for one chain, got the shape "
                f"{tuple(potential.shape[1:])}"
            )
        return without_nan(potential)

    def start(self, num_chains: int) -> Values:
        """Raise: only the user knows a start."""
        raise ValueError(
            "a potential_fn does not say where chains may start: give initial_params, "
            f"unconstrained values of {sorted(self.sites)} for each of the {num_chains} chains"
        )

    def fits(self, example: Mapping[str, torch.Tensor] | None) -> bool:
        """Whether other values have the same names, shapes and dtypes."""
        kinds = {n: (v.shape, v.dtype) for n, v in (example or {}).items()}
        return not kinds or kinds == {n: (s.shape, s.dtype) for n, s in self.sites.items()}
