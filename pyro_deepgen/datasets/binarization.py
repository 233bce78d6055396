# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""One protocol for making grey images binary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINARIZATIONS = ("threshold", "fixed", "dynamic")
_CHUNK_ELEMENTS = 2**18


def binarize(
    x: Tensor, protocol: str, seed: int = 0, *, validate_args: bool | None = None
) -> Tensor:
    r"""Grey values in [0, 1] as binary ones, by one of three protocols.

    - ``"threshold"``: :math:`b = 1` where :math:`x > 1/2`;
    - ``"fixed"``: :math:`b \sim \mathrm{Bernoulli}(x)`, drawn once: :math:`b` is a function of the
      datum and the seed alone, so a datum gets the same bits on every device, in whichever batch
      it comes and wherever it stands there;
    - ``"dynamic"``: :math:`b \sim \mathrm{Bernoulli}(x)`, drawn afresh at each call from the global
      generator of the device.

    Likelihoods under the three are not comparable: name the protocol beside the figure.

    Args:
        x: Floating-point values in [0, 1], shape ``(N, ...)``.
        protocol: ``"threshold"``, ``"fixed"`` or ``"dynamic"``.
        seed: The seed of ``"fixed"``.
        validate_args: Whether to check the range of ``x``. ``None`` checks on the CPU only: looking
            at values on another device would make the caller wait for it.

    Returns:
        Values in {0, 1}, with the shape, dtype and device of ``x``.

    Raises:
        ValueError: If the protocol is unknown, ``x`` is not floating-point, or a value is outside
            [0, 1].

    References:
        On the quantitative analysis of deep belief networks, Ruslan Salakhutdinov and Iain Murray,
        2008 (fixed); Importance weighted autoencoders, Yuri Burda, Roger Grosse and Ruslan
        Salakhutdinov, 2015, arXiv:1509.00519 (dynamic).

    Example:
        >>> x = torch.rand(50, 1, 8, 8)
        >>> shuffled = torch.randperm(50)
        >>> bool((binarize(x, "fixed")[shuffled] == binarize(x[shuffled], "fixed")).all())
        True
    """
    _check_protocol(protocol)
    if not x.is_floating_point():
        raise ValueError(
            f"expected floating-point grey values in [0, 1], got {x.dtype}; divide grey levels by "
            "the largest level first, as x.float() / 255"
        )
    x = x.detach()
    if validate_args or (validate_args is None and x.device.type == "cpu"):
        _check_unit_interval(x)
    if protocol == "threshold":
        return (x > 0.5).to(x.dtype)
    if protocol == "dynamic":
        return torch.bernoulli(x)
    # The hash needs 64-bit integers, several times the memory of x: a chunk at a time.
    rows = max(1, _CHUNK_ELEMENTS // max(1, x[:1].numel()))
    return torch.cat([_fixed(chunk, seed) for chunk in x.split(rows)]) if len(x) else x.clone()


@dataclass(frozen=True)
class Binarize:
    """The protocol of :func:`binarize` as an object, for the ``transform`` of a training loop.

    Args:
        protocol: ``"threshold"``, ``"fixed"`` or ``"dynamic"``.
        seed: The seed of ``"fixed"``.
        validate_args: As in :func:`binarize`.

    Raises:
        ValueError: If the protocol is unknown.

    Example:
        >>> Binarize("fixed", seed=3).name
        'fixed(seed=3)'
        >>> sorted(Binarize("dynamic")(torch.rand(5, 100)).unique().tolist())
        [0.0, 1.0]
    """

    protocol: str
    seed: int = 0
    validate_args: bool | None = None

    def __post_init__(self) -> None:
        _check_protocol(self.protocol)

    @property
    def name(self) -> str:
        """The protocol as it should stand beside a result."""
        return f"fixed(seed={self.seed})" if self.protocol == "fixed" else self.protocol

    def __call__(self, x: Tensor) -> Tensor:
        """Binarise ``x``, of shape ``(N, ...)``."""
        return binarize(x, self.protocol, self.seed, validate_args=self.validate_args)


def _check_protocol(protocol: str) -> None:
    if protocol not in BINARIZATIONS:
        raise ValueError(
            f"unknown binarisation protocol {protocol!r}: expected one of "
            f"{', '.join(BINARIZATIONS)}"
        )


def _check_unit_interval(x: Tensor) -> None:
    # Written so that a NaN fails as well.
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ValueError(
            f"expected grey values in [0, 1], got values from {x.min().item():.4g} to "
            f"{x.max().item():.4g}; rescale the data first (grey levels: divide by the largest)"
        )


def _signed(word: int) -> int:
    """A 64-bit word as the signed integer that torch holds it in."""
    return word - 2**64 if word >= 2**63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift(word: Tensor, bits: int) -> Tensor:
    """Shift to the right with zeros coming in, which ``>>`` on signed integers does not do."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _mix(word: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): each bit depends on all others."""
    word = (word ^ _shift(word, 30)) * _MIX_1
    word = (word ^ _shift(word, 27)) * _MIX_2
    return word ^ _shift(word, 31)


def _fixed(x: Tensor, seed: int) -> Tensor:
    """Bernoulli draws whose randomness is a hash of (datum, seed, position in the datum).

    A generator would give a datum the bits of its place in the batch, which differ from epoch to
    epoch once batches are shuffled. Integer arithmetic alone is the same on every device.
    """
    flat = x.reshape(len(x), -1).float()
    position = torch.arange(1, flat.shape[1] + 1, device=x.device) * _GOLDEN
    start = _mix(torch.tensor(seed, device=x.device) * _GOLDEN + 1)
    datum = _mix((flat * 65535).round().long() + position).sum(1, keepdim=True)
    word = _mix(_mix(datum ^ start) + position)
    uniform = _shift(word, 40).float() * 2.0**-24
    return (uniform < flat).to(x.dtype).reshape(x.shape)
