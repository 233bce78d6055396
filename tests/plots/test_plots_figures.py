# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""What holds of every picture: a title, labelled axes, legible text that does not overlap."""

import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

from pyro_deepgen import plots

TITLE = "A title that is too long for one line of the narrowest of these figures"


def decode(z: Tensor) -> Tensor:
    return torch.rand(len(z), 1, 8, 8)


def draw_manifold(num_values: int) -> Figure:
    codes, values = plots.manifold_codes(num_values)
    return plots.manifold(decode(codes), values, title=TITLE)


def draw_traversal() -> Figure:
    values = torch.linspace(-3, 3, 11)
    codes = plots.traversal_codes(torch.zeros(20), values, dims=[0, 9, 19])
    return plots.traversal(decode(codes), values, dims=[0, 9, 19], title=TITLE)


def gaussian(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(-1)


LOSSES = SimpleNamespace(
    train=[100.0 / n for n in range(1, 41)], held_out=[101.0 / n for n in range(1, 41)]
)
SQUARE = ((-3.0, 3.0), (-3.0, 3.0))
# Name -> picture, whether its axes have labels, number of panels.
FIGURES: dict[str, tuple[Callable[[], Figure], bool, int]] = {
    "one image": (lambda: plots.image_grid(torch.rand(1, 8, 8), title=TITLE), False, 1),
    "labelled grid": (
        lambda: plots.image_grid(
            torch.rand(7, 28, 28), 3, TITLE, row_labels=["a", "a long label of a row", "c"]
        ),
        False,
        1,
    ),
    "sample_grid": (lambda: plots.sample_grid(torch.rand(64, 3, 8, 8), TITLE), False, 1),
    "two reconstructions": (
        lambda: plots.reconstructions(torch.rand(2, 8, 8), torch.rand(2, 8, 8), TITLE),
        False,
        1,
    ),
    "reconstructions": (
        lambda: plots.reconstructions(torch.rand(17, 1, 8, 8), torch.rand(17, 1, 8, 8), TITLE),
        False,
        1,
    ),
    "nearest_neighbors": (
        lambda: plots.nearest_neighbors(torch.rand(4, 28, 20), torch.rand(30, 28, 20), title=TITLE),
        False,
        1,
    ),
    "latent_sizes": (
        lambda: plots.latent_sizes({d: torch.rand(24, 1, 8, 8) for d in (1, 2, 5, 50)}, TITLE),
        False,
        4,
    ),
    "latent_map": (
        lambda: plots.latent_map(torch.randn(200, 2), torch.arange(200) % 10, TITLE),
        True,
        1,
    ),
    "latent_map of 20 classes": (
        lambda: plots.latent_map(
            torch.randn(200, 2), torch.arange(200) % 20, TITLE, [f"class {c}" for c in range(20)]
        ),
        True,
        1,
    ),
    "traversal": (draw_traversal, True, 1),
    "manifold": (lambda: draw_manifold(20), True, 1),
    "small manifold": (lambda: draw_manifold(3), True, 1),
    "history": (lambda: plots.history(LOSSES, TITLE), True, 1),
    # The second panel is the bar of colours.
    "density": (lambda: plots.density(gaussian, SQUARE, torch.randn(50, 2), TITLE), True, 2),
    "tall density": (lambda: plots.density(gaussian, ((-1, 1), (-3, 9)), title=TITLE), True, 2),
    "density_grid": (
        lambda: plots.density_grid(
            [[gaussian] * 7] * 4,
            [SQUARE] * 4,
            ["$U_1$"] * 4,
            ["target", "a long label"] * 3 + ["b"],
            TITLE,
        ),
        False,
        28,
    ),
    "one density of a grid": (
        lambda: plots.density_grid([[gaussian]], [SQUARE], ["row"], ["column"], TITLE),
        False,
        1,
    ),
}


def visible_texts(figure: Figure) -> list[Text]:
    figure.draw_without_rendering()
    # Matplotlib makes a tick beyond each end of an axis and does not draw it.
    spare = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in spare
    ]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(figure)]
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


def outside(figure: Figure) -> list[str]:
    edge = figure.bbox
    return [
        text.get_text()
        for text in visible_texts(figure)
        if (box := text.get_window_extent()).x0 < -1
        or box.y0 < -1
        or box.x1 > edge.width + 1
        or box.y1 > edge.height + 1
    ]


@pytest.mark.parametrize("name", FIGURES)
def test_title_labels_and_legible_text(name):
    draw, has_labels, num_panels = FIGURES[name]
    figure = draw()
    assert isinstance(figure, Figure)
    assert figure.get_suptitle().replace("\n", " ") == TITLE
    assert len(figure.axes) == num_panels
    if has_labels:
        assert figure.axes[0].get_xlabel()
        assert figure.axes[0].get_ylabel()
    assert min(text.get_fontsize() for text in visible_texts(figure)) >= 8
    assert overlaps(figure) == []
    assert outside(figure) == []


def test_overlap_and_overflow_are_found():
    figure = FIGURES["traversal"][0]()
    figure.axes[0].set_xticklabels(["a long label"] * 11)
    assert overlaps(figure)
    figure.text(0.9, 0.5, "this does not end within the figure")
    assert "this does not end within the figure" in outside(figure)


def test_every_figure_function_is_in_the_table():
    not_figures = {"Losses", "manifold_codes", "nearest", "traversal_codes"}
    drawn = " ".join(FIGURES)
    for name in set(plots.__all__) - not_figures - {"image_grid"}:
        assert name in drawn, name


@pytest.mark.parametrize("name", ["sample_grid", "density"])
def test_a_figure_saves_and_shows_without_a_display(name):
    figure = FIGURES[name][0]()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_no_global_state():
    # A notebook of many pictures would keep every figure of pyplot alive.
    code = (
        "import sys, torch, pyro_deepgen.plots as plots; plots.sample_grid(torch.rand(4, 8, 8));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    settings = dict(matplotlib.rcParams)
    subprocess.run([sys.executable, "-c", code], check=True)
    FIGURES["history"][0]()
    assert dict(matplotlib.rcParams) == settings


def test_without_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("pyro_deepgen.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install pyro_deepgen\[plot\]"):
        __import__("pyro_deepgen.plots")
