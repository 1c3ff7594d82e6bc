"""The figures of an ablation: which cells share a panel, what is drawn, and that nothing overlaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from inference_marl.analysis.levels import groups
from inference_marl.analysis.plots import ablation_curves, elbo_bars
from tests import run_folder

GRID = {
    f"{temperature}-{variant}": {"temperature": temperature, "variant": variant}
    for temperature in ("high", "low")
    for variant in ("full", "no_kl", "empirical")
}
FIRST = {"variant": "full", "critic": "random"}
ONE_AT_A_TIME = {
    "reference": FIRST,
    "no_kl": FIRST | {"variant": "no_kl"},
    "empirical": FIRST | {"variant": "empirical"},
    "optimistic": FIRST | {"critic": "optimistic"},
}


def test_panels_of_a_grid_differ_in_the_last_factor_only() -> None:
    assert groups(GRID) == {
        f"temperature: {temperature}": {f"{temperature}-{level}": level for level in ("full", "no_kl", "empirical")}
        for temperature in ("high", "low")
    }
    assert groups({"a": {"arm": "a"}, "b": {"arm": "b"}}) == {"": {"a": "a", "b": "b"}}


def test_panels_of_other_designs_are_a_factor_each() -> None:
    expected = {
        "variant": {"reference": "reference", "no_kl": "no_kl", "empirical": "empirical"},
        "critic": {"reference": "reference", "optimistic": "optimistic"},
    }
    assert groups(ONE_AT_A_TIME) == expected
    both = {**ONE_AT_A_TIME, "both": {"variant": "no_kl", "critic": "optimistic"}}
    assert groups(both) == {**expected, "several changes": {"reference": "reference", "both": "no_kl + optimistic"}}


def metrics_of(levels: dict[str, dict[str, str]], steps: int = 12, **absent: None) -> xr.Dataset:
    """Metrics whose numbers say which cell they are of: the ELBO of cell `i` is `3 i - 1 - 2`."""
    count = len(levels)
    one = np.ones((count, 4, steps, 2)) * np.arange(count)[:, None, None, None]
    data: dict[str, Any] = {
        "reward": one + np.random.default_rng(0).normal(0, 0.3, one.shape),
        "elbo_reward": 3 * one,
        "elbo_entropy": 0 * one - 1,
        "elbo_kl": 0 * one + 2,
        "elbo": 3 * one - 3,
        "elbo_gap": 0 * one + 0.5,
    }
    data["joint_optimum_probability"] = 0 * one[..., 0] + 0.5
    here = {name: values for name, values in data.items() if name not in absent}
    settings = {"game": "a game", "steps_per_episode": steps}
    return run_folder.metrics_dataset(here, np.arange(1, steps + 1), list(levels), **settings)


def visible(figure: Figure) -> list[Any]:
    return [axis for axis in figure.axes if axis.get_visible()]


@pytest.mark.parametrize(("levels", "panels"), [(GRID, 2), (ONE_AT_A_TIME, 2)])
def test_curves_of_every_cell_are_drawn(levels: dict[str, dict[str, str]], panels: int) -> None:
    metrics = metrics_of(levels)
    axes = visible(ablation_curves(metrics, levels))
    assert len(axes) == 2 * panels
    expected = [cell for cells in groups(levels).values() for cell in cells]
    for axis, cells in zip(axes[:panels], groups(levels).values(), strict=True):
        assert len(axis.lines) == len(cells)
        for line, cell in zip(axis.lines, cells, strict=True):
            mean = metrics["reward"].sel(learner=cell).mean(["replicate", "agent"])
            np.testing.assert_allclose(line.get_ydata(), mean)
            assert line.get_label() == groups(levels)[axis.get_title(loc="left")][cell]
    assert sum(len(axis.lines) for axis in axes) == 2 * len(expected)
    for axis in axes:
        seen = {(line.get_color(), str(line.get_linestyle())) for line in axis.lines}
        assert len(seen) == len(axis.lines), "lines of one panel can be told apart"


def test_a_grid_has_one_legend_and_other_designs_one_per_panel() -> None:
    grid = ablation_curves(metrics_of(GRID), GRID)
    assert [text.get_text() for text in grid.legends[0].get_texts()] == ["full", "no_kl", "empirical"]
    other = ablation_curves(metrics_of(ONE_AT_A_TIME), ONE_AT_A_TIME)
    assert not other.legends
    legends = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in other.axes if axis.get_legend()]
    assert legends == [["reference", "no_kl", "empirical"], ["reference", "optimistic"]]


def test_bars_add_up_to_the_elbo() -> None:
    axes = visible(elbo_bars(metrics_of(GRID), GRID))
    assert [[label.get_text() for label in axis.get_yticklabels()] for axis in axes] == [
        ["full", "no_kl", "empirical"]
    ] * 2
    for i, cell in enumerate(GRID):
        axis, y = axes[i // 3], i % 3
        value, entropy, divergence = axis.patches[y::3]
        assert (value.get_x(), value.get_width()) == pytest.approx((0, 3 * i)), cell
        assert (entropy.get_x(), entropy.get_width()) == pytest.approx((3 * i, -1))
        assert (divergence.get_x(), divergence.get_width()) == pytest.approx((3 * i - 1, -2))
        elbo, evidence = (line.get_xdata()[y] for line in axis.lines if line.get_linestyle() == "None")
        assert elbo == divergence.get_x() + divergence.get_width() == 3 * i - 3
        assert evidence == 3 * i - 2.5


def test_a_range_of_bars_shows_the_small_ones() -> None:
    """Cells reach `3 i`; the last one 300, a hundred times as far as the smallest that is not 0."""
    levels = {str(i): {"kind": str(i)} for i in range(4)}
    metrics = metrics_of(levels)
    for name in ("elbo_reward", "elbo", "elbo_gap"):
        metrics[name][3] = 300 if name != "elbo_gap" else 0
    (axis,) = visible(elbo_bars(metrics, levels))
    assert axis.get_xlim() == pytest.approx((-3 - 0.03 * 9, 6 + 0.03 * 9))
    assert "beyond the axis: ELBO of 3 300.0" in [text.get_text() for text in axis.texts]
    metrics[{"learner": 3}] = metrics.isel(learner=2)
    (axis,) = visible(elbo_bars(metrics, levels))
    assert not [text for text in axis.texts if text.get_text()]


def test_every_panel_of_bars_has_its_own_range() -> None:
    metrics = metrics_of(GRID)
    far = metrics["learner"].str.startswith("low")
    metrics["elbo_reward"] = metrics["elbo_reward"].where(~far, 1000.0)
    high, low = visible(elbo_bars(metrics, GRID))
    assert high.get_xlim()[1] < 10
    assert low.get_xlim()[1] > 1000


def test_cells_without_an_elbo_or_without_results_are_left_out_of_the_figures() -> None:
    metrics = metrics_of(GRID).drop_sel(learner="high-no_kl")
    lacking = metrics["learner"] == "low-full"
    metrics = metrics.assign({name: metrics[name].where(~lacking) for name in metrics if str(name).startswith("elbo")})
    assert len(ablation_curves(metrics, GRID).axes[0].lines) == 3, "the legend still has all"
    axes = visible(elbo_bars(metrics, GRID))
    assert [len(axis.patches) for axis in axes] == [6, 6]
    assert not [line for line in axes[0].lines if len(line.get_xdata()) == 0]


@pytest.mark.parametrize("cells", [7, 14, 20])
def test_nothing_overlaps_or_is_cut_off(cells: int) -> None:
    """Texts of a figure stay apart and inside, also with many cells of long names."""
    variants = ["full", "empirical_guide", "uniform_prior", "no_kl_at_all", "fixed_uniform", "no_warmup", "fast_target"]
    levels = {
        f"{i}": {"values": f"kind_{i // 7}", "variant": variants[i % 7]} for i in range(cells)
    }  # 20 of 21: no grid any more
    metrics = metrics_of(levels)
    for figure in (ablation_curves(metrics, levels), elbo_bars(metrics, levels)):
        figure.draw_without_rendering()
        legends = [*figure.legends, *(axis.get_legend() for axis in visible(figure) if axis.get_legend())]
        texts = [text for legend in legends for text in legend.get_texts()]
        for axis in visible(figure):
            low, high = sorted(axis.get_ylim())
            ticks = [text for text in axis.get_yticklabels() if low <= text.get_position()[1] <= high]
            texts += [axis.title, axis._left_title, *ticks, axis.xaxis.label, axis.yaxis.label]
        boxes = [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]
        for i, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.width
            assert box.y1 <= figure.bbox.height
            for other in boxes[i + 1 :]:
                assert not box.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9))
