# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Paths and directions in the latent space of affine flows, where they are known."""

from collections.abc import Callable
from math import cos, pi, sin
from typing import Any

import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.distributions import (
    FlowDistribution,
    attribute_direction,
    interpolate,
    latent_path,
    manipulate,
)
from pyro_deepgen.transforms import CholeskyAffine, Logit, glow, real_nvp
from tests.distributions.flows import LOC, TRIL, affine_flow, standard_normal

pytestmark = pytest.mark.usefixtures("float64")


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected.expand_as(found), rtol=0, atol=1e-10)


def to_data(x: torch.Tensor) -> torch.Tensor:
    """Map latent points as the affine flow of these tests does, by hand."""
    return LOC + x @ TRIL.T


# ---------------------------------------------------------------- paths of latent points


@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
@pytest.mark.parametrize("angle", [1e-9, 1e-3, 0.7, 0.5 * pi, 3.0])
def test_a_great_circle_in_the_plane_has_even_angles_and_lengths(
    batch: tuple[int, ...], angle: float
) -> None:
    center = torch.tensor([0.3, -2.0])
    start = (center + torch.tensor([2.0, 0.0])).expand(*batch, 2)
    end = (center + torch.tensor([cos(angle), sin(angle)])).expand(*batch, 2)
    found = latent_path(start, end, 7, "great_circle", center=center)
    t = torch.linspace(0, 1, 7)
    radius = 2 - t
    expected = torch.stack([radius * (t * angle).cos(), radius * (t * angle).sin()], -1) + center
    assert found.shape == (7, *batch, 2)
    close(found, expected.reshape(7, *(1,) * len(batch), 2))


def test_the_great_circle_keeps_the_length_and_the_line_does_not() -> None:
    start, end = torch.randn(2, 50, 300).unbind()
    start, end = (x / x.norm(dim=-1, keepdim=True) for x in (start, end))
    circle, line = (latent_path(start, end, 9, path) for path in ("great_circle", "linear"))
    close(circle.norm(dim=-1), torch.tensor(1.0))
    close(line[4], (start + end) / 2)
    assert line[4].norm(dim=-1).max() < 0.9
    for path in (circle, line):
        close(path[[0, -1]], torch.stack([start, end]))
    # Every point of the circle lies in the plane of its ends.
    frame = torch.linalg.qr(torch.stack([start, end], -1))[0]
    close(torch.einsum("nde,nfe,tnf->tnd", frame, frame, circle), circle)


def test_an_event_of_several_dimensions_turns_as_one() -> None:
    start, end = torch.randn(2, 5, 3, 4, 4).unbind()
    whole = latent_path(start, end, 6, "great_circle", event_dim=3)
    close(whole.flatten(2), latent_path(start.flatten(1), end.flatten(1), 6, "great_circle"))
    numbers = latent_path(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), 3, event_dim=0)
    close(numbers, torch.tensor([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]))


def test_paths_carry_gradients_even_between_equal_ends() -> None:
    ends = torch.randn(2, 3, 4)
    assert torch.autograd.gradcheck(
        lambda a, b: latent_path(a, b, 5, "great_circle"),
        (ends[0].requires_grad_(), ends[1].requires_grad_()),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num": 1}, "at least 2 points.*num=1"),
        ({"num": 2.0}, "at least 2 points"),
        ({"path": "circle"}, "'linear' or 'great_circle', got 'circle'"),
        ({"event_dim": 2}, "event_dim from 0 to the 1 dimensions"),
        ({"start": torch.zeros(2)}, "is the centre: take path='linear'"),
        ({"end": torch.tensor([-3.0, 0.0])}, "got opposite ones"),
    ],
)
def test_what_is_no_path_is_refused(change: dict[str, Any], message: str) -> None:
    given = {
        "start": torch.tensor([1.0, 0.0]),
        "end": torch.tensor([0.0, 1.0]),
        "num": 3,
        "path": "great_circle",
    }
    with pytest.raises(ValueError, match=message):
        latent_path(**{**given, **change})


# ---------------------------------------------------------------- between data


def test_the_line_of_an_affine_flow_is_a_line_of_the_data() -> None:
    start, end = torch.randn(2, 5, 3).unbind()
    found = interpolate(affine_flow(), start, end, 4)
    close(found, torch.stack([start, (2 * start + end) / 3, (start + 2 * end) / 3, end]))


def test_the_great_circle_of_an_affine_flow_is_an_ellipse_of_the_data() -> None:
    x0, x1 = torch.eye(3)[:2]
    found = interpolate(affine_flow(), to_data(x0), to_data(x1), 5, "great_circle")
    t = torch.linspace(0, pi / 2, 5).unsqueeze(-1)
    close(found, to_data(t.cos() * x0 + t.sin() * x1))
    # About the mean of the base, wherever that is.
    moved = FlowDistribution(
        dist.Normal(torch.tensor([1.0, 1.0, 0.0]), torch.ones(3)).to_event(1),
        CholeskyAffine(3, loc=LOC, scale_tril=TRIL),
    )
    x = torch.tensor([1.0, 1.0, 0.0])
    found = interpolate(moved, to_data(x + x0), to_data(x + x1), 5, "great_circle")
    close(found, to_data(x + t.cos() * x0 + t.sin() * x1))


def test_a_base_without_events_turns_about_its_mean_too() -> None:
    joined = FlowDistribution(
        dist.Normal(torch.zeros(3), torch.ones(3)), CholeskyAffine(3, loc=LOC, scale_tril=TRIL)
    )
    start, end = torch.randn(2, 5, 3).unbind()
    for path in ("linear", "great_circle"):
        close(
            interpolate(joined, start, end, 5, path),
            interpolate(affine_flow(), start, end, 5, path),
        )
    # All coordinates of an outer event turn together.
    outer = FlowDistribution(
        dist.Normal(torch.zeros(2, 3), torch.ones(2, 3)).to_event(2),
        CholeskyAffine(3, loc=LOC, scale_tril=TRIL),
    )
    x0, x1 = torch.randn(2, 2, 3).unbind()
    found = interpolate(outer, to_data(x0), to_data(x1), 5, "great_circle")
    close(found, to_data(latent_path(x0, x1, 5, "great_circle", event_dim=2)))


def image_flow(context_dim: int = 0) -> FlowDistribution:
    flow = glow((1, 4, 4), 2, 2, hidden_channels=4, context_dim=context_dim)
    made = FlowDistribution(standard_normal(16), [flow, Logit()]).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("path", ["linear", "great_circle"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_images_between_images_end_in_them(path: Any, batch: tuple[int, ...]) -> None:
    start, end = torch.rand(2, *batch, 1, 4, 4).unbind()
    found = interpolate(image_flow(), start, end, 5, path)
    assert found.shape == (5, *batch, 1, 4, 4)
    torch.testing.assert_close(found[0], start, rtol=0, atol=1e-7)
    torch.testing.assert_close(found[-1], end, rtol=0, atol=1e-7)
    assert found.min() > 0
    assert found.max() < 1


def test_each_context_has_its_own_path() -> None:
    flow, contexts = image_flow(context_dim=2), torch.eye(2)
    start, end = torch.rand(2, 2, 1, 4, 4).unbind()
    both = interpolate(flow.condition(contexts), start, end, 5, "great_circle")
    for i in range(2):
        one = interpolate(flow.condition(contexts[i]), start[i], end[i], 5, "great_circle")
        torch.testing.assert_close(both[:, i], one, rtol=0, atol=1e-7)
    assert (
        both[2] - interpolate(flow.condition(contexts.flip(0)), start, end, 5)[2]
    ).abs().max() > 0
    with pytest.raises(ValueError, match="context"):
        interpolate(flow, start, end, 5)


def test_a_base_without_a_mean_has_lines_only() -> None:
    class Meanless(dist.Normal):
        @property
        def mean(self) -> torch.Tensor:
            raise NotImplementedError

    flow = FlowDistribution(Meanless(torch.zeros(2), torch.ones(2)).to_event(1), real_nvp(2))
    ends = torch.randn(2, 2).unbind()
    assert interpolate(flow, *ends, 3).shape == (3, 2)
    with pytest.raises(ValueError, match="has none: take path='linear'"):
        interpolate(flow, *ends, 3, "great_circle")


# ---------------------------------------------------------------- attributes


def test_the_direction_of_an_affine_flow_is_the_whitened_difference_of_the_means() -> None:
    flow, old, young = affine_flow(), torch.randn(7, 3), torch.randn(4, 3) + 2
    direction = attribute_direction(flow, old, young)
    difference = old.mean(0) - young.mean(0)
    close(direction, torch.linalg.solve(TRIL, difference))
    data = torch.randn(2, 5, 3)
    moved = manipulate(flow, data, direction, [0.0, 1.0, -0.5])
    close(moved, torch.stack([data, data + difference, data - 0.5 * difference]))
    close(attribute_direction(flow, young, old), -direction)


def test_a_direction_of_its_own_for_each_flow_of_a_batch() -> None:
    flow, old, young = affine_flow().expand((2,)), torch.randn(7, 2, 3), torch.randn(4, 2, 3)
    direction = attribute_direction(flow, old, young)
    for i in range(2):
        close(direction[i], attribute_direction(affine_flow(), old[:, i], young[:, i]))
    moved = manipulate(flow, torch.zeros(2, 3), direction, torch.tensor([1.0]))
    close(moved[0], old.mean(0) - young.mean(0))


def test_the_direction_of_images_is_flat_and_turns_one_set_into_the_other_on_average() -> None:
    flow = image_flow()
    dark, bright = 0.2 * torch.rand(2, 30, 1, 4, 4) + torch.tensor([0.1, 0.7]).reshape(
        2, 1, 1, 1, 1
    )
    direction = attribute_direction(flow, bright, dark)
    assert direction.shape == (16,)
    moved = manipulate(flow, dark, direction, [1.0])[0]
    latents = [flow.transform.inverse_and_log_det(y)[0].mean(0) for y in (moved, bright)]
    torch.testing.assert_close(*latents, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, y: attribute_direction(f, y[0], y), "with_attribute one datum or more.*N, 3"),
        (lambda f, y: attribute_direction(f, y, y[:0]), r"without one datum or more.*\(0, 3\)"),
        (lambda f, y: attribute_direction(f, y, y[:, :2]), "last dimensions are"),
        (lambda f, y: manipulate(f, y, y[0], []), r"shape \(num,\) with num of 1 or more"),
        (lambda f, y: manipulate(f, y, y[0], 1.0), r"shape \(num,\)"),
        (lambda f, y: manipulate(f, y, y[0, :1], [1.0]), r"direction whose last dimensions"),
        (lambda f, y: interpolate(f, y[:, :2], y, 3), "last dimensions are"),
    ],
)
def test_what_does_not_fit_is_refused(
    call: Callable[[FlowDistribution, torch.Tensor], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(affine_flow(), torch.randn(5, 3))
