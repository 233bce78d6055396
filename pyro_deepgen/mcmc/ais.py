# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Annealed importance sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from .ais_result import AISResult, effective_sample_size, jackknife_error, log_mean_exp
from .annealing import Annealing
from .annealing_schedule import explore, fixed_schedule, resample_schedule
from .as_target import as_target
from .hmc import HMC
from .kernel import Kernel
from .state import Values
from .target import Target
from .tempered_target import TemperedTarget, temper


@torch.no_grad()
def ais(
    target: Any,
    base: Any = None,
    kernel: Kernel | Callable[[Any], Kernel] = HMC,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    num_steps: int | None = 1000,
    num_chains: int = 1000,
    groups: int | None = None,
    schedule: str | Sequence[float] | torch.Tensor = "adaptive",
    ess_fraction: float = 0.9,
    kernel_steps: int = 1,
    tune: bool = True,
    resample: bool = False,
    reverse_from: torch.Tensor | Mapping[str, torch.Tensor] | None = None,
    base_log_z: float = 0.0,
    progress: bool = False,
) -> AISResult:
    r"""Estimate the log normalising constant of a target by annealed importance sampling.

    Chains start from the base :math:`p_0`, whose normalising constant is known, and move by a
    kernel at inverse temperatures :math:`0 = \beta_0 < \dots < \beta_n = 1` of a path of
    unnormalised densities :math:`f_\beta = e^{-U_\beta}` from the base to the target. Their
    weights

    .. math:: \log w = \log Z_0 + \sum_{i=1}^n \log \frac{f_{\beta_i}(x_{i-1})}
        {f_{\beta_{i-1}}(x_{i-1})}, \qquad \operatorname{E} w = Z_1,

    give an unbiased estimate of :math:`Z_1` for any number of steps, and
    :math:`\operatorname{E} \log w \le \log Z_1` a stochastic lower bound. Chains that start
    from exact draws of the target and go the other way give an upper bound. The normalising
    constant of a Pyro model is the evidence of its data.

    A target with a method ``bridge(beta)`` has a path of its own; all others have the geometric
    one, :math:`U_\beta = (1 - \beta) U_0 + \beta U_1`.

    Args:
        target: a Pyro model, a distribution with ``energy`` or ``log_prob``, a :class:`Target`, or
            the potential function of ``kernel``.
        base: a normalised distribution with ``log_prob`` and ``sample`` over the same values, a
            dictionary of them by site, a Pyro program without data and with the same sites, or
            ``None`` for the prior of a Pyro model, or for ``target.bridge(0)``.
        kernel: a kernel made for ``target``, or what makes one of a target, such as a class.
        args: arguments of the Pyro model.
        kwargs: keyword arguments of the Pyro model.
        num_steps: steps of temperature :math:`n`; ``None`` with ``schedule="adaptive"`` takes as
            many as that finds.
        num_chains: chains ``K``, of each group.
        groups: if given, as many independent estimates ``G`` at once, of ``K`` chains each.
        schedule: ``"adaptive"``, ``"linear"``, ``"sigmoid"`` or inverse temperatures from 0 to 1,
            which set ``num_steps``. The adaptive one lets all temperatures lower the effective
            sample size equally; it goes the way once before, and divides it into ``num_steps``.
        ess_fraction: the conditional effective sample size of one step of the adaptive schedule, a
            fraction of the chains.
        kernel_steps: steps of the kernel at each temperature.
        tune: whether to go the way once before to find a factor of the kernel's step size at each
            temperature.
        resample: sequential Monte Carlo: where the effective sample size falls below one half,
            chains are drawn anew by their weights.
        reverse_from: exact draws of the target ``(C, *shape)``, constrained; a dictionary of them
            by site if there are several. ``C`` is a multiple of ``groups``.
        base_log_z: log of the normalising constant of a base that is not normalised.
        progress: whether to show a progress bar.

    Returns:
        The estimate, its standard error, bounds, weights and last values.

    Raises:
        ValueError: for a kernel of another target, a base with other sites or another support, a
            base that misses the target, and numbers out of range.

    References:
        Annealed importance sampling, Radford M. Neal, 1998, arXiv physics/9803008.
        Sandwiching the marginal likelihood using bidirectional Monte Carlo, Roger B. Grosse,
        Zoubin Ghahramani and Ryan P. Adams, 2015, arXiv 1511.02543.
        Sequential Monte Carlo samplers, Pierre Del Moral, Arnaud Doucet and Ajay Jasra, 2006,
        arXiv cond-mat/0212648.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.mcmc.random_walk import RandomWalk
        >>> class Bowl:
        ...     event_shape = torch.Size([2])
        ...     def energy(self, x):
        ...         return ((x - 1) ** 2).sum(-1)
        >>> base = dist.Normal(torch.zeros(2), 2.0).to_event(1)
        >>> bowl = Bowl()
        >>> result = ais(bowl, base, RandomWalk(bowl, compile=False), num_steps=50)
        >>> exact = torch.tensor(torch.pi).log()
        >>> bool((result.log_z - exact).abs() < 4 * result.standard_error)
        True
    """
    _check_numbers(num_steps, num_chains, groups, kernel_steps, ess_fraction)
    kwargs = kwargs or {}
    kernel = _kernel_of(kernel, target)
    tempered = _path_of(kernel, target, base, args, kwargs)
    annealing = Annealing(kernel, tempered, groups or 1, kernel_steps)
    total = num_chains * annealing.groups

    tune = tune and any(name.endswith("step_size") for name in kernel.tuning_dict())
    adaptive = isinstance(schedule, str) and schedule == "adaptive"
    if num_steps is None and not adaptive:
        raise ValueError('num_steps may be None with schedule="adaptive" only')
    betas = None if adaptive else fixed_schedule(schedule, num_steps or 1)
    scales = None
    if adaptive or tune:
        knots, scales = explore(annealing, _draws(tempered, total), ess_fraction, tune)
        if betas is None:
            betas = knots if num_steps is None else resample_schedule(knots, num_steps)
        scales = _interpolated(betas, knots, scales.log()).exp()
    assert betas is not None
    scales = torch.ones_like(betas) if scales is None else scales
    betas, scales = betas.to(tempered.device), scales.to(tempered.device)

    levels = range(1, len(betas))
    values = _draws(tempered, total)
    log_z_base = base_log_z + _log_z_of_path(tempered, values)
    bar = tqdm(levels, "annealing", disable=not progress)
    run = annealing.forward(values, betas, scales, bar, resample)
    log_weights = log_z_base + run.log_weights
    reverse = None
    if reverse_from is not None:
        start = _exact(tempered, reverse_from, annealing.groups)
        back: Iterable[int] = tqdm(levels[::-1], "back", disable=not progress)
        reverse = log_z_base + annealing.backward(start, betas, scales, back)

    log_z = log_mean_exp(log_weights)
    samples = tempered.path.target.constrain(run.values)
    shape = (annealing.groups, num_chains) if groups else (num_chains,)

    def pick(of_groups: torch.Tensor) -> torch.Tensor:
        return of_groups if groups else of_groups[0]

    return AISResult(
        log_z=pick(log_z),
        standard_error=pick(jackknife_error(log_weights, run.ancestors)),
        lower=pick(log_z if resample else log_weights.mean(-1)),
        upper=None if reverse is None else pick(reverse.mean(-1)),
        reverse_log_z=None if reverse is None else pick(-log_mean_exp(-reverse)),
        ess=pick(effective_sample_size(log_weights)),
        log_weights=pick(log_weights),
        samples={n: v.reshape(*shape, *v.shape[1:]) for n, v in samples.items()},
        betas=betas,
        accept_prob=run.accept_probs,
    )


def _check_numbers(
    num_steps: int | None, num_chains: int, groups: int | None, kernel_steps: int, fraction: float
) -> None:
    numbers = {"num_chains": num_chains, "kernel_steps": kernel_steps}
    numbers |= {} if num_steps is None else {"num_steps": num_steps}
    numbers |= {} if groups is None else {"groups": groups}
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"expected {name} of 1 or more, got {number}")
    if not 0 < fraction < 1:
        raise ValueError(f"expected ess_fraction between 0 and 1, got {fraction}")


def _kernel_of(kernel: Kernel | Callable[[Any], Kernel], target: Any) -> Kernel:
    if not isinstance(kernel, Kernel):
        return kernel(target)
    made_for = (kernel.model, getattr(kernel.model, "sampler", None), kernel.potential_fn)
    if not any(target is program or target == program for program in made_for):
        raise ValueError(
            f"expected a {type(kernel).__name__} made for the target {target}, and it was made for "
            f"{kernel.model if kernel.potential_fn is None else kernel.potential_fn}"
        )
    return kernel


def _path_of(
    kernel: Kernel, program: Any, base: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> TemperedTarget:
    """The path, the one before where it serves again, with the kernel put on it."""
    before = getattr(kernel, "target", None)
    tempered = before if isinstance(before, TemperedTarget) else None
    target: Target = as_target(
        program if kernel.potential_fn is not None else kernel.model,
        args,
        kwargs,
        kernel=kernel,
        before=before if tempered is None else tempered.path.target,
    )
    path = temper(target, program, base, args, kwargs, compile=kernel.compile, before=tempered)
    path.put(kernel)
    return path


def _draws(tempered: TemperedTarget, num_chains: int) -> Values:
    assert tempered.base is not None
    return tempered.base.draw(num_chains)


def _log_z_of_path(tempered: TemperedTarget, values: Values) -> torch.Tensor:
    """The log of the integral of ``exp(-U_0)``, where the base itself is normalised.

    :math:`U_0` may differ from the base's by a constant, if the path is the target's own.
    """
    assert tempered.base is not None
    zero = torch.zeros((), dtype=tempered.dtype, device=tempered.device)
    of_base = tempered.base.target.potential(values).double()
    constant = of_base - tempered.path.potential(values, zero).double()
    if not bool((constant - constant[0]).abs().max() < 1e-3 * (1 + of_base.abs().max())):
        raise ValueError(
            "the base is not where the path of the target begins: -log_prob of target.bridge(0) "
            "must be its energy, but for a constant"
        )
    return constant.mean()


def _exact(
    tempered: TemperedTarget, draws: torch.Tensor | Mapping[str, torch.Tensor], groups: int
) -> Values:
    target = tempered.path.target
    if isinstance(draws, torch.Tensor):
        draws = dict.fromkeys(target.sites, draws)
    if set(draws) != set(target.sites):
        raise ValueError(
            f"expected in reverse_from draws of {sorted(target.sites)}, got {sorted(draws)}"
        )
    values = target.unconstrain(draws)
    for name, value in values.items():
        if value.shape[1:] != target.sites[name].shape or len(value) % groups:
            raise ValueError(
                f"expected in reverse_from draws of {name!r} of the shape (C, "
                f"*{tuple(target.sites[name].shape)}), unconstrained, with C a multiple of "
                f"{groups}, got {tuple(value.shape)}"
            )
    return values


def _interpolated(at: torch.Tensor, knots: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of ``values`` at rising ``knots``."""
    right = torch.searchsorted(knots, at.clamp(max=float(knots[-1]))).clamp(1, len(knots) - 1)
    width = (knots[right] - knots[right - 1]).clamp(min=1e-300)
    return torch.lerp(
        values[right - 1], values[right], ((at - knots[right - 1]) / width).clamp(0, 1)
    )
