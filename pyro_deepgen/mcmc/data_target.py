# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The posteriors of a model's latent variables for many data at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from torch.distributions import biject_to
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pyro_deepgen.tracing import device_only

from .base import Base, Prior
from .state import Values
from .target import Site, Target


class DataTarget(Target):
    r"""For each of many data, several chains over the latent variables of that datum alone.

    .. math:: U_c(z) = -\log p(x_{b(c)}, z), \quad b(c) = \lfloor c / K \rfloor

    A model whose data are independent given its parameters, such as a variational autoencoder's,
    has one plate of data, which all its sites are in. Here this plate is the dimension of chains:
    each datum is repeated ``K`` times, and the evidence of each is a number of its own.

    Args:
        model: a Pyro model, all of whose sites are in one plate at the left, as long as its
            arguments.
        args: its arguments, tensors ``(B, ...)``.
        num_chains: chains ``K`` for each datum.
        kwargs: its other arguments, which stay as they are.

    Raises:
        ValueError: for arguments that are no batches, discrete latent sites, sites outside of the
            plate, and a model without latent sites.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)
        >>> target = DataTarget(model, [torch.zeros(5)], num_chains=3)
        >>> target.sites["z"].shape, target.potential({"z": torch.zeros(15, 2)}).shape
        (torch.Size([2]), torch.Size([15]))
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: Sequence[torch.Tensor],
        num_chains: int,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not args or not all(isinstance(a, torch.Tensor) and a.dim() for a in args):
            raise ValueError("expected batches of data as arguments, tensors (B, ...)")
        if len({len(arg) for arg in args}) > 1:
            raise ValueError(f"expected batches of one length, got {[len(arg) for arg in args]}")
        self.model, self.num_chains, self.kwargs = model, num_chains, dict(kwargs or {})
        self.args = [arg.detach().repeat_interleave(num_chains, 0) for arg in args]
        self.sites: dict[str, Site] = {}
        for name, node in self._run({}).iter_stochastic_nodes():
            if type(node["fn"]).__name__ == "_Subsample":
                continue
            support, value = node["fn"].support, node["value"]
            if support.is_discrete:
                raise ValueError(
                    f"the site {name!r} is discrete: the likelihood of each datum is annealed for "
                    "continuous latent sites only; sum it out in the model"
                )
            self._check_plate(name, node["fn"].batch_shape)
            transform = biject_to(support).inv
            value = transform(value)
            self.sites[name] = Site(value.shape[1:], transform, support, value.dtype)
            self.device = value.device
        if not self.sites:
            raise ValueError("the model has no latent sites: its likelihood needs no annealing")

    def update(self, args: Sequence[torch.Tensor]) -> None:
        """Take other data of the same shapes, in place, so that compiled graphs stay.

        Args:
            args: as before.
        """
        for mine, arg in zip(self.args, args, strict=True):
            mine.copy_(arg.detach().repeat_interleave(self.num_chains, 0))

    def potential(self, values: Values) -> torch.Tensor:
        """The potential of every chain, given its datum."""
        potential: torch.Tensor | float = 0.0
        inverses = {name: self.sites[name].transform.inv for name in self.sites}
        actual = {name: inverse(values[name]) for name, inverse in inverses.items()}
        trace = self._run(actual)
        trace.compute_log_prob()
        for name, node in trace.nodes.items():
            if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample":
                self._check_plate(name, node["log_prob"].shape)
                potential = potential - node["log_prob"].reshape(len(self.args[0]), -1).sum(-1)
        for name, inverse in inverses.items():
            jacobian = inverse.log_abs_det_jacobian(values[name], actual[name])
            potential = potential - jacobian.reshape(len(jacobian), -1).sum(-1)
        assert isinstance(potential, torch.Tensor)
        return potential

    def start(self, num_chains: int) -> Values:
        """Draws from the prior, as many as there are chains for all data."""
        if num_chains != len(self.args[0]):
            raise ValueError(
                f"expected {self.num_chains} chains for each of "
                f"{len(self.args[0]) // self.num_chains} data, got {num_chains} chains"
            )
        trace = self._run({})
        return self.unconstrain({name: trace.nodes[name]["value"] for name in self.sites})

    def prior(self) -> Base:
        """The prior of the latent sites, to start from."""
        prior = DataTarget.__new__(DataTarget)
        prior.__dict__.update(self.__dict__, model=Prior(self.model))
        return Base(prior, prior.start, None)

    def _run(self, values: Values) -> Any:
        # While a graph is recorded, its recorder keeps Pyro from looking at values.
        with (
            poutine.block(),
            pyro.validation_enabled(False),
            device_only() if get_proxy_mode() is None else nullcontext(),
        ):
            model = poutine.condition(self.model, values)
            return poutine.trace(model).get_trace(*self.args, **self.kwargs)

    def _check_plate(self, name: str, shape: torch.Size) -> None:
        if not shape or shape[0] != len(self.args[0]):
            raise ValueError(
                f"the site {name!r} is not in a plate of all data at the left: its batch has the "
                f"shape {tuple(shape)} for {len(self.args[0])} data; a site that the data share "
                "has no likelihood for each of them (see ais for that of all)"
            )
