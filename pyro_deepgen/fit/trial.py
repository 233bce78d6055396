# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The call of a loss before the first step: it leaves no trace, and says what is wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from . import diagnosis, rng
from .batches import Transform
from .diagnosis import NonFiniteLossError
from .evaluation import needs_graph, require_scalar

Call = Callable[[tuple[Tensor, ...]], object]


def try_training(
    loss: nn.Module, tensors: tuple[Tensor, ...], transform: Transform | None, device: torch.device
) -> None:
    """Call the loss once, so that parameters made on first use exist, and put the rest back.

    Raises:
        ValueError: if the loss does not take the batch, or has parameters in no module.
        NonFiniteLossError: if a value that is not finite keeps it from being computed.
    """
    with _without_trace(loss, device), poutine.trace(param_only=True) as capture:
        _call(loss, tensors, transform, device, "data")
    _require_registered(loss, capture.trace.nodes)


def try_held_out(
    loss: nn.Module, tensors: tuple[Tensor, ...], transform: Transform | None, device: torch.device
) -> None:
    """Call the loss on held-out data as at the end of an epoch, and put everything back.

    Raises:
        ValueError: if the loss does not take the batch.
        NonFiniteLossError: if a value that is not finite keeps it from being computed.
    """
    with _without_trace(loss, device):
        loss.eval()
        _call(loss, tensors, transform, device, "held_out")


@contextmanager
def _without_trace(loss: nn.Module, device: torch.device) -> Iterator[None]:
    """Run the block without gradients; put buffers, training modes and random streams back."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in loss.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    modes = [(module, module.training) for module in loss.modules()]
    try:
        with torch.set_grad_enabled(needs_graph(loss)), rng.branched(device):
            yield
    finally:
        with torch.no_grad():
            for module, name, buffer, values in kept:
                buffer.copy_(values)
                module._buffers[name] = buffer
        for module, mode in modes:
            module.training = mode


def _call(
    loss: nn.Module,
    tensors: tuple[Tensor, ...],
    transform: Transform | None,
    device: torch.device,
    name: str,
) -> None:
    prepared: list[tuple[Tensor, ...]] = []

    def call(batch: tuple[Tensor, ...]) -> None:
        first = batch[0] if transform is None else transform(batch[0])
        prepared.append((first, *batch[1:]))
        require_scalar(loss(*prepared[-1]))

    streams = rng.torch_streams(device)
    try:
        call(tensors)
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        # What failed before the loss was called is looked at as it came.
        batch = prepared[0] if prepared else tensors
        text = _wrong_use(tensors, name, error) or _wrong_dtype(loss, tensors, name, call, error)
        if text is not None:
            raise ValueError(text) from error
        found = diagnosis.find_non_finite(loss, batch, streams, device)
        if found is None or not (found.certain or found.site is None):
            if name == "data":
                raise
            raise ValueError(
                f"expected {name} that the loss takes in evaluation mode, as it takes data in "
                f"training mode, got the shapes {[tuple(t.shape) for t in tensors]} "
                f"({_first_line(error)}); "
                "give the same tensors as in data, for other rows"
            ) from error
        raise NonFiniteLossError(
            f"the loss cannot be computed on the first batch of {name}, before any step: "
            f"{found.text} ({_first_line(error)}); look at that site and at the data",
            site=found.site,
        ) from error


def _wrong_use(tensors: tuple[Tensor, ...], name: str, error: Exception) -> str | None:
    """Say in what way the loss is not one for these batches, or for `fit` at all."""
    if isinstance(error, NotImplementedError) and "pyro.param" in str(error):
        return (
            "expected the parameters of a PyroModule to be attributes of it, got a pyro.param "
            f"statement in it; {diagnosis.REGISTER}"
        )
    if isinstance(error, TypeError) and "positional argument" in str(error):
        way_out = "give the tuple of all that it takes, such as (x, y)"
        if len(tensors) > 1:
            way_out = "give x alone, or a loss (its model and its guide) that takes (x, y)"
        return (
            f"the batches of {name} have {len(tensors)} tensor{'s' * (len(tensors) > 1)}, passed "
            f"as loss(*batch), which the loss does not take ({_first_line(error)}); {way_out}"
        )
    return None


def _wrong_dtype(
    loss: nn.Module, tensors: tuple[Tensor, ...], name: str, call: Call, error: Exception
) -> str | None:
    """Say which tensors the loss takes in the dtype of its parameters only: found by trying."""
    if isinstance(error, ValueError):
        return None  # It was written for this, which those of torch's operations are not.
    floating = (p.dtype for p in loss.parameters() if p.is_floating_point())
    dtype = next(floating, torch.get_default_dtype())
    wrong = [i for i, tensor in enumerate(tensors) if tensor.dtype != dtype]
    of_floats = [i for i in wrong if tensors[i].is_floating_point()]
    with_first = sorted({*of_floats, *wrong[:1]})
    for chosen in (of_floats, with_first, wrong):
        if not chosen:
            continue
        after = _error_of(call, [t.to(dtype) if i in chosen else t for i, t in enumerate(tensors)])
        # Not so for int64, which can be indices: as floats they fail in another way.
        values = all(
            tensors[i].dtype in (torch.uint8, torch.bool) for i in {*chosen} - {*of_floats}
        )
        another = (
            isinstance(error, RuntimeError) and values and _first_line(after) != _first_line(error)
        )
        if after is None or another:
            return _dtype_text(tensors, chosen, dtype, name, error, after)
    return None


def _dtype_text(
    tensors: tuple[Tensor, ...],
    chosen: list[int],
    dtype: torch.dtype,
    name: str,
    error: Exception,
    after: Exception | None,
) -> str:
    which = [name if len(tensors) == 1 else f"{name}[{i}]" for i in chosen]
    got = ", ".join(f"{w} of {tensors[i].dtype}" for w, i in zip(which, chosen, strict=True))
    way_out = " and ".join(f"{w}.to({dtype})" for w in which)
    other = next((tensors[i].dtype for i in chosen if tensors[i].is_floating_point()), None)
    model = "" if other is None else f", or convert the model by .to({other})"
    then = "" if after is None else f"; what then fails is: {_first_line(after)}"
    return (
        f"expected data of the parameters' dtype, {dtype}, got {got} ({_first_line(error)}); give "
        f"{way_out}{model}{then}"
    )


def _error_of(call: Call, tensors: list[Tensor]) -> Exception | None:
    try:
        call(tuple(tensors))
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        return error
    return None


def _first_line(error: Exception | None) -> str:
    return str(error).strip().partition("\n")[0]


def _require_registered(loss: nn.Module, sites: dict[str, Any]) -> None:
    """Raise if the programs have parameters that the module does not have.

    Raises:
        ValueError: naming the ``pyro.param`` statements; those parameters would stay as they are.
    """
    held = {id(parameter) for parameter in loss.parameters()}
    values = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
    leaves = {n: v.unconstrained() if hasattr(v, "unconstrained") else v for n, v in values.items()}
    names = [n for n, leaf in leaves.items() if leaf.requires_grad and id(leaf) not in held]
    if names:
        raise ValueError(
            f"the parameters {', '.join(names)} of pyro.param or pyro.module statements are in no "
            f"module of the loss; {diagnosis.REGISTER}"
        )
