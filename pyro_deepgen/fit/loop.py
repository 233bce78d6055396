# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The one training loop, for every objective."""

import os
from itertools import chain
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from . import diagnosis
from .batches import Data, TensorBatches, Transform, as_tensors, make_batches
from .gradient import chosen
from .history import History
from .interrupt import Interrupt
from .keeper import Keeper
from .parallel import Ranks, own_device
from .position import Position
from .progress import Progress
from .run import Plan, Run
from .trial import try_held_out, try_training


def fit(
    loss: nn.Module,
    data: Data,
    optimizer: Optimizer | None = None,
    *,
    num_epochs: int,
    batch_size: int = 128,
    transform: Transform | None = None,
    scheduler: LRScheduler | None = None,
    clip_norm: float | None = None,
    held_out: Tensor | tuple[Tensor, ...] | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    check_every: int | None = None,
    seed: int = 0,
    compile: bool | str = False,
    progress: bool = True,
    label: str = "ELBO",
) -> History:
    r"""Minimise a loss over data by stochastic gradients.

    With :math:`L(B)` the value of ``loss`` on a batch :math:`B`, which is a sum over its data,
    each step goes down the gradient of

    .. math:: \frac{1}{|B|} L(B),

    so that learning rate and clipping do not depend on the batch size. The run takes place under
    ``pyro.settings.context(module_local_params=True)``: every module keeps its own parameters.
    The loss is called once before the first step, and once on held-out data, and leaves no trace
    (random streams and buffers are put back), which makes the parameters that appear on first use
    and finds out whether the loss and the data go together.
    It trains in training mode; the modes found are put back at the end.

    **Compilation.** With ``compile=True`` the operations of loss and gradient are recorded at the
    first step and compiled; Python and Pyro's handlers do not run again. That takes some 10 to 20
    seconds for a small VAE (on the CPU it needs a C++ compiler), once for every shape of a batch:
    a last smaller one makes a second graph. Optimiser, scheduler, clipping, `transform`, held-out
    evaluation and the search for what is not finite stay outside; so a held-out loss depends on
    the parameters alone, not on `compile`. Losses agree up to rounding, but the compiler may draw
    other random numbers. Pyro's validation sees the first batch of a shape only. What the loss
    reads that is not a tensor (an attribute that is a number, ``random.random()``) is frozen: keep
    what changes during the run in a buffer, changed in place.

    **Checkpoints.** With ``checkpoint`` the run resumes from that file if it exists. On the CPU
    a resumed run ends in the same parameters, bit for bit, as one that was never stopped. The
    learning rate is the file's. The data, the objective and the settings must be those of the
    file. A run that has all its epochs returns its history at once, and goes on with more
    ``num_epochs``. The device, the number of processes and `compile` may be others than before:
    they change how the run is computed, so that it goes on, but no longer bit for bit.

    **Randomness.** `seed` fixes the order of the data and the noise of the held-out evaluation.
    All other noise comes from the global generators: call ``pyro.set_rng_seed`` for a run that
    can be repeated. An optimiser that evaluates the loss several times a step (LBFGS) sees the
    same noise each time.

    **Several processes.** Under ``torchrun --nproc_per_node=2`` each process takes its share of
    every batch, and gradients are those of the whole batch. `batch_size` counts all processes.

    **Ctrl-C** ends the step, saves and returns; a second one raises KeyboardInterrupt at once.

    Args:
        loss: module whose ``loss(*batch)`` is a scalar summed over the batch, such as
            ``Trace_ELBO()(pair.model, pair.guide)``.
        data: a tensor of shape (N, ...), a tuple of tensors with the same N, or a DataLoader
            that gives such batches. The data of a batch are moved to the parameters' device.
        optimizer: any of ``torch.optim``, over all parameters of `loss` that require a gradient;
            None for ``Adam(lr=1e-3)``.
        num_epochs: epochs of the run, those of a resumed checkpoint included.
        batch_size: data a step; a DataLoader has its own.
        transform: maps the first tensor of each batch, of shape (B, ...), to what the loss gets,
            for instance a new binarisation; held-out data likewise, with fixed noise.
        scheduler: any of ``torch.optim.lr_scheduler`` on `optimizer`, stepped once an epoch;
            ``ReduceLROnPlateau`` sees the held-out loss, or the training loss without.
        clip_norm: largest norm of the whole gradient.
        held_out: a tensor or tuple like `data`, evaluated in evaluation mode after each epoch.
        patience: stop after this many epochs without a better held-out loss. With it the run
            returns with the best parameters, however it ends, unless interrupted.
        checkpoint: file, written at the end of each epoch.
        checkpoint_every: write it also after every so many steps (not for a DataLoader, whose
            place cannot be found again within an epoch).
        check_every: look at the loss every so many steps; None for 1 on the CPU, where a look
            costs nothing, and 50 elsewhere. In between nothing waits for the device.
        seed: fixes the order of the data.
        compile: whether to compile loss and gradient; or the name of a backend of
            ``torch.compile`` other than ``"inductor"``, the default one; or ``"recorded"``: the
            graph runs as it was recorded, which needs no compiler and takes less than a second.
        progress: whether to show a bar.
        label: name of the figure in the bar, minus the mean loss; ``"loss"`` shows the loss.

    Returns:
        The mean losses of each epoch, and why the run ended.

    Raises:
        ValueError: for arguments that do not fit together, a parameter that gets no gradient, a
            damaged checkpoint or one of another run.
        TracingError: if Python needs the value of a tensor, so that the loss cannot be compiled;
            it names the line and the last Pyro site.
        NonFiniteLossError: if the loss is infinite or NaN; it names the step and the Pyro site.

    Example:
        >>> import torch
        >>> class SquaredError(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.zeros(2))
        ...     def forward(self, x, y):
        ...         return (y - x @ self.weight).square().sum()
        >>> x = torch.randn(100, 2)
        >>> loss = SquaredError()
        >>> optimizer = torch.optim.SGD(loss.parameters(), lr=0.2)
        >>> history = fit(loss, (x, x @ torch.tensor([1.0, -2.0])), optimizer, num_epochs=50,
        ...               batch_size=50, progress=False)
        >>> torch.allclose(loss.weight, torch.tensor([1.0, -2.0]), atol=1e-3)
        True
        >>> history.train[-1] < history.train[0]
        True
    """
    plan = Plan(
        num_epochs=_at_least(0, "num_epochs", num_epochs),
        clip_norm=clip_norm,
        patience=None if patience is None else _at_least(1, "patience", patience),
        check_every=1 if check_every is None else _at_least(1, "check_every", check_every),
        checkpoint_every=(
            None if checkpoint_every is None else _at_least(1, "checkpoint_every", checkpoint_every)
        ),
        seed=_at_least(None, "seed", seed),
        backend=chosen(compile),
    )
    path = None if checkpoint is None else Path(checkpoint)
    _require_consistent(loss, plan, path, held_out, optimizer, scheduler)
    with pyro.settings.context(module_local_params=True):
        modes = [(module, module.training) for module in loss.modules()]
        device = own_device(loss, _device_of(loss, data))
        if check_every is None and device.type != "cpu":
            plan = Plan(**{**vars(plan), "check_every": 50})
        ranks = Ranks.join(device)
        batches = make_batches(data, _at_least(1, "batch_size", batch_size), seed, ranks)
        if plan.checkpoint_every is not None and not batches.resumable:
            raise ValueError(
                "expected checkpoint_every=None with a DataLoader, whose place cannot be found "
                "again within an epoch; give the data as tensors, or keep to the end of epochs"
            )
        tests = None
        if held_out is not None:
            tests = TensorBatches(as_tensors(held_out, "held_out"), batch_size, seed, ranks)
        settings = {
            "seed": seed,
            "batch_size": batches.batch_size,
            "number of data": batches.num_data,
            "data (first rows)": batches.fingerprint(),
        }
        ranks.require_equal(num_epochs=num_epochs, **settings)
        _give_local_stores(loss)
        loss.train()
        try:
            try_training(loss, batches.sample(), transform, device)
            if tests is not None:
                try_held_out(loss, tests.sample(), transform, device)
            trainable = [(n, p) for n, p in loss.named_parameters() if p.requires_grad]
            if not trainable:
                raise ValueError(
                    "expected a loss with parameters that require a gradient, got none; "
                    f"{diagnosis.REGISTER}"
                )
            if optimizer is None:
                optimizer = Adam([parameter for _, parameter in trainable], lr=1e-3)
            diagnosis.require_in_groups(trainable, optimizer)
            ranks.copy_first_([*loss.parameters(), *loss.buffers()])
            ranks.part_streams()
            keeper = Keeper(path, loss, optimizer, scheduler, settings, ranks)
            position = keeper.load() or Position()
            run = Run(
                loss,
                batches,
                tests,
                transform,
                optimizer,
                scheduler,
                plan,
                ranks,
                keeper,
                position,
            )
            bar = Progress(
                progress and ranks.first,
                label,
                num_epochs,
                batches.num_steps,
                position.history.num_steps,
            )
            try:
                if keeper.saved_step is not None:
                    end = f"; nothing left to do: {position.epoch} epochs done"
                    bar.note(
                        f"resumed from {path} at epoch {position.epoch}, step {keeper.saved_step}"
                        f"{end if run.is_done() else ''}"
                    )
                with Interrupt() as interrupt:
                    return run.go(interrupt, bar)
            finally:
                bar.close()
        finally:
            for module, mode in modes:
                module.training = mode


def _at_least(least: int | None, name: str, value: object) -> int:
    too_small = least is not None and isinstance(value, int) and value < least
    if isinstance(value, bool) or not isinstance(value, int) or too_small:
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"expected {name} to be an integer{bound}, got {value!r}")
    return value


def _require_consistent(
    loss: object,
    plan: Plan,
    path: Path | None,
    held_out: object,
    optimizer: object,
    scheduler: LRScheduler | None,
) -> None:
    if not isinstance(loss, nn.Module):
        raise ValueError(
            f"expected loss to be a torch.nn.Module, got {type(loss).__name__}; for a model and "
            "a guide give an objective applied to them, such as Trace_ELBO()(model, guide)"
        )
    if plan.clip_norm is not None and not plan.clip_norm > 0:
        raise ValueError(f"expected clip_norm to be positive or None, got {plan.clip_norm!r}")
    if plan.patience is not None and held_out is None:
        raise ValueError(
            "expected held_out data with patience, got None; give some, or no patience"
        )
    if plan.checkpoint_every is not None and path is None:
        raise ValueError("expected a checkpoint path with checkpoint_every, got None; give a file")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"expected optimizer to be one of torch.optim, got {type(optimizer).__name__}; make it "
            "as torch.optim.Adam(loss.parameters(), lr=1e-3), for instance"
        )
    if scheduler is not None and getattr(scheduler, "optimizer", None) is not optimizer:
        raise ValueError(
            "expected the scheduler to be one of the given optimizer, got another's; make the "
            "optimizer, the scheduler from it, and give both"
        )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)


def _device_of(loss: nn.Module, data: Data) -> torch.device:
    """Return the device of the parameters, or of the data before there are parameters."""
    for tensor in chain(loss.parameters(), loss.buffers()):
        return tensor.device
    if isinstance(data, tuple | list) and data:
        data = data[0]
    return data.device if isinstance(data, Tensor) else torch.device("cpu")


def _give_local_stores(loss: nn.Module) -> None:
    """Let modules that were built without module-local parameters be called with them."""
    for module in loss.modules():
        # Pyro makes this dictionary only in contexts that are built with the setting on.
        context = vars(module).get("_pyro_context")
        if context is not None and not hasattr(context, "param_state"):
            context.param_state = {"params": {}, "constraints": {}}
