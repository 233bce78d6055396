# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Runs that test_fit_parallel.py starts under torchrun: ``parallel_run.py FOLDER``.

Each process writes what it has seen to FOLDER/RANK.pt. The same functions run in one process for
the comparison: nothing here knows how many processes there are, but for the planted failures.
"""

import os
import signal
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from pyro_deepgen.fit import NonFiniteLossError, fit
from tests.fit.models import SquaredError, pair_loss, pixels, regression, state_of

RANK = int(os.environ.get("RANK", "0"))
# The last batch of 21 in batches of 5 has one datum: with two processes one share is empty.
NUM_DATA, BATCH_SIZE = 21, 5


def exact(loader=False, sampler=False, compile=False):
    """Plain gradient descent without noise."""
    tensors = regression(NUM_DATA)
    if compile:
        tensors = tensors[:2]  # The list of rows is no part of a graph.
    loss = SquaredError()
    data = tensors
    if loader or sampler:
        dataset = TensorDataset(*tensors)
        how = {"sampler": DistributedSampler(dataset)} if sampler else {"shuffle": True}
        data = DataLoader(dataset, batch_size=BATCH_SIZE, **how)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.05, momentum=0.5)
    history = fit(
        loss,
        data,
        optimizer,
        num_epochs=3,
        batch_size=BATCH_SIZE,
        clip_norm=1.0,
        held_out=tensors[:2],
        compile=compile,
        progress=False,
    )
    return {
        "weight": loss.weight.detach(),
        "train": history.train,
        "held_out": history.held_out,
        "rows": loss.rows,
    }


def lbfgs():
    """An optimiser that asks for the loss several times a step."""
    x, y, _ = regression(NUM_DATA)
    loss = SquaredError()
    optimizer = torch.optim.LBFGS(loss.parameters(), line_search_fn="strong_wolfe")
    fit(loss, (x, y), optimizer, num_epochs=1, batch_size=NUM_DATA, progress=False)
    return loss.weight.detach()


def noisy(path, num_epochs):
    """Noise, dropout, batch normalisation."""
    loss = pair_loss()
    history = fit(
        loss,
        pixels(),
        torch.optim.Adam(loss.parameters(), lr=0.01),
        num_epochs=num_epochs,
        batch_size=10,  # Even shares: both draw as often, so only the streams can differ.
        transform=torch.bernoulli,
        held_out=pixels(7),
        checkpoint=path,
        progress=False,
    )
    return {"state": state_of(loss), "train": history.train, "draw": float(torch.rand(()))}


def failure(kind):
    """A failure in the second process only; returns how it came out in this one."""
    x, y, _ = regression(NUM_DATA)

    class Failing(SquaredError):
        calls = 0

        def forward(self, x, y):
            self.calls += torch.is_grad_enabled()
            if RANK == 1 and self.calls == 3 and kind == "nan":
                return super().forward(x, y) * torch.nan
            if RANK == 1 and self.calls >= 3 and kind == "refused":
                # Pyro's validation raises, in this process alone.
                pyro.sample("bad", dist.Normal(x.new_tensor(torch.nan), 1.0))
            if RANK == 1 and self.calls == 3 and kind == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            return super().forward(x, y)

    loss = Failing()
    if kind == "gradient":
        loss.unused = torch.nn.Linear(1, 1)
    if kind == "data" and RANK == 1:
        x, y = x[:-1], y[:-1]
    try:
        history = fit(loss, (x, y), num_epochs=2, batch_size=BATCH_SIZE, progress=False)
    except NonFiniteLossError as error:
        return f"step {error.step}, site {error.site}"
    except ValueError as error:
        return str(error)
    return f"{history.stopped} after {history.num_steps}"


def main(folder):
    whole = noisy(None, 2)
    noisy(folder / "run.pt", 1)
    results = {
        "exact": exact(),
        "loader": exact(loader=True),
        "compiled": exact(compile="recorded"),
        "lbfgs": lbfgs(),
        "whole": whole,
        "resumed": noisy(folder / "run.pt", 2),
        "sampler": exact(sampler=True),
        **{kind: failure(kind) for kind in ("nan", "refused", "interrupt", "gradient", "data")},
    }
    torch.save(results, folder / f"{RANK}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
