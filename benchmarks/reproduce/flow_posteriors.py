# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Flows as guides, by the accuracy with which a classifier tells them from the posterior.

    python benchmarks/reproduce/flow_posteriors.py
    python benchmarks/reproduce/flow_posteriors.py --models funnel --steps 2000

``AutoFlow`` beside Pyro's guides on three models, all trained alike. Each guide is held against a
long run of Pyro's NUTS, and that run against exact draws, which these models have.

The draws of NUTS are kept in ``--results``, every finished row in ``--folder``: the same command
goes on from there, and writes ``benchmarks/reproduce/results/flow_posteriors.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor, nn

from pyro_deepgen.infer import AutoFlow, CompiledSVI
from pyro_deepgen.metrics import c2st
from pyro_deepgen.transforms import (
    Planar,
    RationalQuadratic,
    iaf,
    real_nvp,
    spline_autoregressive,
    spline_coupling,
)

HERE = Path(__file__).parent
RATE = 0.01

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


class Model(NamedTuple):
    """A model, how to draw exactly if not from the prior, and the sites that NUTS decentres."""

    program: Callable[[], None]
    exact: Callable[[int], tuple[Tensor, float]] | None = None
    decentred: tuple[str, ...] = ()

    def draws(self, num: int) -> tuple[Tensor, float]:
        """Exact draws, unconstrained, and the log-evidence; without data, those of the prior."""
        return self.exact(num) if self.exact else (drawn(self.program, num), 0.0)


MODELS = {
    "eight schools": Model(eight_schools, exact_eight_schools, ("theta",)),
    "banana": Model(banana, decentred=("b",)),
    "funnel": Model(funnel, decentred=("x",)),
}


def unconstrained(sites: dict[str, Tensor]) -> Tensor:
    """Draws of all latents on the real line, ``(num, D)``."""
    values = []
    for name in ("mu", "tau", "theta", "a", "b", "v", "x"):
        if name in sites:
            value = sites[name].reshape(len(sites[name]), -1)
            values.append(value.log() if name == "tau" else value)
    return torch.cat(values, 1)


def drawn(program: Callable[[], object], num: int) -> Tensor:
    """Draws of the latents of a model or guide, unconstrained, ``(num, D)``."""
    with torch.no_grad():
        return unconstrained(Predictive(program, num_samples=num, parallel=True)())


def by_nuts(name: str, args: argparse.Namespace) -> tuple[Tensor, float]:
    """Draws of a long run of NUTS and the processor's seconds it took, measured once."""
    path = args.results / f"flow_posteriors_nuts_{name.replace(' ', '_')}.npz"
    if path.exists():
        with np.load(path) as found:
            if len(found["draws"]) == args.draws:
                return torch.from_numpy(found["draws"]).float(), float(found["seconds"])
    print(f"{name}, NUTS ...", flush=True)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model = MODELS[name]
    program = poutine.reparam(
        model.program, {site: LocScaleReparam(0.0) for site in model.decentred}
    )
    begun = time.process_time()
    kernel = NUTS(program, jit_compile=True, ignore_jit_warnings=True)
    mcmc = MCMC(kernel, 2 * args.draws, args.draws // 2, disable_progbar=True)
    mcmc.run()
    seconds = time.process_time() - begun
    sites = {name: value[::2] for name, value in mcmc.get_samples().items()}
    with torch.no_grad():  # the sites that are made of the non-centred ones
        made = Predictive(program, posterior_samples=sites, parallel=True)()
    draws = unconstrained({**made, **sites})
    # Half precision: an error of a two-thousandth, beside a spread of one.
    np.savez_compressed(path, draws=draws.numpy().astype(np.float16), seconds=seconds)
    return by_nuts(name, args)


FLOWS: dict[str, Callable[[int], object]] = {
    "16 planar": lambda size: [Planar(size) for _ in range(16)],
    "RealNVP": partial(real_nvp, num_layers=6, hidden_dims=(32, 32)),
    "spline coupling": partial(spline_coupling, num_layers=6, hidden_dims=(32, 32)),
    "iaf": partial(iaf, num_layers=3, hidden_dims=(64, 64)),
    "iaf of splines": partial(
        iaf, num_layers=2, hidden_dims=(32, 32), equation=lambda: RationalQuadratic(8)
    ),
    "spline_autoregressive": partial(spline_autoregressive, num_layers=2, hidden_dims=(32, 32)),
}
GUIDES: dict[str, Callable[[Callable[[], None]], nn.Module]] = {
    "AutoNormal": AutoNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoIAFNormal, 2 layers": partial(AutoIAFNormal, num_transforms=2),
    "AutoIAFNormal, 3 layers": partial(AutoIAFNormal, num_transforms=3, hidden_dim=[64, 64]),
    **{f"AutoFlow, {name}": partial(AutoFlow, transform_factory=f) for name, f in FLOWS.items()},
}


def measured(name: str, guide_name: str, args: argparse.Namespace) -> dict[str, float]:
    """Train one guide; its accuracy, its bound and its time."""
    model, elbo = MODELS[name], partial(Trace_ELBO, vectorize_particles=True, max_plate_nesting=1)
    reference, _ = by_nuts(name, args)
    _, log_evidence = model.draws(1)
    guide, seconds = trained(model, guide_name, elbo(num_particles=args.particles), args.steps)
    many = elbo(num_particles=args.draws)
    with torch.no_grad():
        gap = log_evidence + sum(many.loss(model.program, guide) for _ in range(10)) / 10
    draws = drawn(guide, args.draws)
    accuracy = float(c2st(reference, draws)) if bool(draws.isfinite().all()) else math.nan
    return {"c2st": accuracy, "gap": gap, "seconds": seconds}


def trained(model: Model, name: str, loss: Trace_ELBO, steps: int) -> tuple[nn.Module, float]:
    """A guide after training, and the processor's seconds that it took."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = GUIDES[name](model.program)
    optim = pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": RATE}, "gamma": 0.01 ** (1 / steps)}
    )
    svi = CompiledSVI(model.program, guide, optim, loss, as_tensor=True, backend=None)
    begun = time.process_time()
    for _ in range(steps):
        svi.step()
        optim.step()
    return guide, time.process_time() - begun


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


def nuts_row(name: str, args: argparse.Namespace) -> dict[str, float]:
    """The run of NUTS itself against the exact draws."""
    reference, seconds = by_nuts(name, args)
    pyro.set_rng_seed(1)
    exact, _ = MODELS[name].draws(args.draws)
    return {"c2st": float(c2st(exact, reference)), "seconds": seconds}


def table(args: argparse.Namespace) -> str:
    """All models with every guide."""
    lines = [
        "# Flows as guides: classifier two-sample tests",
        "",
        f"Command: `python benchmarks/reproduce/flow_posteriors.py`. Device: CPU "
        f"({platform.machine()}, 1 thread), Python {platform.python_version()}, torch "
        f"{torch.__version__}, pyro {pyro.__version__}.",
        "",
        f"All guides alike: {args.steps:,} steps with {args.particles} particles, Adam at a rate "
        f"that falls from {RATE:g} to a hundredth of it, and each guide's default start. "
        f"C2ST of {args.draws:,} draws against as many of NUTS, on the unconstrained latents (0.5: "
        "they cannot be told apart; standard error "
        f"{0.5 / math.sqrt(2 * args.draws):.3f}). NUTS: one chain of {2 * args.draws:,} draws, of "
        "which every second is taken; its own rows are against exact draws, by quadrature over the "
        "scale for eight schools, and of the prior for banana and funnel, which have no data. Gap: "
        "log-evidence minus bound, which is KL(q || p), in nats. The guides have the models "
        "centred, as written; NUTS has them non-centred (LocScaleReparam), where it is reliable. "
        "nan: training ended in values that are not finite.",
        "",
        "| model | posterior | C2ST | gap | processor, s |",
        "|---|---|---|---|---|",
    ]
    for name in args.models.split(","):
        row = kept(args.folder, f"{name} NUTS {args.draws}", partial(nuts_row, name, args))
        lines.append(
            f"| {name} | NUTS, against exact draws | {row['c2st']:.3f} | | {row['seconds']:.0f} |"
        )
        for guide in GUIDES:
            key = f"{name} {guide} {args.steps} {args.particles} {args.draws}"
            row = kept(args.folder, key, partial(measured, name, guide, args))
            lines.append(
                f"| {name} | {guide} | {row['c2st']:.3f} | {row['gap']:.3f} "
                f"| {row['seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure what is not yet measured, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--particles", type=int, default=32)
    parser.add_argument("--draws", type=int, default=4000, help="of each guide, and of NUTS")
    parser.add_argument("--folder", type=Path, default=HERE / "checkpoints" / "flow_posteriors")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    for folder in (args.folder, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    text = table(args)
    print(text)
    (args.results / "flow_posteriors.md").write_text(text)


if __name__ == "__main__":
    main()
