# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""One training run: its state, its steps, its epochs."""

import math
import time
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from . import diagnosis, rng
from .batches import Batch, Batches, TensorBatches, Transform
from .diagnosis import Finding, NonFiniteLossError
from .evaluation import mean_held_out
from .gradient import GraphGradient, ProgramGradient
from .history import History
from .interrupt import Interrupt
from .keeper import Keeper
from .parallel import Ranks
from .position import Best, Position
from .progress import Progress, Reports


@dataclass(frozen=True)
class Plan:
    """What the user asked for, in plain numbers."""

    num_epochs: int
    clip_norm: float | None
    patience: int | None
    check_every: int
    checkpoint_every: int | None
    seed: int
    backend: str | None


class Run:
    """The loop of :func:`fit`, after its arguments have been looked at."""

    def __init__(
        self,
        loss: nn.Module,
        batches: Batches,
        held_out: TensorBatches | None,
        transform: Transform | None,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        plan: Plan,
        ranks: Ranks,
        keeper: Keeper,
        position: Position,
    ) -> None:
        self.loss = loss
        self.batches = batches
        self.held_out = held_out
        self.transform = transform
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.plan = plan
        self.ranks = ranks
        self.keeper = keeper
        self.at = position
        self.history = position.history
        self.device = ranks.device
        self.trainable = [(n, p) for n, p in loss.named_parameters() if p.requires_grad]
        self.gradients_seen = False
        self.found: Finding | None = None
        self.reports = Reports(loss)
        self.begun = time.monotonic() - self.history.seconds
        # Kept on the device, so that a step does not wait for it.
        self.total = torch.tensor(position.total, dtype=torch.float64, device=self.device)
        self.count: int | Tensor = position.count
        self.bad_step = torch.tensor(-1, device=self.device)
        self.stop_flag = torch.zeros((), device=self.device)
        self.last: tuple[tuple[Tensor, ...] | None, dict[str, Tensor]] = (None, {})

    def go(self, interrupt: Interrupt, bar: Progress) -> History:
        """Train until the last epoch, the end of patience or Ctrl-C."""
        self.interrupt, self.bar = interrupt, bar
        self.mean_and_gradient = self._way_to_compute()
        self.history.stopped = "finished"
        while not self.is_done():
            for batch in self.batches.epoch(self.at.epoch, self.at.step):
                self._step(batch)
                if self._asked_to_stop():
                    return self._interrupted()
                every = self.plan.checkpoint_every
                last = self.at.step == self.batches.num_steps
                if every is not None and self.history.num_steps % every == 0 and not last:
                    self._save()
            self._end_epoch()
            if self.at.epoch < self.plan.num_epochs and self.ranks.any(interrupt.requested):
                return self._interrupted()
        if self._out_of_patience():
            self.history.stopped = "early"
        if self.plan.patience is not None and self.at.best is not None:
            self.loss.load_state_dict(self.at.best.state)
        return self.history

    def _way_to_compute(self) -> ProgramGradient | GraphGradient:
        if self.plan.backend is None:
            return ProgramGradient(self.loss)
        parameters = [parameter for _, parameter in self.trainable]
        return GraphGradient(self.loss, parameters, self.plan.backend, self.bar, self.history)

    def is_done(self) -> bool:
        """Say whether there is no epoch left."""
        return self.at.epoch >= self.plan.num_epochs or self._out_of_patience()

    # ------------------------------------------------------------ one step

    def _step(self, batch: Batch) -> None:
        tensors = None if batch.tensors is None else self._prepared(batch.tensors)
        streams = rng.torch_streams(self.device)
        first: list[Tensor] = []

        def closure() -> Tensor:
            if first:
                # A line search compares values of one function: the noise must not change.
                rng.restore_torch_streams(streams, self.device)
            mean = self._gradient(tensors, batch.count, streams)
            first.append(mean)
            return mean

        # The stubs let a closure return a float only; optimisers take a tensor.
        self.optimizer.step(closure)  # type: ignore[arg-type]
        self.gradients_seen = True
        self.at.step += 1
        self.history.num_steps += 1
        mean = first[0].double()
        self.total += mean * batch.count
        self.count = self.count + batch.count
        if self._looks_now():
            self._check_loss(tensors, streams)
            self.bar.show(float(self.total) / float(self.count), self.history)
        else:
            fine = mean.isfinite() | (self.bad_step >= 0)
            self.bad_step = torch.where(fine, self.bad_step, self.history.num_steps)
        self.last = tensors, streams
        self.bar.step()

    def _prepared(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.transform is None:
            return tensors
        return (self.transform(tensors[0]), *tensors[1:])

    def _gradient(
        self, tensors: tuple[Tensor, ...] | None, count: int | Tensor, streams: dict[str, Tensor]
    ) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        mean = torch.zeros((), device=self.device)
        if tensors is not None:
            mean = self._mean(tensors, count, streams)
        if not self.gradients_seen:
            has_data = tensors is not None and self.found is None
            diagnosis.require_gradients(self.trainable, self.ranks, has_data)
        mean = self._shared(mean)
        if self.plan.check_every == 1 and not math.isfinite(float(mean)):
            self._raise_non_finite(
                f"is {float(mean)}", self.history.num_steps + 1, tensors, streams
            )
        if self.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_([p for _, p in self.trainable], self.plan.clip_norm)
        return mean

    def _mean(
        self, tensors: tuple[Tensor, ...], count: int | Tensor, streams: dict[str, Tensor]
    ) -> Tensor:
        try:
            return self.mean_and_gradient(tensors, count)
        except (ValueError, RuntimeError) as error:
            # Pyro's validation, a Bernoulli draw or a Cholesky factor refuse a NaN first.
            found = diagnosis.find_non_finite(self.loss, tensors, streams, self.device)
            if found is None or not found.certain:
                raise
            if self.ranks.size > 1:
                # The others wait for this one's share: all learn of it by a NaN, and raise.
                self.found = found
                return torch.tensor(math.nan, device=self.device)
            raise self._error("cannot be computed", self.history.num_steps + 1, found) from error

    def _shared(self, mean: Tensor) -> Tensor:
        """Sum the shares of the mean loss and of its gradient over the processes."""
        if self.ranks.size == 1:
            return mean
        for _, parameter in self.trainable:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # The dtype is one that a process without data knows too.
        dtype = torch.promote_types(self.trainable[0][1].dtype, torch.float32)
        mean = mean.to(dtype).clone()
        flag = torch.full((), float(self.interrupt.requested), device=self.device, dtype=dtype)
        gradients = [p.grad for _, p in self.trainable if p.grad is not None]
        self.ranks.sum_([mean, flag, *gradients])
        self.stop_flag = flag
        return mean

    # ------------------------------------------------------------ looking at the loss

    def _looks_now(self) -> bool:
        return self.history.num_steps % self.plan.check_every == 0

    def _check_loss(self, tensors: tuple[Tensor, ...] | None, streams: dict[str, Tensor]) -> None:
        """Raise if a loss since the last look was not finite."""
        if not bool(self.total.isfinite()):
            step = int(self.bad_step)
            self._raise_non_finite(
                "is not finite", step if step >= 0 else self.history.num_steps, tensors, streams
            )

    def _check_state(self) -> None:
        """Raise if the state is not one to go on from, or to keep."""
        if self.at.step:
            self._check_loss(*self.last)
        found = diagnosis.bad_parameter(self.loss)
        if found is not None:
            raise self._error("cannot be trained on", self.history.num_steps, found)

    def _raise_non_finite(
        self,
        what: str,
        step: int,
        tensors: tuple[Tensor, ...] | None,
        streams: dict[str, Tensor],
    ) -> NoReturn:
        found = self.found or diagnosis.find_non_finite(self.loss, tensors, streams, self.device)
        everywhere = [other for other in self.ranks.gather(found) if other is not None]
        raise self._error(what, step, everywhere[0] if everywhere else None)

    def _error(self, what: str, step: int, found: Finding | None) -> NonFiniteLossError:
        in_epoch = step - (self.history.num_steps - self.at.step)
        text = "running it again on the batch shows nothing" if found is None else found.text
        epoch = self.at.epoch + 1
        return NonFiniteLossError(
            f"the loss {what} at step {step} (epoch {epoch}, step {in_epoch} of it): {text}; "
            f"{self.keeper.last_good()}; lower the learning rate, set clip_norm, or look at that "
            "site and at the data",
            epoch,
            step,
            None if found is None else found.site,
        )

    # ------------------------------------------------------------ one epoch

    def _end_epoch(self) -> None:
        self._check_state()
        self.history.train.append(float(self.total) / float(self.count))
        if self.held_out is not None:
            figure = mean_held_out(
                self.loss, self.held_out, self._prepared, self.plan.seed, self.ranks
            )
            self.history.held_out.append(figure)
        figure = (self.history.held_out or self.history.train)[-1]
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(figure)
        elif self.scheduler is not None:
            self.scheduler.step()
        if self.plan.patience is not None and self._is_better(figure):
            self.at.best = Best.of(figure, self.at.epoch, self.loss)
        self.bar.show(self.history.train[-1], self.history)
        self.at.epoch += 1
        self.at.step = 0
        self.total.zero_()
        self.count = 0
        if self.ranks.first:
            self.reports.warn()
        self._save()

    def _is_better(self, figure: float) -> bool:
        best = self.at.best
        # Not a number is worse than every number.
        return best is None or figure < best.figure or math.isnan(best.figure) > math.isnan(figure)

    def _out_of_patience(self) -> bool:
        if self.plan.patience is None or self.at.best is None:
            return False
        return self.at.epoch - 1 - self.at.best.epoch >= self.plan.patience

    # ------------------------------------------------------------ saving and stopping

    def _save(self) -> None:
        self.history.seconds = time.monotonic() - self.begun
        if self.keeper.path is not None:
            self._check_state()
            self.ranks.copy_first_(list(self.loss.buffers()))
            self.at.total, self.at.count = float(self.total), int(self.count)
            self.keeper.save(self.at)

    def _asked_to_stop(self) -> bool:
        if self.ranks.size == 1:
            return self.interrupt.requested
        return self._looks_now() and bool(self.stop_flag > 0)

    def _interrupted(self) -> History:
        self.history.stopped = "interrupted"
        if self.at.step == 0 or self.batches.resumable:
            self._save()
        self.history.seconds = time.monotonic() - self.begun
        if self.ranks.first:
            self.bar.say(
                f"Interrupted after step {self.history.num_steps}: {self.keeper.last_good()}."
            )
        return self.history
