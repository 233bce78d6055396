# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What every model/guide pair shares."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from contextlib import ExitStack
from itertools import count
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule, pyro_method
from pyro.params.param_store import param_with_module_name
from torch import nn

from ..nn import evaluating
from .imputation import distribution_at, metropolis_within_gibbs
from .shapes import center


class _PairMeta(ABCMeta, type(PyroModule)):  # type: ignore[misc]
    """``PyroModule``'s metaclass that also knows abstract methods."""


class PairView(nn.Module):
    """The model, or the guide, of a pair as a module that shares the pair's parameters.

    ``SVI``, ``elbo(model, guide)``, autoguides and ``Predictive`` take it as they take any module;
    calling it runs one of the pair's two programs inside the pair's Pyro context.

    Args:
        pair: the pair.
        program: name of the pair's method to run.

    Example:
        >>> from pyro_deepgen.latent import vae
        >>> pair = vae((1, 4, 4), 2)
        >>> set(pair.guide.parameters()) == set(pair.parameters())
        True
    """

    def __init__(self, pair: Pair, program: str) -> None:
        super().__init__()
        self.pair = pair
        self.program = program
        self.training = pair.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""
        return self.pair._run(self.program, *args, **kwargs)


class Pair(PyroModule, metaclass=_PairMeta):  # type: ignore[metaclass]
    r"""Base class of model/guide pairs: a directed model with latent variables and its posterior.

    A subclass implements two programs with ``pyro.sample`` statements, :meth:`generate` for the
    model and :meth:`recognize` for the guide. :attr:`model` and :attr:`guide` are module views of
    them, so both routes of Pyro train every parameter: ``elbo(pair.model, pair.guide)`` with
    ``torch.optim`` after ``pyro.settings.set(module_local_params=True)``, and, with that setting
    off, plain ``SVI`` with Pyro's global store (with it on, Pyro's ``SVI`` fails on parameters of
    modules). Every sample site lies inside the plate ``"data"``.

    To save and load a pair use ``state_dict`` and ``load_state_dict``, also where ``SVI`` trains
    it: a store that is loaded holds other tensors than the pair's.

    To weight the divergence between guide and prior (beta-VAE, annealing), scale every latent site
    by :math:`\beta`, in the model and in the guide alike, with a handler around the loss, as in
    the second example: the loss becomes
    :math:`-E_q[\log p(x | z)] + \beta\, KL(q(z | x) \| p(z))`. A bound on the likelihood it is
    for :math:`\beta = 1` only, so evaluate without the handler.

    Args:
        name: prefix of the parameters in Pyro's global store; by default the class's name and a
            number that counts the pairs of this process, so that plain ``SVI`` trains each pair's
            own parameters.

    Example:
        >>> import torch
        >>> from pyro.infer import Trace_ELBO
        >>> from pyro_deepgen.latent import vae
        >>> pair = vae((1, 4, 4), 2)
        >>> loss = Trace_ELBO()(pair.model, pair.guide)
        >>> loss(torch.zeros(5, 1, 4, 4)).backward()
        >>> all(p.grad is not None for p in pair.parameters())
        True

        >>> import pyro
        >>> from pyro import poutine
        >>> class Annealed(poutine.messenger.Messenger):
        ...     def __init__(self, beta):
        ...         super().__init__()
        ...         self.beta = beta
        ...     def _pyro_sample(self, msg):
        ...         if not msg["is_observed"]:
        ...             msg["scale"] = msg["scale"] * self.beta
        >>> losses = []
        >>> for beta in (0.0, 0.5, 1.0):
        ...     pyro.set_rng_seed(0)  # the same latents each time
        ...     with Annealed(beta):
        ...         losses.append(loss(torch.zeros(5, 1, 4, 4)))
        >>> torch.allclose(losses[1], (losses[0] + losses[2]) / 2)
        True
    """

    _numbers = count(1)

    def __init__(self, *, name: str | None = None) -> None:
        # A Pyro context made with local parameters off cannot be used once they are on.
        with pyro.settings.context(module_local_params=True):
            super().__init__(name or f"{type(self).__name__}{next(Pair._numbers)}")

    @abstractmethod
    def generate(self, x: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the model's program: latents from the prior, ``x`` from the likelihood."""

    @abstractmethod
    def recognize(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the guide's program: latents from the approximate posterior given ``x``."""

    @property
    def model(self) -> PairView:
        """The generative program as a module."""
        return PairView(self, "generate")

    @property
    def guide(self) -> PairView:
        """The recognition program as a module."""
        return PairView(self, "recognize")

    @pyro_method
    def _run(self, program: str, *args: Any, **kwargs: Any) -> Any:
        self._check_param_store()
        return getattr(self, program)(*args, **kwargs)

    def _check_param_store(self) -> None:
        """Refuse a copy or namesake of a pair: Pyro would train the parameters of the first."""
        if pyro.settings.get("module_local_params"):
            return
        stored = dict(pyro.get_param_store().named_parameters())
        for child_name, child in self.named_children():
            if isinstance(child, PyroModule):
                continue
            prefix = f"{self._pyro_name}.{child_name}"
            for param_name, param in child.named_parameters():
                full = param_with_module_name(prefix, param_name)
                if param.requires_grad and stored.get(full, param) is not param:
                    raise ValueError(
                        f"Pyro's global parameter store already holds a parameter {full!r} that "
                        "is not this pair's (the pair is a copy, the name was given twice, or the "
                        "store was loaded), and SVI would train that one: call "
                        "pyro.clear_param_store(); or give the pair a name of its own "
                        f"({type(self).__name__}(..., name=...); inside another PyroModule, give "
                        "the name to the outermost, super().__init__(name)); or use "
                        "elbo(pair.model, pair.guide) with "
                        "pyro.settings.set(module_local_params=True). To load a pair, clear the "
                        "store and use load_state_dict"
                    )

    def reconstruct(
        self, x: torch.Tensor, *context: torch.Tensor, sample: bool = False
    ) -> torch.Tensor:
        """Encode and decode, with networks in evaluation mode.

        Args:
            x: data of shape ``(*batch, *data_shape)``.
            context: what else the model takes.
            sample: draw latents and data; otherwise take the mean of the posterior and of the
                likelihood (the mode, where a mean makes no sense).

        Returns:
            Data of the shape of ``x``.

        Raises:
            ValueError: if a distribution has no mean and ``sample`` is false.
        """
        with evaluating(self), poutine.block():
            with ExitStack() as stack:
                if not sample:
                    stack.enter_context(_Centers())
                guide_trace = poutine.trace(self.guide).get_trace(x, *context)
            replayed = poutine.replay(self.model, guide_trace)
            likelihood = distribution_at(poutine.trace(replayed).get_trace(x, *context), "x")
            return likelihood() if sample else center(likelihood)

    def impute(
        self, x: torch.Tensor, mask: torch.Tensor, *context: torch.Tensor, num_steps: int = 100
    ) -> torch.Tensor:
        r"""Draw the missing part of ``x`` given the rest, by Metropolis within Gibbs.

        One step proposes :math:`z' \sim q(z | x)`, accepts it with probability
        :math:`\min\{1, \frac{p(x, z')\, q(z | x)}{p(x, z)\, q(z' | x)}\}`, and redraws the missing
        variables from :math:`p(x | z)`. The chain's limit is :math:`p(x_{mis} | x_{obs})` under
        the model; without the accept step (pseudo-Gibbs) it is not. Networks run in evaluation
        mode, in which the model is one distribution.

        Args:
            x: data of shape ``(*batch, *data_shape)``; values where ``mask`` is false are ignored.
                Expand it for several chains, e.g. ``x.expand(50, *x.shape)``.
            mask: booleans that broadcast to the shape of ``x``, true where ``x`` is observed.
            context: what else the model takes.
            num_steps: length of the chain.

        Returns:
            The last state of every chain, with the observed values as they were.

        Raises:
            ValueError: if ``mask`` is not boolean or does not broadcast, if ``num_steps < 1``, or
                if the likelihood is not independent over variables given the latents (its missing
                part could not be drawn from its marginal).

        References:
            Leveraging the Exact Likelihood of Deep Latent Variable Models, Mattei, Frellsen,
            2018, arXiv:1802.04826.
        """
        with evaluating(self):
            return metropolis_within_gibbs(self.model, self.guide, x, mask, context, num_steps)


class _Centers(poutine.messenger.Messenger):
    """Sample sites take the mean (or mode) of their distribution."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if isinstance(msg["fn"], TorchDistributionMixin) and not msg["is_observed"]:
            msg["value"] = center(msg["fn"])
            msg["done"] = True
