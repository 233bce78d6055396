# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""The record that every loader returns, and the units its densities refer to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DataScale:
    r"""The units of the data, without which a density in nats means nothing.

    If :math:`p` is a density of :math:`x \in \mathbb{R}^D` in these units and a quantisation step
    is :math:`\delta` wide in them, the bits per dimension are
    :math:`-(\log p(x) + D \log \delta) / (D \log 2)`.

    Args:
        description: The units in words.
        bin_width: :math:`\delta`, the width of one quantisation step in these units; 1 for binary
            data, whose probabilities need no correction; ``None`` for continuous data.

    Raises:
        ValueError: If ``bin_width`` is not positive.

    Example:
        >>> scale = DataScale("grey levels / 16 in [0, 1]", 1 / 16)
        >>> scale.bin_width == 1 / 16
        True
    """

    description: str
    bin_width: float | None = None

    def __post_init__(self) -> None:
        if self.bin_width is not None and not self.bin_width > 0:
            raise ValueError(
                f"bin_width must be positive, got {self.bin_width}; "
                "give None for data that are not quantised"
            )

    def __str__(self) -> str:
        return self.description


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training and a test split, with what was done to the raw data.

    Args:
        name: The name of the data set.
        x_train: Training data, shape ``(num_train, *event_shape)``.
        y_train: Training labels, shape ``(num_train,)``, or ``None``.
        x_test: Test data, shape ``(num_test, *event_shape)``.
        y_test: Test labels, shape ``(num_test,)``, or ``None``.
        scale: The units that densities of these data refer to.
        protocol: What was done to the raw data, to be quoted with every result.

    Raises:
        ValueError: If the splits differ in event shape, or labels and data in number.

    Example:
        >>> import torch
        >>> x = torch.zeros(3, 1, 2, 2)
        >>> print(Dataset("blank", x, None, x, None, DataScale("grey in [0, 1]"), "gray"))
        blank: 3 train, 3 test, shape (1, 2, 2), protocol gray, units grey in [0, 1]
    """

    name: str
    x_train: Tensor
    y_train: Tensor | None
    x_test: Tensor
    y_test: Tensor | None
    scale: DataScale
    protocol: str

    def __post_init__(self) -> None:
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise ValueError(
                f"training and test data must have one event shape, got "
                f"{tuple(self.x_train.shape[1:])} and {tuple(self.x_test.shape[1:])}"
            )
        for split, x, y in (
            ("train", self.x_train, self.y_train),
            ("test", self.x_test, self.y_test),
        ):
            if y is not None and y.shape != x.shape[:1]:
                raise ValueError(
                    f"y_{split} must hold one label for each of the {len(x)} data of x_{split}, "
                    f"got shape {tuple(y.shape)}"
                )

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.x_train)} train, {len(self.x_test)} test, "
            f"shape {tuple(self.x_train.shape[1:])}, protocol {self.protocol}, units {self.scale}"
        )

    # A notebook shows the repr of the last value: one line there too, not four tensors.
    __repr__ = __str__
