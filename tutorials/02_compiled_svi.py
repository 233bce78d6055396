# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

# %% [markdown]
# # Pyro programs at the speed of compiled code
#
# `CompiledSVI` takes the place of `pyro.infer.SVI`. It runs a model and its guide in Python only
# a few times, writes down the tensor operations of the whole step (loss, gradients and
# optimiser) and compiles them. This tutorial shows where the time of a Pyro step goes, what
# tracing does, what it sees and what it does not, and what cannot be traced.
#
# Run it as a script (`python tutorials/02_compiled_svi.py`) or cell by cell. `SMOKE=1` measures
# less.

# %%
import cProfile
import os
import pstats
import time
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from pyro_deepgen.datasets import digits
from pyro_deepgen.fit import fit
from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.latent import vae
from pyro_deepgen.tracing import TracingError, trace

SMOKE = os.environ.get("SMOKE") == "1"
PICTURES = Path("02_compiled_svi")
PICTURES.mkdir(exist_ok=True)
STEPS = 20 if SMOKE else 300

torch.set_num_threads(1)
pyro.set_rng_seed(0)
pyro.enable_validation(False)  # `SVI` at its best: checking arguments takes time, too


def milliseconds(step, batch):
    """Time of a step: the median over some."""
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step(batch)
        times.append(1e3 * (time.perf_counter() - start))
    return median(times)


# %% [markdown]
# ## 1. Where the time goes
#
# A small VAE on scikit-learn's 8 x 8 digits, trained by `SVI`:

# %%
data = digits("threshold")
batch = data.x_train[:128]
pair = vae((1, 8, 8), 5, (32,))
svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
svi.step(batch)
eager = milliseconds(svi.step, batch)
print(f"a step takes {eager:.2f} ms")

# %% [markdown]
# The arithmetic of such a step is a few small matrix products. A profile says what else happens.
# Each row is the time spent in one part of the program itself, without what it calls:

# %%
profile = cProfile.Profile()
profile.enable()
for _ in range(STEPS):
    svi.step(batch)
profile.disable()
parts = {"pyro": 0.0, "torch.distributions": 0.0, "torch.optim": 0.0, "operations of PyTorch": 0.0}
rest = 0.0
for (file, _, _), (_, _, own, _, _) in pstats.Stats(profile).stats.items():
    place = file.replace(os.sep, ".")
    if file.startswith("~"):
        parts["operations of PyTorch"] += own
    else:
        name = next((n for n in parts if f".{n}." in place), None)
        if name is None:
            rest += own
        else:
            parts[name] += own
parts["other Python"] = rest
total = sum(parts.values())
for name, seconds in sorted(parts.items(), key=lambda item: -item[1]):
    print(f"{name:22} {100 * seconds / total:5.1f} %")

# %% [markdown]
# (The profiler makes Python look slower than it is, but the picture is right: well under half is
# spent in operations, Python's built-in functions included.) Pyro's handlers build a trace of the
# guide, replay the model against it, look at every site several times, and so on, and they do the
# same at every step. Their result, the sequence of operations on tensors, hardly ever changes.
#
# ## 2. What tracing does
#
# `trace` runs a function once, and writes down the operations on tensors. Pyro's handlers run then,
# and leave nothing behind but the operations they called for:

# %%
loc = torch.nn.Parameter(torch.tensor([1.0, -1.0]))


def program(x):
    """A sample and its log-density: two lines of Pyro's language."""
    z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
    return [z, dist.Normal(z.sum(), 1.0).log_prob(x)]


graph = trace(program, [torch.tensor(0.3)])
print(graph.module.code)

# %% [markdown]
# That is a graph: no handler, no distribution, no Python. `loc` became the input `captured_1`: by
# reference, so the graph sees what an optimiser changes in place. The draw is an operation like
# any other, so it is fresh every time:

# %%
for _ in range(3):
    print([round(float(v), 3) for v in graph(torch.tensor(0.3))[0]])

# %% [markdown]
# `CompiledSVI` does this with the whole step: the ELBO, `torch.autograd.grad` of it, and the
# optimiser's update; and gives the graph to PyTorch's compiler. You change one word:

# %%
compiled = CompiledSVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
start = time.perf_counter()
compiled.step(batch)
compiled.step(batch)
first = time.perf_counter() - start
fast = milliseconds(compiled.step, batch)
print(f"the first two steps took {first:.1f} s; then a step takes {fast:.3f} ms")
print(f"{eager / fast:.1f} times as fast as SVI")

# %% [markdown]
# The first step is not compiled: an optimiser makes what it remembers (Adam's moments) in its
# first step. The second compiles, once. The losses are those of `SVI`: with the same random
# draws they agree to the last digits, for every kind of program in the tests
# (`tests/infer/programs.py` lists them: autoguides, enumerated sites, subsampled plates, score
# functions, batch normalisation, ...).
#
# When is it worth it? Compilation takes seconds and saves milliseconds, so count your steps:

# %%
steps = torch.logspace(1, 5, 50)
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.loglog(steps, steps * eager / 1e3, label="SVI")
axis.loglog(steps, first + steps * fast / 1e3, label="CompiledSVI, with compilation")
axis.set(xlabel="steps", ylabel="seconds in all", title="VAE 64-32-5, batch 128, one CPU thread")
axis.legend(frameon=False)
axis.grid(alpha=0.3)
figure.savefig(PICTURES / "break_even.png", dpi=100)
even = first / (eager - fast) * 1e3
print(f"CompiledSVI is ahead after {even:,.0f} steps")

# %% [markdown]
# ## 3. What is seen, and what is frozen
#
# Tensors are inputs of the graph, and so are arguments that are floating-point numbers, and
# learning rates. A change of anything else in the arguments, a new shape, `train()` and `eval()`,
# `requires_grad_`: all that is seen, and recorded anew. So the last, smaller batch of an epoch
# costs one more graph, and not one an epoch. `backend=None` records without compiling, which is
# quick, and right for a look. (The recording for the first step is not kept, and does not count.)

# %%


def model(x, temperature, hard=False):
    """A regression on nothing."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        scale = 0.1 if hard else temperature
        pyro.sample("x", dist.Normal(mean, scale), obs=x)


guide = AutoNormal(model)
x = torch.randn(50) + 2
svi = CompiledSVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(), backend=None)
calls = [(x, 1.0), (x, 1.0), (x, 0.7), (x[:20], 0.7), (x, 1.0, True), (x, 0.5)]
for call in calls:
    svi.step(*call)
    print(f"{len(call[0])} data, {call[1:]}: {svi.compiled.num_recordings} recordings so far")

# %% [markdown]
# What the model reads otherwise is frozen: an attribute that is a number, a global variable,
# `random.random()`. This is the one trap of tracing. `check_every` guards against it: every so many
# steps it compares with the loss of the program itself, for the same random draws.

# %%
SETTINGS = {"scale": 1.0}


def careless(x):
    """Reads a number that is neither an argument nor a tensor."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, SETTINGS["scale"]), obs=x)


guide = AutoNormal(careless)
optim = pyro.optim.Adam({"lr": 0.02})
svi = CompiledSVI(careless, guide, optim, Trace_ELBO(), backend=None, check_every=10)
try:
    for step in range(40):
        SETTINGS["scale"] = 1.0 if step < 20 else 0.5
        svi.step(x)
except RuntimeError as error:
    print(error)

# %% [markdown]
# ## 4. What cannot be traced
#
# Python control flow on a sampled value. A graph has no `if`: the value is not there when the
# Python runs. The error says which line, and after which site:

# %%


def branching(x):
    """Takes another way for another value."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    scale = 1.0 if z > 0 else 2.0
    pyro.sample("x", dist.Normal(z, scale), obs=x)


guide = AutoNormal(branching)
svi = CompiledSVI(branching, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(), backend=None)
try:
    svi.step(torch.tensor(0.5))
except TracingError as error:
    print(error)

# %% [markdown]
# Often `torch.where` says the same: `scale = torch.where(z > 0, 1.0, 2.0)`. Where it does not,
# `pyro.infer.SVI` is the way.
#
# ## 5. In `fit`
#
# `fit(..., compile=True)` trains through graphs of loss and gradients; checkpoints, clipping,
# schedulers and several processes work as before. Here with `"recorded"`, which does not compile:

# %%
pyro.settings.set(module_local_params=True)
pair = vae((1, 8, 8), 5, (32,))
loss = Trace_ELBO()(pair.model, pair.guide)
history = fit(loss, data.x_train, num_epochs=2 if SMOKE else 10, compile="recorded", progress=False)
print(f"{history.num_steps} steps, mean loss {history.train[-1]:.2f}")
print(f"of {history.seconds:.1f} s, {history.compile_seconds:.1f} s were for recording")

# %% [markdown]
# ## 6. The table
#
# Measured on one core of an AMD EPYC by `make bench`, which rewrites the tables of
# [`benchmarks/README.md`](../benchmarks/README.md): there are the spread, the compile times and the
# versions. How many times as fast a step is:
#
# | case | than Pyro's `SVI` | than PyTorch by hand (fused Adam) | than NumPyro (one loop) |
# |---|---|---|---|
# | VAE 20-32-5, batch 128 | 10.1 | 3.5 (2.6) | 1.2 (0.4) |
# | VAE 784-400-20, batch 128 | 2.8 | 2.2 (2.0) | 1.2 (1.0) |
# | IWAE with two layers, k = 50, batch 20 | 2.1 | 1.8 (1.7) | 1.0 (1.0) |
# | logistic regression, 10,000 x 50, `AutoDiagonalNormal` | 7.1 | 2.1 (1.8) | 1.1 (0.7) |
# | deep Markov model on JSB chorales | 1.6 | 1.3 (1.3) | 0.9 (0.9) |
#
# NumPyro's second figure is for all steps in one compiled loop, which gives no loss in between.
# The smaller the work of a step, the more of it was Python, and the more is won. The last row is
# another tool: the graph of a long sequence takes very long to compile, so
# `pyro_deepgen.tracing.CompiledFunction` records a few time steps, with their gradient, and is
# called in a loop; autograd goes through it (`benchmarks/deep_markov.py`).
