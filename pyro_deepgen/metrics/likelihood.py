# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Log-likelihoods of latent-variable models, by importance sampling in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import log
from typing import Any

import torch
from pyro import poutine
from torch import nn

from ..infer import ImportanceWeightedELBO


@contextmanager
def _evaluating(*programs: Any) -> Iterator[None]:
    """Evaluation mode and no gradients, and back to what was."""
    modules = [m for p in programs if isinstance(p, nn.Module) for m in p.modules()]
    modes = [m.training for m in modules]
    for m in modules:
        m.training = False
    try:
        with torch.no_grad(), poutine.block():
            yield
    finally:
        for m, mode in zip(modules, modes, strict=True):
            m.training = mode


def _leading_size(args: tuple[Any, ...], least: int = 1) -> int:
    sizes = {a.shape[0] for a in args if isinstance(a, torch.Tensor) and a.dim() > 0}
    if len(sizes) != 1:
        raise ValueError(
            "expected tensor arguments with one common number of data as their first dimension, "
            f"got shapes {[tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]}"
        )
    size = sizes.pop()
    if size < least:
        raise ValueError(
            f"expected at least {least} dat{'um' if least == 1 else 'a'}, got {size}; give more, "
            "along the first dimension"
        )
    return size


def _require_program(program: Any, name: str) -> None:
    """Raise where a pair, or something that is no program, stands for one of its programs."""
    if hasattr(program, "model") and hasattr(program, "guide"):
        raise ValueError(
            f"expected a {name}, got the pair {type(program).__name__}; give its programs, "
            f"pair.model and pair.guide, where they are asked for (here: pair.{name})"
        )
    if not callable(program):
        raise ValueError(
            f"expected a {name} that can be called, got {type(program).__name__}; give a Pyro "
            f"program, such as pair.{name}"
        )


def _at_least_one(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected {name} to be an integer of at least 1, got {value!r}")
    return value


def log_likelihood(
    model: Any, guide: Any, *args: Any, num_particles: int = 5000, max_rows: int = 5000
) -> torch.Tensor:
    r"""Estimate the log-likelihood of each datum with the guide as importance distribution.

    .. math::
        \widehat{\log p}(x_n) = \log \frac1K \sum_{k=1}^K \frac{p(x_n, z_k)}{q(z_k | x_n)},
        \qquad z_k \sim q(z | x_n)

    is a lower bound of :math:`\log p(x_n)` in expectation, and meets it as :math:`K` grows. Model
    and guide run in evaluation mode. The figure is in nats, of a density with respect to the units
    in which ``x`` is given (for discrete likelihoods, a probability); quote those units with it,
    as :class:`LikelihoodFigure` does.

    Args:
        model: a model with a plate of data that holds all its sites.
        guide: its guide.
        args: arguments of both: tensors whose first dimension are the data, ``(N, ...)``.
        num_particles: :math:`K`.
        max_rows: how many pairs of a datum and a particle are held at once.

    Returns:
        A tensor of shape ``(N,)``.

    Raises:
        ValueError: if the tensors disagree about ``N`` or it is 0, the model's sites are not one
            for each datum, ``num_particles`` or ``max_rows`` is no integer of at least 1, or a
            pair is given in the place of its programs.

    References:
        Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, arXiv:1509.00519.

    Example:
        >>> import torch
        >>> from pyro_deepgen.latent import vae
        >>> pair = vae(6, 2, hidden_dims=(16,))
        >>> log_likelihood(pair.model, pair.guide, torch.zeros(7, 6), num_particles=10).shape
        torch.Size([7])
    """
    _require_program(model, "model")
    _require_program(guide, "guide")
    _at_least_one("num_particles", num_particles)
    _at_least_one("max_rows", max_rows)
    num_data = _leading_size(args)
    step = min(num_particles, max_rows)
    rest = num_particles % step
    bounds = [ImportanceWeightedELBO(step)] * (num_particles // step)
    bounds += [ImportanceWeightedELBO(rest)] if rest else []
    rows = max(1, max_rows // step)
    results = []
    with _evaluating(model, guide):
        for start in range(0, num_data, rows):
            part = [a[start : start + rows] if _is_data(a) else a for a in args]
            totals = [b.log_weights(model, guide, *part).logsumexp(0) for b in bounds]
            expected = (min(rows, num_data - start),)
            if totals[0].shape != expected:
                raise ValueError(
                    "expected a model with one bound for each datum along the first dimension of "
                    f"its arguments, {expected}, got bounds of shape {tuple(totals[0].shape)}: put "
                    "every site inside one plate of the data"
                )
            results.append(torch.stack(totals).logsumexp(0) - log(num_particles))
    return torch.cat(results)


def _is_data(argument: Any) -> bool:
    return isinstance(argument, torch.Tensor) and argument.dim() > 0


def naive_log_likelihood(
    model: Any, *args: Any, num_particles: int = 5000, max_rows: int = 5000
) -> torch.Tensor:
    r"""Estimate the log-likelihood of each datum with draws of the prior, to show why not to.

    .. math::
        \widehat{\log p}(x_n) = \log \frac1K \sum_{k=1}^K p(x_n | z_k), \qquad z_k \sim p(z)

    is unbiased inside the logarithm, but almost no draw of the prior explains a given datum: the
    variance of the mean grows exponentially with the dimension of the data, and the estimate falls
    far below :func:`log_likelihood` for any :math:`K` that can be run. Wrong models can come out
    on top. It is here for that lesson, and for models with one or two latent dimensions.

    Args:
        model: a model with a plate of data that holds all its sites, and observed data.
        args: its arguments, tensors whose first dimension are the data.
        num_particles: :math:`K`.
        max_rows: how many pairs of a datum and a particle are held at once.

    Returns:
        A tensor of shape ``(N,)``.

    Raises:
        ValueError: as :func:`log_likelihood`.

    Example:
        >>> import torch
        >>> from pyro_deepgen.latent import vae
        >>> pair = vae(6, 2, hidden_dims=(16,))
        >>> naive_log_likelihood(pair.model, torch.zeros(7, 6), num_particles=10).shape
        torch.Size([7])
    """
    _require_program(model, "model")

    def is_observed(message: Any) -> bool:
        return message["type"] == "sample" and bool(message["is_observed"])

    with _evaluating(model):
        prior = poutine.block(model, hide_fn=is_observed)
        return log_likelihood(model, prior, *args, num_particles=num_particles, max_rows=max_rows)
