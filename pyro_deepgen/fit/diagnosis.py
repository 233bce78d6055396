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

REGISTER = (
    "a plain method of a PyroModule and a pyro.param statement register nothing: make model and "
    "guide modules, and their parameters attributes of them, as PyroParam or nn.Parameter"
)


class NonFiniteLossError(RuntimeError):
    """The loss, or a parameter, became infinite or NaN.

    Attributes:
        epoch: the epoch it happened in, counted from 1; 0 in the trial before the first step.
        step: the optimiser step of the run at which it was found, counted from 1; 0 in the trial.
        site: the name of the first Pyro site that is not finite, or None.
    """

    def __init__(self, message: str, epoch: int = 0, step: int = 0, site: str | None = None):
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.site = site


class Finding(NamedTuple):
    """What is wrong, in words, and at which Pyro site (None: not at a site).

    It is not `certain` where all that was computed is finite: an error that the program raised
    by itself tells more.
    """

    text: str
    site: str | None
    certain: bool = True


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


def _is_outside(msg: Any) -> bool:
    """Say whether the value of a site lies outside the support of its distribution."""
    try:
        inside = msg["fn"].support.check(msg["value"])
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):
        return False  # A support that depends on the value, or none that is known.
    mask = True if msg["mask"] is None else msg["mask"]
    return bool((~inside & mask).any())


class _FirstBadSite(Messenger):
    """Stops a program at the first site whose parameters, value or log-probability is bad.

    A value outside the support whose log-probability is finite all the same (as that of a Gamma
    of shape 1) does not stop it: `outside` keeps the first.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.outside: Finding | None = None

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
        outside = ""
        if _is_outside(msg):
            outside = f"lies outside the support of its distribution, {msg['fn'].support}"
            text = f"the {kind} of site {msg['name']!r} {outside}"
            # Before log_prob, which may refuse such a value.
            self.outside = self.outside or Finding(text, msg["name"], certain=False)
        # A log_prob that draws (an energy's negative phase) must not move the streams.
        streams = rng.torch_streams(self.device)
        log_prob = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
        rng.restore_torch_streams(streams, self.device)
        if _is_bad(scale_and_mask(log_prob, msg["scale"], msg["mask"])):
            text = f"the log-probability of the {kind} of site {msg['name']!r} is not finite"
            text += f", since the value {outside}" if outside else ""
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
    all of them are finite (or there are none) the parameters of the module, and then values
    outside the support of their distribution. Data that are not finite are named in any case.
    """
    looks = []
    found: Finding | None = None
    for program in _programs(loss, tensors) if tensors is not None else ():
        rng.restore_torch_streams(streams, device)
        looks.append(_FirstBadSite(device))
        try:
            # Validation would raise first, and names no site.
            with pyro.validation_enabled(False), looks[-1]:
                program()
        except _Stop as stop:
            found = stop.finding
            break
        except Exception:
            # The program is known to be broken; what counts is what it shows before it fails.
            continue
    outside = (look.outside for look in looks if look.outside is not None)
    found = found or bad_parameter(loss) or next(outside, None)
    if not any(_is_bad(tensor) for tensor in tensors or ()):
        return found
    data = "the data of this batch hold NaN or infinity"
    if found is None:
        return Finding(data, None, certain=False)
    return found._replace(text=f"{found.text}; {data}")


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
            f"look at how the model and the guide reach it ({REGISTER})"
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
