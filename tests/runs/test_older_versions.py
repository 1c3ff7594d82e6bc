"""Run folders that older versions wrote: read, recognised, and refused where their state is needed."""

import shutil
from pathlib import Path

import pytest
import torch
import xarray as xr
import yaml

from inference_marl.analysis.recorded import read
from inference_marl.analysis.report.tables import run_report
from inference_marl.cli import main
from inference_marl.config.files import dump, load
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.inference.schedules import ExponentialDecay
from inference_marl.learners import Rommeo, Stationary
from inference_marl.learners.tabular import FMQ, Boltzmann
from inference_marl.learners.variational import ELBO_PARTS
from inference_marl.models import EmpiricalFrequency, TabularCritic
from inference_marl.runs.errors import RunError
from inference_marl.runs.folder import begun
from inference_marl.runs.run import resume, run_or_resume
from inference_marl.statistics.summary import PUBLISHABLE
from tests.runs.small_runs import climbing, cut_after

OLD_NAMES = {
    "inference_marl.games.MatrixGame": "inference_marl.games.matrix.MatrixGame",
    "inference_marl.learners.Rommeo": "inference_marl.learners.rommeo.Rommeo",
    "inference_marl.models.EmpiricalFrequency": "inference_marl.models.priors.EmpiricalFrequency",
    "inference_marl.inference.schedules.ExponentialDecay": "inference_marl.schedules.ExponentialDecay",
    "inference_marl.learners.Stationary": "inference_marl.learners.stationary.Stationary",
    "inference_marl.learners.tabular.FMQ": "inference_marl.learners.tabular.fmq.FMQ",
}
"""What files say now, and what version 0.1.0 said."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of climbing of two arms that version 0.1.0 (commit 2f2e242) finished."""
    return shutil.copytree(Path(__file__).parent / "data" / "climbing_0_1_0", tmp_path / "climbing")


def four_arms() -> Experiment:
    rommeo = Rommeo(
        opponent_prior=EmpiricalFrequency(window=5),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(),
        temperature=ExponentialDecay(5.0, 0.1, 0.1),
    )
    fmq, script = FMQ(exploration=Boltzmann()), Stationary(probabilities=[1, 2, 3])
    return Experiment(MatrixGame("climbing"), {"rommeo": rommeo, "fmq": fmq, "script": script, "mixed": [fmq, script]})


@pytest.mark.slow
def test_a_finished_run_is_inspected_and_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(folder), "--quiet"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "reward per step rommeo_q -1.750 [-31.980, 28.480] 4 11.000" in lines
    assert main(["inspect", str(folder), "--full"]) == 0
    assert "Does the opponent model think ahead?" in capsys.readouterr().out
    assert (folder / "figures" / "beliefs.png").is_file()
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "-31.980" in page
    assert "<img " in page


def test_a_finished_run_without_declarations_is_read_like_any_other(folder: Path) -> None:
    with xr.open_dataset(folder / "metrics.nc", engine="h5netcdf") as stored:
        assert "success" in stored
        assert not any("metric" in values.attrs for values in stored.values())
    recorded = read(folder)
    known = {metric.name: metric for metric in (*PUBLISHABLE, *ELBO_PARTS)}
    assert recorded.declared == {name: known[name] for name in recorded.declared}
    assert {"reward", "success_rate", "steps_to_success", "elbo"} <= set(recorded.declared)
    found = recorded.frame()
    last = found[(found["step"] == 6) & (found["learner"] == "rommeo_q") & found["agent"].isna()]
    assert last.set_index("metric").loc["reward", ["mean", "published"]].tolist() == [-1.75, 11.0]
    (table,) = (section.table for section in run_report(recorded).sections if section.table is not None)
    assert "P(optimum)" in table.index.unique(0)


def test_a_finished_run_is_recognised_and_left_as_it_is(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert resume(folder, progress=False) == folder
    experiment = load(folder / "spec.yaml")
    assert run_or_resume(experiment, folder.parent, "climbing", progress=False) == (folder, True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_files_call_a_class_is_not_what_makes_two_experiments_differ(tmp_path: Path) -> None:
    text = dump(four_arms())
    for now, before in OLD_NAMES.items():
        assert f"class_path: {now}\n" in text
        text = text.replace(f"class_path: {now}\n", f"class_path: {before}\n")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "spec.yaml").write_text(text)
    assert begun(four_arms(), tmp_path, "old") == tmp_path / "old"
    assert begun(four_arms().replace(steps=7), tmp_path, "old") is None
    turned = dict(reversed(four_arms().arms.items()))
    assert begun(four_arms().replace(arms=turned), tmp_path, "old") is None, "tables follow the order of the arms"
    # Neither is how they are written, and what cannot be read is somebody else's.
    content = yaml.safe_load(text)
    (tmp_path / "old" / "spec.yaml").write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=True))
    for number, other in enumerate([b"game: [", b"", b"\xff\xfe\x00", b"- 1\n"], start=2):
        (tmp_path / f"old-{number}").mkdir()
        (tmp_path / f"old-{number}" / "spec.yaml").write_bytes(other)
    assert begun(four_arms(), tmp_path, "old") == tmp_path / "old"


def test_an_unfinished_run_of_another_layout_is_refused_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "summary.json").unlink()
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), cut := tmp_path / "cut")
    path = cut / "checkpoints" / "a.pt"
    content = torch.load(path, weights_only=True)
    assert isinstance(content["format"], int)
    torch.save(content | {"format": content["format"] + 1}, path)
    number = content["format"]
    for where, what in [
        (folder / "checkpoints" / "rommeo_q.pt", "0.1.0"),
        (path, f"another version (format {number + 1}, here {number})"),
    ]:
        with pytest.raises(RunError) as caught:
            resume(where.parents[1], progress=False)
        assert str(caught.value) == (
            f"{where}: got a checkpoint written by inference-marl {what}, expected one of this version: resume with "
            "that version, or delete it to start the arm anew"
        )
