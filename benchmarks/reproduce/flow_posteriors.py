# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Flows as posteriors, by the accuracy with which a classifier tells them from the true one.

    python benchmarks/reproduce/flow_posteriors.py
    python benchmarks/reproduce/flow_posteriors.py --parts amortised --tasks slcp --sizes 100000

The first part is variational: ``AutoFlow`` beside Pyro's guides on three models, of which exact
draws can be had. The second is neural posterior estimation: a conditional flow learns
``p(theta | x)`` from simulated pairs, and is asked for the observations of the benchmark of
Lueckmann et al. (2021) in the folder ``sbi`` of the one that ``PYRO_DEEPGEN_DATA`` names.

Every finished row is kept in ``--folder``, and a run in progress as a checkpoint: the same command
goes on from there, and writes ``benchmarks/reproduce/results/flow_posteriors.md``.
"""

from __future__ import annotations

import argparse
import bz2
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.fit import fit
from pyro_deepgen.infer import AutoFlow, CompiledSVI
from pyro_deepgen.metrics import c2st
from pyro_deepgen.nn import MLP
from pyro_deepgen.transforms import (
    Composed,
    Planar,
    real_nvp,
    spline_autoregressive,
    spline_coupling,
)

HERE = Path(__file__).parent

# ---------------------------------------------------------------- models and their exact posteriors

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools() -> None:
    """The centred form: the effects depend on their scale as the sides of a funnel do."""
    mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, ERRORS), obs=EFFECTS)


def exact_eight_schools(num: int) -> tuple[Tensor, float]:
    """Draws of (mu, log tau, theta) and the log-evidence: normal given tau, which is on a grid."""
    log_tau = torch.linspace(-12.0, 8.0, 20_001, dtype=torch.float64)
    prior = dist.HalfCauchy(torch.tensor(5.0, dtype=torch.float64))
    log_prior = prior.log_prob(log_tau.exp()) + log_tau
    error, y = ERRORS.double(), EFFECTS.double()
    spread = error**2 + log_tau.exp().square()[:, None]
    # mu | tau, y is normal, with prior precision 1 / 25; y | tau by Bayes' rule at mu = 0.
    variance = 1 / (1 / 25 + (1 / spread).sum(1))
    mean = variance * (y / spread).sum(1)
    at_zero = dist.Normal(0.0, spread.sqrt()).log_prob(y).sum(1)
    log_y = at_zero + dist.Normal(0.0, 5.0).log_prob(torch.zeros(1, dtype=torch.float64))
    log_y = log_y - dist.Normal(mean, variance.sqrt()).log_prob(torch.zeros_like(mean))
    log_weight = log_prior + log_y
    step = log_tau[1] - log_tau[0]
    chosen = torch.multinomial(log_weight.softmax(0), num, replacement=True)
    s = log_tau[chosen] + step * (torch.rand(num, dtype=torch.float64) - 0.5)
    mu = torch.normal(mean[chosen], variance[chosen].sqrt())
    pooled = 1 / (1 / error**2 + (-2 * s).exp()[:, None])
    center = pooled * (y / error**2 + mu[:, None] * (-2 * s).exp()[:, None])
    theta = torch.normal(center, pooled.sqrt())
    return torch.cat([mu[:, None], s[:, None], theta], 1).float(), float(
        log_weight.logsumexp(0) + step.log()
    )


def banana() -> None:
    """A parabola of standard deviation one half about it."""
    a = pyro.sample("a", dist.Normal(torch.tensor(0.0), 1.0))
    pyro.sample("b", dist.Normal(a**2, 0.5))


def funnel() -> None:
    """Neal's funnel in ten dimensions."""
    v = pyro.sample("v", dist.Normal(torch.tensor(0.0), 3.0))
    with pyro.plate("sides", 9):
        pyro.sample("x", dist.Normal(torch.tensor(0.0), (v / 2).exp()))


def exact_by_prior(program: Callable[[], None], num: int) -> tuple[Tensor, float]:
    """Draws of a model without data, whose posterior is its prior."""
    return drawn(program, num), 0.0


class Model(NamedTuple):
    """A model and what is known of it."""

    program: Callable[[], None]
    exact: Callable[[int], tuple[Tensor, float]]


MODELS = {
    "eight schools": Model(eight_schools, exact_eight_schools),
    "banana": Model(banana, partial(exact_by_prior, banana)),
    "funnel": Model(funnel, partial(exact_by_prior, funnel)),
}
FLOWS: dict[str, Callable[[int], Composed]] = {
    "AutoFlow, 16 planar": lambda size: Composed([Planar(size) for _ in range(16)]),
    "AutoFlow, RealNVP": lambda size: real_nvp(size, num_layers=6, hidden_dims=(32, 32)),
    "AutoFlow, spline coupling": lambda size: spline_coupling(
        size, num_layers=4, hidden_dims=(32, 32)
    ),
}
GUIDES: dict[str, Callable[[Callable[[], None]], nn.Module]] = {
    "AutoNormal": AutoNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoIAFNormal, 2 layers": partial(AutoIAFNormal, num_transforms=2),
    **{name: partial(AutoFlow, transform_factory=flow) for name, flow in FLOWS.items()},
}

RATES = (0.01, 0.003, 0.001)


def drawn(program: Callable[[], object], num: int) -> Tensor:
    """Draws of the latents of a model or guide, unconstrained, ``(num, D)``."""
    with torch.no_grad():
        sites = Predictive(program, num_samples=num, parallel=True)()
    values = []
    for name in ("mu", "tau", "theta", "a", "b", "v", "x"):
        if name in sites:
            value = sites[name].reshape(num, -1)
            values.append(value.log() if name == "tau" else value)
    return torch.cat(values, 1)


def variational(model: Model, name: str, args: argparse.Namespace) -> dict[str, float]:
    """Train one guide; its bound, its accuracy and its time.

    A run that ends in values that are not finite is done again at a lower learning rate.
    """
    exact, log_evidence = model.exact(args.guide_draws)
    elbo = partial(Trace_ELBO, vectorize_particles=True, max_plate_nesting=1)
    for rate in RATES:
        guide, seconds = trained(model, name, rate, elbo(num_particles=args.particles), args.steps)
        with torch.no_grad():
            bound = -elbo(num_particles=args.guide_draws).loss(model.program, guide)
        draws = drawn(guide, args.guide_draws)
        if math.isfinite(bound) and bool(draws.isfinite().all()):
            gap, accuracy = log_evidence - bound, float(c2st(exact, draws))
            row = {"c2st": accuracy, "gap": gap, "bound": bound}
            return {**row, "rate": rate, "seconds": seconds}
    nothing = dict.fromkeys(("c2st", "gap", "bound"), math.nan)
    return {**nothing, "rate": rate, "seconds": seconds}


def trained(
    model: Model, name: str, rate: float, loss: Trace_ELBO, steps: int
) -> tuple[nn.Module, float]:
    """A guide after training, and the seconds that it took."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = GUIDES[name](model.program)
    optim = pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": rate}, "gamma": 0.01 ** (1 / steps)}
    )
    svi = CompiledSVI(model.program, guide, optim, loss, as_tensor=True, backend=None)
    begun = time.perf_counter()
    for _ in range(steps):
        svi.step()
        optim.step()
    return guide, time.perf_counter() - begun


def apart() -> None:
    """The non-centred form of eight schools, which a sampler needs."""
    mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    with pyro.plate("schools", 8):
        whitened = pyro.sample("whitened", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("y", dist.Normal(mu + tau * whitened, ERRORS), obs=EFFECTS)


def by_nuts(args: argparse.Namespace) -> dict[str, float]:
    """A long NUTS run on eight schools against the exact draws."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    begun = time.perf_counter()
    kernel = NUTS(apart, jit_compile=True, ignore_jit_warnings=True)
    mcmc = MCMC(kernel, args.nuts, args.nuts // 5, disable_progbar=True)
    mcmc.run()
    sites = mcmc.get_samples()
    mu, tau = sites["mu"][:, None], sites["tau"][:, None]
    draws = torch.cat([mu, tau.log(), mu + tau * sites["whitened"]], 1)
    exact, _ = exact_eight_schools(len(draws))
    seconds = time.perf_counter() - begun
    return {"c2st": float(c2st(exact, draws)), "seconds": seconds}


# ---------------------------------------------------------------- simulators


def two_moons(theta: Tensor) -> Tensor:
    """A crescent, whose place is a fold of the parameters: ``(*, 2)`` to ``(*, 2)``."""
    angle = math.pi * (torch.rand(theta.shape[:-1]) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(theta.shape[:-1])
    p = torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], -1)
    first, second = theta.unbind(-1)
    fold = torch.stack([-(first + second).abs(), second - first], -1)
    return p + fold / math.sqrt(2)


def exact_two_moons(x: Tensor, num: int) -> Tensor:
    """Draws of the posterior of one observation: both folds of what the crescent leaves."""
    p = two_moons(torch.zeros(20 * num, 2))
    first, second = (math.sqrt(2) * (x - p)).unbind(-1)
    total = first * (2 * torch.randint(0, 2, first.shape) - 1)
    theta = torch.stack([total - second, total + second], -1) / 2
    return theta[(first <= 0) & (theta.abs() <= 1).all(-1)][:num]


def slcp(theta: Tensor) -> Tensor:
    """Four points of a normal distribution: ``(*, 5)`` to ``(*, 8)``."""
    mean, scale, slant = _normal_in_the_plane(theta)
    noise = torch.randn(*theta.shape[:-1], 4, 2)
    correlated = slant * noise[..., 0] + (1 - slant**2).sqrt() * noise[..., 1]
    noise = torch.stack([noise[..., 0], correlated], -1)
    return (mean[..., None, :] + scale[..., None, :] * noise).flatten(-2)


def log_likelihood_slcp(x: Tensor, theta: Tensor) -> Tensor:
    """Log-density of the eight numbers, of the batch shape of the parameters."""
    mean, scale, slant = _normal_in_the_plane(theta)
    a, b = ((x.unflatten(-1, (4, 2)) - mean[..., None, :]) / scale[..., None, :]).unbind(-1)
    rest = 1 - slant**2
    square = (a**2 - 2 * slant * a * b + b**2).sum(-1) / rest[..., 0]
    return -square / 2 - 4 * (scale.log().sum(-1) + rest[..., 0].log() / 2 + math.log(2 * math.pi))


def exact_slcp(x: Tensor, num: int) -> Tensor:
    """Draws of the posterior of one observation, by rejection from the prior."""
    points = x.reshape(4, 2).double()
    determinant = torch.linalg.det((points - points.mean(0)).T @ (points - points.mean(0)) / 4)
    highest = float(-4 - 2 * determinant.log() - 4 * math.log(2 * math.pi))
    kept: list[Tensor] = []
    while sum(map(len, kept)) < num:
        theta = 6 * torch.rand(500_000, 5) - 3
        keep = torch.rand(len(theta)).log() < log_likelihood_slcp(x, theta) - highest
        kept.append(theta[keep])
    return torch.cat(kept)[:num]


def _normal_in_the_plane(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return theta[..., :2], theta[..., 2:4].square(), theta[..., 4:].tanh()


class Task(NamedTuple):
    """A simulator, half the width of its prior's cube, its posterior, and steps of training."""

    simulate: Callable[[Tensor], Tensor]
    num_parameters: int
    bound: float
    exact: Callable[[Tensor, int], Tensor]
    updates: int


TASKS = {
    "two_moons": Task(two_moons, 2, 1.0, exact_two_moons, 3600),
    "slcp": Task(slcp, 5, 3.0, exact_slcp, 7200),
}


class PosteriorEstimate(nn.Module):
    """A conditional flow of the parameters, and the sum of minus its log-density over a batch.

    The parameters are uniform in a cube, so their normal quantiles are standard normal before the
    data are seen: the flow starts there, and no draw leaves the cube.
    """

    def __init__(self, task: Task, x: Tensor, *, width: int, num_layers: int) -> None:
        super().__init__()
        self.register_buffer("center", x.mean(0))
        self.register_buffer("scale", x.std(0))
        self.bound, size = task.bound, task.num_parameters
        self.embed = MLP(x.shape[1], (width, width), width)
        base = dist.Normal(torch.zeros(size), torch.ones(size)).to_event(1)
        self.flow = FlowDistribution(
            base,
            spline_autoregressive(
                size,
                num_layers=num_layers,
                hidden_dims=(width, width),
                num_bins=10,
                context_dim=width,
            ),
            validate_args=False,
        )

    def quantiles(self, theta: Tensor) -> Tensor:
        """Parameters in the cube as points of the whole space."""
        level = (theta / self.bound + 1) / 2
        return torch.special.ndtri(level.clamp(1e-7, 1 - 1e-7))

    def given(self, x: Tensor) -> FlowDistribution:
        """The distribution of the quantiles given observations."""
        return self.flow.condition(self.embed((x - self.center) / self.scale))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """Minus the log-density of the quantiles, summed over the batch."""
        return -self.given(x).log_prob(z).sum()

    @torch.no_grad()
    def draw(self, x: Tensor, num: int) -> Tensor:
        """Draws of the parameters given one observation."""
        z = self.given(x).sample((num,))
        return self.bound * (2 * torch.special.ndtr(z) - 1)


def observations(task: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The number of each observation, its data, and the draws of its reference posterior."""
    folder = Path(os.environ["PYRO_DEEPGEN_DATA"]) / "sbi" / task
    for path in sorted(folder.iterdir(), key=lambda path: int(path.name)):
        x = np.loadtxt(path / "observation.csv", delimiter=",", skiprows=1, dtype=np.float32)
        with bz2.open(path / "reference_posterior_samples.csv.bz2", "rt") as lines:
            reference = np.loadtxt(lines, delimiter=",", skiprows=1, dtype=np.float32)
        yield path.name, torch.from_numpy(x), torch.from_numpy(reference)


def amortised(name: str, size: int, args: argparse.Namespace) -> dict[str, float]:
    """Train on simulations, and ask for every observation."""
    task = TASKS[name]
    pyro.set_rng_seed(0)
    theta = task.bound * (2 * torch.rand(size, task.num_parameters) - 1)
    x = task.simulate(theta)
    held = max(1, size // 10)
    loss = PosteriorEstimate(task, x[held:], width=args.width, num_layers=args.layers)
    z = loss.quantiles(theta)
    # As many steps for each size: small sets are gone through more often.
    batch_size = args.batch_size
    updates = args.updates or task.updates
    num_epochs = max(1, updates * batch_size // (size - held))
    optimizer = torch.optim.Adam(loss.parameters(), 2e-3)
    history = fit(
        loss,
        (z[held:], x[held:]),
        optimizer,
        num_epochs=num_epochs,
        batch_size=batch_size,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_epochs),
        clip_norm=5.0,
        held_out=(z[:held], x[:held]),
        patience=max(10, num_epochs // 10),
        checkpoint=args.folder / f"{name}-{size}-{updates}-{args.width}-{args.layers}.pt",
        compile=args.compile,
        label="log-density",
    )
    row = {
        "held_out": -min(history.held_out),
        "epochs": float(len(history.train)),
        "seconds": history.seconds,
    }
    for number, observed, reference in observations(name):
        reference = reference[: args.draws]
        row[f"c2st {number}"] = float(c2st(reference, loss.draw(observed, len(reference))))
    return row


def checked(name: str, args: argparse.Namespace) -> dict[str, float]:
    """The simulator's own posterior against the reference: 0.5 if the simulator is theirs."""
    pyro.set_rng_seed(0)
    row = {}
    for number, observed, reference in observations(name):
        exact = TASKS[name].exact(observed, min(args.draws, 2000))
        row[f"c2st {number}"] = float(c2st(reference[: len(exact)], exact))
    return row


# ---------------------------------------------------------------- rows and tables

# Lueckmann et al. 2021, neural posterior estimation with neural spline flows: the values of the
# paper's repository of results for observations 1 and 2, and the mean over all ten.
PUBLISHED = {
    ("two_moons", 10_000): "0.542, 0.571; ten: 0.606",
    ("two_moons", 100_000): "0.518, 0.515; ten: 0.542",
    ("slcp", 10_000): "0.944, 0.938; ten: 0.901",
    ("slcp", 100_000): "0.915, 0.900; ten: 0.831",
}


def kept(folder: Path, name: str, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Compute a row, or take it from the folder."""
    path = folder / f"{name}.json"
    if not path.exists():
        print(f"{name} ...", flush=True)
        row = compute()
        path.write_text(json.dumps(row))
        print(f"{name}: {row}", flush=True)
    found: dict[str, float] = json.loads(path.read_text())
    return found


def variational_table(args: argparse.Namespace) -> list[str]:
    """Bayesian models, with every guide."""
    lines = [
        "## Guides on Bayesian models",
        "",
        f"{args.steps} steps with {args.particles} particles, Adam at a rate that falls to a "
        "hundredth: from 0.01, or from the highest of 0.003 and 0.001 that ends in finite draws "
        f"(nan where none does). C2ST of {args.guide_draws} draws against as many exact ones, on "
        "the unconstrained latents: with 0.5 they cannot be told apart. Gap: log-evidence minus "
        "bound, which is KL(q || p), in nats. Eight schools is in its centred form; its exact "
        "draws are by quadrature over the scale, those of banana and funnel by their definition.",
        "",
        "| model | posterior | C2ST | bound | gap | rate | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in args.models.split(","):
        for guide in GUIDES:
            name = f"{model} {guide} {args.steps} {args.guide_draws}"
            row = kept(args.folder, name, partial(variational, MODELS[model.strip()], guide, args))
            lines.append(
                f"| {model} | {guide} | {row['c2st']:.3f} | {row['bound']:.3f} | {row['gap']:.3f} "
                f"| {row['rate']:g} | {row['seconds']:.0f} |"
            )
    if args.nuts:
        row = kept(args.folder, f"nuts {args.nuts}", partial(by_nuts, args))
        lines.append(
            f"| eight schools | NUTS, {args.nuts} draws, non-centred | {row['c2st']:.3f} | | | "
            f"| {row['seconds']:.0f} |"
        )
    return lines


def amortised_table(args: argparse.Namespace) -> list[str]:
    """Neural posterior estimation."""
    lines = [
        "## Neural posterior estimation",
        "",
        f"Autoregressive spline flow of {args.layers} layers, width {args.width}, on the normal "
        "quantiles of the parameters; network of the standardised data; a tenth of the simulations "
        f"held out; batches of {args.batch_size}; the parameters of the best epoch. "
        f"C2ST of {args.draws} draws against the reference posterior of each observation. "
        "Published: Lueckmann et al. 2021, NPE with neural spline flows, observations 1 and 2 and "
        "the mean over ten.",
        "",
        "| task | simulations | C2ST of each observation | mean | published | held-out log-density "
        "of the quantiles | epochs | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task in args.tasks.split(","):
        row = kept(args.folder, f"{task} simulator {args.draws}", partial(checked, task, args))
        lines.append(f"| {task} | the posterior itself | {_each(row)} | | | | |")
        updates = args.updates or TASKS[task].updates
        for size in map(int, args.sizes.split(",")):
            name = f"{task} {size} {updates} {args.width} {args.layers}"
            row = kept(args.folder, name, partial(amortised, task, size, args))
            lines.append(
                f"| {task} | {size:,} | {_each(row)} | {PUBLISHED.get((task, size), '')} "
                f"| {row['held_out']:.3f} | {row['epochs']:.0f} | {row['seconds'] / 60:.1f} |"
            )
    return lines


def _each(row: dict[str, float]) -> str:
    figures = [value for key, value in row.items() if key.startswith("c2st")]
    return f"{', '.join(f'{f:.3f}' for f in figures)} | {sum(figures) / len(figures):.3f}"


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not yet measured, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="variational,amortised")
    parser.add_argument("--models", default="eight schools,banana,funnel")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--guide-draws", type=int, default=5000)
    parser.add_argument("--particles", type=int, default=32)
    parser.add_argument("--nuts", type=int, default=2000, help="draws of NUTS; 0 for none")
    parser.add_argument("--draws", type=int, default=10_000, help="at most 10,000")
    parser.add_argument("--tasks", default="two_moons,slcp")
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--updates", type=int, help="most steps; by default those of the task")
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--compile", default="recorded", help="backend of the training step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints" / "flow_posteriors")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    pyro.enable_validation(False)
    for folder in (args.folder, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    parts = [
        "# Flows as posteriors: classifier two-sample tests\n\nCommand: `python "
        f"benchmarks/reproduce/flow_posteriors.py`. Device: CPU ({platform.machine()}, "
        f"{args.threads} thread(s)), Python {platform.python_version()}, torch "
        f"{torch.__version__}, pyro {pyro.__version__}. Times are of a busy machine."
    ]
    tables = {"variational": variational_table, "amortised": amortised_table}
    parts += ["\n".join(tables[part](args)) for part in args.parts.split(",")]
    text = "\n\n".join(parts) + "\n"
    print(text)
    (args.results / "flow_posteriors.md").write_text(text)


if __name__ == "__main__":
    main()
