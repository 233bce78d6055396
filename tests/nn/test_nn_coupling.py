# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The networks of coupling layers."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pyro_deepgen.nn import (
    CouplingCNN,
    CouplingMLP,
    CouplingResNet,
    ResidualBlock,
    WeightNormConv2d,
    linear_with_context,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("context_dim", [0, 3])
@pytest.mark.parametrize("hidden_dims", [(), (8,), (8, 6)])
def test_the_dense_network_is_its_layers(context_dim: int, hidden_dims: tuple[int, ...]) -> None:
    net = CouplingMLP(4, hidden_dims, 2, 5, context_dim=context_dim, activation=nn.Tanh)
    kept = torch.randn(7, 4)
    contexts = (torch.randn(7, context_dim),) if context_dim else ()
    joined = torch.cat([kept, *contexts], -1)
    linears = [layer for layer in net.layers if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linears] == [*hidden_dims, 10]
    h = joined
    for i, layer in enumerate(linears):
        h = h @ layer.weight.T + layer.bias
        h = torch.tanh(h) if i < len(linears) - 1 else h
    expected = h.reshape(7, 5, 2).transpose(1, 2)  # parameters before variables in memory
    torch.testing.assert_close(net(kept, *contexts), expected)
    assert net(kept, *contexts)[..., 0].stride(-1) == 1


def test_the_dense_network_takes_any_batch_shapes() -> None:
    net = CouplingMLP(4, (8,), 2, 3, context_dim=2)
    kept, context = torch.randn(5, 4), torch.randn(6, 1, 2)
    theta = net(kept, context)
    assert theta.shape == (6, 5, 2, 3)
    torch.testing.assert_close(theta[4, 3], net(kept[3], context[4, 0]))
    first = net.layers[0]
    assert isinstance(first, nn.Linear)
    assert linear_with_context(first, kept, context, 2).shape == (6, 5, 8)


NETS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "dense": (lambda dim: CouplingMLP(4, (64, 64), 3, 23, context_dim=dim), (4,)),
    "residual": (
        lambda dim: CouplingResNet(2, 1, 23, channels=16, num_blocks=2, context_dim=dim),
        (2, 6, 6),
    ),
}
nets = pytest.mark.parametrize(("make", "shape"), NETS.values(), ids=NETS)


@nets
def test_outputs_start_small_and_every_parameter_gets_a_gradient(
    make: Callable[[int], nn.Module], shape: tuple[int, ...]
) -> None:
    net = make(3)
    theta = net(torch.randn(50, *shape), torch.randn(50, 3))
    assert 0 < float(theta.detach().abs().max()) < 0.3
    torch.manual_seed(0)
    (theta * torch.randn_like(theta)).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in net.parameters())


@nets
def test_networks_survive_copies(make: Callable[[int], nn.Module], shape: tuple[int, ...]) -> None:
    net, x = make(0), torch.randn(3, *shape)
    expected = net(x)
    other = make(0)
    other.load_state_dict(net.state_dict())
    for same in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), other):
        torch.testing.assert_close(same(x), expected)


@nets
def test_wrong_inputs_are_refused(make: Callable[[int], nn.Module], shape: tuple[int, ...]) -> None:
    net = make(3)
    with pytest.raises(ValueError, match=r"expected (an input|images)"):
        net(torch.zeros(5, shape[0] + 1, *shape[1:]), torch.zeros(5, 3))
    for wrong in ((), (torch.zeros(5, 2),)):
        with pytest.raises(ValueError, match="expected a context with 3 dimensions"):
            net(torch.zeros(5, *shape), *wrong)


def test_kernels_have_the_length_that_the_parameter_says() -> None:
    layer = WeightNormConv2d(3, 4, 5)
    plain = nn.Conv2d(3, 4, 5, padding=2)
    with torch.no_grad():
        layer.direction.normal_()
        layer.length.copy_(torch.tensor([0.5, 1.0, 2.0, -3.0]))
        unit = layer.direction / layer.direction.flatten(1).norm(dim=1)[:, None, None, None]
        plain.weight.copy_(unit * layer.length[:, None, None, None])
        plain.bias.copy_(layer.bias)
    x = torch.randn(2, 3, 7, 6)
    torch.testing.assert_close(layer(x), plain(x))
    with pytest.raises(ValueError, match="expected an odd kernel_size, got 4"):
        WeightNormConv2d(3, 4, 4)


def test_a_residual_block_adds_two_convolutions_and_the_context() -> None:
    block = ResidualBlock(4, context_dim=2, activation=nn.ELU)
    h, context = torch.randn(3, 4, 5, 5), torch.randn(3, 2)
    elu: Any = nn.functional.elu
    of_context: Any = block.of_context
    inner = block.first(elu(h)) + (context @ of_context.weight.T)[:, :, None, None]
    torch.testing.assert_close(block(h, context), h + block.second(elu(inner)))


def test_parameters_of_an_image_stand_beside_their_pixels() -> None:
    net = CouplingResNet(2, 3, 5, channels=4, num_blocks=1)
    with torch.no_grad():  # a bias for each output, and nothing else
        net.last.length.zero_()
        net.last.bias.copy_(torch.arange(15.0))
    theta = net(torch.randn(2, 2, 4, 6))
    assert theta.shape == (2, 3, 4, 6, 5)
    assert torch.equal(theta[1, :, 2, 3], torch.arange(15.0).reshape(3, 5))


def test_a_pixel_depends_on_its_neighbours_in_every_direction() -> None:
    net = CouplingResNet(1, 1, 1, channels=8, num_blocks=1, activation=nn.Tanh)
    x = torch.randn(1, 1, 9, 9, requires_grad=True)
    (slope,) = torch.autograd.grad(net(x)[0, 0, 4, 4, 0], x)
    reach = torch.zeros(9, 9, dtype=torch.bool)
    reach[1:8, 1:8] = True  # three convolutions of side 3
    assert torch.equal(slope[0, 0] != 0, reach)


@pytest.mark.parametrize("context_dim", [0, 3])
@pytest.mark.parametrize(
    ("kind", "shape"), [(CouplingMLP, (4,)), (CouplingCNN, (2, 6, 6)), (CouplingResNet, (2, 6, 6))]
)
def test_rectifiers_in_place_change_nothing_but_the_time(
    kind: Any, shape: tuple[int, ...], context_dim: int
) -> None:
    """Neither values nor gradients of any order, nor the input, nor modules made by others."""

    def make(activation: Callable[[], nn.Module]) -> Any:
        torch.manual_seed(0)
        options: dict[str, Any] = {"context_dim": context_dim, "activation": activation}
        if kind is CouplingMLP:
            net: Any = kind(4, (8, 8), 3, 2, **options)
        else:
            net = kind(2, 1, 2, channels=8, **options)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return net

    in_place, other = make(nn.ReLU), make(lambda: nn.ReLU())
    assert any(m.inplace for m in in_place.modules() if isinstance(m, nn.ReLU))
    assert not any(m.inplace for m in other.modules() if isinstance(m, nn.ReLU))
    kept = torch.randn(5, *shape)
    contexts = (torch.randn(5, context_dim),) if context_dim else ()
    found = []
    for net in (in_place, other):
        x = kept.clone().requires_grad_()
        theta = net(x, *contexts)
        parameters = list(net.parameters())
        first = torch.autograd.grad(theta.pow(3).sum(), [x, *parameters], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), parameters, allow_unused=True)
        assert torch.equal(x, kept)
        found.append([theta, *first, *(g for g in second if g is not None)])
        one_by_one = torch.func.vmap(lambda k, *c, n=net: n(k[None], *(i[None] for i in c))[0])
        found[-1].append(one_by_one(kept, *contexts))
    assert len(found[0]) == len(found[1])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)
