"""Tournaments: which pairs are played, and what the tables, files and pictures say of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from scipy import stats

from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.report import suite
from inference_marl.analysis.report.tournament import AVERAGE, averages, pairs, table, tournament_report
from inference_marl.config.files import build, dump, load_any
from inference_marl.config.tournament import tournament
from inference_marl.experiment import Experiment, Suite, entrants, is_tournament
from inference_marl.games import MatrixGame
from inference_marl.learners import Stationary
from inference_marl.runs.errors import ArmError
from inference_marl.runs.run import run as run_experiment
from inference_marl.runs.run import run_or_resume
from tests import run_folder

DILEMMA = {
    "nice": Stationary(probabilities=[1, 0]),
    "mean": Stationary(probabilities=[0, 1]),
    "mixed": Stationary(probabilities=[1, 1]),
}


def dilemma(**settings: Any) -> Experiment:
    """Both nice 3 each, both mean 1 each, else 4 for the mean and 0 for the nice one."""
    payoff = [[[3, 0], [4, 1]], [[3, 4], [0, 1]]]
    game = MatrixGame(payoff, common=False)
    return Experiment(game, **{"arms": DILEMMA, "replicates": 30, "steps": 4, "record_every": 2, **settings})


def lopsided(**settings: Any) -> Experiment:
    """A game that is not symmetric: the row chooses 5 or 7, the column 1 or 2, each for itself."""
    payoff = [[[5, 5], [7, 7]], [[1, 2], [1, 2]]]
    arms = {"first": Stationary(probabilities=[1, 0]), "second": Stationary(probabilities=[0, 1])}
    return Experiment(MatrixGame(payoff, common=False), **{"arms": arms, "replicates": 4, "steps": 2, **settings})


def played(experiment: Experiment, out: Path) -> Path:
    return run_experiment(experiment, out, "test", progress=False)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pairs of the dilemma's learners, one of which has a published reward."""
    return played(tournament(dilemma(published={"nice": {"reward": 1.25}})), tmp_path_factory.mktemp("runs"))


# ------------------------------------------------------------------------------------------------------------ the pairs


def test_a_symmetric_game_needs_one_seating_of_each_pair() -> None:
    pairs = tournament(dilemma())
    assert list(pairs.levels.values()) == [
        {"row": row, "column": column}
        for row, column in (
            *(("nice", "nice"), ("nice", "mean"), ("nice", "mixed")),
            *(("mean", "mean"), ("mean", "mixed")),
            ("mixed", "mixed"),
        )
    ]
    assert list(pairs.arms)[:2] == ["nice-vs-nice", "nice-vs-mean"]
    assert pairs.arms["nice-vs-mean"] == [DILEMMA["nice"], DILEMMA["mean"]]
    assert (pairs.replicates, pairs.steps, pairs.record_every) == (30, 4, 2)
    assert is_tournament(pairs.levels)
    assert not is_tournament(dilemma().levels)
    assert entrants(pairs) == entrants(dilemma()) == ["nice", "mean", "mixed"]


def test_other_games_need_both_seatings() -> None:
    assert list(tournament(lopsided()).arms) == [
        f"{row}-vs-{column}" for row in ("first", "second") for column in ("first", "second")
    ]


def test_a_tournament_is_an_experiment_like_any_other() -> None:
    pairs = tournament(dilemma(published={"nice": {"reward": 2.0}}))
    assert pairs.published == {"nice": {"reward": 2.0}}
    assert build(yaml.safe_load(dump(pairs))).describe() == pairs.describe()
    with pytest.raises(ValueError, match=r"^published: got nobody, expected one of the arms: nice, mean, mixed"):
        dilemma(published={"nobody": {"reward": 2.0}})


def test_what_cannot_be_paired_is_refused() -> None:
    cube = np.zeros((2, 2, 2)).tolist()
    with pytest.raises(ValueError, match=r"^game: got 3 agents, expected 2: a tournament plays one learner against"):
        tournament(Experiment(MatrixGame(cube, common=True), {"a": Stationary()}))
    with pytest.raises(ValueError, match=r"^arms.both: got a list of learners, expected one: a tournament seats it"):
        tournament(dilemma(arms={"a": Stationary(), "both": [Stationary(), Stationary()]}))
    arms = {"a-vs-b": Stationary(), "b": Stationary(), "a": Stationary(), "b-vs-b": Stationary()}
    with pytest.raises(ValueError, match=r"^arms: got two pairs called a-vs-b-vs-b, expected names without -vs-"):
        tournament(dilemma(arms=arms))
    with pytest.raises(ValueError, match=r"^runs.three.game: got 3 agents, expected 2"):
        tournament(Suite({"three": Experiment(MatrixGame(cube, common=True), {"a": Stationary()})}))


# ----------------------------------------------------------------------------------------------------------- the tables


def entry(recorded: Recorded, metric: str, row: str, column: str) -> Any:
    """The estimate of a pair, as a row of the frame."""
    found = pairs(recorded)
    here = (found["metric"] == metric) & (found["learner"] == row) & (found["opponent"] == column)
    (it,) = found[here].itertuples()
    return it


def numbers(recorded: Recorded, metric: str, row: str, *columns: str) -> list[float]:
    return [entry(recorded, metric, row, column).mean for column in columns]


def printed(recorded: Recorded, metric: str) -> pd.DataFrame:
    return table(recorded, pairs(recorded), metric)


def test_the_matrix_by_hand(paired: Path) -> None:
    recorded = read(paired)
    assert pairs(recorded)["metric"].unique().tolist() == ["reward", "return"], "interests conflict: there's no success"
    assert numbers(recorded, "reward", "nice", "nice", "mean") == [3, 0]
    assert numbers(recorded, "reward", "mean", "nice", "mean") == [4, 1]
    # Against a coin: nice 3 or 0, mean 4 or 1; the coin against itself the mean of all four.
    assert [numbers(recorded, "return", row, "mixed")[0] for row in ("nice", "mean", "mixed")] == pytest.approx(
        [1.5, 2.5, 2]
    )
    expected = [3.5, 0.5, (3.5 + 0.5 + 2) / 3]
    assert numbers(recorded, "return", "mixed", "nice", "mean", AVERAGE) == pytest.approx(expected)
    for metric in ("reward", "return"):
        shown = printed(recorded, metric)
        assert shown.index.tolist() == ["mean", "mixed", "nice"], "sorted by the average reward"
        assert shown.columns.tolist() == [AVERAGE, "mean", "mixed", "nice"]


def test_entries_and_averages_are_those_of_plain_loops(paired: Path) -> None:
    """Over replicates, of the window since the record before the last; averages within replicates come first."""
    metrics = xr.load_dataset(paired / "metrics.nc")["reward"]
    own = []
    for column in ("nice", "mean", "mixed"):
        arm, seat = (f"{column}-vs-mixed", 1) if column != "mixed" else ("mixed-vs-mixed", [0, 1])
        values = metrics.sel(learner=arm, step=4, agent=seat).astype("float64")
        values = values.mean("agent") if column == "mixed" else values
        own.append(values.to_numpy())
        found = entry(read(paired), "reward", "mixed", column)
        half = stats.t.ppf(0.975, 29) * values.to_numpy().std(ddof=1) / 30**0.5
        assert found.mean == pytest.approx(float(values.mean()))
        assert (found.high - found.low) / 2 == pytest.approx(half)
        assert (found.replicates, found.step) == (30, 4)
    average = np.mean(own, axis=0)
    found = entry(read(paired), "reward", "mixed", AVERAGE)
    assert found.mean == pytest.approx(average.mean())
    half = stats.t.ppf(0.975, 29) * average.std(ddof=1) / 30**0.5
    assert (found.high - found.low) / 2 == pytest.approx(half)


def test_without_symmetry_rows_are_read_from_the_first_seat(tmp_path: Path) -> None:
    recorded = read(played(tournament(lopsided()), tmp_path))
    assert numbers(recorded, "reward", "first", "first", "second") == [5, 5]
    assert numbers(recorded, "reward", "second", "first", "second") == [7, 7]


def test_where_interests_are_common_success_is_tabulated(tmp_path: Path) -> None:
    arms = {"best": Stationary(probabilities=[1, 0, 0]), "second": Stationary(probabilities=[0, 1, 0])}
    climbing = Experiment(MatrixGame("climbing"), arms, replicates=10, steps=1)
    recorded = read(played(tournament(climbing), tmp_path))
    assert numbers(recorded, "success_rate", "best", "best", "second", AVERAGE) == [1, 0, 0.5]
    # Wilson's interval for 10 of 10, z = 1.959964: not symmetric, so its ends are printed.
    assert entry(recorded, "success_rate", "best", "best").low == pytest.approx(10 / (10 + 1.959964**2))
    assert printed(recorded, "success_rate").loc["best"].tolist() == [
        *("0.500", "1.000 [0.722, 1.000]", "0.000 [0.000, 0.278]")
    ]


def made_up(levels: dict[str, dict[str, str]], data: dict[str, Any], **summary: Any) -> Recorded:
    """A tournament of arms with these numbers, `learner x replicate x step [x agent]`."""
    steps = np.arange(1, next(iter(data.values())).shape[2] + 1)
    arms = [arm for arm in levels if arm not in summary.get("failed", {})]
    metrics = run_folder.metrics_dataset(data, steps, learners=arms)
    return Recorded(Path(), {"levels": levels}, metrics, None, None, None, summary)


def test_a_success_rate_is_averaged_within_replicates_and_stays_a_probability() -> None:
    """Of made-up successes of four pairs; the second learner's are published, not the first's."""
    levels = {f"{row}-vs-{column}": {"row": row, "column": column} for row in "ab" for column in "ab"}
    success = np.ones((4, 6, 2))
    success[0, 0, -1] = success[1, 0, -1] = 0  # a fails once against a and once against b, in the same replicate
    success[2, :3, -1] = 0
    published = {"b": {"success_rate": 0.75}, "a": {"reward": 1.0}}
    found = pairs(made_up(levels, {"success_rate": success}, published=published)).set_index(["learner", "opponent"])
    assert set(found["metric"]) == {"success_rate"}
    a, b = (found.loc[learner, AVERAGE] for learner in "ab")
    # Of a 0 and five 1: mean 5/6, sd 1/sqrt 6, t_{5, .975} = 2.570582. Of b three 1/2 and three 1: sd .273861.
    assert a["mean"] == pytest.approx(5 / 6)
    assert (a["low"], a["high"]) == pytest.approx((5 / 6 - 2.570582 / 6, 1.0))
    assert b["mean"] == pytest.approx(0.75)
    assert b["low"] == pytest.approx(0.75 - 2.570582 * 0.273861 / 6**0.5, rel=1e-6)
    assert [a["published"], b["published"]] == pytest.approx([np.nan, 0.75], nan_ok=True)
    assert found.loc[("b", "a"), "mean"] == pytest.approx(0.5)


def test_relapses_are_of_pairs_and_have_no_averages() -> None:
    """As the summary has them; one seating stands for both."""
    levels = {f"{row}-vs-{column}": {"row": row, "column": column} for row, column in ("aa", "ab", "bb")}
    numbers = {"a-vs-a": (0.25, 4), "a-vs-b": (0.5, 2)}  # nobody succeeded in the third pair
    results = [
        {"learner": arm, "metric": "relapse_rate", "step": 2, "mean": mean, "low": 0.0, "high": 1.0, "replicates": many}
        for arm, (mean, many) in numbers.items()
    ]
    recorded = made_up(levels, {name: np.ones((3, 6, 2, 2)) for name in ("reward", "return")}, results=results)
    found = pairs(recorded)
    relapsed = found[found["metric"] == "relapse_rate"].set_index(["learner", "opponent"])
    assert relapsed[["mean", "replicates"]].T.to_dict("list") == {
        ("a", "a"): [0.25, 4],
        ("a", "b"): [0.5, 2],
        ("b", "a"): [0.5, 2],
    }
    shown = table(recorded, found, "relapse_rate", intervals=False)
    assert list(shown.columns) == ["a", "b"]
    assert shown.loc["b"].tolist() == ["0.500", "-"]
    assert set(tournament_report(recorded).draw()) >= {"tournament", "tournament_relapse_rate"}


def test_an_ablation_of_two_factors_is_no_tournament() -> None:
    assert not is_tournament({"a": {"prior": "row", "guide": "column"}})
    assert not is_tournament({"a": {"row": "x"}})
    assert is_tournament({"a": {"row": "x", "column": "y"}})


def test_the_printed_tables(paired: Path) -> None:
    recorded = read(paired)
    text = tournament_report(recorded).text()
    assert text.startswith("test: MatrixGame(), 30 replicates, at step 4\n")
    assert "sorted by the reward over the last 2 steps averaged over all opponents" in " ".join(text.split())
    assert "In parentheses: published." in " ".join(text.split())
    shown = printed(recorded, "reward")
    nice = shown.loc["nice"].tolist()
    assert nice[0].endswith(" (1.250)")
    assert nice[1] == "0.000", "nice against mean is always the same"
    assert "reward per step of the row's learner\n\n" in text


def test_many_learners_with_long_names_fit() -> None:
    names = [f"a_learner_with_a_name_{i}" for i in range(10)]
    levels = {f"{row}-vs-{column}": {"row": row, "column": column} for row in names for column in names}
    reward = np.random.default_rng(0).uniform(1, 9, (100, 3, 1, 2))
    recorded = made_up(levels, {"reward": reward})
    lines = tournament_report(recorded).text().splitlines()
    assert max(map(len, lines)) <= 120
    order = printed(recorded, "reward").index.tolist()
    headers = [name for line in lines if not line.startswith("a_learner") for name in line.split() if name in names]
    assert headers == order
    rows = [line.split()[0] for line in lines if line.startswith("a_learner")]
    assert rows == order * (len(rows) // 10), "every part has all rows"


class _Breaking(Stationary):
    """Fails in the second seat, but not in the check before the run."""

    def act(self, obs: Any, memory: Any, explore: bool = True, mask: Any = None) -> Any:
        if self.seat.replicates > 1 and self.seat.index == 1:
            raise RuntimeError("no")
        return super().act(obs, memory, explore, mask)


@pytest.mark.usefixtures("unrendered")
def test_a_pair_that_fails_keeps_to_itself(tmp_path: Path) -> None:
    arms = {
        "nice": Stationary(probabilities=[1, 0]),
        "breaking": _Breaking(probabilities=[0, 1]),
        "mean": Stationary(probabilities=[0, 1]),
    }
    with pytest.raises(ArmError) as caught:
        played(tournament(dilemma(arms=arms)), tmp_path)
    assert str(caught.value).startswith(
        "arms.nice-vs-breaking, step 1: RuntimeError: no; 1 more failed: breaking-vs-br"
    )
    recorded = read(tmp_path / "test")
    shown = printed(recorded, "reward")
    assert shown.columns.tolist() == [AVERAGE, "mean", "nice", "breaking"]
    # Averages over different opponents could not be compared.
    assert shown.loc["nice"].tolist() == ["-", "0.000", "3.000", "failed"]
    assert shown.loc["breaking"].tolist() == ["-", "1.000", "failed", "failed"], "it sat in the first seat there"
    report = tournament_report(recorded)
    assert "failed  nice-vs-breaking: arms.nice-vs-breaking, step 1: RuntimeError: no" in report.text().splitlines()
    assert len(report.write()) == 5


@pytest.mark.usefixtures("unrendered")
def test_learners_without_any_average_or_any_pair_have_their_row(tmp_path: Path) -> None:
    """Of three only one pair was played to its end."""
    levels = {
        f"{row}-vs-{column}": {"row": row, "column": column} for row, column in ("aa", "ab", "ac", "bb", "bc", "cc")
    }
    failed = {arm: "why" for arm in levels if arm != "a-vs-b"}
    recorded = made_up(levels, {"reward": np.ones((1, 2, 1, 2))}, failed=failed)
    shown = printed(recorded, "reward")
    assert (shown.index.tolist(), shown.columns.tolist()) == (list("abc"), [AVERAGE, *"abc"])
    assert shown.to_numpy().tolist() == [
        ["-", "failed", "1.000", "failed"],
        ["-", "1.000", "failed", "failed"],
        ["-", "failed", "failed", "failed"],
    ]
    (figure,) = tournament_report(recorded).draw().values()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [
        "-",
        "failed",
        "1.00",
        "failed",
        "-",
        "1.00",
        "failed",
        "failed",
        "-",
        "failed",
        "failed",
        "failed",
    ]


def test_where_both_seatings_are_played_one_fails_alone(tmp_path: Path) -> None:
    arms = {"first": Stationary(probabilities=[1, 0]), "breaking": _Breaking(probabilities=[0, 1])}
    with pytest.raises(
        ArmError, match=r"^arms.first-vs-breaking, step 1: RuntimeError: no; 1 more failed: breaking-vs"
    ):
        played(tournament(lopsided(arms=arms)), tmp_path)
    shown = printed(read(tmp_path / "test"), "reward")
    assert shown.loc["first", "breaking"] == "failed"
    assert shown.loc["breaking", "first"] == "7.000", "the other seating was played"


def test_the_files(paired: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(paired, tmp_path / "test"))
    report = tournament_report(read(folder))
    paths = report.write()
    assert [path.relative_to(folder).as_posix() for path in paths] == [
        *("tournament.csv", "tournament.md", "tournament.tex"),
        *("figures/tournament.png", "figures/tournament_return.png"),
    ]
    rows = pd.read_csv(paths[0])
    pd.testing.assert_frame_equal(rows, report.estimates, check_dtype=False)
    assert len(rows) == 2 * 3 * 4
    reward = rows[rows["metric"] == "reward"].set_index(["learner", "opponent"])
    assert (reward.loc[("mean", "nice"), "mean"], reward.loc[("mean", "nice"), "replicates"]) == (4.0, 30)
    assert np.isnan(reward.loc[("mean", "nice"), "low"])
    assert reward["published"].dropna().to_dict() == {("nice", AVERAGE): 1.25}
    text = " ".join(paths[1].read_text().split())
    assert "| learner | all opponents | mean | mixed | nice |" in text
    assert "## exact return of the row's learner" in text
    assert paths[2].read_text().count(r"\begin{tabular}") == 2
    for path in paths[3:]:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_tournament_goes_on_where_it_was(tmp_path: Path) -> None:
    pairs = tournament(dilemma())
    folder, before = run_or_resume(pairs, tmp_path, "test", progress=False)
    assert not before
    assert run_or_resume(tournament(dilemma()), tmp_path, "test", progress=False) == (folder, True)


def test_tournaments_of_a_suite_are_tabulated_by_their_averages(tmp_path: Path) -> None:
    both = tournament(Suite({"dilemma": dilemma(published={"nice": {"reward": 1.25}}), "lopsided": lopsided()}))
    folder = run_experiment(both, tmp_path, "test", progress=False)
    found = suite.read(folder)
    rows = averages(read(folder / "dilemma"))
    rows = rows[rows["metric"] == "return"].set_index("learner")["mean"]
    report = suite.suite_report(found)
    values = report.estimates.pivot(index="name", columns=["metric", "run"], values="mean")
    for name in ("nice", "mean", "mixed"):
        assert values.loc[name, ("return", "dilemma")] == rows[name]
    assert values.loc[["first", "second"], ("return", "lopsided")].tolist() == [5, 7]
    assert values.loc[["first", "second"], ("success_rate", "lopsided")].tolist() == [0, 0.5], "second against second"
    shown = {section.title: section.table for section in report.sections if section.table is not None}
    assert list(shown)[1:] == [
        "reward per step of the row's learner, dilemma",
        "reward per step of the row's learner, lopsided",  # every tournament's own pairs
        "success rate",
        "exact return, no time limit",
    ]
    returns = shown["exact return, no time limit"]
    assert (returns.index.name, returns.index.tolist()) == ("learner", ["nice", "mean", "mixed", "first", "second"])
    against = shown["reward per step of the row's learner, dilemma"]
    assert against.columns.tolist() == [AVERAGE, "mean", "mixed", "nice"]
    assert against.loc["mixed"].tolist() == ["1.956", "0.400", "2.067", "3.400"]
    assert "averaged over all opponents" in report.text()


def test_a_suite_says_which_learners_have_no_averages_and_why(tmp_path: Path) -> None:
    arms = {
        "nice": Stationary(probabilities=[1, 0]),
        "breaking": _Breaking(probabilities=[0, 1]),
        "mean": Stationary(probabilities=[0, 1]),
    }
    with pytest.raises(ArmError, match=r"^runs.dilemma.arms.nice-vs-breaking, step 1"):
        run_experiment(tournament(Suite({"dilemma": dilemma(arms=arms)})), tmp_path, "test", progress=False)
    report = suite.suite_report(suite.read(tmp_path / "test"))
    shown = {section.title: section.table for section in report.sections if section.table is not None}
    returns = shown["exact return, no time limit"]
    assert returns["dilemma"].to_dict() == {"nice": "failed", "breaking": "failed", "mean": "2.000"}
    lines = report.text().splitlines()
    assert "failed  dilemma, nice: arms.nice-vs-breaking, step 1: RuntimeError: no" in lines
    assert "failed  dilemma, breaking: arms.nice-vs-breaking, step 1: RuntimeError: no" in lines


def test_a_file_of_a_suite_can_be_a_tournament(tmp_path: Path) -> None:
    content = {
        "game": {"class_path": "MatrixGame", "init_args": {"payoff": "chicken"}},
        "arms": {"a": "Stationary", "b": {"class_path": "Stationary", "init_args": {"probabilities": [1, 0]}}},
        "runs": {"chicken": {}, "stag": {"game.payoff": "stag_hunt", "arms.b": None}},
        "show": ["reward"],
    }
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(content))
    built = tournament(load_any(tmp_path / "file.yaml"))
    assert isinstance(built, Suite)
    assert built.show == ["reward"]
    assert {name: list(run.arms) for name, run in built.runs.items()} == {
        "chicken": ["a-vs-a", "a-vs-b", "b-vs-b"],
        "stag": ["a-vs-a"],
    }
