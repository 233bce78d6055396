# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Normalising constants: what is known of them, and for which parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils.checkpoint import checkpoint

from pyro_deepgen.distributions.remembered import may_remember

if TYPE_CHECKING:
    from .energy_distribution import EnergyDistribution

# States that are enumerated at most: a second's work for a hundred units.
MAX_STATES = 1 << 20
# Numbers that an enumeration holds at once.
CHUNK = 1 << 24


class LogPartition(NamedTuple):
    """An estimate of a log normalising constant.

    Args:
        value: the estimate ``()``.
        standard_error: its standard error ``()``; 0 where it is exact.
        lower: a stochastic lower bound ``()``.
        upper: a stochastic upper bound ``()`` from chains in reverse, or NaN where there are none.
            It is a bound where they start from exact draws, and a heuristic where from chains.
        num_chains: chains used; 0 where it is exact.
        num_steps: temperatures used; 0 where it is exact.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> found = RBM(4, 2).estimate_log_partition()  # so few units are enumerated
        >>> float(found.standard_error), found.num_chains, bool(found.lower == found.upper)
        (0.0, 0, True)
    """

    value: torch.Tensor
    standard_error: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    num_chains: int = 0
    num_steps: int = 0


class UnknownPartitionError(RuntimeError):
    """A normalised density was asked for, and the normalising constant is not known."""


def keep(machine: EnergyDistribution, found: LogPartition) -> None:
    """Store an estimate in a machine, with what tells its parameters from others."""
    numbers = [torch.as_tensor(v, dtype=torch.float64).reshape(()).cpu() for v in found]
    machine.log_partition_values.copy_(torch.stack(numbers))
    machine.log_partition_for.copy_(of_parameters(machine))


def stored(machine: EnergyDistribution) -> torch.Tensor:
    """The estimate that a machine holds for its present parameters, ``()``.

    Raises:
        UnknownPartitionError: if it holds none, or one of other parameters.
    """
    name = type(machine).__name__
    if torch.isnan(machine.log_partition_values[0]):
        raise UnknownPartitionError(
            f"{name} is in evaluation mode, where log_prob is normalised, and its log Z has not "
            "been estimated: call estimate_log_partition(), or train() for the gradient of "
            "learning, or use energy(x)"
        )
    if not torch.equal(of_parameters(machine), machine.log_partition_for):
        raise UnknownPartitionError(
            f"the parameters of {name} have changed since log Z was estimated: call "
            "estimate_log_partition() again"
        )
    return machine.log_partition_values[0]


class ExactLogPartition:
    """A sum over all states that is not made again while the parameters stay as they are.

    Views of a machine share it. It counts for the machine itself, in an evaluation that wants no
    gradient of it: not for a context, for other values in place of parameters, while a program is
    recorded, or under a transform of ``torch.func``.

    Example:
        >>> import torch
        >>> from pyro_deepgen.energy import RBM
        >>> rbm = RBM(4, 2).eval()
        >>> with torch.no_grad():
        ...     rbm.log_partition() is rbm.expand((3,)).log_partition()
        True
    """

    def __init__(self) -> None:
        self._kept: tuple[torch.Tensor, torch.Tensor] | None = None

    def of(self, machine: EnergyDistribution) -> torch.Tensor:
        """``log Z`` of a small machine."""
        like = machine.log_partition_values
        learning = torch.is_grad_enabled() and any(p.requires_grad for p in machine.parameters())
        if learning or not machine.is_itself or get_proxy_mode() or not may_remember(like):
            return machine.exact_log_partition()
        mark = of_parameters(machine)
        if self._kept is None or not _equal(self._kept[0], mark):
            self._kept = mark, machine.exact_log_partition()
        return self._kept[1]


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.device == b.device and torch.equal(a, b)


def of_parameters(machine: EnergyDistribution) -> torch.Tensor:
    """The :func:`fingerprint` of a machine's parameters, temperature and shape of a draw."""
    like = machine.log_partition_values
    settings = like.new_tensor([machine.temperature, *machine.event_shape])
    return fingerprint([*machine.parameters(), settings])


def fingerprint(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Two integers ``(2,)`` that change when any bit of some tensors does.

    Optimisers that work in one fused call do not change the versions of tensors, so that values
    must be compared. Sums of integers are the same on every device.

    Example:
        >>> import torch
        >>> x = torch.zeros(3)
        >>> before = fingerprint([x])
        >>> _ = x[1].add_(1e-30)
        >>> torch.equal(fingerprint([x]), before)
        False
    """
    total = None
    for place, tensor in enumerate(tensors):
        flat = tensor.detach().reshape(-1)
        bits = flat.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])
        index = torch.arange(flat.numel(), device=flat.device)
        # Odd factors, so that no change of one value is lost; sums wrap around.
        odd = torch.stack([2 * (index * 40503 + place * 7919) + 1, (index * 69069 + place) | 1])
        sums = (bits.long() * odd).sum(-1)
        total = sums if total is None else total * 31 + sums
    assert total is not None
    return total


def power(base: int, exponent: int) -> float:
    """``base ** exponent``, infinite where a float is too small for it.

    Example:
        >>> power(2, 10), power(2, 5000)
        (1024.0, inf)
    """
    return float(base) ** exponent if exponent * math.log2(base) < 1000 else math.inf


def all_states(num_units: int, like: torch.Tensor) -> torch.Tensor:
    """All states ``(2 ** n, n)`` of ``n`` binary units.

    Example:
        >>> import torch
        >>> all_states(2, torch.zeros(())).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    index = torch.arange(1 << num_units, device=like.device)[:, None]
    bits = torch.arange(num_units - 1, -1, -1, device=like.device)
    return ((index >> bits) & 1).to(like.dtype)


def log_sum_of(
    score: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor, width: int
) -> torch.Tensor:
    """The log-sum-exp of scores over states, a part of them at a time.

    Args:
        score: from states ``(S', N)`` to scores ``(S', *batch)``.
        states: all states ``(S, N)``.
        width: how many numbers one state's score takes, which sets how many go at once.

    Returns:
        ``(*batch)``.
    """
    parts = states.split(max(1, CHUNK // max(1, width)))
    if len(parts) == 1:
        return score(states).logsumexp(0)
    if torch.is_grad_enabled():  # what the parts hold is computed again for the gradient

        def part_of(part: torch.Tensor) -> torch.Tensor:
            return score(part).logsumexp(0)

        sums = [checkpoint(part_of, part, use_reentrant=False) for part in parts]
    else:
        sums = [score(part).logsumexp(0) for part in parts]
    return torch.stack(sums).logsumexp(0)
