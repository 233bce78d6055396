# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Adaptation of a step size to an acceptance rate."""

from __future__ import annotations

import math

import torch


class DualAveraging:
    r"""Finds the step size at which a kernel accepts as often as it should.

    With the rate :math:`\delta` that is wanted and :math:`\alpha_t` that is seen, the step sizes
    tried are :math:`\varepsilon_t`, and that kept is :math:`\bar\varepsilon_t`:

    .. math::
        \bar H_t &= \bar H_{t-1} + \frac{\delta - \alpha_t - \bar H_{t-1}}{t + t_0} \\
        \log\varepsilon_t &= \mu - \frac{\sqrt t}{\gamma} \bar H_t \\
        \log\bar\varepsilon_t &= t^{-\kappa} \log\varepsilon_t
            + (1 - t^{-\kappa}) \log\bar\varepsilon_{t-1}

    All is kept on the device and changed in place, so that nothing waits for a value and a compiled
    graph reads the present step size.

    Args:
        tuning: a kernel's tensors.
        name: which of them is the step size, of any shape: several step sizes are adapted each for
            itself. Made by ``start`` where there is none.
        target: the acceptance rate :math:`\delta` that is wanted.
        gamma: how strongly a rate that is off pulls.
        t0: steps by which the first ones are damped.
        kappa: how fast the first steps are forgotten.

    References:
        The No-U-Turn Sampler: Adaptively Setting Path Lengths in Hamiltonian Monte Carlo,
        Matthew D. Hoffman and Andrew Gelman, 2014, arXiv 1111.4246.

    Example:
        >>> import torch
        >>> tuning = {}
        >>> adaptation = DualAveraging(tuning, "step_size", target=0.6)
        >>> adaptation.start(torch.tensor(5.0))
        >>> for _ in range(300):  # a kernel that accepts exp(-step_size) of its proposals
        ...     adaptation.update(torch.exp(-tuning["step_size"]))
        >>> adaptation.finish()
        >>> bool((torch.exp(-tuning["step_size"]) - 0.6).abs() < 0.02)
        True
    """

    def __init__(
        self,
        tuning: dict[str, torch.Tensor],
        name: str,
        target: float,
        *,
        gamma: float = 0.05,
        t0: float = 10.0,
        kappa: float = 0.75,
    ) -> None:
        self._tuning, self._name, self._target = tuning, name, target
        self._gamma, self._t0, self._kappa = gamma, t0, kappa
        self._center = self._mean = self._average = self._time = torch.empty(0)  # see start

    def start(self, step_size: float | torch.Tensor, reach: float = 10.0) -> None:
        r"""Begin anew at a step size.

        Args:
            step_size: the first one, broadcastable to the one in ``tuning``.
            reach: :math:`e^\mu`, to which the first steps are drawn, as a multiple of it. Steps
                too large are found out sooner than those too small, so 10 where little is known.
        """
        kept = self._tuning.get(self._name)
        if kept is None:
            kept = self._tuning[self._name] = torch.as_tensor(step_size).detach().clone()
        elif isinstance(step_size, torch.Tensor):
            kept.copy_(step_size)
        else:
            kept.fill_(step_size)
        if self._average.shape != kept.shape or self._average.dtype != kept.dtype:
            self._center, self._mean, self._average = (torch.zeros_like(kept) for _ in range(3))
            self._time = kept.new_zeros(())
        self._average.copy_(kept.log())
        self._center.copy_(self._average + math.log(reach))
        self._mean.zero_()
        self._time.zero_()

    def update(self, accept_prob: float | torch.Tensor, weight: float | torch.Tensor = 1.0) -> None:
        """Try another step size.

        Args:
            accept_prob: the acceptance rate at the present one, the mean over chains;
                broadcastable to the step size.
            weight: what this rate counts for, in steps; may be a fraction.
        """
        self._time += weight
        self._mean += weight / (self._time + self._t0) * (self._target - accept_prob - self._mean)
        tried = self._center - self._time.sqrt() / self._gamma * self._mean
        # After n updates of weight 1 / n the old average has the part that one update leaves it.
        forgotten = 1 - (1 - (self._time**-self._kappa).clamp(max=1.0)) ** weight
        self._average += forgotten * (tried - self._average)
        self._tuning[self._name].copy_(tried.exp())

    def finish(self) -> None:
        """Keep the averaged step size."""
        self._tuning[self._name].copy_(self._average.exp())
