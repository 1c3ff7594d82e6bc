"""Heat maps: numbers and colours of the cells, and that nothing is cut off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from inference_marl.analysis.plots.heat_map import heat_map


def means(rows: list[str], columns: list[str], numbers: list[list[float | None]]) -> pd.DataFrame:
    return pd.DataFrame(
        np.array(numbers, dtype=float), pd.Index(rows, name="learner"), pd.Index(columns, name="opponent")
    )


def texts(axis: Axes, columns: int) -> list[list[str]]:
    found = [text.get_text() for text in axis.texts]
    return [found[i : i + columns] for i in range(0, len(found), columns)]


def shades(axis: Axes) -> np.ma.MaskedArray[Any, Any]:
    (picture,) = axis.images
    values: np.ma.MaskedArray[Any, Any] = np.ma.asarray(picture.get_array())
    return values


def test_every_cell_has_its_number_and_its_shade() -> None:
    shown = means(["a", "b"], ["a", "b", "c"], [[1.0, -0.5, 3.0], [None, 2.0, 0.25]])
    axis = heat_map(shown, "reward per step", "a note", (-1.0, 3.0), {("b", "a")}).axes[0]
    assert texts(axis, 3) == [["1.00", "-0.50", "3.00"], ["failed", "2.00", "0.25"]]
    np.testing.assert_allclose(shades(axis).filled(-1), [[0.5, 0.125, 1], [-1, 0.75, 0.3125]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b", "c"]
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("learner", "opponent")


def test_without_limits_every_column_has_its_own_colours() -> None:
    shown = means(["a", "b", "c"], ["x", "y", "z"], [[0.0, 100.0, None], [1.0, 300.0, None], [2.0, 200.0, None]])
    figure = heat_map(shown, "reward per step", "games")
    np.testing.assert_allclose(
        shades(figure.axes[0]).filled(-1), [[0, 1 / 3, -1], [0.5, 1, -1], [1, 2 / 3, -1]], err_msg="from 0 on"
    )
    assert texts(figure.axes[0], 3)[0] == ["0.00", "100.0", "-"]
    assert len(figure.axes) == 1, "no colour bar"
    assert figure.get_suptitle() == "reward per step\ngames; every column has its own range of colours"
    below = means(["a", "b"], ["x"], [[-4.0], [-2.0]])
    np.testing.assert_allclose(shades(heat_map(below, "").axes[0]).filled(-1), [[0], [1]])


def test_columns_that_sum_up_the_others_are_set_apart() -> None:
    axis = heat_map(means(["a"], ["all", "b", "c"], [[1.0, 2.0, 3.0]]), "", "", (0.0, 3.0), apart=1).axes[0]
    assert [line.get_linewidth() for line in axis.lines] == [6, 1]


@pytest.mark.parametrize("count", [1, 3, 10])
@pytest.mark.parametrize("name", ["a", "a_learner_with_a_long_name"])
def test_nothing_is_cut_off_and_names_do_not_meet(count: int, name: str) -> None:
    names = [f"{name}_{i}" for i in range(count)]
    shown = means(names, ["all opponents", *names], [[-20.123] * (count + 1)] * count)
    figure = heat_map(shown, "reward per step", "a note on what is played and for how long", (-21.0, 0.0), apart=1)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    width, height = figure.get_size_inches() * figure.dpi
    axis = figure.axes[0]
    bar = figure.axes[1]
    labels = [*axis.get_xticklabels(), *axis.get_yticklabels(), axis.xaxis.label, axis.yaxis.label]
    for text in [*axis.texts, *labels, *bar.get_yticklabels(), bar.yaxis.label, *figure.texts]:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    cell = axis.get_window_extent(renderer).width / (count + 1)
    assert max(text.get_window_extent(renderer).width for text in axis.texts) < cell
