# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A normalizing flow as the posterior of any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer.autoguide import AutoContinuous, init_to_median
from torch.distributions import Transform, biject_to

from ..distributions import FlowDistribution
from .location_scale import LocationScale
from .traces import Program


class AutoFlow(AutoContinuous):
    r"""A guide whose unconstrained latents, all together, are a normalizing flow.

    .. math:: \theta = \mu + e^s f(x), \qquad x \sim N(0, I)

    with :math:`\theta` the latents on the whole real line, flattened and joined. :math:`\mu` starts
    where ``init_loc_fn`` puts the latents and :math:`e^s` at ``init_scale``, so that the transform
    :math:`f` starts and works near unit scale.

    The scales start at 1, wider than those of Pyro's normal guides. An optimiser moves :math:`s` by
    no more than its rate at a step, but every weight of :math:`f` at once. From a start much
    narrower than the posterior :math:`f` therefore widens first, in all directions, and its draws
    go far off. Where a scale is itself latent, as in a funnel or a centred hierarchy, such a draw
    ends training: in single precision the density of :math:`N(\mu, \tau)` has no finite gradient
    below about :math:`\tau = 10^{-10}`. If a loss is not finite all the same, lower the learning
    rate, write the model non-centred (:class:`~pyro.infer.reparam.LocScaleReparam`), or compute in
    double precision.

    With a ``context`` the guide is amortised: :math:`f` depends on what a network makes of the
    model's arguments, so one guide serves all data sets of one shape. Such a guide learns by SVI
    where the model has a likelihood. A simulator needs none: maximise :math:`\log q(\theta | x)`
    on simulated pairs, ``pyro.sample("theta", flow.condition(embed(x)), obs=theta)`` in a plate,
    with a :class:`FlowDistribution`. So it is, too, with latents of their own for each datum of a
    plate: a guide that says ``pyro.sample("z", flow.condition(embed(x)))`` in the plate handles
    subsamples, and this one does not.

    It serves :class:`~pyro.infer.reparam.NeuTraReparam` (without a context), and everything that
    takes an ``AutoContinuous``. Parameters appear at the first call.

    Args:
        model: a model of fixed structure whose latents are continuous.
        transform_factory: makes a bijective transform of ``latent_dim`` reals, or a list of them,
            given ``latent_dim``; with a context, one that depends on it. ``iaf`` and ``real_nvp``
            draw in one pass and follow funnels; planar layers suit few dimensions only.
        init_loc_fn: where latents start, as for Pyro's other guides.
        init_scale: starting value of the scales :math:`e^s`; less where the model itself overflows
            for draws one unit from the start.
        context: a module or function of the model's arguments that gives a context, of shape
            ``(context_dim,)``.
        num_draws: how many draws :meth:`median` and :meth:`quantiles` are estimated from.

    Raises:
        ValueError: if ``init_scale`` or ``num_draws`` is not positive; at the first call, if the
            factory does not give a transform of ``latent_dim`` reals, or one that depends on a
            context without there being one, or the reverse; when asked for quantiles, if training
            has made draws that are not finite.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.
        NeuTra-lizing Bad Geometry in Hamiltonian Monte Carlo Using Neural Transport, Hoffman,
        Sountsov, Dillon, Langmore, Tran, Vasudevan, 2019, arXiv:1903.03704.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> from pyro_deepgen.transforms import planar
        >>> def model():
        ...     rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...     pyro.sample("x", dist.Poisson(rate), obs=torch.tensor(4.0))
        >>> guide = AutoFlow(model, planar)
        >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        >>> losses = [svi.step() for _ in range(300)]
        >>> sum(losses[-50:]) < sum(losses[:50])
        True
        >>> median = guide.median()["rate"]  # of the posterior, a gamma distribution of mean 3
        >>> bool(1.5 < median < 4.5)
        True
    """

    flow: FlowDistribution

    def __init__(
        self,
        model: Program,
        transform_factory: Callable[[int], Transform | Sequence[Transform]],
        *,
        init_loc_fn: Callable[..., torch.Tensor] = init_to_median,
        init_scale: float = 1.0,
        context: Callable[..., torch.Tensor] | None = None,
        num_draws: int = 1000,
    ) -> None:
        if not init_scale > 0:
            raise ValueError(f"expected a positive init_scale, got {init_scale}")
        if num_draws < 1:
            raise ValueError(f"expected at least one draw, got num_draws={num_draws}")
        super().__init__(model, init_loc_fn)  # type: ignore[no-untyped-call]
        self.transform_factory = transform_factory
        self.init_scale = init_scale
        self.context = context
        self.num_draws = num_draws

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)  # type: ignore[no-untyped-call]
        loc: torch.Tensor = self._init_loc()  # type: ignore[no-untyped-call]
        made: Any = self.transform_factory(self.latent_dim)
        steps: list[Any] = list(made) if isinstance(made, list | tuple) else [made]
        expects = max((getattr(step, "context_dim", 0) for step in steps), default=0)
        if bool(expects) != (self.context is not None):
            raise ValueError(
                f"expected a transform with context_dim {'above 0' if self.context else '0'}, since"
                f" the guide has {'a' if self.context else 'no'} context, got {expects}: change "
                "transform_factory, or the guide's argument context"
            )
        base = self.get_base_dist(loc)
        flow = FlowDistribution(base, [*steps, LocationScale(loc, self.init_scale)])
        if flow.event_shape != loc.shape or flow.batch_shape or not _is_real(flow.support, loc):
            raise ValueError(
                f"expected of transform_factory a transform of {self.latent_dim} reals to as many, "
                f"got {[type(step).__name__ for step in steps]}, whose draws have batch_shape "
                f"{tuple(flow.batch_shape)} and event_shape {tuple(flow.event_shape)}, in "
                f"{flow.support}"
            )
        self.flow = flow.to(loc)

    def get_base_dist(self, like: torch.Tensor | None = None) -> TorchDistributionMixin:
        """Return the standard normal distribution of the noise :math:`x`.

        Args:
            like: a tensor of the wanted data type and device; by default a parameter.
        """
        if like is None:
            like = next(self.flow.parameters())
        normal = dist.Normal(like.new_zeros(self.latent_dim), like.new_ones(self.latent_dim))
        noise: TorchDistributionMixin = normal.to_event(1)
        return noise

    def get_transform(self, *args: Any, **kwargs: Any) -> Transform:
        """Return the map from the noise to the unconstrained latents.

        Args:
            args: the model's, which a guide with a context needs.
            kwargs: likewise.
        """
        transform: Any = self._posterior(args, kwargs).transform
        parts = [p if isinstance(p, Transform) else p.plain for p in transform.parts]
        return dist.transforms.ComposeTransform(parts)

    def get_posterior(self, *args: Any, **kwargs: Any) -> FlowDistribution:
        """Return the distribution of the unconstrained latents, given the model's arguments."""
        return self._posterior(args, kwargs)

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Estimate the median of each latent from ``num_draws`` draws.

        Returns:
            The medians by name of the site, each of the shape of the latent.
        """
        return {name: q[0] for name, q in self.quantiles([0.5], *args, **kwargs).items()}

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float] | torch.Tensor, *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Estimate quantiles of each latent from ``num_draws`` draws.

        Args:
            quantiles: ``Q`` probabilities.
            args: the model's.
            kwargs: likewise.

        Returns:
            The quantiles by name of the site, each of shape ``(Q, *shape of the latent)``.

        Raises:
            ValueError: if a draw is not finite.
        """
        draws = self._posterior(args, kwargs).sample((self.num_draws,))
        if not bool(draws.isfinite().all()):
            raise ValueError(
                "expected finite draws of the guide, got NaN or infinity: a step of its training "
                "had no finite gradient. Train a new guide at a lower learning rate, with an "
                "init_scale nearer to the width of the posterior, in double precision, or on a "
                "non-centred model (LocScaleReparam) if a scale in it is latent"
            )
        probs = torch.as_tensor(quantiles, dtype=draws.dtype, device=draws.device)
        prototype: Any = self.prototype_trace
        sites = [site for _, site in prototype.iter_stochastic_nodes()]
        nesting = max(len(site["fn"].batch_shape) for site in sites)
        draws = draws.reshape((self.num_draws, *(1,) * nesting, self.latent_dim))
        result = {}
        for site, unconstrained in self._unpack_latent(draws):  # type: ignore[no-untyped-call]
            value = biject_to(site["fn"].support)(unconstrained)
            value = value.reshape((self.num_draws, *site["value"].shape))
            result[site["name"]] = torch.quantile(value, probs, dim=0)
        return result

    def _posterior(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FlowDistribution:
        if self.context is None:
            return self.flow
        return self.flow.condition(self.context(*args, **kwargs))


def _is_real(support: Any, like: torch.Tensor) -> bool:
    """Whether a constraint on vectors is met by all reals, however large."""
    return bool(support.check(like.new_tensor([[-1e6], [0.0], [1e6]])).all())
