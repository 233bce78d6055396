# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Autoregressive transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch.distributions import constraints

from ..nn import MaskedMLP
from .equation import Equation
from .transform import Transform

Elementwise = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Autoregressive(Transform):
    r"""A map of each variable whose parameters depend on the variables before it.

    .. math:: y_i = g(x_i; \theta_i), \qquad \theta_i = n_i(y_{<i}, c) \text{ or } n_i(x_{<i}, c)

    .. math:: \log |\det \partial y / \partial x|
        = \sum_i \log |\partial g(x_i; \theta_i) / \partial x_i|

    The Jacobian is triangular in the order of the variables. With parameters from the data
    :math:`y` the way from the data to the base is one pass of the network (masked autoregressive
    flows), with parameters from the base :math:`x` the way from the base to the data is (inverse
    autoregressive flows). In the other way the variables come to be known one by one; it makes the
    one pass in slices, every hidden unit being computed once, and so costs about as many products.

    Args:
        equation: the map :math:`g` of a variable.
        network: gives the parameters of all variables, as many as the equation has.
        parameters_from: ``"data"`` or ``"base"``.

    Raises:
        ValueError: if the network gives another number of parameters than the equation has, or
            ``parameters_from`` is neither.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, Improving variational inference
        with inverse autoregressive flow, 2016, arXiv:1606.04934.

        Papamakarios, Pavlakou and Murray, Masked autoregressive flow for density estimation, 2017,
        arXiv:1705.07057.

    Example:
        >>> import torch
        >>> from pyro_deepgen.nn import MaskedMLP
        >>> from pyro_deepgen.transforms import Affine
        >>> flow = Autoregressive(Affine(), MaskedMLP(3, (16,), 2))
        >>> x = torch.randn(3)
        >>> jacobian = torch.autograd.functional.jacobian(flow, x)
        >>> torch.equal(jacobian, jacobian.tril())
        True
        >>> torch.allclose(torch.logdet(jacobian), flow.forward_and_log_det(x)[1], atol=1e-5)
        True
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(
        self,
        equation: Equation,
        network: MaskedMLP,
        *,
        parameters_from: Literal["data", "base"] = "data",
    ) -> None:
        super().__init__()
        if parameters_from not in ("data", "base"):
            raise ValueError(
                "expected as parameters_from 'data' (masked autoregressive) or 'base' (inverse "
                f"autoregressive), got {parameters_from!r}"
            )
        if network.num_parameters != equation.num_parameters:
            raise ValueError(
                f"expected a network with {equation.num_parameters} parameters for every variable, "
                f"as {type(equation).__name__} has, got one with {network.num_parameters}; make it "
                f"with num_parameters={equation.num_parameters}"
            )
        self.equation, self.network = equation, network
        self.parameters_from = parameters_from
        self.inverse_is_fast = parameters_from == "data"
        self.domain_shape = self.codomain_shape = (network.num_variables,)
        self.context_dim = network.context_dim

    def forward_and_log_det(
        self, x: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map in one pass with parameters from the base, else one variable after another."""
        self.check_domain(x, context)
        run = self._one_by_one if self.inverse_is_fast else self._at_once
        return run(self.equation.forward_and_log_slope, x, context)

    def inverse_and_log_det(
        self, y: torch.Tensor, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map back in one pass with parameters from the data, else one variable after another."""
        self.check_codomain(y, context)
        run = self._at_once if self.inverse_is_fast else self._one_by_one
        return run(self.equation.inverse_and_log_slope, y, context)

    def _at_once(
        self, apply: Elementwise, known: torch.Tensor, context: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map all variables with parameters from what they are mapped from."""
        new, log_slope = apply(known, self.network(known, context))
        return new, log_slope.sum(-1)

    def _one_by_one(
        self, apply: Elementwise, known: torch.Tensor, context: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map all variables with parameters from what they are mapped to."""
        contexts = () if context is None else context.shape[:-1]
        batch = torch.broadcast_shapes(known.shape[:-1], contexts)
        flat = known.index_select(-1, self.network.order).expand((*batch, known.shape[-1]))
        ordered = flat.reshape(batch.numel(), known.shape[-1]).mT.contiguous().unbind()
        log_slopes = []

        def step(place: int, parameters: torch.Tensor) -> torch.Tensor:
            new, log_slope = apply(ordered[place], parameters)
            log_slopes.append(log_slope)
            return new

        new = self.network.generate(step, batch, context)
        return new, torch.stack(log_slopes).sum(0).reshape(batch)
