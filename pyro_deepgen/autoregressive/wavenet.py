# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""WaveNet: dilated causal convolutions for long sequences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import Self

from ..nn import as_size, as_sizes
from .autoregressive_distribution import AutoregressiveDistribution
from .drawing import Drawing
from .outputs import CategoricalOutput, Output
from .wavenet_network import WaveNetNetwork
from .wavenet_steps import WaveNetSteps
from .wavenet_upsampling import Upsampling

DILATIONS = tuple(2**i for i in range(10))


class WaveNet(AutoregressiveDistribution):
    r"""A WaveNet: each step of a sequence depends on many before it by dilated convolutions.

    .. math::
        h^1_t &= b + \sum_{j=1}^{k} W_j\, e(x_{t - j}) \\
        z^l_t &= \tanh(W^l_f * h^l + V^l_f c)_t \odot \sigma(W^l_g * h^l + V^l_g c)_t \\
        h^{l+1}_t &= h^l_t + W^l_r z^l_t, \qquad
        \theta_t = W_2\, \mathrm{relu}\Big(W_1\, \mathrm{relu}\Big(\sum_l W^l_s z^l_t\Big)\Big)

    where :math:`*` is a convolution of :math:`k` taps that lie :math:`d_l` steps apart and
    :math:`e` says how values enter (classes as one-hot vectors); every :math:`W` has its bias. A
    step sees the :attr:`receptive_field` steps before it and no others; what lies before the first
    step is zero. A draw takes one product a layer and step, with queues.

    A context is global, a vector of the whole sequence; local, a sequence of its own with one frame
    for every ``local_rate`` steps; or both. Local frames are brought to the rate of the steps by a
    learned transposed convolution, or are repeated. Any step sees its own frame, and through the
    convolutions those of the steps before it.

    The same network serves sequences of any length: :meth:`of_length`.

    Args:
        num_steps: number of steps :math:`T` of a sequence.
        output: the family of one step, by default :class:`CategoricalOutput` of 256 classes, as
            sound has after the mu-law; also binary, :class:`LogisticMixtureOutput`, or a real one.
        channels: number of features of :math:`h` and :math:`z`.
        skip_channels: number of features of the skips :math:`W_s z`.
        dilations: :math:`d_1, \dots, d_L`, by default 1, 2, 4, ..., 512; three such stacks are
            ``dilations * 3``.
        kernel_size: number of taps :math:`k`.
        context_dim: number of dimensions of a global context, 0 for none.
        local_dim: number of features of a frame of a local context, 0 for none.
        local_rate: number of steps of a frame.
        learn_upsampling: whether frames are brought to the rate of the steps by a learned
            transposed convolution, or are repeated.
        validate_args: whether ``log_prob`` checks its argument.

    Raises:
        ValueError: if a size is not a positive whole number, or there are no dilations.

    References:
        van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior and
        Kavukcuoglu, WaveNet: A generative model for raw audio, 2016, arXiv:1609.03499.

        Le Paine, Khorrami, Chang, Zhang, Ramachandran, Hasegawa-Johnson and Huang, Fast Wavenet
        generation algorithm, 2016, arXiv:1611.09482.

    Example:
        >>> import torch
        >>> from pyro_deepgen.autoregressive import BinaryOutput
        >>> net = WaveNet(8, BinaryOutput(), dilations=(1, 2), local_dim=3, local_rate=4)
        >>> net.receptive_field
        5
        >>> given = net.condition(local=torch.randn(2, 3))
        >>> torch.allclose(given.log_prob(given.enumerate_support()).exp().sum(), torch.tensor(1.0))
        True
    """

    def __init__(
        self,
        num_steps: int,
        output: Output | None = None,
        *,
        channels: int = 32,
        skip_channels: int = 128,
        dilations: Sequence[int] = DILATIONS,
        kernel_size: int = 2,
        context_dim: int = 0,
        local_dim: int = 0,
        local_rate: int = 1,
        learn_upsampling: bool = True,
        validate_args: bool | None = None,
    ) -> None:
        num_steps = as_size(num_steps, "num_steps")
        layers = as_sizes(dilations, "dilations")
        if not layers:
            raise ValueError(
                "expected as dilations one or more, such as (1, 2, 4, 8), got none: each is a layer"
            )
        global_dim = as_size(context_dim, "context_dim") if context_dim else 0
        local_dim = as_size(local_dim, "local_dim") if local_dim else 0
        rate = as_size(local_rate, "local_rate")
        super().__init__(
            (num_steps,),
            output or CategoricalOutput(256),
            context_dim=global_dim + -(-num_steps // rate) * local_dim,
            validate_args=validate_args,
        )
        self.global_dim, self.local_dim, self.local_rate = global_dim, local_dim, rate
        self.dilations, self.kernel_size = layers, as_size(kernel_size, "kernel_size")
        self.network = WaveNetNetwork(
            self.output,
            as_size(channels, "channels"),
            as_size(skip_channels, "skip_channels"),
            self.dilations,
            self.kernel_size,
            global_dim,
            local_dim,
        )
        self.upsampling = Upsampling(local_dim, rate, learn_upsampling) if local_dim else None

    @property
    def num_steps(self) -> int:
        """The number of steps :math:`T`."""
        return self.event_shape[0]

    @property
    def num_frames(self) -> int:
        """The number of frames of a local context, the last of which may be cut short."""
        return -(-self.num_steps // self.local_rate)

    @property
    def receptive_field(self) -> int:
        r"""How far back a step sees: :math:`k + (k - 1) \sum_l d_l` steps."""
        return self.kernel_size + (self.kernel_size - 1) * sum(self.dilations)

    def of_length(self, num_steps: int) -> Self:
        """Return the distribution of sequences of another length, which shares the parameters.

        A global context stays; with a local one, condition what is returned.

        Args:
            num_steps: number of steps.

        Raises:
            ValueError: if it is not a positive whole number, or a local context is given already.
        """
        size = as_size(num_steps, "num_steps")
        if self.local_dim and self.__dict__["_context"] is not None:
            raise ValueError(
                f"expected a WaveNet without a local context, got one with {self.num_frames} "
                "frames: change the length first, then condition(...)"
            )
        other = self.expand(self.batch_shape)
        other.__dict__["_event_shape"] = torch.Size((size,))
        other.__dict__["context_dim"] = self.global_dim + other.num_frames * self.local_dim
        return other

    def condition(
        self, context: torch.Tensor | None = None, local: torch.Tensor | None = None
    ) -> Self:
        r"""Return the distribution :math:`p(x \mid c)`, which shares the parameters.

        Args:
            context: global contexts of shape ``(*batch, context_dim)``. With ``local_dim`` and
                without ``local``, the whole context as one vector: the global one, and then the
                frames one after another.
            local: frames of shape ``(*batch, num_frames, local_dim)``; batch shapes broadcast.

        Returns:
            A distribution of the batch shape of the contexts, broadcast with the present one.

        Raises:
            ValueError: if a context is missing, not wanted, or of another shape.
        """
        if local is None:
            if context is None or not (context.dim() and self.context_dim == context.shape[-1]):
                raise ValueError(f"expected {self._wanted()}, got {_shape(context)} and no local")
            return super().condition(context)
        frames = (self.num_frames, self.local_dim)
        right = self.local_dim and local.shape[-2:] == frames
        if not right or (self.global_dim != (0 if context is None else context.shape[-1])):
            raise ValueError(
                f"expected {self._wanted()}, got {_shape(context)} and local {_shape(local)}"
            )
        flat = local.flatten(-2)
        if context is not None:
            batch = torch.broadcast_shapes(context.shape[:-1], flat.shape[:-1])
            parts = [part.expand((*batch, part.shape[-1])) for part in (context, flat)]
            flat = torch.cat(parts, -1)
        return super().condition(flat)

    @property
    def orders(self) -> torch.Tensor:
        """The order of time, of shape ``(1, T)``."""
        return torch.arange(self.num_steps, device=self.network.head.weight.device).unsqueeze(0)

    @property
    def num_orders(self) -> int:
        """One."""
        return 1

    def conditionals(
        self, x: torch.Tensor, context: torch.Tensor | None = None, component: int = 0
    ) -> torch.Tensor:
        """Parameters ``(*batch, T, P)`` from values ``(*batch, T)``, in one pass."""
        parameters: torch.Tensor = self.network(x, *self._contexts(context))
        return parameters

    def generate(
        self,
        drawing: Drawing,
        batch_shape: torch.Size,
        context: torch.Tensor | None = None,
        component: int = 0,
    ) -> torch.Tensor:
        """Make the steps one by one with queues; what is known of all at the start, in one pass."""
        num, size = batch_shape.numel(), self.num_steps
        if context is not None:
            context = context.expand((*batch_shape, self.context_dim))
            context = context.reshape(num, self.context_dim)
        steps = WaveNetSteps(self.network, num, *self._contexts(context))
        values: list[torch.Tensor] = []
        if drawing.known is not None and drawing.values is not None and num:
            given = int(drawing.known.all(1).cumprod(0).sum())
            if given:
                parameters = steps.prime(drawing.values[:given].mT)
                values = [drawing(t, parameters[:, t]) for t in range(given)]
        for t in range(len(values), size):
            values.append(drawing(t, steps.step(values[-1] if values else None)))
        return torch.stack(values, -1).reshape((*batch_shape, size))

    def _contexts(
        self, context: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The global context and the local one at the rate of the steps."""
        if context is None or self.upsampling is None:
            return context, None
        first, frames = context.split(
            [self.global_dim, self.context_dim - self.global_dim], context.dim() - 1
        )
        frames = frames.unflatten(-1, (self.num_frames, self.local_dim))
        return first if self.global_dim else None, self.upsampling(frames, self.num_steps)

    def _wanted(self) -> str:
        """What a context must be, in words."""
        first = f"context of shape (*batch, {self.global_dim})" if self.global_dim else ""
        if not self.local_dim:
            return first or "no context: this WaveNet was made with context_dim=0"
        local = (
            f"local of shape (*batch, {self.num_frames}, {self.local_dim}), a frame for every "
            f"{self.local_rate} of {self.num_steps} steps"
        )
        return f"{first} and {local}" if first else local


def _shape(given: torch.Tensor | None) -> str:
    return "no context" if given is None else f"shape {tuple(given.shape)}"
