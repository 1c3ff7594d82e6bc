"""Tournaments: which pairs are played, and what the tables, files and pictures say of them."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from scipy import stats

from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.report import suite
from inference_marl.analysis.report.tournament import AVERAGE, averages, cross_tables, table, write
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
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def entry(matrix: Any, row: str, column: str) -> float:
    return float(matrix.entries[row, column]["mean"])


def test_the_matrix_by_hand(pairs: Path) -> None:
    reward, exact, nothing = (*cross_tables(read(pairs)), None)
    assert nothing is None, "interests conflict: there is no success rate"
    assert (reward.metric, exact.metric) == ("reward", "return")
    assert [entry(reward, "nice", other) for other in ("nice", "mean")] == [3, 0]
    assert [entry(reward, "mean", other) for other in ("nice", "mean")] == [4, 1]
    # Against a coin: nice 3 or 0, mean 4 or 1; the coin against itself the mean of all four.
    assert [entry(exact, row, "mixed") for row in ("nice", "mean", "mixed")] == pytest.approx([1.5, 2.5, 2])
    assert [entry(exact, "mixed", column) for column in ("nice", "mean")] == pytest.approx([3.5, 0.5])
    assert entry(exact, "mixed", AVERAGE) == pytest.approx((3.5 + 0.5 + 2) / 3)
    assert reward.rows == exact.rows == ["mean", "mixed", "nice"], "sorted by the average reward"
    assert reward.columns == [AVERAGE, "mean", "mixed", "nice"]


def test_entries_and_averages_are_those_of_plain_loops(pairs: Path) -> None:
    """Over replicates, of the window since the record before the last; averages within replicates come first."""
    metrics = xr.load_dataset(pairs / "metrics.nc")["reward"]
    reward = cross_tables(read(pairs))[0]
    own = []
    for column in ("nice", "mean", "mixed"):
        arm, seat = (f"{column}-vs-mixed", 1) if column != "mixed" else ("mixed-vs-mixed", [0, 1])
        values = metrics.sel(learner=arm, step=4, agent=seat).astype("float64")
        values = values.mean("agent") if column == "mixed" else values
        own.append(values.to_numpy())
        found = reward.entries["mixed", column]
        half = stats.t.ppf(0.975, 29) * values.to_numpy().std(ddof=1) / 30**0.5
        assert found["mean"] == pytest.approx(float(values.mean()))
        assert (found["high"] - found["low"]) / 2 == pytest.approx(half)
        assert (found["replicates"], found["step"]) == (30, 4)
    average = np.mean(own, axis=0)
    found = reward.entries["mixed", AVERAGE]
    assert found["mean"] == pytest.approx(average.mean())
    half = stats.t.ppf(0.975, 29) * average.std(ddof=1) / 30**0.5
    assert (found["high"] - found["low"]) / 2 == pytest.approx(half)


def test_without_symmetry_rows_are_read_from_the_first_seat(tmp_path: Path) -> None:
    reward = cross_tables(read(played(tournament(lopsided()), tmp_path)))[0]
    assert [entry(reward, "first", column) for column in ("first", "second")] == [5, 5]
    assert [entry(reward, "second", column) for column in ("first", "second")] == [7, 7]


def test_where_interests_are_common_success_is_tabulated(tmp_path: Path) -> None:
    arms = {"best": Stationary(probabilities=[1, 0, 0]), "second": Stationary(probabilities=[0, 1, 0])}
    climbing = Experiment(MatrixGame("climbing"), arms, replicates=10, steps=1)
    success = cross_tables(read(played(tournament(climbing), tmp_path)))[2]
    assert success.metric == "success_rate"
    assert [entry(success, "best", column) for column in ("best", "second", AVERAGE)] == [1, 0, 0.5]
    # Wilson's interval for 10 of 10, z = 1.959964: not symmetric, so its ends are printed.
    assert success.entries["best", "best"]["low"] == pytest.approx(10 / (10 + 1.959964**2))
    printed = [" ".join(line.split()) for line in table(tmp_path / "test").splitlines()]
    assert "best 0.500 1.000 [0.722, 1.000] 0.000 [0.000, 0.278]" in printed


def test_a_success_rate_is_averaged_within_replicates_and_stays_a_probability() -> None:
    """Of made-up successes of four pairs; the second learner's are published, not the first's."""
    levels = {f"{row}-vs-{column}": {"row": row, "column": column} for row in "ab" for column in "ab"}
    success = np.ones((4, 6, 2))
    success[0, 0, -1] = success[1, 0, -1] = 0  # a fails once against a and once against b, in the same replicate
    success[2, :3, -1] = 0
    coordinates = {"learner": list(levels), "step": [1, 2]}
    metrics = xr.Dataset({"success_rate": (("learner", "replicate", "step"), success)}, coordinates)
    published = {"b": {"success_rate": 0.75}, "a": {"reward": 1.0}}
    summary = {"levels": levels, "published": published}
    (matrix,) = cross_tables(Recorded(Path(), {}, metrics, None, None, summary))
    found = {learner: matrix.entries[learner, AVERAGE] for learner in "ab"}
    # Of a 0 and five 1: mean 5/6, sd 1/sqrt 6, t_{5, .975} = 2.570582. Of b three 1/2 and three 1: sd .273861.
    assert found["a"]["mean"] == pytest.approx(5 / 6)
    assert (found["a"]["low"], found["a"]["high"]) == pytest.approx((5 / 6 - 2.570582 / 6, 1.0))
    assert found["b"]["mean"] == pytest.approx(0.75)
    assert found["b"]["low"] == pytest.approx(0.75 - 2.570582 * 0.273861 / 6**0.5, rel=1e-6)
    assert [found[learner]["published"] for learner in "ab"] == [None, 0.75]
    assert matrix.entries["b", "a"]["mean"] == pytest.approx(0.5)


def test_an_ablation_of_two_factors_is_no_tournament() -> None:
    assert not is_tournament({"a": {"prior": "row", "guide": "column"}})
    assert not is_tournament({"a": {"row": "x"}})
    assert is_tournament({"a": {"row": "x", "column": "y"}})


def test_the_printed_tables(pairs: Path) -> None:
    lines = [" ".join(line.split()) for line in table(pairs).splitlines()]
    assert lines[0].startswith("test: MatrixGame(), 30 replicates, at step 4")
    assert "sorted by the reward over the last 2 steps averaged over all opponents" in " ".join(lines)
    start = lines.index("reward per step of the row's learner")
    assert lines[start + 2] == "learner all opponents mean mixed nice"
    assert [line.split()[0] for line in lines[start + 3 : start + 6]] == ["mean", "mixed", "nice"]
    assert lines[start + 5].split()[2:4] == ["(1.250)", "0.000"]
    halves = lines.index("reward per step of the row's learner, ± (half of the 95 % interval)")
    assert lines[halves + 5].split()[2] == "-", "nice against mean is always the same"


def test_many_learners_with_long_names_fit() -> None:
    names = [f"a_learner_with_a_name_{i}" for i in range(10)]
    levels = {f"{row}-vs-{column}": {"row": row, "column": column} for row in names for column in names}
    reward = np.random.default_rng(0).uniform(1, 9, (100, 3, 1, 2))
    metrics = run_folder.metrics_dataset({"reward": reward}, np.array([1]), learners=list(levels))
    lines = table(Recorded(Path(), {}, metrics, None, None, {"levels": levels})).splitlines()
    assert max(map(len, lines)) <= 120
    header = next(line for line in lines if line.startswith("learner"))
    assert header.split() == ["learner", "all", "opponents", *map(str, range(1, 11))]
    ranked = [line.split()[0] for line in lines if "a_learner" in line][:10]
    assert ranked == [str(rank) for rank in range(1, 11)]


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
    reward = cross_tables(read(tmp_path / "test"))[0]
    for pair in (("nice", "breaking"), ("breaking", "nice"), ("breaking", "breaking")):
        assert "failed" in reward.entries[pair]
    assert entry(reward, "breaking", "mean") == 1, "it sat in the first seat there"
    # Averages over different opponents could not be compared.
    assert [learner for learner in arms if (learner, AVERAGE) in reward.entries] == ["mean"]
    assert reward.rows == ["mean", "nice", "breaking"]
    lines = [" ".join(line.split()) for line in table(tmp_path / "test").splitlines()]
    assert "nice - 0.000 3.000 failed" in lines
    assert "failed nice-vs-breaking: arms.nice-vs-breaking, step 1: RuntimeError: no" in lines
    assert len(write(tmp_path / "test")) == 4


def test_where_both_seatings_are_played_one_fails_alone(tmp_path: Path) -> None:
    arms = {"first": Stationary(probabilities=[1, 0]), "breaking": _Breaking(probabilities=[0, 1])}
    with pytest.raises(
        ArmError, match=r"^arms.first-vs-breaking, step 1: RuntimeError: no; 1 more failed: breaking-vs"
    ):
        played(tournament(lopsided(arms=arms)), tmp_path)
    reward = cross_tables(read(tmp_path / "test"))[0]
    assert "failed" in reward.entries["first", "breaking"]
    assert entry(reward, "breaking", "first") == 7, "the other seating was played"


def test_the_files(pairs: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pairs, tmp_path / "test"))
    paths = write(folder)
    names = ["tournament.csv", "tournament.md", "figures/tournament.png", "figures/tournament_return.png"]
    assert [path.relative_to(folder).as_posix() for path in paths] == names
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert len(rows) == 2 * 3 * 4
    (mine,) = [row for row in rows if (row["learner"], row["opponent"], row["metric"]) == ("mean", "nice", "reward")]
    assert (mine["mean"], mine["low"], mine["replicates"]) == ("4.0", "", "30")
    (average,) = [
        row for row in rows if (row["learner"], row["opponent"], row["metric"]) == ("nice", AVERAGE, "reward")
    ]
    assert average["published"] == "1.25"
    text = paths[1].read_text()
    assert "| learner | all opponents | mean | mixed | nice |" in text
    assert "## exact return of the row's learner" in text
    for path in paths[2:]:
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
    rows = {row["learner"]: row for row in averages(read(folder / "dilemma")) if row["metric"] == "return"}
    success, matrix = suite.cross_tables(found)
    assert (success.metric, matrix.metric) == ("success_rate", "return")
    assert success.means()[3:, 1].tolist() == [0, 0.5], "lopsided has an optimum: second against second"
    assert matrix.rows == ["nice", "mean", "mixed", "first", "second"]
    assert matrix.means()[:3, 0].tolist() == [rows[learner]["mean"] for learner in ("nice", "mean", "mixed")]
    assert matrix.means()[3:, 1].tolist() == [5, 7]
    text = suite.table(found)
    assert "averaged over all opponents" in text
    assert "reward per step of the row's learner, lopsided" in text, "every tournament's own pairs"
    lines = [line.split() for line in text.splitlines()]
    assert ["mixed", "1.956", "0.400", "2.067", "3.400"] in lines, "against mean, mixed and nice"


def test_a_suite_says_which_learners_have_no_averages_and_why(tmp_path: Path) -> None:
    arms = {
        "nice": Stationary(probabilities=[1, 0]),
        "breaking": _Breaking(probabilities=[0, 1]),
        "mean": Stationary(probabilities=[0, 1]),
    }
    with pytest.raises(ArmError, match=r"^runs.dilemma.arms.nice-vs-breaking, step 1"):
        run_experiment(tournament(Suite({"dilemma": dilemma(arms=arms)})), tmp_path, "test", progress=False)
    lines = [" ".join(line.split()) for line in suite.table(suite.read(tmp_path / "test")).splitlines()]
    assert "reward per step of the row's learner" not in lines
    assert "exact return of the row's learner" in lines
    assert {"nice failed", "breaking failed", "mean 2.000"} <= set(lines)
    assert "failed dilemma, nice: arms.nice-vs-breaking, step 1: RuntimeError: no" in lines
    assert "failed dilemma, breaking: arms.nice-vs-breaking, step 1: RuntimeError: no" in lines


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
