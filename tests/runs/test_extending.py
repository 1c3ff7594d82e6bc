"""Runs that are played on for longer than they were begun for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_marl.config.build import SpecError
from inference_marl.config.factors import ablation
from inference_marl.experiment import Experiment, Suite
from inference_marl.games import MatrixGame, Rendezvous, Spread
from inference_marl.learners import Maddpg
from inference_marl.play import Evaluation
from inference_marl.runs import run as verbs
from inference_marl.runs.arm import Arm
from inference_marl.runs.errors import RunError
from inference_marl.runs.run import resume
from tests.runs.small_runs import Breaking, CutError, assert_same, climbing, cut_after, rommeo_ac, rommeo_q, run


def maddpg() -> Maddpg:
    return Maddpg(hidden=(4,), replay=20, batch_size=4, warmup=3)


EXTENDED: dict[str, Callable[..., Experiment]] = {
    "matrix game": climbing,
    "records of several steps": lambda **settings: climbing(
        record_every=4, beliefs_every=3, checkpoint_every=5, **settings
    ),
    "states and environments": lambda **settings: Experiment(
        MatrixGame("chicken", horizon=3, memory=1),
        {"a": rommeo_q(), "b": rommeo_q(discount=0.5)},
        replicates=2,
        environments=3,
        **settings,
    ),
    "played as one": lambda **settings: ablation(climbing(arms={"a": rommeo_q()}), {"temperature": [0.5, 2.0]}).replace(
        **settings
    ),
    "continuous": lambda **settings: Experiment(
        Rendezvous(horizon=3), {"a": rommeo_ac()}, replicates=2, environments=2, draws=2, **settings
    ),
    "team": lambda **settings: Experiment(
        Spread(3, horizon=4), {"a": maddpg()}, replicates=2, evaluation=Evaluation(every=3), **settings
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name if name.startswith("states") else pytest.param(name, marks=pytest.mark.slow) for name in EXTENDED],
)
def test_a_finished_run_that_is_extended_is_the_run_of_so_many_steps(name: str, tmp_path: Path) -> None:
    whole = run(EXTENDED[name](steps=12), tmp_path, "whole")
    folder = run(EXTENDED[name](steps=6), tmp_path, "short")
    assert resume(folder, progress=False, overrides=[("steps", 12)]) == folder
    assert_same(folder, whole)
    assert yaml.safe_load((folder / "spec.yaml").read_text()) == yaml.safe_load((whole / "spec.yaml").read_text())
    assert not (folder / "records").exists()


@pytest.mark.slow
def test_it_may_be_cut_and_extended_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(climbing(steps=14), tmp_path, "whole")
    folder = run(climbing(steps=6, checkpoint_every=2), tmp_path, "short")
    advance, played = Arm.advance, [0]

    def counting(arm: Arm) -> None:
        if played[0] == 3:
            raise CutError
        played[0] += 1
        advance(arm)

    with monkeypatch.context() as patch:
        patch.setattr(Arm, "advance", counting)
        with pytest.raises(CutError):
            resume(folder, progress=False, overrides=[("steps", 10)])
    resume(folder, progress=False, overrides=[("checkpoint_every", 1000)])
    resume(folder, progress=False, overrides=[("steps", 14)])
    assert_same(folder, whole)


@pytest.mark.slow
def test_what_a_kill_left_of_restored_records_does_not_matter(finished: Path, tmp_path: Path) -> None:
    half = finished / "records" / ".a.partial" / "metrics"
    half.mkdir(parents=True)
    (half / "reward").write_bytes(b"half")
    resume(finished, progress=False, overrides=[("steps", 9)])
    assert_same(finished, run(climbing(steps=9), tmp_path, "whole"))


@pytest.mark.slow
def test_an_unfinished_run_is_extended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cut"
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    resume(folder, progress=False, overrides=[("steps", 9), ("checkpoint_every", 1000)])
    assert_same(folder, run(climbing(steps=9), tmp_path, "whole"))


def test_what_was_played_is_not_taken_back(finished: Path, tmp_path: Path) -> None:
    for changes, complaint in (
        ([("steps", 5)], r"^steps: got 5, expected at least 6, which were played before"),
        ([("seed", 1)], r"got a checkpoint of another experiment \(seed is 1, and was 0\)"),
        ([("arms.a.discount", 0.5)], r"another experiment \(arms\.a\.discount is 0\.5, and was 0\.9\)"),
        ([("checkpoint_every", 3)], r"got a finished run, expected an unfinished one, or steps above 6"),
    ):
        before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
        with pytest.raises(RunError, match=complaint):
            resume(finished, progress=False, overrides=changes)
        assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_run_with_failed_arms_is_extended(tmp_path: Path) -> None:
    arms: dict[str, Any] = {"good": rommeo_q(), "bad": Breaking()}
    with pytest.raises(RunError, match=r"^arms\.bad"):
        run(climbing(arms=arms), tmp_path, "short")
    for _ in range(2):
        with pytest.raises(RunError, match=r"^arms\.bad"):
            resume(tmp_path / "short", progress=False, overrides=[("steps", 9)])
    with pytest.raises(RunError, match=r"^arms\.bad"):
        run(climbing(arms=arms, steps=9), tmp_path, "whole")
    for one, other in zip(*((tmp_path / name / "actions.nc").read_bytes() for name in ("short", "whole")), strict=True):
        assert one == other


def test_results_that_are_not_the_checkpoints_are_not_gone_on_with(finished: Path, tmp_path: Path) -> None:
    other = run(climbing(seed=1), tmp_path, "other")
    for name in ("metrics.nc", "SHA256SUMS"):
        (finished / name).write_bytes((other / name).read_bytes())
    (finished / "SHA256SUMS").unlink()
    with pytest.raises(RunError, match=r"metrics\.nc: got other results than those of the checkpoint"):
        resume(finished, progress=False, overrides=[("steps", 9)])


@pytest.mark.slow
def test_all_runs_of_a_suite_are_extended(tmp_path: Path) -> None:
    def suite(steps: int) -> Suite:
        return Suite(
            {
                "climbing": climbing(steps=steps),
                "hunt": climbing(game=MatrixGame("stag_hunt"), arms={"a": rommeo_q()}, steps=steps),
            }
        )

    whole = verbs.run(suite(9), tmp_path, "whole", progress=False)
    folder = verbs.run(suite(6), tmp_path, "short", progress=False)
    resume(folder, progress=False, overrides=[("steps", 9)])
    for name in ("climbing", "hunt"):
        assert_same(folder / name, whole / name)


@pytest.mark.slow
def test_states_that_no_result_holds_are_recorded_anew(tmp_path: Path) -> None:
    def experiment(steps: int) -> Experiment:
        game = MatrixGame("chicken", horizon=3, memory=1)
        return Experiment(game, {"a": rommeo_q()}, replicates=2, steps=steps, beliefs_every=0)

    whole = run(experiment(12), tmp_path, "whole")
    folder = run(experiment(6), tmp_path, "short")
    for steps in (9, 12):
        resume(folder, progress=False, overrides={"steps": steps})
    assert (folder / "actions.nc").read_bytes() == (whole / "actions.nc").read_bytes()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"steps": 9, "device": "cuda"}, r"^device: got cuda"),
        ({"steps": 9, "arms.a": None}, r"^arms\.a: got null, expected every arm that the run was begun with$"),
        (["steps=9"], r"^overrides: got 'steps=9', expected pairs of a dotted key and a value, or a mapping$"),
    ],
)
def test_what_is_refused_leaves_the_run_as_it_was(changes: Any, complaint: str, finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises((RunError, SpecError), match=complaint):
        resume(finished, progress=False, overrides=changes)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_one_run_of_a_suite_is_extended_and_none_if_one_cannot_be(tmp_path: Path) -> None:
    runs = {
        "climbing": climbing(steps=3),
        "hunt": climbing(game=MatrixGame("stag_hunt"), arms={"a": rommeo_q()}, steps=3),
    }
    folder = verbs.run(Suite(runs), tmp_path, "suite", progress=False)
    resume(folder, progress=False, overrides={"runs.hunt.steps": 4})
    assert [yaml.safe_load((folder / name / "spec.yaml").read_text())["steps"] for name in runs] == [3, 4]
    with (folder / "hunt" / "metrics.nc").open("ab") as file:
        file.write(b"damage")
    with pytest.raises(RunError, match=r"metrics\.nc: got another content"):
        resume(folder, progress=False, overrides={"steps": 5})
    assert [yaml.safe_load((folder / name / "spec.yaml").read_text())["steps"] for name in runs] == [3, 4]
    with pytest.raises(RunError, match=r"^runs\.nobody\.steps: got no key of a run, expected .* climbing, hunt$"):
        resume(folder, progress=False, overrides={"runs.nobody.steps": 5})
