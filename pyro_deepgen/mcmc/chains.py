# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a run of chains gives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.infer.mcmc.util import select_samples

from .arviz_groups import Groups, from_groups, sample_stats, summary
from .program import Program
from .state import Info, State, Values
from .target import Target


@dataclass(frozen=True, eq=False)
class Chains:
    """Draws of many chains, and what they need to go on.

    Args:
        samples: draws ``(C, N, *shape)`` of every kept site, in the model's own (constrained)
            terms.
        info: what the kernel tells of every draw, ``(C, N)``.
        state: where the chains stand.
        tuning: what the kernel had adapted.
        anchor: unconstrained values ``(A, *shape)`` of a few chains before their first step.
        anchor_potential: the target's potential there ``(A,)``, by which :func:`run` sees whether
            chains go on with the target that they were drawn from; ``None`` where it has none.
        program: the model with its arguments, where the target was a Pyro model.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.mcmc import RandomWalk, run
        >>> def model():
        ...     pyro.sample("rate", dist.Gamma(2.0, 2.0))
        >>> kernel = RandomWalk(model, compile=False)
        >>> chains = run(kernel, 100, warmup_steps=20, num_chains=8, progress=False)
        >>> chains.get_samples()["rate"].shape, bool((chains.get_samples()["rate"] > 0).all())
        (torch.Size([800]), True)
        >>> more = run(kernel, 50, resume=chains, progress=False)
        >>> chains.followed_by(more).get_samples(group_by_chain=True)["rate"].shape
        torch.Size([8, 150])
        >>> list(chains.summary().columns)
        ['mean', 'sd', 'mcse_mean', 'mcse_sd', 'ess_bulk', 'ess_tail', 'r_hat']
    """

    samples: Values
    info: Info
    state: State
    tuning: dict[str, torch.Tensor]
    anchor: Values
    anchor_potential: torch.Tensor | None
    program: Program | None = None

    @property
    def num_chains(self) -> int:
        """How many chains there are."""
        return len(self.state[next(iter(self.anchor))])

    @property
    def num_samples(self) -> int:
        """How many draws of each chain were kept."""
        return next(iter(self.samples.values())).shape[1] if self.samples else 0

    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, torch.Tensor]:
        """The draws, as ``pyro.infer.MCMC`` gives them.

        Args:
            num_samples: draw so many of them with replacement; all in order by default.
            group_by_chain: whether to keep the dimension of chains.

        Returns:
            ``(C * N, *shape)`` for every site, chain after chain, or ``(C, N, *shape)``.
        """
        samples: Values = select_samples(self.samples, num_samples, group_by_chain)
        return samples

    def get_extra_fields(self, group_by_chain: bool = False) -> Info:
        """What the kernel tells of every draw.

        Args:
            group_by_chain: whether to keep the dimension of chains.

        Returns:
            ``(C * N,)`` for every field, or ``(C, N)``.
        """
        fields: Info = select_samples(self.info, None, group_by_chain)
        return fields

    def followed_by(self, more: Chains) -> Chains:
        """These draws and those of a run that resumed them.

        Raises:
            ValueError: where the chains or the sites differ.
        """
        mine = {name: (v.shape[0], *v.shape[2:]) for name, v in self.samples.items()}
        theirs = {name: (v.shape[0], *v.shape[2:]) for name, v in more.samples.items()}
        if mine != theirs:
            raise ValueError(
                f"expected draws of the same sites and chains {mine}, got {theirs}: join a run "
                "with the one that resumed it"
            )
        joined = {n: torch.cat([v, more.samples[n]], 1) for n, v in self.samples.items()}
        info = {n: torch.cat([v, more.info[n]], 1) for n, v in self.info.items()}
        return replace(more, samples=joined, info=info)

    # ------------------------------------------------ on disk

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write draws, state and tuning into a file.

        The model is not in it, nor is the state of the random generators.
        """
        torch.save({name: v for name, v in vars(self).items() if name != "program"}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str | None = None) -> Chains:
        """Read a file that :meth:`save` wrote.

        ``run(kernel, num_samples, resume=Chains.load(path), args=...)`` goes on, with a kernel
        made like the first one; ``torch.get_rng_state`` and ``set_rng_state`` make it the same
        draws as without the stop.

        Args:
            path: the file.
            device: where to put the tensors; where they were, by default.
        """
        return cls(**torch.load(path, map_location=device, weights_only=True))

    def require_same_target(self, target: Target) -> None:
        """Make sure that the chains can go on with a target.

        Raises:
            ValueError: for other sites, or another density.
        """
        mine = {name: tuple(self.anchor[name].shape[1:]) for name in self.anchor}
        theirs = {name: tuple(site.shape) for name, site in target.sites.items()}
        if mine != theirs:
            raise ValueError(
                f"the chains to resume have the sites {mine}, and the target of the kernel has "
                f"{theirs}: resume them with a kernel for the same target"
            )
        if self.anchor_potential is None:
            return
        there = {name: value.to(target.device) for name, value in self.anchor.items()}
        potential, before = target.potential(there), self.anchor_potential.to(target.device)
        # As wide as single precision and other hardware may make it.
        if not torch.allclose(potential, before, rtol=1e-3, atol=1e-2):
            raise ValueError(
                f"the chains to resume were drawn from another density: at the same point its "
                f"potential was {before.tolist()} and is {potential.tolist()}. Resume with the "
                "data of the first run, or start chains for new data where these ended, by "
                "initial_params={name: chains.state[name] for name in chains.anchor}"
            )

    # ------------------------------------------------ ArviZ

    def summary(
        self,
        coords: Mapping[str, Sequence[Any]] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
    ) -> Any:
        """Mean, sd, their Monte Carlo standard errors, bulk and tail ESS, rank-normalised R-hat.

        All by ArviZ, as one ``DataFrame`` with a row for each value of each site.

        Args:
            coords: labels along named dimensions.
            dims: names of the dimensions of each site.

        Raises:
            ValueError: where no draws were kept.

        References:
            Rank-Normalization, Folding, and Localization: An Improved R-hat for Assessing
            Convergence of MCMC; A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner,
            2021, arXiv:1903.08008.
        """
        posterior = self.to_groups()["posterior"]
        return summary(posterior, coords=coords, dims={**self._dims(), **(dims or {})})

    def to_arviz(
        self,
        *,
        posterior_predictive: bool = False,
        log_likelihood: bool = False,
        deterministic: bool = False,
        parallel: bool = False,
        coords: Mapping[str, Sequence[Any]] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
    ) -> Any:
        """The draws for ArviZ: an ``InferenceData`` of ArviZ 0.2x, a ``DataTree`` of 1.x.

        Dimensions that are plates have the plates' names.

        Args:
            posterior_predictive: add new data, drawn at every draw; one run of the model each.
            log_likelihood: add the log-likelihood of every datum at every draw, for
                ``arviz.loo``.
            deterministic: add the model's ``pyro.deterministic`` sites to the posterior.
            parallel: draw new data at all draws at once; the model's plates must allow it.
            coords: labels along named dimensions.
            dims: names of the dimensions of each site, where others than the plates' are wanted.

        Raises:
            ValueError: where no draws were kept, or a group needs a model and there is none.
        """
        groups = self.to_groups(
            posterior_predictive=posterior_predictive,
            log_likelihood=log_likelihood,
            deterministic=deterministic,
            parallel=parallel,
        )
        return from_groups(groups, coords, {**self._dims(), **(dims or {})})

    def to_groups(
        self,
        *,
        posterior_predictive: bool = False,
        log_likelihood: bool = False,
        deterministic: bool = False,
        parallel: bool = False,
    ) -> Groups:
        """The groups of :meth:`to_arviz` as arrays ``(C, N, *shape)``; its arguments."""
        if not self.num_samples:
            raise ValueError(
                "expected draws, and none were kept: give run(..., keep=True) beside a callback"
            )
        posterior = dict(self.samples)
        groups: dict[str, Values] = {"posterior": posterior}
        program, flat = self.program, self.get_samples()
        if program is not None:
            if deterministic:
                posterior.update(self._by_chain(program.deterministic(flat)))
            if posterior_predictive:
                groups["posterior_predictive"] = self._by_chain(program.predict(flat, parallel))
            if log_likelihood:
                groups["log_likelihood"] = self._by_chain(program.log_likelihood(flat))
            groups["observed_data"] = program.observed_data(flat)
        elif posterior_predictive or log_likelihood or deterministic:
            raise ValueError(
                "these chains know no Pyro model (their target was none, or they come from a "
                "file): expected to_arviz without posterior_predictive, log_likelihood and "
                "deterministic, or chains from run() of a kernel for a model"
            )
        arrays = {
            group: {name: value.numpy(force=True) for name, value in values.items()}
            for group, values in groups.items()
            if values
        }
        stats = sample_stats(self.info)
        return {**arrays, "sample_stats": stats} if stats else arrays

    def _by_chain(self, values: Values) -> Values:
        lead = (self.num_chains, self.num_samples)
        return {name: value.reshape(*lead, *value.shape[1:]) for name, value in values.items()}

    def _dims(self) -> dict[str, list[str]]:
        return {} if self.program is None else self.program.dims(self.get_samples())
