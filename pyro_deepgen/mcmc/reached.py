# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a recorded graph holds on to."""

from __future__ import annotations

from typing import Any

import pyro

from pyro_deepgen.tracing import modules_behind


class Reached:
    """The parameters and buffers that a program reaches, and what decides how its modules run.

    A graph sees what changes in these tensors, and not that one is replaced by another, or that a
    module changes its mode.

    Args:
        program: a model, a distribution, or a tuple of things that it uses.

    Example:
        >>> from torch import nn
        >>> net = nn.Dropout()
        >>> before = Reached(net)
        >>> before.is_same(Reached(net)), before.is_same(Reached(net.eval()))
        (True, False)
    """

    def __init__(self, program: Any) -> None:
        self._parts: list[object] = [p for _, p in pyro.get_param_store().named_parameters()]
        for top in modules_behind(program):
            for module in top.modules():
                self._parts += [module, module.training]
                self._parts += [*module._parameters.values(), *module._buffers.values()]

    def is_same(self, other: Reached) -> bool:
        """Whether both reach the same objects in the same modes."""
        one, two = self._parts, other._parts
        return len(one) == len(two) and all(a is b for a, b in zip(one, two, strict=True))
