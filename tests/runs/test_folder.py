"""Run folders: their names, and whose they are."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from inference_marl.config.files import dump, load
from inference_marl.config.overrides import override
from inference_marl.experiment import Experiment
from inference_marl.runs import run as verbs
from inference_marl.runs.errors import RunError
from inference_marl.runs.folder import begun
from inference_marl.runs.run import resume, run_or_resume
from tests.runs.small_runs import Alternating, climbing, run


def test_runs_of_one_name_stand_side_by_side(tmp_path: Path) -> None:
    names = [run(climbing(steps=1), tmp_path).name for _ in range(3)]
    assert names == ["test", "test-2", "test-3"]


def test_the_same_experiment_goes_on_in_its_folder_and_another_gets_a_new_one(tmp_path: Path) -> None:
    def start(experiment: Experiment) -> tuple[str, bool]:
        folder, before = run_or_resume(experiment, tmp_path, "test", progress=False)
        return folder.name, before

    (tmp_path / "test-of-another").mkdir()
    assert start(climbing(steps=2)) == ("test", False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert start(climbing(steps=2)) == ("test", True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert start(climbing(steps=3)) == ("test-2", False)
    assert start(climbing(steps=2)) == ("test", True)
    assert run(climbing(steps=2), tmp_path).name == "test-3"
    assert start(climbing(steps=2)) == ("test-3", True)


def test_the_newest_folder_is_that_with_the_largest_number(tmp_path: Path) -> None:
    experiment = climbing(steps=2)
    for name in ("test", "test-2", "test-9", "test-10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.yaml").write_text(dump(experiment))
    assert begun(experiment, tmp_path, "test") == tmp_path / "test-10"
    assert begun(climbing(steps=3), tmp_path, "test") is None
    elsewhere = experiment.replace(device="cuda", threads=8)
    assert begun(elsewhere, tmp_path, "test") == tmp_path / "test-10", "where it is played makes no other experiment"
    assert begun(experiment, tmp_path, "te.t") is None, "a name is no pattern"


def test_only_folders_of_runs_can_be_resumed(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError, match=r"got no spec\.yaml there, expected the folder of a run"):
            resume(folder)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(RunError, match=r"got no folder to write to \(Not a directory\), expected one for runs"):
            run(climbing(steps=1), out)


def test_dumped_specs_hold_what_overrides_said(tmp_path: Path) -> None:
    config = yaml.safe_load(dump(climbing()))
    override(config, "arms.a.critic.rate", 0.5)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(config))
    experiment = load(tmp_path / "spec.yaml", [("steps", 3), ("replicates", 1)])
    folder = run(experiment, tmp_path / "runs")
    written = yaml.safe_load((folder / "spec.yaml").read_text())
    assert written["arms"]["a"]["init_args"]["critic"]["init_args"]["rate"] == 0.5
    assert (written["steps"], written["replicates"], written["seed"]) == (3, 1, 0)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    folder = run(climbing(replicates=np.int64(2), steps=np.int32(3)), tmp_path)
    assert load(folder / "spec.yaml").replicates == 2
    for wrong in (1.5, -1, 2**64):
        with pytest.raises(ValueError, match=r"^seed: got "):
            climbing(seed=wrong)


def test_a_class_of_the_program_itself_is_played_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can name it."""
    monkeypatch.setattr(Alternating, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Alternating", Alternating, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "program.py", raising=False)
    with pytest.warns(
        UserWarning, match=r"^Alternating is defined in the program that was started: spec.yaml can only"
    ):
        run(climbing(arms={"a": [Alternating(), Alternating()]}), tmp_path)


@pytest.mark.parametrize("closed", [False, True])
def test_runs_need_no_standard_error(closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO() if closed else None
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    assert verbs.run(climbing(), tmp_path, progress=True).is_dir()
