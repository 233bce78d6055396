# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Networks: shapes, contexts, un-pooling, errors."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d

from pyro_deepgen.nn import MLP, ConvDecoder, ConvEncoder, Unpool, as_shape, join_context

SMALL: dict[str, Any] = {"channels": (3, 2), "hidden_dim": 7}


# ---------------------------------------------------------------- un-pooling


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_unpool_puts_each_value_into_the_upper_left_corner(
    size: int, lead: tuple[int, ...]
) -> None:
    x = torch.randn(*lead, 3, 5)
    expected = torch.zeros(*lead, 3 * size, 5 * size)
    for i in range(3):
        for j in range(5):
            expected[..., size * i, size * j] = x[..., i, j]
    torch.testing.assert_close(Unpool(size)(x), expected, rtol=0, atol=0)


def test_unpool_undoes_pooling_and_passes_gradients() -> None:
    x = torch.rand(1, 2, 3, 4, requires_grad=True)
    y = Unpool(2)(x)
    assert torch.equal(max_pool2d(y, 2), x)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, weights[..., ::2, ::2])


def test_unpool_refuses_a_block_of_nothing() -> None:
    with pytest.raises(ValueError, match="block_size of 1 or more, got 0"):
        Unpool(0)


# ---------------------------------------------------------------- dense


def test_mlp_is_the_composition_of_its_layers(device: torch.device) -> None:
    net = MLP((2, 3), (5, 4), (1, 2), context_dim=2, activation=nn.Tanh).to(device)
    x, y = torch.randn(7, 2, 3, device=device), torch.randn(7, 2, device=device)
    first, _, second, _, last = net.layers
    h = torch.tanh(first(torch.cat([x.reshape(7, 6), y], -1)))
    expected = last(torch.tanh(second(h))).reshape(7, 1, 2)
    torch.testing.assert_close(net(x, y), expected)


def test_mlp_broadcasts_batches_of_input_and_context() -> None:
    net = MLP(3, (4,), 2, context_dim=2)
    x, y = torch.randn(5, 3), torch.randn(6, 1, 2)
    wide = net(x, y)
    assert wide.shape == (6, 5, 2)
    torch.testing.assert_close(wide[2], net(x, y[2].expand(5, 2)))
    assert net(x[0], y[0, 0]).shape == (2,)
    assert net(x, torch.zeros(2)).shape == (5, 2)


def test_mlp_without_hidden_layers_is_linear() -> None:
    net = MLP(3, (), 2)
    a, b = torch.randn(3), torch.randn(3)
    torch.testing.assert_close(net(a + b) + net(torch.zeros(3)), net(a) + net(b))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(5, 4)], r"last dimensions are \(3,\), got shape \(5, 4\)"),
        ([(5, 3)], r"context with 2 dimensions, got 0"),
        ([(5, 3), (5, 1)], r"context with 2 dimensions, got 1"),
    ],
)
def test_mlp_errors(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(3, (4,), 2, context_dim=2)(*map(torch.zeros, shapes))
    with pytest.raises(ValueError, match=r"last dimensions are \(1, 2, 3\)"):
        MLP((1, 2, 3), (), 2)(torch.zeros(3))


@pytest.mark.parametrize("size", [0, -1, (2, 0), (2, 1.5)])
def test_wrong_sizes(size: Any) -> None:
    with pytest.raises(ValueError, match="positive size"):
        as_shape(size)
    with pytest.raises(ValueError, match="positive size"):
        MLP(size, (4,), 2)


def test_join_context_refuses_a_context_that_was_not_announced() -> None:
    with pytest.raises(ValueError, match="context_dim=0"):
        join_context(torch.zeros(5, 4), torch.zeros(5, 3), 0)


# ---------------------------------------------------------------- convolutions


@pytest.mark.parametrize("upsampling", ["transposed", "unpool"])
@pytest.mark.parametrize("params_per_pixel", [None, 1, 3])
def test_conv_shapes(upsampling: Any, params_per_pixel: int | None, device: torch.device) -> None:
    image = (2, 8, 12)
    encoder = ConvEncoder(image, 5, context_dim=3, **SMALL).to(device)
    decoder = ConvDecoder(
        5,
        image,
        params_per_pixel=params_per_pixel,
        upsampling=upsampling,
        context_dim=3,
        **SMALL,
    ).to(device)
    x, y = torch.randn(4, *image, device=device), torch.randn(4, 3, device=device)
    code = encoder(x, y)
    assert code.shape == (4, 5)
    last = () if params_per_pixel is None else (params_per_pixel,)
    images = decoder(code, y)
    assert images.shape == (4, *image, *last)
    images.square().sum().backward()
    for network in (encoder, decoder):
        assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


@pytest.mark.parametrize("upsampling", ["transposed", "unpool"])
def test_data_of_a_batch_do_not_mix(upsampling: Any, float64: torch.dtype) -> None:
    encoder = ConvEncoder((1, 8, 8), 4, **SMALL)
    decoder = ConvDecoder(4, (1, 8, 8), params_per_pixel=2, upsampling=upsampling, **SMALL)
    x = torch.randn(3, 1, 8, 8)
    whole = decoder(encoder(x))
    for i in range(3):
        torch.testing.assert_close(whole[i : i + 1], decoder(encoder(x[i : i + 1])))


def test_the_parameters_of_a_pixel_are_its_own() -> None:
    # The last convolution gives P maps a channel; each must arrive at its channel.
    decoder = ConvDecoder(2, (3, 4, 4), params_per_pixel=2, channels=(2,), hidden_dim=4)
    maps = decoder.convolutions(decoder.dense(torch.zeros(1, 2)).reshape(1, 2, 2, 2))
    images = decoder(torch.zeros(1, 2))
    for channel in range(3):
        for param in range(2):
            assert torch.equal(images[0, channel, ..., param], maps[0, 2 * channel + param])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvEncoder((28, 28), 4), r"\(channels, height, width\), got \(28, 28\)"),
        (lambda: ConvDecoder(4, (28, 28)), r"\(channels, height, width\), got \(28, 28\)"),
        (lambda: ConvEncoder((1, 28, 30), 4), "4 divides.*28 x 30"),
        (lambda: ConvDecoder(4, (1, 30, 28)), "4 divides.*30 x 28"),
        (lambda: ConvEncoder((1, 28, 28), 4, channels=()), "one entry for each"),
        (lambda: ConvDecoder(4, (1, 28, 28), channels=()), "one entry for each"),
        (
            lambda: ConvDecoder(4, (1, 28, 28), upsampling="nearest"),  # type: ignore[arg-type]
            '"transposed" or "unpool"',
        ),
        (lambda: ConvEncoder((1, 8, 8), 4)(torch.zeros(2, 1, 28, 28)), r"\(N, 1, 8, 8\)"),
        (lambda: ConvEncoder((1, 8, 8), 4)(torch.zeros(1, 8, 8)), r"\(N, 1, 8, 8\)"),
        (lambda: ConvDecoder(4, (1, 8, 8))(torch.zeros(2, 5)), r"\(N, 4\), got \(2, 5\)"),
        (
            lambda: ConvEncoder((1, 8, 8), 4, context_dim=3)(torch.zeros(2, 1, 8, 8)),
            "context with 3 dimensions, got 0",
        ),
        (
            lambda: ConvDecoder(4, (1, 8, 8))(torch.zeros(2, 4), torch.zeros(2, 3)),
            "context with 0 dimensions, got 3",
        ),
    ],
)
def test_conv_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
