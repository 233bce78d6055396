# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Restricted Boltzmann machines over data and their class."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch

from .rbm import RBM
from .supports import SideBySide
from .units import BinaryUnits, SoftmaxUnits, Units


class LabelledUnits(Units):
    """Units side by side with one unit for each class, of which exactly one is on.

    Args:
        units: the units of the data.
        num_classes: number of classes ``K``.

    Example:
        >>> import torch
        >>> units = LabelledUnits(BinaryUnits(2), 3)
        >>> states = units.states(torch.zeros(()))
        >>> states.shape, states[:, 2:].sum(-1).unique().tolist()
        (torch.Size([12, 5]), [1.0])
    """

    def __init__(self, units: Units, num_classes: int) -> None:
        super().__init__(units.num_units + num_classes)
        self.units, self.classes = units, SoftmaxUnits(1, num_classes)

    @property
    def support(self) -> Any:
        """Both supports, side by side."""
        return SideBySide(self.units.support, self.units.num_units)

    def _split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[..., : self.units.num_units], x[..., self.units.num_units :]

    def statistic(self, x: torch.Tensor) -> torch.Tensor:
        """Both statistics, side by side."""
        data, label = self._split(x)
        return torch.cat([self.units.statistic(data), label], -1)

    def self_energy(self, x: torch.Tensor) -> torch.Tensor:
        """That of the data's units; a class has none."""
        return self.units.self_energy(self._split(x)[0])

    def log_normalizer(self, field: torch.Tensor) -> torch.Tensor:
        """The sum of both."""
        data, label = self._split(field)
        return self.units.log_normalizer(data) + self.classes.log_normalizer(label)

    def mean(self, field: torch.Tensor) -> torch.Tensor:
        """Both means, side by side."""
        data, label = self._split(field)
        return torch.cat([self.units.mean(data), self.classes.mean(label)], -1)

    def sample(self, field: torch.Tensor) -> torch.Tensor:
        """A draw of both."""
        data, label = self._split(field)
        return torch.cat([self.units.sample(data), self.classes.sample(label)], -1)

    def field_of(self, mean: torch.Tensor) -> torch.Tensor:
        """Both fields, side by side."""
        data, label = self._split(mean)
        fields = [self.units.field_of(data), self.classes.field_of(label)]
        return torch.cat(fields, -1)

    def num_states(self) -> float:
        """The product of both."""
        return self.units.num_states() * self.classes.num_states()

    def states(self, like: torch.Tensor) -> torch.Tensor:
        """All states, those of one class after each other."""
        data, label = self.units.states(like), self.classes.states(like)
        both = [data.repeat(len(label), 1), label.repeat_interleave(len(data), 0)]
        return torch.cat(both, -1)


class DiscriminativeRBM(RBM):
    r"""A restricted Boltzmann machine over data and their class, which classifies exactly.

    .. math::
        E(x, y, h) &= e(x) - b^T s(x) - d_y - c^T h - s(x)^T W h - U_y^T h \\
        p(y | x) &\propto \exp\Bigl(d_y + \sum_j A(c_j + U_{yj} + (s(x)^T W)_j)\Bigr)

    It is a distribution over vectors ``(V + K,)``, the data and the one-hot class, as :meth:`join`
    makes them: ``pyro.sample("xy", machine, obs=machine.join(x, y))`` learns both as any
    :class:`RBM` does. :meth:`labels_given` is the class given data, an ordinary distribution with
    an exact gradient: ``pyro.sample("y", machine.labels_given(x), obs=y)`` learns to classify, and
    needs no chains. :class:`HybridObjective` mixes both, and takes data without a class.
    ``weight`` holds :math:`W` over :math:`U`, and ``visible_bias`` :math:`b` before :math:`d`.

    Args:
        visible: number of binary units of the data ``V``, or :class:`Units`.
        hidden: number of binary hidden units ``H``, or :class:`Units`.
        num_classes: number of classes ``K``.
        settings: further arguments of :class:`RBM`.

    Raises:
        ValueError: for sizes out of range.

    References:
        Classification using Discriminative Restricted Boltzmann Machines, Hugo Larochelle and
        Yoshua Bengio, 2008.

    Example:
        >>> import torch
        >>> machine = DiscriminativeRBM(3, 4, num_classes=2, weight_scale=1.0).eval()
        >>> x, y = torch.ones(5, 3), torch.tensor([0, 1, 0, 1, 1])
        >>> each = torch.stack([machine.log_prob(machine.join(x, 0 * y + k)) for k in range(2)])
        >>> joint = machine.log_prob(machine.join(x, y))
        >>> conditional = machine.labels_given(x).log_prob(y)
        >>> bool(torch.allclose(conditional, joint - each.logsumexp(0), atol=1e-5))
        True
    """

    def __init__(
        self,
        visible: int | Units,
        hidden: int | Units,
        num_classes: int,
        **settings: Any,
    ) -> None:
        units = BinaryUnits(visible) if isinstance(visible, int) else visible
        super().__init__(LabelledUnits(units, num_classes), hidden, **settings)
        self.num_data, self.num_classes = units.num_units, num_classes

    def join(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Data ``(..., V)`` and classes ``(...)``, 0 to K - 1, as one vector ``(..., V + K)``.

        Raises:
            ValueError: if shapes do not go together, or classes are no whole numbers.
        """
        self._check(x)
        if y.is_floating_point() or y.dtype == torch.bool or y.shape != x.shape[:-1]:
            raise ValueError(
                f"expected classes of whole numbers and shape {tuple(x.shape[:-1])}, got {y.dtype} "
                f"of shape {tuple(y.shape)}"
            )
        classes = torch.arange(self.num_classes, device=y.device)
        return torch.cat([x, (y[..., None] == classes).to(x.dtype)], -1)

    def split(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The data ``(..., V)`` and classes ``(...)`` of vectors ``(..., V + K)``."""
        return value[..., : self.num_data], value[..., self.num_data :].argmax(-1)

    def labels_given(self, x: torch.Tensor) -> dist.Categorical:
        """The exact distribution of the class, of batch shape ``(...)``, given data ``(..., V)``.

        Raises:
            ValueError: if the last dimension is not that of the data.
        """
        return dist.Categorical(logits=self._class_scores(x))

    def data_energy(self, x: torch.Tensor) -> torch.Tensor:
        """The energy ``(...)`` of data ``(..., V)`` with classes summed out, over the temperature.

        Raises:
            ValueError: if the last dimension is not that of the data.
        """
        units, (_, bias, _) = self._data_units, self._weights()
        own = units.self_energy(x)
        own = own - (units.statistic(x) * bias[..., : self.num_data]).sum(-1)
        return own - self._class_scores(x).logsumexp(-1)

    def _class_scores(self, x: torch.Tensor) -> torch.Tensor:
        """Minus the energy of each class but for what all have in common, ``(..., K)``."""
        self._check(x)
        weight, bias, c = self._weights()
        field = self._data_units.statistic(x) @ weight[: self.num_data] + c
        fields = field[..., None, :] + weight[self.num_data :]
        return bias[..., self.num_data :] + self.hidden.log_normalizer(fields)

    @property
    def _data_units(self) -> Units:
        assert isinstance(self.visible, LabelledUnits)
        return self.visible.units

    def _check(self, x: torch.Tensor) -> None:
        if x.shape[-1:] != (self.num_data,):
            raise ValueError(
                f"expected data whose last dimension is {self.num_data}, got shape "
                f"{tuple(x.shape)}; give the data without the class"
            )
