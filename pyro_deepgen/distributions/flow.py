# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A base distribution pushed through bijections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch.distributions import constraints
from typing_extensions import Self

from .bijection import Bijection, Transforms, as_bijection, sum_last
from .bounded import log_prob_anywhere
from .buffered import BufferedDistribution
from .module import DistributionModule
from .remembered import RememberedDraw, may_remember
from .tempered import Tempered


class FlowDistribution(DistributionModule):
    r"""The distribution of :math:`y = f(x)`, where :math:`x` has a base distribution :math:`p`.

    .. math:: \log q(y) = \log p(f^{-1}(y)) + \log |\det \partial f^{-1} / \partial y|

    Parameters of the base and of the transforms are those of this module. Scoring takes one pass
    from the data to the base.

    A draw that is scored by the distribution that drew it (as ``pyro.sample`` in a guide is) needs
    no inverse: the pass that made it has all terms. That score is used once, and only while the
    draw, the parameters and all modes are what they were (:class:`RememberedDraw` says how that is
    known); in all other cases the inverse is run. Both ways have the same value and give
    parameters the same gradients. The remembered score is a function of the parameters alone: to
    differentiate by the draw itself, score ``draw.clone()``. To remember takes time: once a draw
    by :meth:`sample` was not scored, further ones are not remembered until one is.

    Args:
        base: a distribution; its tensors become buffers, as those of a
            :class:`BufferedDistribution`, if it is no :class:`DistributionModule`.
        transforms: a bijective transform, or several in turn, from the base to the data, of this
            library, of PyTorch or of Pyro. With ``context_dim`` above 0, :meth:`condition` gives
            the distribution to draw from.

    Raises:
        ValueError: if the base does not fit the transforms, or they are no bijective transforms;
            when called, if a context is missing, or an event has the wrong shape.

    References:
        Variational Inference with Normalizing Flows, Rezende, Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from pyro_deepgen.transforms import CholeskyAffine
        >>> tril = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
        >>> base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
        >>> flow = FlowDistribution(base, CholeskyAffine(2, scale_tril=tril))
        >>> y = flow.sample((5,))
        >>> normal = dist.MultivariateNormal(torch.zeros(2), scale_tril=tril)
        >>> torch.allclose(flow.log_prob(y), normal.log_prob(y), atol=1e-5)
        True
    """

    base: DistributionModule
    transform: Bijection
    _memory: RememberedDraw | None
    _scores_samples = True

    def __init__(
        self,
        base: TorchDistributionMixin,
        transforms: Transforms,
        *,
        validate_args: bool | None = None,
    ) -> None:
        transform = as_bijection(transforms)
        wanted = transform.domain.event_dim
        base_shape = torch.Size((*base.batch_shape, *base.event_shape))
        if len(base_shape) < wanted:
            raise ValueError(
                f"expected a base whose shape has at least the {wanted} dimensions of an event of "
                f"the transform, got batch_shape {tuple(base.batch_shape)} and event_shape "
                f"{tuple(base.event_shape)}"
            )
        # Batch dimensions of the base that are part of an event of the transform, and the reverse.
        joined = max(0, wanted - len(base.event_shape))
        outer = max(0, len(base.event_shape) - wanted)
        shape = transform.forward_shape(base_shape)
        # Transforms may broadcast: one shift for each of many distributions.
        base_shape = transform.inverse_shape(shape)
        event_dim = transform.codomain.event_dim + outer
        cut = len(shape) - event_dim
        super().__init__(shape[cut:], shape[:cut], validate_args)
        if not isinstance(base, DistributionModule):
            base = BufferedDistribution(base)
        self.base, self.transform = base, transform
        # Dequantisation rounds: its draws have no gradient, and no score of their own.
        self._one_to_one = bool(getattr(transform, "bijective", True))
        self._joined, self._outer = joined, outer
        self._joined_shape = base_shape[len(base_shape) - joined - len(base.event_shape) :][:joined]
        self._memory = None

    @property
    def context_dim(self) -> int:
        """Number of dimensions of the context, 0 for none."""
        return int(self.transform.context_dim)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether draws carry gradients."""
        return bool(self.base.has_rsample) and self._one_to_one

    @constraints.dependent_property
    def support(self) -> Any:
        """The codomain of the transforms."""
        codomain = self.transform.codomain
        extra = len(self.event_shape) - codomain.event_dim
        return constraints.independent(codomain, extra) if extra else codomain

    def condition(self, context: torch.Tensor) -> FlowDistribution:
        r"""Return the distribution :math:`q(y \mid c)`, which shares the parameters.

        Args:
            context: contexts of shape ``(*batch, context_dim)``.

        Returns:
            A distribution of the batch shape of the contexts, broadcast with the present one.

        Raises:
            ValueError: if ``context_dim`` is 0, or the context has another number of dimensions.

        Example:
            >>> import pyro, torch
            >>> import pyro.distributions as dist
            >>> from pyro_deepgen.transforms import cholesky_affine
            >>> base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
            >>> flow = FlowDistribution(base, cholesky_affine(2, context_dim=3))
            >>> context = torch.randn(5, 3)
            >>> with pyro.plate("data", 5):
            ...     pyro.sample("y", flow.condition(context)).shape
            torch.Size([5, 2])
        """
        if self.context_dim == 0:
            raise ValueError(
                "expected transforms that depend on a context, got none with context_dim above 0: "
                "make one with context_dim, or use the distribution without condition()"
            )
        transform: Any = self.transform
        given = FlowDistribution(
            self.base, transform.condition(context), validate_args=self._validate_args
        )
        given.training = self.training
        batch = torch.broadcast_shapes(self.batch_shape, given.batch_shape)
        return given.expand(batch)

    def with_temperature(self, temperature: float) -> FlowDistribution:
        r"""Return the flow of a base drawn closer to its mean, or farther; parameters are shared.

        .. math:: y = f(\mu + T (x - \mu)), \qquad x \sim p, \quad \mu = \mathbb E\, x

        For a normal base that is one with :math:`T` times the standard deviation.

        Args:
            temperature: :math:`T`; below 1 for likelier and less varied draws.

        Raises:
            ValueError: if the temperature is not positive, or the base has no mean.

        References:
            Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018,
            arXiv:1807.03039.

        Example:
            >>> import torch
            >>> import pyro.distributions as dist
            >>> from pyro_deepgen.transforms import planar
            >>> flow = FlowDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), planar(2))
            >>> cold = flow.with_temperature(0.1)
            >>> bool(cold.sample((100,)).var() < flow.sample((100,)).var())
            True
        """
        new = self._copy(self.batch_shape)
        new.__dict__["_modules"] = {**self._modules, "base": Tempered(self.base, temperature)}
        return new

    def rsample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw with gradients, of shape ``sample_shape + batch_shape + event_shape``."""
        return self._draw(lambda base: base.rsample(sample_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw without gradients, of shape ``sample_shape + batch_shape + event_shape``."""
        with torch.no_grad():
            return self._draw(lambda base: base.sample(sample_shape), sampling=True)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log-density of ``(*sample, *batch, *event)`` values, of shape ``(*sample, *batch)``."""
        remembered = self._recall(value)
        if remembered is not None:
            return remembered
        shape = self._batch_shape + self._event_shape
        if value.shape[value.dim() - len(shape) :] != shape:
            value = self.broadcast(value)
        if self._validate_args:
            self._validate_sample(value)
        x, log_det = self.transform.inverse_and_log_det(value)
        return self._score(_plain(self.base), x, sum_last(log_det, self._outer))

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """Return a view with another batch shape that shares parameters and remembers nothing.

        Args:
            batch_shape: the new batch shape; the present one must broadcast to it.

        Raises:
            ValueError: if the present batch shape does not broadcast to ``batch_shape``.
        """
        return self._copy(batch_shape)

    def _copy(self, batch_shape: Sequence[int]) -> Self:
        new = super().expand(batch_shape)
        new.__dict__["_memory"] = None
        return new

    def _draw(self, draw: Callable[[Any], torch.Tensor], *, sampling: bool = False) -> torch.Tensor:
        base = _plain(self.base.expand((*self.batch_shape, *self._joined_shape)))
        x = draw(base)
        y, log_det = self.transform.forward_and_log_det(x)
        if torch.compiler.is_compiling():
            return y
        self._memory = None
        if self._one_to_one and y is not x and may_remember(y):
            log_det = sum_last(log_det, self._outer)
            wanted = self._scores_samples or not sampling
            score = (lambda: self._score(base, x, -log_det)) if wanted else None
            self._memory = RememberedDraw(self, y, score)
            if sampling:
                self._scores_samples = False  # until this draw is scored
        return y

    def _recall(self, value: torch.Tensor) -> torch.Tensor | None:
        """Score the last draw by what made it, once."""
        if torch.compiler.is_compiling():
            return None
        memory = self._memory
        if memory is None or not memory.is_of(value):
            return None
        self._memory = None  # or the graph of this step would live on in the next
        self._scores_samples = True
        return memory.score() if memory.score and memory.holds(self, value) else None

    def _score(self, base: Any, x: torch.Tensor, log_det: torch.Tensor) -> torch.Tensor:
        return sum_last(log_prob_anywhere(base, x), self._joined) + log_det

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self._memory = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": None}  # it belongs to one tensor, and has a graph


def _plain(base: DistributionModule) -> TorchDistributionMixin:
    """The distribution to draw from and to score with, put together once for both."""
    return base.distribution if isinstance(base, BufferedDistribution) else base
