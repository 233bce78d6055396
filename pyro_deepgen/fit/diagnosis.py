# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Why a loss cannot be trained on: a parameter without gradient, or a value that is not finite."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from . import rng
from .parallel import Ranks


class NonFiniteLossError(RuntimeError):
    """The loss, or a parameter, became infinite or NaN.

    Attributes:
        epoch: the epoch it happened in, counted from 1.
        step: the optimiser step of the run at which it was found, counted from 1.
        site: the name of the first Pyro site that is not finite, or None.
    """

    def __init__(self, message: str, epoch: int = 0, step: int = 0, site: str | None = None):
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.site = site


class Finding(NamedTuple):
    """What is not finite, in words, and at which Pyro site (None: not at a site)."""

    text: str
    site: str | None


class _Stop(Exception):
    """Raised inside the program at the first site that is not finite."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding


def _nan_parameter(fn: Any) -> str | None:
    """Return the name of the first parameter of a distribution that holds a NaN."""
    for name in getattr(fn, "arg_constraints", {}):
        value = getattr(fn, name, None)
        # Only NaN: an infinite logit, say, is a legal way to exclude a class.
        if isinstance(value, Tensor) and value.isnan().any():
            return str(name)
    base = getattr(fn, "base_dist", None)
    return None if base is None else _nan_parameter(base)


def _is_bad(value: object) -> bool:
    return isinstance(value, Tensor) and not bool(value.isfinite().all())


class _FirstBadSite(Messenger):
    """Stops a program at the first site whose parameters, value or log-probability is bad."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def _pyro_sample(self, msg: Any) -> None:
        # Before the draw, which some distributions refuse for a NaN without naming the site.
        name = _nan_parameter(msg["fn"])
        if name is not None:
            text = f"the parameter {name!r} of the distribution at site {msg['name']!r} is NaN"
            raise _Stop(Finding(text, msg["name"]))

    def _pyro_post_sample(self, msg: Any) -> None:
        # A pyro.deterministic site counts as observed, but is computed.
        computed = msg["infer"] is not None and msg["infer"].get("_deterministic", False)
        kind = "observed value" if msg["is_observed"] and not computed else "value"
        if _is_bad(msg["value"]):
            raise _Stop(Finding(f"the {kind} of site {msg['name']!r} is not finite", msg["name"]))
        if type(msg["fn"]).__name__ == "_Subsample":
            return
        # A log_prob that draws (an energy's negative phase) must not move the streams.
        streams = rng.torch_streams(self.device)
        log_prob = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
        rng.restore_torch_streams(streams, self.device)
        if _is_bad(scale_and_mask(log_prob, msg["scale"], msg["mask"])):
            text = f"the log-probability of the {kind} of site {msg['name']!r} is not finite"
            raise _Stop(Finding(text, msg["name"]))

    def _pyro_post_param(self, msg: Any) -> None:
        if _is_bad(msg["value"]):
            text = f"the value of the parameter site {msg['name']!r} is not finite"
            raise _Stop(Finding(text, msg["name"]))


def _programs(loss: nn.Module, tensors: tuple[Tensor, ...]) -> Iterator[Callable[[], object]]:
    yield lambda: loss(*tensors)
    model, guide = getattr(loss, "model", None), getattr(loss, "guide", None)
    if callable(model) and callable(guide):
        # For an objective that hides its sites, a compiled one for instance.
        def replayed() -> object:
            trace = poutine.trace(guide).get_trace(*tensors)
            return poutine.replay(model, trace=trace)(*tensors)

        yield replayed


def find_non_finite(
    loss: nn.Module,
    tensors: tuple[Tensor, ...] | None,
    streams: dict[str, Tensor],
    device: torch.device,
) -> Finding | None:
    """Run the loss again, from the same random streams, and return the first thing not finite.

    The order is that of the program: the sites of the guide, those of the model, and only if
    all of them are finite (or there are none) the parameters of the module.
    """
    for program in _programs(loss, tensors) if tensors is not None else ():
        rng.restore_torch_streams(streams, device)
        try:
            # Validation would raise first, and names no site.
            with pyro.validation_enabled(False), _FirstBadSite(device):
                program()
        except _Stop as stop:
            return stop.finding
        except Exception:
            # The program is known to be broken; what counts is what it shows before it fails.
            continue
    return bad_parameter(loss)


def bad_parameter(loss: nn.Module) -> Finding | None:
    """Return the first parameter that is not finite."""
    named = list(loss.named_parameters())
    if not named:
        return None
    # One look at the device where all is well.
    if bool(torch.stack([p.detach().isfinite().all().to("cpu") for _, p in named]).all()):
        return None
    name = next(name for name, parameter in named if _is_bad(parameter.detach()))
    return Finding(f"the parameter {name!r} is not finite", None)


def require_gradients(
    named: list[tuple[str, nn.Parameter]], ranks: Ranks, has_data: bool = True
) -> None:
    """Raise if a parameter got no gradient in any process.

    Raises:
        ValueError: naming the parameters; no update has been made yet.
    """
    missing = [name for name, parameter in named if parameter.grad is None]
    everywhere = [m for m in ranks.gather(missing if has_data else None) if m is not None]
    names = [n for n in missing if all(n in m for m in everywhere)] if has_data else []
    if not has_data and everywhere:
        names = [n for n in everywhere[0] if all(n in m for m in everywhere)]
    if names:
        raise ValueError(
            f"expected every parameter to get a gradient, but the loss does not depend on "
            f"{', '.join(names)}; call requires_grad_(False) on what is not to be trained, or "
            "look at how the model and the guide reach it (a plain method of a PyroModule "
            "registers nothing: make model and guide modules)"
        )


def require_in_groups(
    named: list[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer
) -> None:
    """Raise if a trainable parameter is in no group of the optimiser.

    Raises:
        ValueError: naming the parameters.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    names = [name for name, parameter in named if id(parameter) not in held]
    if names:
        raise ValueError(
            f"expected the optimizer to hold every parameter of the loss, but {', '.join(names)} "
            "is in none of its groups; make it from loss.parameters() (call the loss once on "
            "data before, where parameters are made on first use, as in autoguides), or call "
            "requires_grad_(False) on what is not to be trained"
        )
