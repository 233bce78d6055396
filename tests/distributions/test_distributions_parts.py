# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Objects of Pyro's whose tensors a module holds."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import transforms

from pyro_deepgen.distributions.parts import HoldsParts


class Holder(HoldsParts):
    """Holds one thing."""

    def __init__(self, thing: object) -> None:
        super().__init__()
        self._hold(thing)


@pytest.mark.parametrize(
    "thing",
    [
        transforms.AffineTransform(torch.tensor(1.0), torch.tensor(2.0)),
        transforms.PowerTransform(2),  # a whole number, which is no part
        transforms.ComposeTransform([transforms.ExpTransform(), transforms.SoftplusTransform()]),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_is_put_together_inside_of_a_graph(thing: transforms.Transform) -> None:
    torch._dynamo.reset()
    holder, x = Holder(thing), torch.rand(3)
    compiled = torch.compile(lambda x: holder._put_together()(x), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), thing(x))


def test_a_module_is_held_as_it_is() -> None:
    flow = dist.transforms.Planar(2)
    holder = Holder(flow)
    assert holder._put_together() is flow
    assert {id(p) for p in holder.parameters()} == {id(p) for p in flow.parameters()}
    assert sorted(holder.state_dict()) == ["held.bias", "held.u", "held.w"]


@pytest.mark.parametrize(
    "thing", [nn.Parameter(torch.ones(2)), torch.ones(2)], ids=["free", "fixed"]
)
def test_a_tensor_is_held(thing: torch.Tensor) -> None:
    holder = Holder(thing).double()
    assert holder._put_together().dtype == torch.float64
    assert len(list(holder.parameters())) == int(thing.requires_grad)
    assert list(holder.state_dict()) == ["held"]


def test_a_number_that_was_expanded_can_be_loaded_in_place() -> None:
    holder, other = (Holder(dist.Normal(torch.zeros(3), scale)) for scale in (1.0, 2.0))
    holder.load_state_dict(other.state_dict())
    assert holder._put_together().scale.tolist() == [2, 2, 2]
