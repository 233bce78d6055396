# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The protocol of all kernels: a step of all chains at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel

from pyro_deepgen.tracing import Graph

from .as_target import as_target
from .kernel_checks import check_state, check_step
from .one_chain import OneChain
from .starts import check_starts
from .state import PRIVATE, Info, State, Values
from .target import Site, Target

Report = Callable[[int, Info], None]


class Kernel(MCMCKernel):
    """A Markov kernel that moves all chains at once, each for itself.

    A kernel of one's own is a subclass with ``step``, and with ``init`` and ``adapt`` where it
    needs them; see :class:`~pyro_deepgen.mcmc.RandomWalk`. The state is a dictionary of tensors
    with a leading dimension of chains: the unconstrained value of every site of the target, and
    what else the next step needs under names that start with ``"~"``. Info is what a person looks
    at: tensors ``(C,)``. ``run`` of this package runs thousands of chains; ``pyro.infer.MCMC`` runs
    one.

    Args:
        target: a Pyro model, a distribution, or a :class:`Target`.
        sites: the sites that this kernel moves; all by default.
        compile: ``True`` compiles the steps, ``"recorded"`` records their operations and runs
            these, ``False`` runs Python each time; or the name of a backend of ``torch.compile``.
        potential_fn: instead of ``target``, a function from a dictionary of unconstrained values
            of one chain to their potential, as in Pyro.

    Raises:
        ValueError: unless exactly one of ``target`` and ``potential_fn`` is given; later, for a
            site that does not exist or that the kernel cannot move.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> class Independent(Kernel):  # draws from the target itself
        ...     def step(self, state):
        ...         moved = {"x": torch.randn_like(state["x"])}
        ...         return state | moved, {"accept_prob": torch.ones(len(state["x"]))}
        >>> kernel = Independent(dist.Normal(0.0, 1.0), compile=False)
        >>> kernel.setup(0)
        >>> state, draws, info = kernel.advance(kernel.target.start(100), num_draws=5)
        >>> draws["x"].shape, info["accept_prob"].shape
        (torch.Size([5, 100]), torch.Size([5, 100]))
    """

    def __init__(
        self,
        target: Any = None,
        *,
        sites: Sequence[str] | None = None,
        compile: bool | str = True,
        potential_fn: Callable[[Values], torch.Tensor] | None = None,
    ) -> None:
        if (target is None) == (potential_fn is None):
            raise ValueError(
                f"{type(self).__name__} expected a target (a Pyro model, a distribution, a Target) "
                "or a potential_fn, and one of them only"
            )
        self.model, self.potential_fn = target, potential_fn
        self.compile = compile
        self.graphs: dict[Hashable, tuple[Graph, Any]] = {}
        self.tuning: dict[str, torch.Tensor] = {}
        self.target: Target
        self.sites: tuple[str, ...] = ()
        self._chosen_sites = sites
        self._initial_params: Values | None = None
        self.init_strategy: Callable[..., Any] | None = None
        self._one_chain = OneChain(0)

    # ------------------------------------------------ what a new kernel writes

    def init(self, state: State) -> State:
        """Add to the sites what ``step`` needs; called again after another kernel has moved."""
        return state

    @abstractmethod
    def step(self, state: State) -> tuple[State, Info]:
        """Move every chain once; changes no tensor of ``state`` in place."""

    def start_warmup(self, state: State, num_steps: int) -> None:
        """Prepare to adapt for so many steps."""

    def adapt(self, state: State, info: Info, num_steps: int) -> None:
        """Change ``tuning`` in place after each step of the warm-up, counted from 1."""

    def end_warmup(self) -> None:
        """Fix what was adapted."""

    def suits(self, site: Site) -> bool:
        """Whether this kernel can move a site."""
        return not site.is_discrete

    def discrete_sites(self) -> Sequence[str] | None:
        """Names of discrete sites that this kernel moves, which a model must not sum out.

        ``None`` means all of them; names of other sites have no effect.
        """
        return ()

    # ------------------------------------------------ what run() uses

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Bind the kernel to its target with the model's arguments.

        With arguments of the same shapes and kinds as before, the compiled graphs stay.
        """
        program = self.model if self.potential_fn is None else self.potential_fn
        before = getattr(self, "target", None)
        target = as_target(
            program, args, kwargs, kernel=self, before=before, example=self._initial_params
        )
        self.bind(target)
        self._one_chain = OneChain(warmup_steps)

    def bind(self, target: Target, sites: Sequence[str] | None = None) -> None:
        """Let the kernel move some sites of a target; all that it can by default.

        Raises:
            ValueError: for a site that does not exist or that this kernel cannot move.
        """
        name = type(self).__name__
        chosen = sites if sites is not None else self._chosen_sites
        chosen = tuple(target.sites) if chosen is None else tuple(chosen)
        for site in chosen:
            if site not in target.sites:
                raise ValueError(
                    f"{name} is to move the site {site!r}, which the target does not have; it has "
                    f"{sorted(target.sites)} (observed sites are none of them, nor discrete ones, "
                    "which are summed out unless DiscreteGibbs moves them)"
                )
            if not self.suits(target.sites[site]):
                kind = "discrete" if target.sites[site].is_discrete else "continuous"
                raise ValueError(
                    f"{name} cannot move the site {site!r}, which is {kind} (support "
                    f"{target.sites[site].support}): combine kernels with Gibbs([(kernel, sites), "
                    "...]), for instance HMC for continuous and DiscreteGibbs for discrete sites"
                )
        for site in target.sites:
            if site.startswith(PRIVATE):
                raise ValueError(f"the name of the site {site!r} must not start with {PRIVATE!r}")
        if getattr(self, "target", None) is not target or self.sites != chosen:
            self.graphs.clear()
        # A graph whose Python has read the data is good for these data only.
        stale = [key for key, (graph, _) in self.graphs.items() if not graph.reads_hold()]
        for key in stale:
            del self.graphs[key]
        self.target, self.sites = target, chosen

    def values(self, state: State) -> Values:
        """The sites' values of a state, without what the kernel keeps beside them."""
        return {name: state[name] for name in self.target.sites}

    def warm_up(self, state: State, num_steps: int, report: Report | None = None) -> State:
        """Adapt for some steps.

        Args:
            state: a state from ``init``.
            num_steps: how many steps.
            report: called after every step with the number of steps and its info.
        """
        self.start_warmup(state, num_steps)
        step = self._first_step
        for i in range(num_steps):
            state, info = step(state)
            step = self.step
            self.adapt(state, info, i + 1)
            if report is not None:
                report(1, info)
        self.end_warmup()
        return state

    def advance(
        self, state: State, num_draws: int, thinning: int = 1, report: Report | None = None
    ) -> tuple[State, Values, Info]:
        """Draw from every chain.

        Args:
            state: a state from ``init``.
            num_draws: how many draws a chain.
            thinning: steps for one draw.
            report: called after every draw with the number of draws and their info.

        Returns:
            The last state, the draws ``(num_draws, C, *shape)`` of every site (unconstrained), and
            info ``(num_draws, C)``.
        """
        draws: list[Values] = []
        infos: list[Info] = []
        step = self._first_step
        for _ in range(num_draws):
            for _ in range(thinning):
                state, info = step(state)
                step = self.step
            draws.append(self.values(state))
            infos.append(info)
            if report is not None:
                report(1, info)
        return state, _stacked(draws), _stacked(infos)

    def _first_step(self, state: State) -> tuple[State, Info]:
        """A step whose results are checked, since anybody may have written it."""
        result = self.step(state)
        check_step(f"{type(self).__name__}.step", result, state, self.target.sites)
        return result

    def tuning_dict(self) -> dict[str, torch.Tensor]:
        """Copies of what was adapted, to be kept with a state."""
        return {name: value.clone() for name, value in self.tuning.items()}

    def load_tuning(self, tuning: Mapping[str, torch.Tensor]) -> None:
        """Take adapted values over, in place where there are some of the same kind."""
        for name, value in tuning.items():
            mine = self.tuning.get(name)
            same = mine is not None and (mine.shape, mine.dtype) == (value.shape, value.dtype)
            if mine is not None and same and mine.device == value.device:
                mine.copy_(value)
            else:
                self.tuning[name] = value.clone()
                self.graphs.clear()

    # ------------------------------------------------ one chain, under pyro.infer.MCMC

    @property
    def transforms(self) -> dict[str, Any]:
        """The transform of every site, from its support to the values that the chain holds."""
        return {name: site.transform for name, site in self.target.sites.items()}

    @property
    def initial_params(self) -> Values:
        """Unconstrained values of one chain, from which ``pyro.infer.MCMC`` starts.

        Raises:
            ValueError: for values that were set and that no chain can start from.
        """
        if self._initial_params is None:
            start = self.target.start(1)
        else:
            start = check_starts(self.target, self._initial_params, 1)
        return {name: value[0] for name, value in start.items()}

    @initial_params.setter
    def initial_params(self, params: Values) -> None:
        self._initial_params = params

    @torch.no_grad()
    def sample(self, params: Values) -> Values:
        """Move one chain once, and adapt while it warms up; called by ``pyro.infer.MCMC``."""
        chain = self._one_chain
        if chain.state is not None and chain.params is params:
            state = chain.state
        else:
            start = {name: value.unsqueeze(0) for name, value in params.items()}
            state = self.init(start)
            check_state(f"{type(self).__name__}.init", state, start, self.target.sites)
        if chain.num_steps == 0 and chain.warmup_steps:
            self.start_warmup(state, chain.warmup_steps)
        state, info = self.step(state) if chain.num_steps else self._first_step(state)
        chain.count(info)
        if chain.num_steps <= chain.warmup_steps:
            self.adapt(state, info, chain.num_steps)
            if chain.num_steps == chain.warmup_steps:
                self.end_warmup()
        chain.params = {name: value[0] for name, value in self.values(state).items()}
        chain.state = state
        return chain.params

    def logging(self) -> dict[str, str]:
        """Info of the last step, for the progress bar of ``pyro.infer.MCMC``."""
        return {name: f"{float(v.float()):.3g}" for name, v in self._one_chain.info.items()}

    def diagnostics(self) -> dict[str, Any]:
        """The mean acceptance, and the draws that diverged, after the warm-up."""
        return self._one_chain.diagnostics()

    def cleanup(self) -> None:
        """Forget the start that was set: the next chain has its own."""
        self._initial_params, self.init_strategy = None, None


def _stacked(items: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    if not items:
        return {}
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}
