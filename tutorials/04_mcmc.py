# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

# %% [markdown]
# # A thousand chains at once
#
# `pyro_deepgen.mcmc` runs many Markov chains of a Pyro model as one batch: one tensor for each
# site, chains first. A thousand chains cost far less than a thousand runs, and they tell more than
# one: whether they agree. This tutorial runs NUTS on a thousand chains, looks at what R-hat and
# rank plots say, combines HMC and Gibbs sampling in a mixture, helps chains from one mode to
# another by tempering, writes a kernel of its own in thirty lines, and ends with the evidence of
# models by annealed importance sampling.
#
# Run it as a script (`python tutorials/04_mcmc.py`, pictures go to the folder `04_mcmc`) or cell by
# cell. `SMOKE=1` makes every run short.

# %%
import os
import time
from pathlib import Path

import arviz as az
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_iris

from pyro_deepgen.mcmc import (
    HMC,
    MALA,
    NUTS,
    DiscreteGibbs,
    DualAveraging,
    Gibbs,
    Kernel,
    ParallelTempering,
    RandomWalk,
    ais,
    compiled,
    pack,
    run,
    unpack,
)

SMOKE = os.environ.get("SMOKE") == "1"
PICTURES = Path("04_mcmc")
PICTURES.mkdir(exist_ok=True)
# Compiling takes seconds, which a short run does not win back: "recorded" does without.
COMPILE = "recorded" if SMOKE else True


def short(number, few):
    """A smaller number in short mode."""
    return few if SMOKE else number


torch.set_num_threads(1)
pyro.set_rng_seed(0)

# %% [markdown]
# ## 1. Eight schools, a thousand chains
#
# Eight schools measured the effect of coaching on their pupils' test scores, each with a known
# standard error. How much do schools differ? The effects are $\theta_i = \mu + \tau s_i$ with
# standard normal $s_i$. The model is written for one chain, as always in Pyro:

# %%
effect = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
error = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools(effect, error):
    """Schools that differ by tau around mu."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(effect)):
        s = pyro.sample("s", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * s)
        pyro.sample("effect", dist.Normal(theta, error), obs=effect)


# %% [markdown]
# A kernel is made for a model, and `run` warms it up and draws. The first run also compiles the
# model's density, its gradient and a step of the sampler; the second one uses them again, and would
# do so with other data of the same shape.

# %%
NUM_CHAINS, NUM_DRAWS = short(1000, 50), short(200, 30)
kernel = NUTS(schools, compile=COMPILE)
for title in ("first run, with compilation", "second run"):
    begin = time.perf_counter()
    chains = run(
        kernel,
        NUM_DRAWS,
        warmup_steps=NUM_DRAWS,
        num_chains=NUM_CHAINS,
        args=(effect, error),
        progress=False,
    )
    seconds = time.perf_counter() - begin
    print(f"{title}: {seconds:.1f} s for {NUM_CHAINS} chains of {NUM_DRAWS} + {NUM_DRAWS} steps")

samples = chains.get_samples(group_by_chain=True)
print({name: tuple(value.shape) for name, value in samples.items()})

# %% [markdown]
# (The seconds are of the machine that rendered this page, one thread.) The chains are independent
# of each other, so the spread of their means gives an honest standard error, without a theory of
# autocorrelation. What is more, one draw from each of a thousand chains, here the last, is already
# a sample of the posterior:

# %%
for name in ("mu", "tau"):
    of_chains = samples[name].mean(1)
    print(f"{name:3} {of_chains.mean():.3f} +- {of_chains.std() / NUM_CHAINS**0.5:.3f}")

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
last = {name: value[:, -1] for name, value in samples.items()}
theta = last["mu"][:, None] + last["tau"][:, None] * last["s"]
axes[0].scatter(theta[:, 0], last["tau"].log(), s=4)
axes[0].set(
    xlabel="$\\theta_1$", ylabel="$\\log \\tau$", title="last draws", xlim=(-25, 45), ylim=(-5, 4)
)
low, middle, high = theta.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
place = torch.arange(1, 9)
axes[1].errorbar(place - 0.1, effect, error, fmt="o", label="measured, 1 s.e.")
axes[1].errorbar(
    place + 0.1, middle, [middle - low, high - middle], fmt="o", label="posterior, 90 %"
)
axes[1].set(xlabel="school", title="effects")
axes[1].legend(frameon=False)
figure.savefig(PICTURES / "schools.png", dpi=100)

# %% [markdown]
# ## 2. Do the chains agree?
#
# `summary()` asks ArviZ for means, their Monte Carlo errors, effective sample sizes and the
# rank-normalised R-hat, which compares the chains with each other and should be below 1.01:

# %%
print(chains.summary().round(3).to_string())

# %% [markdown]
# If that is not enough, go on where the chains stand, without another warm-up:

# %%
more = run(kernel, NUM_DRAWS, resume=chains, progress=False)
chains = chains.followed_by(more)
print(chains.summary()[["ess_bulk", "r_hat"]].round(4).loc[["mu", "tau"]].to_string())

# %% [markdown]
# `to_arviz()` opens all of ArviZ. It names the dimensions that are plates, and adds on request what
# the model computes, new data, and the log-likelihood of each datum:

# %%
data = chains.to_arviz(deterministic=True)
print(data.posterior["theta"].mean(("chain", "draw")).round(1).values)

# %% [markdown]
# To see a sampler in trouble, write the same model with $\theta_i \sim N(\mu, \tau)$ directly.
# Where $\tau$ is small, all $\theta_i$ lie close together: the funnel on the left of the picture
# above, in which no one step size is right.


# %%
def centred(effect, error):
    """The same posterior, in variables that are harder to move."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(effect)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("effect", dist.Normal(theta, error), obs=effect)


troubled = run(
    NUTS(centred, compile=COMPILE),
    NUM_DRAWS,
    num_chains=short(100, 8),
    args=(effect, error),
    progress=False,
)
for name, run_of in (("non-centred", chains), ("centred", troubled)):
    diverging = run_of.get_extra_fields()["diverging"].float().mean()
    print(
        f"{name:11} R-hat of tau {run_of.summary()['r_hat']['tau']:.3f}, {diverging:.2%} diverging"
    )

# %% [markdown]
# A rank plot shows it. Rank all draws of all chains, and look at the ranks of each chain: where the
# chains do the same, each has all ranks equally often.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for ax, (title, idata) in zip(
    axes, {"non-centred": data, "centred": troubled.to_arviz()}.items(), strict=True
):
    az.plot_rank(idata.sel(chain=slice(0, 5)), var_names=["tau"], ax=ax)
    ax.set_title(f"{title}: ranks of tau in six chains")
    ax.set_xlabel("rank", fontsize=10)
    ax.set_ylabel("chain", fontsize=10)
figure.savefig(PICTURES / "ranks.png", dpi=100)

# %% [markdown]
# ## 3. Two kernels in one: a mixture
#
# Petals of 150 irises of three species, length and width. We do not tell the model the species: it
# has three normal components, and a label for each flower.

# %%
iris = load_iris()
petals, species = torch.tensor(iris.data[:, 2:]).float(), torch.tensor(iris.target)


def mixture(x):
    """Three components, and a label for each flower."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((3,), 2.0)))
    with pyro.plate("components", 3):
        center = dist.Normal(torch.tensor([4.0, 1.0]), torch.tensor([2.0, 1.0]))
        loc = pyro.sample("loc", center.to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(-torch.ones(2), 0.5).to_event(1))
    with pyro.plate("flowers", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(loc[z], scale[z]).to_event(1), obs=x)


# %% [markdown]
# HMC cannot move the labels, which are discrete, and says so:

# %%
try:
    run(Gibbs([(HMC(mixture), ["weights", "loc", "scale", "z"])]), 10, args=(petals,))
except ValueError as problem:
    print(problem)

# %% [markdown]
# `Gibbs` takes kernels in turn, each with its sites. `DiscreteGibbs` draws labels from their exact
# conditional distribution; it has found out that, given all else, the flowers of the plate are
# independent, so that it draws all 150 at once.

# %%


def gibbs():
    """Labels by Gibbs sampling, all else by HMC."""
    labels = DiscreteGibbs(mixture, compile="recorded")
    others = HMC(mixture, num_steps=8, compile="recorded")
    return Gibbs([(labels, ["z"]), (others, ["weights", "loc", "scale"])])


def by_length(chains):
    """Name the components by their petal lengths: their order means nothing to the model."""
    samples = chains.get_samples(group_by_chain=True)
    order = samples["loc"][..., 0].argsort(-1)
    loc = samples["loc"].gather(2, order[..., None].expand_as(samples["loc"]))
    return loc, order


def r_hat(values):
    """The largest R-hat of draws, chains first."""
    return float(az.rhat(az.convert_to_dataset({"loc": values.numpy()}))["loc"].max())


steps, few = short(300, 15), short(50, 6)
anywhere = run(gibbs(), steps, num_chains=few, args=(petals,), progress=False)
loc, _ = by_length(anywhere)
print(f"R-hat {r_hat(loc):.2f}")

# %% [markdown]
# Far above 1.01. Look at the middle component's length in each chain:

# %%
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(loc[:, :, 1, 0].T, linewidth=0.5, color="tab:blue", alpha=0.6)
ax.set(xlabel="draw", ylabel="length, cm", title="middle component, one line a chain")
figure.savefig(PICTURES / "stuck.png", dpi=100)
stuck = (loc[:, :, 1, 0].mean(1) < 3).float().mean()
print(f"{stuck:.0%} of the chains share the small petals among two components")

# %% [markdown]
# Chains that began badly found another mode, and stay there for long. One chain alone would not
# have told. If we know where to look, we can let all chains start there: each
# component at a flower of one third of the data, ordered by length. Starts are unconstrained values
# (so $-1$ is a scale of $e^{-1}$ cm). The labels do not matter, since they are drawn first.

# %%
thirds = petals[petals[:, 0].argsort()].reshape(3, 50, 2)
start = {
    "weights": torch.zeros(few, 2),
    "loc": torch.stack([third[torch.randint(50, (few,))] for third in thirds], 1),
    "scale": torch.full((few, 3, 2), -1.0),
    "z": torch.zeros(few, len(petals), dtype=torch.long),
}
mixed = run(gibbs(), steps, initial_params=start, args=(petals,), progress=False)
loc, order = by_length(mixed)
print(f"R-hat {r_hat(loc):.3f}")
for k, center in enumerate(loc.mean((0, 1)).tolist()):
    print(f"component {k}: {center[0]:.2f} cm long, {center[1]:.2f} cm wide")

# %% [markdown]
# Nearly 1; longer chains would bring it below 1.01. Each draw has a label for each flower. Their
# frequencies are the posterior probabilities:

# %%
labels = order.argsort(-1).gather(2, mixed.get_samples(group_by_chain=True)["z"])
probs = torch.nn.functional.one_hot(labels, 3).float().mean((0, 1))
agree = (probs.argmax(-1) == species).float().mean()
print(f"the likeliest component is the species for {agree:.0%} of the flowers")

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
jittered = petals + 0.02 * torch.randn_like(petals)
axes[0].scatter(*jittered.T, c=probs, s=12)
axes[1].scatter(*jittered.T, c=torch.eye(3)[species], s=12)
for ax, title in zip(axes, ("colour by probability of the components", "species"), strict=True):
    ax.set(title=title, xlabel="petal length, cm")
axes[0].set_ylabel("petal width, cm")
figure.savefig(PICTURES / "irises.png", dpi=100)

# %% [markdown]
# ## 4. From mode to mode: parallel tempering
#
# But is the mode that we chose the one that counts? Nothing above says so. Let $f$ be the
# likelihood and $p$ the prior; then $p f^{1 / \tau}$ goes from the posterior at $\tau = 1$ to the
# prior, where no valley keeps a chain from moving. `ParallelTempering` gives each chain replicas at
# several temperatures and lets neighbours change places, by Metropolis' rule, so that the replica
# at $\tau = 1$ has the exact posterior.
#
# We give HMC all sites but the labels. What no kernel moves and is discrete is summed out, so we
# do not have to change the model:

# %%
temperatures = torch.logspace(0, 1.8, short(8, 4)).tolist()
tempered = ParallelTempering(HMC(mixture, num_steps=8, compile=COMPILE), temperatures, base="prior")
swapped = run(tempered, steps, num_chains=short(16, 4), args=(petals,), progress=False)
loc, order = by_length(swapped)
print(f"R-hat {r_hat(loc):.3f}, {(loc[:, :, 1, 0] < 3).float().mean():.1%} in the other mode")
for k, center in enumerate(loc.mean((0, 1)).tolist()):
    print(f"component {k}: {center[0]:.2f} cm long, {center[1]:.2f} cm wide")
for k in range(3):
    share = (order[..., 0] == k).float().mean(1)
    share, spread = share.mean(), share.std() / len(share) ** 0.5
    print(f"the small petals are number {k} in {share:.2f} +- {spread:.2f} of the draws")
swaps = swapped.get_extra_fields()["swap_accept_prob"].mean()
print(f"{swaps:.2f} of the swaps are accepted")

# %% [markdown]
# These chains started anywhere, and all of them found the mode that we had chosen by hand. The
# posterior does not change if components change their names, so the small petals must be each
# component equally often: that is a test, and a hard one, since chains must cross everything in
# between. The standard errors are those of independent chains.
#
# ## 5. A kernel of one's own
#
# We want a function $f$ on $[0, 1]$ from a few noisy values, with a Gaussian process as prior:
# $f = L z$, where $z$ is standard normal and $L L^\top$ the covariance matrix of a grid. The more
# points the grid has, the smaller must be the steps of a random walk: the prior alone rejects them.
# The *preconditioned Crank-Nicolson* proposal
#
# $$ z' = \sqrt{1 - \beta^2} \, z + \beta \xi, \qquad \xi \sim N(0, I) $$
#
# leaves the prior as it is, so the likelihood alone decides: accept with probability
# $\min(1, \ell(z') / \ell(z))$. (Cotter, Roberts, Stuart and White 2013, arXiv 1202.0709.)
#
# A kernel is a class with `step`: from a state, a dictionary of tensors with chains first, to the
# next one and what a person may want to know. The target gives $U = -\log p(z) \ell(z)$, from which
# we take the prior. `@compiled` makes one graph of all of it. `tuning` holds what the warm-up
# adapts.


# %%
class CrankNicolson(Kernel):
    """Autoregressive proposals for a standard normal prior, accepted by the likelihood."""

    def __init__(self, target, **options):
        super().__init__(target, **options)
        self.averaging = DualAveraging(self.tuning, "beta", target=0.3)
        self.averaging.start(0.2)

    def log_likelihood(self, state):
        """Up to a constant, (C,)."""
        potential = self.target.potential(self.values(state))
        return 0.5 * pack(state, self.sites).square().sum(-1) - potential

    @compiled
    def step(self, state):
        """Propose in all chains, and accept or reject in each."""
        z, beta = pack(state, self.sites), self.tuning["beta"]
        proposal = (1 - beta**2).sqrt() * z + beta * torch.randn_like(z)
        tried = {**state, **unpack(proposal, self.target.shapes(self.sites))}
        log_ratio = self.log_likelihood(tried) - self.log_likelihood(state)
        accept_prob = log_ratio.exp().clamp(max=1.0)
        accepted = torch.rand_like(accept_prob) < accept_prob
        z = torch.where(accepted[:, None], proposal, z)
        moved = unpack(z, self.target.shapes(self.sites))
        return {**state, **moved}, {"accept_prob": accept_prob}

    def adapt(self, state, info, num_steps):
        """Bring the acceptance to its target."""
        self.averaging.update(info["accept_prob"].mean())
        self.tuning["beta"].clamp_(max=1.0)

    def end_warmup(self):
        """Keep the averaged beta."""
        self.averaging.finish()
        self.tuning["beta"].clamp_(max=1.0)


# %% [markdown]
# That is all: `run`, `Gibbs`, tempering and `ais` take it, and so does `pyro.infer.MCMC`.
#
# A kernel must be tested. With normal noise this posterior is known: $z$ is normal with precision
# $P = I + A^\top A / \sigma^2$, where $A$ has the rows of $L$ at the data. So we start chains from
# *exact draws*; after any number of steps they must still be exact. Then
# $(z - m)^\top P (z - m)$ has the mean $D$ and the variance $2 D$, and we measure how far its mean
# over the chains is off, in standard errors. As a check of the check, a copy with a mistake:

# %%
SIGMA = 0.3


def process(num_points, length=0.15):
    """Grid, and a square root of the covariance there."""
    grid = torch.linspace(0, 1, num_points, dtype=torch.float64)
    covariance = torch.exp(-0.5 * ((grid[:, None] - grid) / length) ** 2)
    root = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(num_points))
    return grid.float(), root.float()


def regression(rows, y):
    """Values of a Gaussian process, seen with noise."""
    z = pyro.sample("z", dist.Normal(torch.zeros(rows.shape[-1]), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(rows @ z, SIGMA), obs=y)


grid, root = process(100)
seen = torch.tensor([5, 15, 22, 40, 48, 60, 66, 90])
rows = root[seen]
y = torch.sin(7 * grid[seen]) + SIGMA * torch.randn(len(seen))
precision = torch.eye(100) + rows.T @ rows / SIGMA**2
mean = torch.linalg.solve(precision, rows.T @ y / SIGMA**2)
posterior = dist.MultivariateNormal(mean, precision_matrix=precision)


class Wrong(CrankNicolson):
    """Forgets that the proposal has taken care of the prior."""

    def log_likelihood(self, state):
        """The log-density of the posterior: a mistake."""
        return -self.target.potential(self.values(state))


def standard_errors_off(kernel, num_chains=4000, num_steps=20):
    """How far chains from exact draws have gone from the exact posterior."""
    exact = {"z": posterior.sample((num_chains,))}
    chains = run(kernel, num_steps, 0, initial_params=exact, args=(rows, y), progress=False)
    off = chains.get_samples(group_by_chain=True)["z"][:, -1] - mean
    square = ((off @ precision) * off).sum(-1)
    return (square.mean() - 100) / (200 / num_chains) ** 0.5


for kernel in (
    CrankNicolson(regression, compile="recorded"),
    Wrong(regression, compile="recorded"),
):
    name = type(kernel).__name__
    print(f"{name:13} {standard_errors_off(kernel):+.1f} standard errors off")

# %% [markdown]
# Now what it is good for. The same data, finer and finer grids, the same fixed step: a random walk
# stops being accepted, and the new kernel does not notice.

# %%
for num_points in (10, 100, short(1000, 200)):
    grid, root = process(num_points)
    nearest = (seen * num_points) // 100
    walk = RandomWalk(
        regression, scale=0.2, adapt_step_size=False, adapt_scale=False, compile="recorded"
    )
    rates = {}
    for kernel in (walk, CrankNicolson(regression, compile="recorded")):
        # From the prior, and some steps to forget it.
        begin = {"z": torch.randn(50, num_points)}
        chains = run(
            kernel,
            short(200, 20),
            0,
            initial_params=begin,
            args=(root[nearest], y),
            progress=False,
        )
        rates[type(kernel).__name__] = chains.get_extra_fields(True)["accept_prob"][:, -10:].mean()
    print(f"{num_points:5} points:", {name: f"{rate:.3f}" for name, rate in rates.items()})

# %%
kernel = CrankNicolson(regression, compile=COMPILE)
grid, root = process(100)
chains = run(kernel, short(1000, 20), num_chains=200, args=(rows, y), progress=False)
print(f"beta became {kernel.tuning['beta']:.2f}")
functions = chains.get_samples()["z"] @ root.T
spread = (root @ posterior.covariance_matrix @ root.T).diagonal().sqrt()
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(grid, functions[:: len(functions) // 30].T, color="tab:blue", linewidth=0.4)
for sign in (-2, 2):
    ax.plot(grid, root @ mean + sign * spread, "k--", linewidth=1)
ax.scatter(grid[seen], y, color="tab:orange", zorder=3)
ax.set(xlabel="t", ylabel="f(t)", title="draws, and exact mean +- 2 standard deviations")
figure.savefig(PICTURES / "process.png", dpi=100)

# %% [markdown]
# ## 6. The evidence by annealed importance sampling
#
# How likely are the data under a model, all its parameters integrated out? `ais` lets chains go
# from the prior to the posterior, through a thousand temperatures if need be, and each brings back
# a weight, whose mean is the evidence $Z = p(y)$. Polynomials with normal coefficients have a
# closed form to compare with: $y \sim N(0, \sigma^2 I + s^2 \Phi \Phi^\top)$.

# %%
NOISE, PRIOR = 0.2, 2.0
t = torch.linspace(-1, 1, 60)
y = 1.5 * t**3 - t + NOISE * torch.randn(60)


def polynomial(features, y):
    """Coefficients with a normal prior, and normal noise."""
    w = pyro.sample("w", dist.Normal(torch.zeros(features.shape[-1]), PRIOR).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(features @ w, NOISE), obs=y)


def exact_evidence(features):
    """In closed form."""
    covariance = NOISE**2 * torch.eye(len(t)) + PRIOR**2 * features @ features.T
    return dist.MultivariateNormal(torch.zeros(len(t)), covariance).log_prob(y)


estimates, exact = [], []
for degree in range(6):
    features = t[:, None] ** torch.arange(degree + 1)
    result = ais(
        polynomial,
        kernel=MALA(polynomial, compile="recorded"),
        args=(features, y),
        num_steps=short(200, 10),
        kernel_steps=5,
        num_chains=short(1000, 100),
    )
    estimates.append(result)
    exact.append(exact_evidence(features))
    print(
        f"degree {degree}: log evidence {result.log_z:8.3f} +- {result.standard_error:.3f}, "
        f"exact {exact[-1]:8.3f}, effective chains {result.ess:.0f}"
    )

# %% [markdown]
# The cubic wins, as it should; higher degrees fit better and are still less likely. No closed form
# was needed for that. But without one, how do we know that an estimate can be trusted? Forward
# chains give a lower bound: $\mathbb E \log w \le \log Z$. Chains that start from exact posterior
# draws and go back to the prior give an upper bound. Here we can draw exactly; else take the draws
# of a long run. The two must meet:

# %%
features = t[:, None] ** torch.arange(4)
precision = torch.eye(4) / PRIOR**2 + features.T @ features / NOISE**2
mean = torch.linalg.solve(precision, features.T @ y / NOISE**2)
posterior = dist.MultivariateNormal(mean, precision_matrix=precision)
numbers = short([16, 32, 64, 128, 256], [2, 4])
kernel = MALA(polynomial, compile="recorded")
results = [
    ais(
        polynomial,
        kernel=kernel,
        args=(features, y),
        num_steps=number,
        kernel_steps=5,
        num_chains=short(500, 100),
        reverse_from=posterior.sample((short(500, 100),)),
    )
    for number in numbers
]

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
axes[0].errorbar(
    range(6),
    [r.log_z for r in estimates],
    [r.standard_error for r in estimates],
    fmt="o",
    label="AIS",
)
axes[0].plot(range(6), exact, "k+", markersize=14, label="exact")
axes[0].set(xlabel="degree", ylabel="log evidence")
axes[0].legend(frameon=False)
axes[1].fill_between(
    numbers, [r.lower for r in results], [r.upper for r in results], alpha=0.3, label="bounds"
)
axes[1].errorbar(
    numbers, [r.log_z for r in results], [r.standard_error for r in results], label="estimate"
)
axes[1].axhline(exact[3], color="black", linestyle="--", linewidth=1, label="exact")
axes[1].set(xlabel="temperatures", ylabel="log evidence", title="degree 3", ylim=(-15, 10))
axes[1].set_xscale("log", base=2)
axes[1].legend(frameon=False)
figure.savefig(PICTURES / "evidence.png", dpi=100)

# %% [markdown]
# `ais` takes distributions with an `energy` as well as models, any kernel, schedules of one's own,
# and resampling (`resample=True`). `annealed_log_likelihood` does the same for every
# datum of a model with latent variables, such as a VAE, whose bounds it checks.
