# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The log-likelihood of each datum under a model with latent variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from .ais import ais
from .data_target import DataTarget
from .hmc import HMC
from .kernel import Kernel


class LogLikelihood(NamedTuple):
    r"""Estimates for each of ``B`` data.

    Args:
        log_prob: of :math:`\log p(x_b)`, ``(B,)``; too low on average, as a lower bound is.
        standard_error: of ``log_prob``, ``(B,)``.
        ess: effective number of chains ``(B,)``, at most ``num_chains``.

    Example:
        >>> import torch
        >>> sure = LogLikelihood(torch.zeros(5), torch.ones(5), torch.full((5,), 16.0))
        >>> float(sure.log_prob.mean())  # of the data set
        0.0
    """

    log_prob: torch.Tensor
    standard_error: torch.Tensor
    ess: torch.Tensor


def annealed_log_likelihood(
    model: Callable[..., Any],
    *args: torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    kernel: Callable[[Any], Kernel] = HMC,
    num_chains: int = 16,
    num_steps: int = 1000,
    batch_size: int = 100,
    **options: Any,
) -> LogLikelihood:
    r"""Estimate the log-likelihood of each datum by annealed importance sampling.

    .. math:: \log p(x_b) = \log \int p(x_b | z) \, p(z) \, dz

    All chains of a batch of data anneal at once from the prior of the latent variables to their
    posterior given one datum each. Put networks in evaluation mode before.

    Args:
        model: a Pyro model whose sites are all in a plate of data, such as that of a variational
            autoencoder.
        args: its arguments, tensors ``(B, ...)``.
        kwargs: its other arguments.
        kernel: what makes a kernel of a target.
        num_chains: chains for each datum.
        num_steps: steps of temperature.
        batch_size: data that are annealed at once.
        options: of :func:`ais`.

    Returns:
        Estimates ``(B,)``, with standard errors and effective sample sizes.

    Raises:
        ValueError: for a model with discrete latent sites, or with sites that data share.

    References:
        On the quantitative analysis of decoder-based generative models, Yuhuai Wu, Yuri Burda,
        Ruslan Salakhutdinov and Roger Grosse, 2016, arXiv 1611.04273.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)
        >>> x = torch.tensor([0.0, 1.0, 4.0])
        >>> result = annealed_log_likelihood(
        ...     model, x, num_steps=50, kernel=lambda target: HMC(target, compile=False)
        ... )
        >>> exact = dist.Normal(0.0, 5.0**0.5).log_prob(x)
        >>> bool(((result.log_prob - exact).abs() < 4 * result.standard_error).all())
        True
    """
    total = len(args[0]) if args else 0
    if batch_size < 1 or not total:
        raise ValueError(f"expected data, in batches of 1 or more, got {total} by {batch_size}")
    batch_size = min(batch_size, total)
    target: DataTarget | None = None
    parts = []
    for first in range(0, total, batch_size):
        # The last batch is filled up with data from the beginning, so that graphs serve again.
        at = torch.arange(first, first + batch_size) % total
        batch = [arg[at.to(arg.device)] for arg in args]
        if target is None:
            target = DataTarget(model, batch, num_chains, kwargs)
            made = kernel(target)
        else:
            target.update(batch)
        result = ais(
            target,
            kernel=made,
            num_chains=num_chains,
            groups=batch_size,
            num_steps=num_steps,
            **options,
        )
        parts.append(LogLikelihood(result.log_z, result.standard_error, result.ess))
    log_prob, error, ess = (torch.cat(column)[:total] for column in zip(*parts, strict=True))
    return LogLikelihood(log_prob, error, ess)
