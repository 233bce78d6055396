# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What convolutional machines of one and of several layers have in common."""

from __future__ import annotations

import torch
from typing_extensions import Self

from .convolutional_layers import ConvolutionalLayers
from .convolutional_states import EvenLayers, IndependentLayers
from .negative_phase import ContrastiveDivergence, NegativePhase, PersistentChains


class ConvolutionalMachine(ConvolutionalLayers):
    """A distribution of images with layers above them, whose chains move the even layers.

    A subclass makes its parameters after this initialiser, writes ``energy``, ``own_weight`` and
    ``own_bias``, and calls :meth:`ready`.
    """

    def resized(self, height: int, width: int, negative_phase: NegativePhase | None = None) -> Self:
        """The machine over images of another size, with the same weights and biases.

        Its normalising constant is another one, so that the view begins without an estimate, and
        with a base of annealing and a negative phase of its own.

        Args:
            height: of the images.
            width: of the images.
            negative_phase: see :class:`EnergyDistribution`.

        Raises:
            ValueError: if blocks of detection units do not tile what this size leaves of them.
        """
        view = self.expand(self.batch_shape)
        shape = torch.Size([self.event_shape[0], height, width])
        view.__dict__["_event_shape"] = shape
        view.__dict__["_shapes"] = self._shapes_of(shape)
        fresh = {
            "log_partition_values": torch.full_like(self.log_partition_values, torch.nan),
            "log_partition_for": torch.zeros_like(self.log_partition_for),
            "base_bias": self.base_bias.new_zeros(shape),
        }
        view.__dict__["_buffers"] = {**self._buffers, **fresh}
        if negative_phase is None:
            negative_phase = ContrastiveDivergence() if self.context_dim else PersistentChains()
        view.__dict__["_modules"] = {**self._modules, "negative_phase": negative_phase}
        view.ready()
        return view

    # ------------------------------------------------ the even layers

    @property
    def all_units(self) -> EvenLayers:
        """The machine over the even layers, the image first, with the odd ones summed out."""
        return EvenLayers(self)

    def visible_part(self, state: torch.Tensor) -> torch.Tensor:
        """The images ``(..., *event_shape)`` in even layers."""
        return self.all_units.image(state)

    def known_part(self, mask: torch.Tensor) -> torch.Tensor:
        """No hidden unit is known."""
        return self.all_units.known(mask)

    @torch.no_grad()
    def transition(
        self, x: torch.Tensor, num_steps: int = 1, known: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draw hidden units given images ``(..., *event_shape)``, then move so many times."""
        mask = None if known is None else self.known_part(known.expand(x.shape))
        return self.visible_part(self.all_units.transition(self.complete(x), num_steps, mask))

    def start(self, num_chains: int) -> torch.Tensor:
        """Images as their biases alone would have them."""
        return self.visible_part(self.all_units.start(num_chains))

    # ------------------------------------------------ the normalising constant

    def num_states(self) -> float:
        """The states of the even or of the odd layers, whichever are fewer."""
        return self.all_units.num_states()

    def exact_log_partition(self) -> torch.Tensor:
        """``log Z`` by enumeration of the even or of the odd layers."""
        return self.all_units.exact_log_partition()

    def exact_sample(self, num_draws: int) -> torch.Tensor:
        """Images by enumeration of the even or of the odd layers."""
        return self.visible_part(self.all_units.exact_sample(num_draws))

    def set_base(self, data: torch.Tensor) -> None:
        """Start annealing from the mean of some images ``(N, *event_shape)``: a shorter way."""
        mean = data.reshape(-1, *self.event_shape).mean(0).movedim(0, -1)
        self.base_bias.copy_(self.visible.field_of(mean).movedim(-1, 0))

    def bridge(self, beta: torch.Tensor) -> Self:
        """The machine with its couplings times ``beta``, and biases between the base's and its."""
        view = self.expand(self.batch_shape)
        view.__dict__["_beta"] = beta
        return view

    def path_start(self) -> IndependentLayers:
        """Independent units, the image's with the base's biases."""
        return self.all_units.path_start()
