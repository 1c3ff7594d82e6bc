from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from scipy import stats

from inference_marl.analysis import plots
from inference_marl.analysis.plots import writing
from inference_marl.analysis.plots.drawing import looks, readable_limits, settled, time_axis
from inference_marl.analysis.plots.opponents import histogram
from inference_marl.described import InspectError
from inference_marl.statistics.quantities import movement
from inference_marl.types import Metric
from tests import run_folder

DISCRETE = run_folder.discrete()
CONTINUOUS = run_folder.continuous()


def several_states(count: int = 3) -> xr.Dataset:
    """The discrete beliefs in several states, with types of the opponents."""
    posterior = DISCRETE["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    wide = xr.concat([posterior] * count, dim="state").assign_coords(state=[f"after {i}" for i in range(count)])
    wide = wide.assign_attrs({**DISCRETE["metrics"].attrs, **posterior.attrs})
    return wide.assign(opponent_type=wide["opponent_model"].rename(opponent_action="type"))


MANY = several_states()
FIGURES = {
    "learning_curves": lambda: plots.learning_curves(DISCRETE["metrics"]),
    "learning_curves of one": lambda: plots.learning_curves(CONTINUOUS["metrics"].sel(learner=["wolf_phc"])),
    "elbo_parts": lambda: plots.elbo_parts(DISCRETE["metrics"]),
    "elbo_parts of one": lambda: plots.elbo_parts(CONTINUOUS["metrics"]),
    "elbo_parts of four": lambda: plots.elbo_parts(all_with_elbo(DISCRETE["metrics"])),
    "adaptation": lambda: plots.adaptation(run_folder.of_trials()),
    "adaptation of many": lambda: plots.adaptation(run_folder.of_trials(3, list("abcde"), 14)),
    "adaptation of one": lambda: plots.adaptation(run_folder.of_trials(1, [""], 1)),
    "beliefs": lambda: plots.beliefs(DISCRETE["posterior"]),
    "beliefs of one": lambda: plots.beliefs(DISCRETE["posterior"], learners=["rommeo_q"], replicate=3),
    "beliefs, continuous": lambda: plots.beliefs(CONTINUOUS["posterior"]),
    "opponent_action_bars": lambda: plots.opponent_action_bars(DISCRETE["posterior"]),
    "opponent_action_bars, continuous": lambda: plots.opponent_action_bars(CONTINUOUS["posterior"]),
    "beliefs of three": lambda: plots.beliefs(run_folder.of_three(DISCRETE["posterior"])),
    "opponent_action_bars of three": lambda: plots.opponent_action_bars(run_folder.of_three(DISCRETE["posterior"])),
    "who_believes_what": lambda: plots.who_believes_what(run_folder.of_three(DISCRETE["posterior"])),
    "who_believes_what, continuous": lambda: plots.who_believes_what(run_folder.of_three(CONTINUOUS["posterior"])),
    "beliefs_by_state": lambda: plots.beliefs_by_state(MANY),
    "opponent_types": lambda: plots.opponent_types_over_time(MANY),
    "calibration": lambda: plots.reliability(DISCRETE["posterior"]),
    "calibration, continuous": lambda: plots.reliability(CONTINUOUS["posterior"]),
    "belief_change": lambda: plots.belief_movement(DISCRETE["posterior"]),
    "belief_change, continuous": lambda: plots.belief_movement(CONTINUOUS["posterior"]),
    "belief_change, long names": lambda: plots.belief_movement(long_names(DISCRETE["posterior"])),
    "surface": lambda: plots.surface(CONTINUOUS["surface"], CONTINUOUS["posterior"]),
    "surface of one": lambda: plots.surface(CONTINUOUS["surface"], CONTINUOUS["posterior"], ["rommeo_q"]),
}


@cache
def drawn(name: str) -> Figure:
    """A figure that tests look at only; drawing it leaves no global state."""
    before = dict(mpl.rcParams)
    figure = FIGURES[name]()
    assert dict(mpl.rcParams) == before
    return figure


def long_names(posterior: xr.Dataset) -> xr.Dataset:
    """Seven arms whose names fill a row of the legend each."""
    many = xr.concat([posterior.sel(learner=["rommeo_q"])] * 7, dim="learner", data_vars="minimal")
    return many.assign_coords(
        learner=[f"opponent_prior_{i}, opponent_model_optimal, critic_bayesian" for i in range(7)]
    )


def all_with_elbo(metrics: xr.Dataset) -> xr.Dataset:
    """The metrics of `rommeo_q` under four names, the first records of one beyond any axis."""
    four = xr.concat([metrics.isel(learner=0)] * 4, dim="learner").assign_coords(learner=list("abcd"))
    huge = xr.where((four["learner"] == "b") & (four["step"] < 3), -3000.0, 0.0)
    return four.assign(elbo_entropy=four["elbo_entropy"] + huge)


def visible_texts(figure: Figure) -> dict[str, tuple[float, float, float, float]]:
    """Every text that is drawn, with its left, bottom, right and top in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    hidden: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for location, tick in zip(axis.get_majorticklocs(), axis.get_major_ticks(), strict=False):
                shown = axes.get_visible() and low - 1e-9 <= location <= high + 1e-9
                hidden |= set() if shown and tick.label1.get_visible() else {tick.label1}
                hidden.add(tick.label2)
        if not axes.get_visible():
            hidden |= set(axes.findobj(Text))
    boxes = {}
    for i, text in enumerate(figure.findobj(Text)):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip() and text not in hidden:
            box = text.get_window_extent(renderer)
            boxes[f"{text.get_text()} ({i})"] = (box.x0, box.y0, box.x1, box.y1)
    return boxes


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_texts_do_not_overlap_and_stay_inside(name: str) -> None:
    inside_and_apart(drawn(name))


def inside_and_apart(figure: Figure) -> None:
    texts = visible_texts(figure)
    assert len(texts) > 10
    width, height = figure.bbox.width, figure.bbox.height
    outside = [text for text, (x0, y0, x1, y1) in texts.items() if x0 < 0 or y0 < 0 or x1 > width or y1 > height]
    assert outside == []
    overlapping = [
        (first, second)
        for (first, a), (second, b) in itertools.combinations(texts.items(), 2)
        if min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 1
    ]
    assert overlapping == []


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_labelled(name: str) -> None:
    figure = drawn(name)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert any(axes.get_xlabel() for axes in panels) or figure.get_supxlabel()
    assert any(axes.get_ylabel() for axes in panels)
    assert len(figure.legends) == (0 if name in {"learning_curves of one", "beliefs_by_state"} else 1)


def test_beliefs_show_the_mean_over_replicates_or_one_of_them() -> None:
    posterior = DISCRETE["posterior"]
    model = posterior["opponent_model"].sel(learner="jal", opponent_action="A").isel(state=0, agent=1)
    line = plots.beliefs(posterior).axes[5].lines[0]  # second row, third learner
    assert line.get_ydata() == pytest.approx(model.mean("replicate").to_numpy(), rel=1e-5)
    axes = plots.beliefs(posterior, replicate=4).axes[5]
    assert axes.lines[0].get_ydata() == pytest.approx(model.isel(replicate=4).to_numpy())
    assert not axes.collections  # no band


def test_beliefs_without_an_optimum_follow_the_first_action() -> None:
    posterior = DISCRETE["posterior"].drop_vars("optimal_opponent_action")
    assert plots.beliefs(posterior).axes[0].get_ylabel() == "agent 0\nP(opponent plays A)"


def test_learners_without_an_opponent_model_are_refused() -> None:
    with pytest.raises(InspectError, match="expected some of rommeo_q, rommeo_q_emp, jal"):
        plots.beliefs(DISCRETE["posterior"], learners=["wolf_phc"])
    with pytest.raises(InspectError, match="expected a run in which some learner has one"):
        plots.opponent_action_bars(DISCRETE["posterior"].drop_vars("opponent_model"))
    with pytest.raises(InspectError, match="got no opponent_policy"):
        plots.reliability(DISCRETE["posterior"].drop_vars("opponent_policy"))
    with pytest.raises(InspectError, match="no learner with an ELBO"):
        plots.elbo_parts(CONTINUOUS["metrics"].sel(learner=["wolf_phc"]))


def test_who_believes_what_of_whom() -> None:
    """A panel's bars are the agent's belief about the other one; on the diagonal stands its own policy."""
    posterior = run_folder.of_three(DISCRETE["posterior"])
    posterior["opponent_model"][{"agent": 2, "other": 0}] = [0.1, 0.2, 0.7]
    axes = np.reshape(plots.who_believes_what(posterior, ["rommeo_q"]).axes, (3, 3))
    heights = [[[bar.get_height() for bar in axis.patches] for axis in row] for row in axes]
    assert heights[2][0][:3] == pytest.approx([0.1, 0.2, 0.7])
    last = posterior.sel(learner="rommeo_q").isel(step=-1, state=0).mean("replicate")
    assert heights[0][2][3:6] == pytest.approx(last["opponent_prior"].isel(agent=0, other=2).to_numpy())
    assert heights[1][1] == pytest.approx(last["policy"].isel(agent=1).to_numpy())
    tall = run_folder.of_three(CONTINUOUS["posterior"])
    tall["opponent_policy"] = 0.05 * tall["opponent_policy"]
    for axis in plots.who_believes_what(tall, ["rommeo_q"]).axes:  # the last density is the highest, and is not cut
        assert axis.get_ylim()[1] > max(patch.get_data().values.max() for patch in axis.findobj(StepPatch))
    with pytest.raises(InspectError, match="expected three agents or more"):
        plots.who_believes_what(DISCRETE["posterior"])


def test_bars_are_the_final_means() -> None:
    axes = plots.opponent_action_bars(DISCRETE["posterior"]).axes[0]
    final = DISCRETE["posterior"].isel(step=-1, agent=0, state=0).sel(learner="rommeo_q").mean("replicate")
    heights = [bar.get_height() for bar in axes.patches]
    names = ("opponent_model", "opponent_prior", "opponent_policy")
    assert heights == pytest.approx(np.concatenate([final[name].to_numpy() for name in names]), rel=1e-5)


def test_few_draws_have_few_bins() -> None:
    rng = np.random.default_rng(0)
    density, edges = histogram(rng.normal(0, 3, 64), 20.0)
    assert len(density) == 8
    assert (density * np.diff(edges)).sum() == pytest.approx(1.0)
    many, narrow = histogram(rng.normal(0, 3, 1_000_000), 20.0), histogram(np.full(64, 9.9), 20.0)
    assert len(many[0]) == int(np.ptp(many[1]) / 0.2)
    assert narrow[1] == pytest.approx([9.8, 10.0])


def test_time_is_in_episodes_where_they_have_steps() -> None:
    steps = xr.Dataset(coords={"step": [25, 50, 75]})
    assert time_axis(steps)[1] == "environment step"
    x, label = time_axis(steps.assign_attrs(steps_per_episode=25))
    assert (x.tolist(), label) == ([1, 2, 3], "episode (25 steps each)")
    assert time_axis(steps.assign_attrs(steps_per_episode=75))[1] == "environment step"


def test_axis_limits_ignore_huge_first_records_and_say_so() -> None:
    axes = Figure().subplots()
    calm = np.linspace(-1, 1, 50)
    assert readable_limits(axes, [calm, -calm]) == ""
    assert axes.get_ylim() == pytest.approx((-1.12, 1.12))
    wild = calm.copy()
    wild[:3] = [-4000, -900, 700]
    assert readable_limits(axes, [calm, wild]) == "first records reach -4,000 and 700"
    assert -1.2 < axes.get_ylim()[0] < axes.get_ylim()[1] < 1.2
    late = calm.copy()
    late[-1] = 500.0  # what happens later is never cut off
    assert readable_limits(axes, [late]) == ""
    assert axes.get_ylim()[1] > 500
    assert readable_limits(axes, [np.full(5, np.nan)]) == ""


def test_every_learner_looks_different() -> None:
    found = looks([f"learner {i}" for i in range(48)]).values()
    assert len({(look["color"], str(look["linestyle"])) for look in found}) == 48
    assert len({look["color"] for look in list(found)[:12]}) == 12
    solid, _, dotted, *_ = found
    assert dotted["zorder"] > solid["zorder"], "gaps let what lies below be seen"


def curves_of(*names: str, **data: np.ndarray) -> xr.Dataset:
    """`metrics.nc` of some learners, `learner x replicate x step [x agent]`."""
    records = np.arange(1, next(iter(data.values())).shape[2] + 1)
    return run_folder.metrics_dataset(data, records).assign_coords(learner=list(names))


def test_settled_is_the_first_record_from_which_nothing_moves() -> None:
    falls = np.array([10.0, 5.0, 1.0, 0.1, 0.0])
    assert settled([[falls]]) == 3, "0.1 is within 2 % of 10"
    assert settled([[falls], [np.array([0.0, 0.0, 0.0, 1.0, 1.0])]]) == 3
    assert settled([[falls, np.full(5, np.nan)], [np.full(5, np.nan)]]) == 3
    assert settled([[np.array([0.0, 0.0, 1.0, 1.0, 0.0])]]) == 4
    assert settled([[np.zeros(5)]]) == 0


def test_the_time_axis_ends_where_all_has_long_been_over() -> None:
    reward = np.zeros((1, 2, 100, 2))
    reward[:, :, 20:] = 1.0
    figure = plots.learning_curves(curves_of("a", reward=reward))
    assert figure.axes[0].get_xlim() == (0, 41)
    assert figure.get_suptitle().endswith("; settled by 21, run to 100")
    reward[:, :, 2:] = 1.0
    assert plots.learning_curves(curves_of("a", reward=reward)).axes[0].get_xlim()[1] == 20
    late, still, short = reward.copy(), np.ones_like(reward), reward[:, :, :30]
    late[:, :, 40:] = 0.5
    for values in (late, still, short):
        figure = plots.learning_curves(curves_of("a", reward=values))
        assert figure.axes[0].get_xlim()[1] == values.shape[2]
        assert "settled" not in figure.get_suptitle()


def test_the_exact_return_stands_for_the_reward_where_all_have_it() -> None:
    reward = np.arange(24.0).reshape(2, 2, 3, 2)
    exact = reward + 0.5
    axis = plots.learning_curves(curves_of("a", "b", **{"reward": reward, "return": exact})).axes[0]
    assert axis.get_ylabel() == "exact return, no time limit"
    assert axis.lines[1].get_ydata() == pytest.approx(exact[1].mean((0, 2)))
    exact[1] = np.nan
    figure = plots.learning_curves(curves_of("a", "b", **{"reward": reward, "return": exact}))
    assert [axes.get_ylabel() for axes in figure.axes] == ["reward per step"]


def test_of_a_zero_sum_game_agent_0_is_drawn() -> None:
    reward = np.stack([np.arange(6.0), -np.arange(6.0)], -1).reshape(1, 1, 6, 2)
    axis = plots.learning_curves(curves_of("a", reward=reward)).axes[0]
    assert axis.get_ylabel() == "reward per step (agent 0)"
    assert axis.lines[0].get_ydata() == pytest.approx(np.arange(6.0))


EVALUATED = Metric("evaluation_reward_here", "evaluated: here", dims=("agent",))


def rarely(values: np.ndarray, every: int = 2) -> np.ndarray:
    """Numbers at every so many records, NaN at the others."""
    found = np.full_like(values, np.nan)
    found[:, :, every - 1 :: every] = values[:, :, every - 1 :: every]
    return found


def test_curves_join_the_records_with_a_measurement_and_end_where_a_replicate_diverged() -> None:
    values = rarely(np.random.default_rng(0).normal(size=(2, 3, 8, 2)))
    values[1, 0, 4:] = np.nan  # one replicate from the sixth record on
    data = {"reward": np.zeros((2, 3, 8, 2)), "evaluation_reward": values, "evaluation_reward_here": values}
    metrics = run_folder.metrics_dataset(data, np.arange(1, 9), ["a", "b"], [EVALUATED])
    figure = plots.learning_curves(metrics)
    labels = ["reward per step", "reward per step, evaluated", "evaluated: here"]
    assert [axes.get_ylabel() for axes in figure.axes] == labels
    for axes in figure.axes[1:]:
        whole, ended = axes.lines
        assert whole.get_xdata().tolist() == ended.get_xdata().tolist() == [2, 4, 6, 8]
        assert whole.get_ydata() == pytest.approx(values[0, :, 1::2].mean((0, 2)), rel=1e-5)
        assert np.isfinite(ended.get_ydata()).tolist() == [True, True, False, False]
        (band, ends) = (collection.get_paths()[0].vertices[:, 0] for collection in axes.collections)
        assert (band.min(), band.max(), ends.max()) == (2, 8, 4)


def test_a_single_number_is_a_marker_that_the_time_axis_contains() -> None:
    values = rarely(np.ones((1, 3, 100, 2)) + np.arange(3)[:, None, None], 100)
    metrics = curves_of("a", reward=np.zeros((1, 3, 100, 2)), evaluation_reward=values)
    axes = plots.learning_curves(metrics).axes[1]
    (line,) = axes.lines
    assert (line.get_marker(), line.get_xdata().tolist(), line.get_ydata()) == ("o", [100], pytest.approx([2.0]))
    assert axes.get_xlim()[1] == 100
    (interval,) = axes.collections
    assert interval.get_paths()[0].vertices[:, 0].tolist() == [100, 100]


def test_the_elbo_is_drawn_where_it_is_measured_rarely() -> None:
    run = DISCRETE["metrics"].sel(learner=["rommeo_q"]).isel(step=slice(8))
    measured = run["step"] % 2 == 0
    rare = run.assign({name: run[name].where(measured) for name in run if str(name).startswith("elbo")})
    line = plots.elbo_parts(rare).axes[0].lines[0]
    assert line.get_xdata().tolist() == [2, 4, 6, 8]
    assert np.isfinite(line.get_ydata()).all()


def test_many_panels_are_wrapped_with_labels_below_the_lowest() -> None:
    many = [Metric(f"evaluation_{i}", f"reward per step of each agent, evaluated: no. {i}") for i in range(8)]
    data = {name: rarely(np.random.default_rng(0).normal(size=(2, 3, 8, 2))) for name in (each.name for each in many)}
    metrics = run_folder.metrics_dataset({"reward": np.zeros((2, 3, 8, 2)), **data}, np.arange(1, 9), None, many)
    figure = plots.learning_curves(metrics.isel(learner=[0, 1]))
    assert [axes.get_xlabel() for axes in figure.axes] == [""] * 6 + ["environment step"] * 3
    assert figure.get_figwidth() * writing.DPI < 1600
    inside_and_apart(figure)
    alone = plots.learning_curves(metrics.drop_vars([f"evaluation_{i}" for i in range(3, 8)]))
    assert {axes.get_subplotspec().get_gridspec().ncols for axes in alone.axes} == {4}


def test_paths_are_the_medians_over_replicates_of_mean_actions() -> None:
    """Agent 0's action to the right, and agent 1's, whose model is of agent 0, upwards; so is the surface."""
    posterior, surface = CONTINUOUS["posterior"], CONTINUOUS["surface"]
    axes = plots.surface(surface, posterior, ["rommeo_q"]).axes[0]
    policies, model, start = axes.lines[-4:-1]
    here = posterior.sel(learner="rommeo_q").isel(action_dim=0, opponent_dim=0)
    mean = here[["policy", "opponent_model"]].mean(["draw", "state"]).median("replicate").transpose("step", "agent")
    for line, name, order in ((policies, "policy", [0, 1]), (model, "opponent_model", [1, 0])):
        path = np.stack(line.get_data(), -1)
        np.testing.assert_allclose(path[[0, -1]], mean[name].to_numpy()[[0, -1]][:, order], rtol=1e-6)
    np.testing.assert_array_equal(start.get_xydata()[0], policies.get_xydata()[0])
    ridge = surface.assign(payoff=surface["payoff"] * 0 + surface["action_0"])  # rises to the right
    highest = plots.surface(ridge, posterior, ["rommeo_q"]).axes[0].collections[0].get_paths()[-1].vertices
    assert highest[:, 0].min() > float(surface["action_0"].mean())
    assert np.ptp(highest[:, 1]) == np.ptp(surface["action_1"].to_numpy())


def test_adaptation_is_by_episodes_before() -> None:
    metrics = run_folder.of_trials()
    figure = plots.adaptation(metrics)
    assert [axes.get_title("left") for axes in figure.axes] == ["known", "new"]
    values = np.stack([metrics[f"return_after_{n}_new"].sel(learner="told")[:, -1] for n in (0, 1, 2, 5)], -1)
    line, intervals = figure.axes[1].lines[1], figure.axes[1].collections[1]
    assert line.get_label() == "told"
    assert np.asarray(line.get_xdata()) == pytest.approx([0, 1, 2, 5], abs=0.15)
    assert line.get_ydata() == pytest.approx(values.mean(0))
    half = stats.t.ppf(0.975, 5) * values.std(0, ddof=1) / 6**0.5
    ends = np.array([path.vertices[:, 1] for path in intervals.get_paths()])
    assert ends[:, 0] == pytest.approx(values.mean(0) - half)
    assert ends[:, 1] == pytest.approx(values.mean(0) + half)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1", "2", "5"]


def test_adaptation_is_that_of_the_last_record() -> None:
    metrics = run_folder.of_trials()
    with pytest.raises(InspectError, match=r"^metrics: got no return_after_... at the last record"):
        plots.adaptation(metrics.isel(step=slice(-1)))
    one = metrics.assign(return_after_5_new=metrics["return_after_5_new"].where(metrics["step"] < 0))
    assert [len(axes.lines[0].get_xdata()) for axes in plots.adaptation(one).axes] == [4, 3]
    silent = metrics.where(metrics["learner"] != "told")
    assert {len(axes.lines[1].get_xdata()) for axes in plots.adaptation(silent).axes} == {0}
    alone = plots.adaptation(run_folder.of_trials(1, [""], 1))
    assert alone.axes[0].get_title("left") == ""


def test_returns_by_episodes_are_learning_curves_if_they_were_measured_again() -> None:
    metrics = run_folder.of_trials(2, [""], 2)
    assert len(plots.learning_curves(metrics).axes) == 1
    again = metrics.assign(return_after_5=metrics["return_after_5"].fillna(1.0))
    assert [axes.get_ylabel() for axes in plots.learning_curves(again).axes][1:] == ["return after 5 episodes"]


def names(paths: list[Path]) -> list[str]:
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    return [path.stem for path in paths]


BELIEFS = ["beliefs", "beliefs_replicate_0", "opponent_actions", "calibration", "belief_change"]


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_write_all(tmp_path: Path) -> None:
    def written(name: str, **datasets: xr.Dataset) -> list[str]:
        return names(plots.write_all(run_folder.recorded(tmp_path / name, **datasets)))

    assert written("discrete", **DISCRETE) == ["learning_curves", "elbo_parts", *BELIEFS]
    assert sorted(path.suffix for path in (tmp_path / "discrete" / "figures").iterdir()) == [".png"] * 7
    assert written("continuous", **CONTINUOUS) == ["learning_curves", "elbo_parts", *BELIEFS, "surface"]
    assert written("trials", metrics=run_folder.of_trials()) == ["learning_curves", "adaptation"]
    assert written("bare", metrics=DISCRETE["metrics"].sel(learner=["jal"])) == ["learning_curves"]
    more = written("many", metrics=DISCRETE["metrics"], posterior=MANY)
    assert set(more) == {"learning_curves", "elbo_parts", *BELIEFS, "beliefs_by_state", "opponent_types"}
    there = MANY.assign_attrs(state_counts="environments")
    assert "beliefs_by_state" not in written("there", metrics=DISCRETE["metrics"], posterior=there)


@pytest.mark.slow
@pytest.mark.parametrize("make", [run_folder.discrete, pytest.param(run_folder.continuous, marks=pytest.mark.slow)])
def test_write_all_of_one_replicate_and_one_record(tmp_path: Path, make: type) -> None:
    run = make(1, 5)
    run = {name: data.isel(step=[-1]) if "step" in data.dims else data for name, data in run.items()}
    run = {name: data.sel(learner=["rommeo_q"]) if "learner" in data.dims else data for name, data in run.items()}
    assert names(plots.write_all(run_folder.recorded(tmp_path, **run)))[:3] == [
        "learning_curves",
        "elbo_parts",
        "beliefs",
    ]


def test_figures_of_beliefs_know_of_the_episodes_that_the_metrics_tell_of(tmp_path: Path) -> None:
    run = {**DISCRETE, "metrics": DISCRETE["metrics"].assign_attrs(steps_per_episode=4)}
    assert "steps_per_episode" not in run["posterior"].attrs
    figure = writing._drawn_by(run_folder.recorded(tmp_path, **run))["beliefs"]()
    assert figure.axes[-1].get_xlabel() == "episode (4 steps each)"


def test_many_agents_and_dims_are_cut_to_what_is_legible() -> None:
    posterior = CONTINUOUS["posterior"].drop_vars(["optimal_action", "optimal_opponent_action"])
    wide = xr.concat([posterior] * 4, dim="opponent_dim", data_vars="minimal")
    figure = plots.beliefs(wide)
    assert len(figure.axes) == 6
    assert figure.axes[1].get_ylabel() == "agent 0\nopponent's mean action (dim 1)"
    assert "2 more rows not shown" in figure.get_suptitle()


def test_heat_maps_are_the_means_state_by_state() -> None:
    wide = MANY.copy(deep=True)
    wide["opponent_model"][:, :, -1, :, 1] = [0.1, 0.2, 0.7]
    figure = plots.beliefs_by_state(wide, ["rommeo_q"])
    shown = np.asarray(figure.axes[0].images[0].get_array())
    final = wide["opponent_model"].sel(learner="rommeo_q").isel(step=-1, agent=0).mean("replicate")
    assert shown == pytest.approx(final.to_numpy())
    assert shown[1] == pytest.approx([0.1, 0.2, 0.7])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["after 0", "after 1", "after 2"]
    with pytest.raises(InspectError, match="expected several states"):
        plots.beliefs_by_state(DISCRETE["posterior"])


def test_surest_states_are_shown_where_there_are_many() -> None:
    wide = several_states(20)
    wide["opponent_model"][:, :, -1] = 1 / 3
    wide["opponent_model"][:, :, -1, :, 11] = [0.0, 1.0, 0.0]
    figure = plots.beliefs_by_state(wide, ["rommeo_q"])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 16
    assert "after 11" in labels
    assert "4 states with less sure beliefs not shown" in figure.get_suptitle()


def test_movement_shows_the_change_and_when_seeds_had_it() -> None:
    change = movement(DISCRETE["posterior"], "rommeo_q")
    assert change is not None
    left, right = plots.belief_movement(DISCRETE["posterior"]).axes
    assert left.lines[0].get_ydata() == pytest.approx(change["change"].mean("replicate").to_numpy())
    come = np.asarray(right.lines[0].get_ydata())
    assert come[-1] == 1.0
    assert (np.diff(come) >= 0).all()
    with pytest.raises(InspectError, match="got one record"):
        plots.belief_movement(DISCRETE["posterior"].isel(step=[-1]))


def test_types_are_shown_where_there_are_any() -> None:
    axes = plots.opponent_types_over_time(MANY).axes[0]
    final = MANY["opponent_type"].sel(learner="rommeo_q").isel(agent=0).mean(["replicate", "state"])
    assert axes.lines[0].get_ydata() == pytest.approx(final.isel(type=0).to_numpy(), rel=1e-5)
    assert axes.lines[0].get_label() == "A"
    for without in (DISCRETE["posterior"], MANY.assign(opponent_type=MANY["opponent_type"] * np.nan)):
        with pytest.raises(InspectError, match="no learner whose prior has types"):
            plots.opponent_types_over_time(without)


@pytest.mark.slow
def test_many_learners_are_cut_to_what_is_legible() -> None:
    posterior = DISCRETE["posterior"]
    many = xr.concat([posterior.sel(learner=["rommeo_q"])] * 14, dim="learner", data_vars="minimal")
    many = many.assign_coords(learner=[f"arm_{i}" for i in range(14)])
    for draw in (plots.beliefs, plots.opponent_action_bars, plots.reliability):
        figure = draw(many)
        assert "; 5 of 14 learners, evenly spaced" in figure.get_suptitle()
        assert [axes.get_title("left") for axes in figure.axes[:5]] == [f"arm_{i}" for i in (0, 2, 5, 8, 11)]
    figure = plots.belief_movement(many)
    assert "; 12 of 14 learners, evenly spaced" in figure.get_suptitle()
    assert len({line.get_color() for line in figure.axes[0].lines}) == 12
    assert len(plots.beliefs(many, [f"arm_{i}" for i in range(9)]).axes) == 18
