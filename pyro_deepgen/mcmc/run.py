# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Running a kernel: warm-up, draws in blocks, and what happens when it stops."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .chains import Chains
from .draws_store import DrawsStore
from .kernel import Kernel
from .kernel_checks import check_state
from .model_target import ModelTarget
from .program import Program
from .progress import Progress
from .starts import check_starts
from .state import Info, State, Values
from .target import Target

# Draws (C, n, *shape) of n steps, in the model's own terms, and info (C, n).
Callback = Callable[[Values, Info], object]

# A block of draws is held twice for a moment: bytes and draws of the largest one.
_BLOCK_BYTES, _BLOCK_DRAWS = 2**24, 256

# So many chains' starting points are kept, to know the target by.
_NUM_ANCHORS = 4


class StoppedRunError(RuntimeError):
    """A run that failed after its first draws.

    Args:
        message: what happened.
        chains: the draws made before, from which ``run(..., resume=error.chains)`` goes on.
    """

    def __init__(self, message: str, chains: Chains) -> None:
        super().__init__(message)
        self.chains = chains


@torch.no_grad()
def run(
    kernel: Kernel,
    num_samples: int,
    warmup_steps: int | None = None,
    num_chains: int | None = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    initial_params: Mapping[str, torch.Tensor] | None = None,
    init_strategy: Callable[..., Any] | None = None,
    thinning: int = 1,
    resume: Chains | None = None,
    save_params: Sequence[str] | None = None,
    callback: Callback | None = None,
    keep: bool | None = None,
    block_size: int | None = None,
    progress: bool = True,
) -> Chains:
    """Warm up many chains of a kernel as one batch, and draw from them.

    Running the same kernel again with arguments of the same shapes uses its compiled graphs again.

    **Randomness** comes from torch's global generator: ``pyro.set_rng_seed`` makes a run
    repeatable.

    **Ctrl-C** during the draws ends the run: those of all finished blocks are returned, with a
    warning. During the warm-up it raises ``KeyboardInterrupt``. What goes wrong after the first
    block of draws raises :class:`StoppedRunError`, which has them too.

    **Resuming.** ``run(kernel, num_samples, resume=chains)`` goes on where the chains stand, with
    their tuning and without a warm-up: on the CPU the chains of 50 draws and 50 resumed ones are
    those of 100, bit for bit, unless something else used the generator in between. (For
    ``NUTS``, whose chains run ahead of each other within a block: with the same blocks.)

    **Memory.** The draws are written into one tensor a site, block by block, so that a run needs
    little more than these. With a `callback` they are handed over block by block and not kept.

    Args:
        kernel: what moves the chains.
        num_samples: draws a chain.
        warmup_steps: steps before, in which the kernel adapts and which are thrown away;
            `num_samples` by default, and 0 when resuming.
        num_chains: number of chains C; 4 by default, or as many as `initial_params` has.
        args: arguments of the model; when resuming, by default those of before.
        kwargs: keyword arguments of the model.
        initial_params: where the chains start, unconstrained values ``(C, *shape)`` of every site,
            as in Pyro; ``kernel.target.unconstrain`` turns values of the model into them.
        init_strategy: how a model's chains start instead, one of ``pyro.infer.autoguide``'s
            ``init_to_uniform``, which is the default and draws unconstrained values from
            ``(-2, 2)``, ``init_to_sample``, ``init_to_median``, ``init_to_value`` and so on.
        thinning: steps of a chain for one draw. Steps between draws are not in the info.
        resume: chains to go on from.
        save_params: the sites whose draws are kept; all by default.
        callback: called with the draws ``(C, n, *shape)`` of each block (constrained) and info
            ``(C, n)``.
        keep: whether the result has the draws; by default unless there is a `callback`.
        block_size: draws a block; by default at most 256, and fewer where these are large.
        progress: whether to show a bar, with the acceptance of the last step and the number of
            divergences. Without it nothing waits for the device.

    Returns:
        The draws, the state of the chains and the kernel's tuning.

    Raises:
        ValueError: for numbers out of range, an unknown site, a site that no kernel moves, bad
            starts, or chains to resume that do not go with the target.
        StoppedRunError: where a step or the callback fails after the first block of draws.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.mcmc import RandomWalk, run
        >>> def model(x):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(loc, 1.0), obs=x)
        >>> x = torch.tensor([1.0, 2.0, 3.0])
        >>> kernel = RandomWalk(model, compile=False)
        >>> chains = run(kernel, 200, 100, num_chains=500, args=(x,), progress=False)
        >>> abs(float(chains.get_samples()["loc"].mean()) - 6.0 / 4.0) < 0.1  # sum(x) / (3 + 1)
        True
    """
    num_samples = _at_least(1, "num_samples", num_samples)
    thinning = _at_least(1, "thinning", thinning)
    if block_size is not None:
        block_size = _at_least(1, "block_size", block_size)
    if warmup_steps is None:
        warmup_steps = num_samples if resume is None else 0
    warmup_steps = _at_least(0, "warmup_steps", warmup_steps)
    if resume is None:
        if initial_params is not None and init_strategy is not None:
            raise ValueError("expected initial_params or an init_strategy, got both")
        num_chains = _number_of_chains(num_chains, initial_params)
        example = {name: value[0] for name, value in (initial_params or {}).items()}
    else:
        _require_none(
            num_chains=num_chains, initial_params=initial_params, init_strategy=init_strategy
        )
        num_chains = resume.num_chains
        example = {name: value[0] for name, value in resume.anchor.items()}
        # A target has its arguments in it.
        program = None if isinstance(kernel.model, Target) else resume.program
        if program is not None and args is None and kwargs is None:
            args, kwargs = program.args, program.kwargs
    if args is not None and not isinstance(args, list | tuple):
        raise ValueError(
            f"expected args to be a tuple of the model's arguments, got {type(args).__name__}: for "
            "one argument write args=(x,)"
        )
    args, kwargs = args or (), kwargs or {}

    with torch.random.fork_rng(_cuda_devices()):  # a look at the model is no part of the chains
        kernel.initial_params, kernel.init_strategy = example, init_strategy
        try:
            kernel.setup(warmup_steps, *args, **kwargs)
        finally:
            kernel.cleanup()
    target = kernel.target
    if frozen := [name for name in target.sites if name not in kernel.sites]:
        raise ValueError(
            f"no kernel moves {', '.join(map(repr, frozen))}, which would stay at a random start: "
            f"{type(kernel).__name__} moves {list(kernel.sites)} only. Combine kernels with "
            "Gibbs([(kernel, sites), ...]), or condition the model on the others"
        )
    kept = _kept(target, save_params)
    if resume is not None:
        resume.require_same_target(target)
        kernel.load_tuning(_moved(resume.tuning, target.device))
        state = _moved(resume.state, target.device)
        anchor, anchor_potential = resume.anchor, resume.anchor_potential
    else:
        if initial_params is None:
            start = target.start(num_chains)
        else:
            start = check_starts(target, initial_params, num_chains)
        anchor = {name: value[:_NUM_ANCHORS].clone() for name, value in start.items()}
        anchor_potential = _potential(target, anchor)
        state = kernel.init(start)
        check_state(f"{type(kernel).__name__}.init", state, start, target.sites)
    compiles = kernel.compile not in (False, "recorded") and not kernel.graphs
    bar = Progress(progress, num_chains, warmup_steps, num_samples, compiles)
    store = DrawsStore(num_samples, kept if keep or (keep is None and callback is None) else ())

    def result() -> Chains:
        program = None
        if isinstance(kernel.model, ModelTarget):
            own = kernel.model.arguments
            program = Program(kernel.model.model, own.args, own.kwargs)
        elif isinstance(target, ModelTarget):
            program = Program(target.model, args, kwargs)
        tuning = kernel.tuning_dict()
        return Chains(*store.parts(), state, tuning, anchor, anchor_potential, program)

    last: Info = {}
    try:
        if warmup_steps:
            state = kernel.warm_up(state, warmup_steps, bar.report)
        bar.start_draws()
        for size in _block_sizes(num_samples, block_size, state):
            state, draws, info = kernel.advance(state, size, thinning, bar.report)
            last = {name: value[-1] for name, value in info.items()}
            info = {name: value.transpose(0, 1) for name, value in info.items()}
            values = target.constrain({name: draws[name].transpose(0, 1) for name in kept})
            store.add(values, info, size)
            if callback is not None:
                callback(values, info)
    except KeyboardInterrupt:
        if not store.count:
            raise
        warnings.warn(
            f"interrupted after {store.count} of {num_samples} draws of each chain", stacklevel=2
        )
    except Exception as error:
        if not store.count:
            raise
        raise StoppedRunError(
            f"stopped after {store.count} of {num_samples} draws of each chain, which are in "
            f"this error's `chains`: {error}",
            result(),
        ) from error
    finally:
        bar.close(last)
    return result()


def _block_sizes(num_samples: int, block_size: int | None, state: State) -> list[int]:
    if block_size is None:
        one = sum(value.numel() * value.element_size() for value in state.values())
        block_size = max(1, min(_BLOCK_DRAWS, _BLOCK_BYTES // one))
    num_blocks = -(-num_samples // block_size)
    # Blocks of nearly one size, so that a kernel that makes a graph of a block makes few.
    return [
        num_samples * (i + 1) // num_blocks - num_samples * i // num_blocks
        for i in range(num_blocks)
    ]


def _number_of_chains(
    num_chains: int | None, initial_params: Mapping[str, torch.Tensor] | None
) -> int:
    for name, value in (initial_params or {}).items():
        if not isinstance(value, torch.Tensor) or value.dim() == 0 or len(value) == 0:
            raise ValueError(
                f"initial_params: expected a tensor with chains first for the site {name!r}, got "
                f"{value!r}"
            )
        num_chains = len(value) if num_chains is None else num_chains
    return _at_least(1, "num_chains", 4 if num_chains is None else num_chains)


def _kept(target: Target, save_params: Sequence[str] | None) -> tuple[str, ...]:
    if save_params is None:
        return tuple(target.sites)
    for name in save_params:
        if name not in target.sites:
            raise ValueError(
                f"save_params has {name!r}, and the sites of the target are {sorted(target.sites)}"
            )
    return tuple(save_params)


def _moved(tensors: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in tensors.items()}


def _potential(target: Target, values: Values) -> torch.Tensor | None:
    try:
        return target.potential(values)
    except ValueError:
        return None  # what only draws its own blocks may have none; else the kernel raises


def _cuda_devices() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []


def _require_none(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"expected no {name} with resume, which goes on with chains there are")


def _at_least(least: int, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"expected {name} to be an integer of at least {least}, got {value!r}")
    return value
