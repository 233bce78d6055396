# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The base class of distributions that are known up to their normalising constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import Self

from pyro_deepgen.mcmc import AISResult

from .annealing import annealed
from .log_partition import (
    ExactLogPartition,
    LogPartition,
    UnknownPartitionError,
    keep,
    stored,
)
from .machine import Machine
from .negative_phase import ContrastiveDivergence, NegativePhase, PersistentChains


class EnergyDistribution(Machine):
    r"""A distribution given by an energy.

    .. math:: p(x) = \exp(-E(x) / T) / Z

    ``log_prob`` learns by plain ``SVI``. In training mode, with gradients enabled and a parameter
    that requires one, its value is :math:`-E(x)/T` less the last estimate of :math:`\log Z` (or 0),
    and its gradient contains that of :math:`\log Z`, from draws of the negative phase. In
    evaluation mode it is normalised: exactly where the states of one layer can be enumerated
    (2^20), else by :meth:`estimate_log_partition`, which must have been called for the present
    parameters. Without gradients nothing moves the chains.

    A subclass sets its parameters up after this initialiser, writes ``energy``, ``transition``,
    ``start``, ``bridge`` and ``path_start``, and where it can ``num_states``,
    ``exact_log_partition`` and ``exact_sample``; then calls :meth:`ready`. Where hidden units are
    not summed out of the energy, it also writes ``all_units``, ``complete``, ``visible_part``,
    ``known_part`` and ``log_unnormalized``; where learning takes something else than the energy of
    drawn states, ``phases``.

    Args:
        event_shape: shape of one draw.
        negative_phase: draws for the gradient of ``log Z``; :class:`PersistentChains` by default,
            and :class:`ContrastiveDivergence` with a context.
        temperature: ``T``; all energies are divided by it.
        sampling_steps: steps of the Markov chain behind one call of ``sample``, where exact draws
            are out of reach.
        context_dim: size of the context that biases depend on; 0 for none.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: for numbers out of range, and for chains that do not start at the data where
            there is a context.

    Example:
        >>> import pyro, torch
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> from pyro_deepgen.energy import RBM
        >>> rbm = RBM(4, 2)
        >>> x = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(20, 4)
        >>> def model(x):
        ...     pyro.module("rbm", rbm)
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("v", rbm, obs=x)
        >>> optim = pyro.optim.Adam({"lr": 0.1})
        >>> svi = SVI(model, lambda x: None, optim, Trace_ELBO())  # an empty guide
        >>> before = rbm.eval().log_prob(x[0])
        >>> _ = rbm.train(), [svi.step(x) for _ in range(20)]
        >>> bool(rbm.eval().log_prob(x[0]) > before + 1)
        True
    """

    log_partition_values: torch.Tensor
    log_partition_for: torch.Tensor
    # Whether the energies of one value do not depend on what others are in its batch.
    in_one_pass = True

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        negative_phase: NegativePhase | None = None,
        temperature: float = 1.0,
        sampling_steps: int = 1000,
        context_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(event_shape, validate_args=validate_args)
        if not temperature > 0:
            raise ValueError(f"expected a positive temperature, got {temperature}")
        if sampling_steps < 1:
            raise ValueError(f"expected 1 sampling step or more, got {sampling_steps}")
        if context_dim and not isinstance(negative_phase, ContrastiveDivergence | None):
            raise ValueError(
                f"with a context each datum has an energy of its own, so that chains must start at "
                f"the data: use ContrastiveDivergence, not {type(negative_phase).__name__}"
            )
        self.temperature, self.sampling_steps = temperature, sampling_steps
        self.context_dim = context_dim
        if negative_phase is None:
            negative_phase = ContrastiveDivergence() if context_dim else PersistentChains()
        self.negative_phase = negative_phase
        self.register_buffer("log_partition_values", torch.full((6,), torch.nan))
        self.register_buffer("log_partition_for", torch.zeros(2, dtype=torch.long))
        # What stands in for parameters in a view of the machine; see `with_parameters`.
        self.__dict__["_replaced"] = frozenset()
        self.__dict__["_context"] = None
        self.__dict__["_exact"] = ExactLogPartition()

    def ready(self) -> None:
        """Prepare the negative phase; to be called at the end of a subclass's initialiser."""
        self.negative_phase.prepare(self.all_units)

    # ------------------------------------------------ the distribution

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """The log-density ``(..., *batch_shape)``; see the class for what it is in training.

        Args:
            value: ``(..., *batch_shape, *event_shape)``.

        Raises:
            UnknownPartitionError: in evaluation mode, or where a parameter is a result of other
                computations, if the normalising constant is not known.
        """
        if self._validate_args:
            self._validate_sample(value)
        value = self.broadcast(value)
        if self.__dict__["_replaced"]:  # log Z is part of the answer
            return self.log_unnormalized(value) - self.exact_log_partition()
        if not self.training:
            return self.log_unnormalized(value) - self.log_partition()
        last = self.log_partition_values[0].nan_to_num(0.0).to(value.dtype)
        if not (torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())):
            return self.log_unnormalized(value) - last
        positive, negative = self.phases(value)
        if not self.negative_phase.for_each_datum:
            negative = negative.mean()
        return negative - negative.detach() - positive - last

    def phases(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies whose gradients are the positive and the negative phase of learning.

        Args:
            value: data ``(..., *event_shape)``.

        Returns:
            Energies ``(...)`` of the data, and of the draws of the negative phase: as many, one
            for each datum, or ``(M,)``.
        """
        machine, state = self.all_units, self.complete(value)
        self.observe(state)
        draws = self.negative_phase(machine, state)
        if not self.in_one_pass:
            return machine.energy(state), machine.energy(draws)
        # Larger matrices, and one gradient of each parameter in place of a sum of two.
        if self.negative_phase.for_each_datum:
            positive, negative = machine.energy(torch.stack([state, draws]))
            return positive, negative
        data = state.reshape(-1, *machine.event_shape)
        positive, negative = machine.energy(torch.cat([data, draws])).split([len(data), len(draws)])
        return positive.reshape(state.shape[: state.dim() - len(machine.event_shape)]), negative

    def log_partition(self) -> torch.Tensor:
        """``log Z`` of the present parameters: exact, or as it was estimated for them.

        Raises:
            UnknownPartitionError: if it is neither.
        """
        if self.is_small:
            exact: ExactLogPartition = self.__dict__["_exact"]
            return exact.of(self)
        self._refuse_estimate()
        return stored(self)

    @torch.no_grad()
    def estimate_log_partition(
        self,
        num_chains: int = 1000,
        num_steps: int = 1000,
        *,
        reverse_from: torch.Tensor | None = None,
        compile: bool | str = True,
        **settings: Any,
    ) -> LogPartition:
        """Estimate ``log Z`` by annealed importance sampling, and keep it for these parameters.

        Args:
            num_chains: chains.
            num_steps: temperatures.
            reverse_from: draws ``(C, *event_shape)`` of ``all_units``, for the upper bound.
            compile: whether the steps are compiled; see :class:`~pyro_deepgen.mcmc.Kernel`.
            settings: further arguments of :func:`~pyro_deepgen.mcmc.ais`.

        Returns:
            The estimate, exact where that is in reach; then for each context.

        Raises:
            UnknownPartitionError: for a machine that depends on a context or on other random sites,
                and is too large to enumerate.
        """
        if self.is_small:
            value = self.exact_log_partition()
            found = LogPartition(value, value * 0, value, value)
        else:
            self._refuse_estimate()
            given = {"num_steps": num_steps, "num_chains": num_chains, "reverse_from": reverse_from}
            result = self.anneal(compile=compile, **given, **settings)
            upper = result.log_z * torch.nan if result.upper is None else result.upper
            found = LogPartition(
                result.log_z,
                result.standard_error,
                result.lower,
                upper,
                num_chains,
                len(result.betas) - 1,
            )
        if self.is_itself:
            keep(self, found)
        return found

    def anneal(self, *, compile: bool | str = True, **settings: Any) -> AISResult:
        """Annealed importance sampling of all units.

        Args:
            compile: whether the steps are compiled.
            settings: arguments of :func:`~pyro_deepgen.mcmc.ais`; ``kernel`` makes a kernel of the
                path, and draws blocks as the machine does by default.

        Returns:
            Its result, with the weights and the last values of all chains.
        """
        return annealed(self.all_units, compile, settings)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> torch.Tensor:
        """Draw ``(*sample_shape, *batch_shape, *event_shape)``.

        Exact where states can be enumerated; else the ends of ``sampling_steps`` steps of chains.
        """
        return self.visible_part(self.sample_all(sample_shape))

    @torch.no_grad()
    def sample_all(self, sample_shape: Sequence[int] = torch.Size()) -> torch.Tensor:
        """Draw the values of ``all_units``, as :meth:`sample` does."""
        shape, machine, batch = torch.Size(sample_shape), self.all_units, self.lead
        # Draws of the same machine are one batch; those of several contexts, a batch for each.
        count = (shape if batch else shape + self.batch_shape).numel()
        if self.is_small:
            draws = machine.exact_sample(count)
        else:
            draws = machine.start(count * batch.numel())
            draws = draws.reshape(count, *batch, *machine.event_shape)
            draws = machine.transition(draws, self.sampling_steps)
        return draws.reshape(shape + self.batch_shape + machine.event_shape)

    @torch.no_grad()
    def impute(
        self, x: torch.Tensor, mask: torch.Tensor, num_steps: int | None = None
    ) -> torch.Tensor:
        """Fill in what is not known, by Gibbs sampling with the known part clamped.

        Args:
            x: values ``(..., *event_shape)``; what is not known may be anything, also NaN.
            mask: what is known, broadcastable to ``x``.
            num_steps: steps of the chain; ``sampling_steps`` by default.

        Returns:
            Values of the shape of ``x``, equal to it where it is known.
        """
        mask = mask.to(torch.bool).expand(x.shape)
        if num_steps is None:
            num_steps = self.sampling_steps
        machine, batch = self.all_units, x.shape[: x.dim() - len(self.event_shape)]
        start = machine.start(batch.numel()).reshape(batch + machine.event_shape).to(x.dtype)
        state = self.complete(torch.where(mask, x, self.visible_part(start)))
        return self.visible_part(machine.transition(state, num_steps, self.known_part(mask)))

    def condition(self, context: torch.Tensor) -> Self:
        """The machine given a context, of the batch shape of the context.

        Args:
            context: ``(*batch_shape, context_dim)``.

        Raises:
            ValueError: for a machine without a context, or one of another size.
        """
        if not self.context_dim:
            raise ValueError(f"this {type(self).__name__} takes no context: set context_dim")
        if context.shape[-1:] != (self.context_dim,):
            raise ValueError(
                f"expected a context whose last dimension is {self.context_dim}, got shape "
                f"{tuple(context.shape)}"
            )
        view = self.expand(self.batch_shape)
        view.__dict__["_context"] = context
        view.__dict__["_batch_shape"] = context.shape[:-1]
        return view

    def with_parameters(self, **values: torch.Tensor) -> Self:
        """The machine with other values in place of some parameters, such as a draw of a site.

        The normalising constant is then part of the log-density, and exact or an error.

        Args:
            values: tensors by the names of parameters, each of the parameter's shape.

        Raises:
            ValueError: for a name that is no parameter, or another shape.
        """
        view = self.expand(self.batch_shape)
        view.__dict__["_parameters"] = dict(self._parameters)
        for name, value in values.items():
            mine = self._parameters.get(name)
            if mine is None or mine.shape != value.shape:
                known = {n: tuple(p.shape) for n, p in self._parameters.items() if p is not None}
                raise ValueError(
                    f"expected a value for one of {known}, got {name!r} of shape "
                    f"{tuple(value.shape)}"
                )
            del view.__dict__["_parameters"][name]
            view.__dict__[name] = value
        view.__dict__["_replaced"] = self.__dict__["_replaced"] | set(values)
        return view

    @property
    def is_itself(self) -> bool:
        """Whether this is no view for a context, or with other values in place of parameters."""
        return self.__dict__["_context"] is None and not self.__dict__["_replaced"]

    def _refuse_estimate(self) -> None:
        if self.context_dim or self.__dict__["_replaced"]:
            raise UnknownPartitionError(
                f"log Z of this {type(self).__name__} depends on a context or on other random "
                "sites, and there are too many states to enumerate: compare energies, or use "
                "fewer units"
            )
