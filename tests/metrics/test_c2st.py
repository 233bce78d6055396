# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The classifier two-sample test against accuracies that are known."""

import math
import sys
from typing import Any

import pytest
import torch

from pyro_deepgen.metrics import c2st


def accuracy_at(distance: float) -> float:
    """The best accuracy for two normal distributions at a distance, in standard deviations."""
    return 0.5 * (1 + math.erf(distance / 2 / math.sqrt(2)))


def standard_error(accuracy: float, num: int) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / (2 * num))


def test_equal_laws_are_told_apart_by_chance(device: torch.device) -> None:
    num = 1000
    x, y = torch.randn(2, num, 3, device=device)
    found = c2st(x, y)
    assert found.device.type == device.type
    assert found.dim() == 0
    assert (found - 0.5).abs() < 4 * standard_error(0.5, num)


def test_disjoint_laws_are_told_apart(device: torch.device) -> None:
    x, y = torch.rand(2, 500, 2, device=device)
    assert c2st(x, y + 1.5) == 1


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_a_known_shift_has_the_best_accuracy(distance: float, float64: torch.dtype) -> None:
    """The unit of the data does not matter."""
    num, dim = 2000, 3
    x = torch.randn(num, dim)
    y = torch.randn(num, dim) + distance / dim**0.5
    best = accuracy_at(distance)
    found = float(c2st(1e3 * x, 1e3 * y))
    # A network trained on 1.4e3 data of each loses a little: half a percent is allowed.
    assert abs(found - best) < 4 * standard_error(best, num) + 0.005


def test_laws_of_equal_moments_are_told_apart() -> None:
    """Two coins at +-1 and a normal distribution; the best rule is right up to the coins' width."""
    coins = (2.0 * torch.randint(0, 2, (1000, 1)) - 1) + 0.1 * torch.randn(1000, 1)
    assert c2st(torch.randn(1000, 1) * 1.01**0.5, coins) > 0.75


def test_a_network_is_not_asked_for_the_data_that_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: what was learnt by heart is told apart."""

    def repeated() -> tuple[float, float]:
        torch.manual_seed(0)
        found = [float(c2st(*torch.randn(2, 50, 20), seed=seed)) for seed in range(6)]
        return sum(found) / 6, 4 * standard_error(0.5, 6 * 50)

    found, tolerance = repeated()
    assert abs(found - 0.5) < tolerance
    module = sys.modules[c2st.__module__]
    train = module._train

    def with_its_own_fold(networks: Any, data: Any, target: Any, folds: Any, *others: Any) -> None:
        train(networks, data, target, [*folds[1:], folds[0]], *others)

    monkeypatch.setattr(module, "_train", with_its_own_fold)
    found, tolerance = repeated()
    assert found > 0.5 + tolerance


def test_the_seed_decides_and_the_global_streams_stay() -> None:
    x, y = torch.randn(200, 2), torch.randn(200, 2) + 0.5
    before = torch.get_rng_state()
    first = c2st(x, y, seed=1, max_epochs=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    with torch.no_grad():
        assert c2st(x, y, seed=1, max_epochs=3) == first
    assert any(c2st(x, y, seed=s, max_epochs=3) != first for s in (2, 3, 4))


def test_numbers_images_and_constants() -> None:
    x = torch.randn(60)
    assert c2st(x, x + 8) == 1
    images = torch.zeros(60, 1, 2, 2)
    assert c2st(images, images, max_epochs=2) <= 0.6
    assert c2st(images, images + 1) == 1


def test_gradients_of_the_samples_are_not_followed() -> None:
    x = torch.randn(50, 2, requires_grad=True)
    assert not c2st(x, torch.randn(50, 2), max_epochs=1).requires_grad


def test_the_figure_is_that_of_another_library() -> None:
    """The benchmark's classifier, which stops by its training loss."""
    neural = pytest.importorskip("sklearn.neural_network")
    selection = pytest.importorskip("sklearn.model_selection")
    num = 500
    x = torch.randn(num, 2)
    y = torch.randn(num, 2) * torch.tensor([1.0, 0.5]) + torch.tensor([0.5, 0.0])
    ours = float(c2st(x, y))
    data = ((torch.cat([x, y]) - x.mean(0)) / x.std(0)).numpy()
    target = torch.arange(2).repeat_interleave(num).numpy()
    classifier = neural.MLPClassifier((20, 20), max_iter=200, random_state=1)
    folds = selection.KFold(5, shuffle=True, random_state=1)
    theirs = selection.cross_val_score(classifier, data, target, cv=folds).mean()
    # The same data, so that most of the noise is shared.
    assert abs(ours - theirs) < 2 * standard_error(theirs, num)


@pytest.mark.parametrize(
    ("x", "y", "options", "said"),
    [
        (torch.zeros(9, 2), torch.zeros(8, 2), {}, "the same shape.*leave some out"),
        (torch.zeros(9, 2), torch.zeros(9, 3), {}, "the same shape"),
        (torch.zeros(4, 2), torch.zeros(4, 2), {}, "got 5 folds and 4 data"),
        (torch.zeros(4, 2), torch.zeros(4, 2), {"num_folds": 1}, "2 folds or more"),
        (torch.zeros(9, 2), torch.full((9, 2), torch.nan), {}, "expected finite samples"),
        (torch.zeros(9, 2), torch.zeros(9, 2, dtype=torch.int64), {}, "floating-point"),
    ],
)
def test_wrong_samples_are_refused(
    x: torch.Tensor, y: torch.Tensor, options: dict[str, int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        c2st(x, y, **options)
