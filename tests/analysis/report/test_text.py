"""The command `inspect` on folders of runs: one screen, or every answer; and which tables suit a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import xarray as xr

from inference_marl.analysis.recorded import read
from inference_marl.analysis.report.findings import findings, overview
from inference_marl.analysis.report.text import inspect_run, report_of
from inference_marl.analysis.tables import as_text
from inference_marl.described import InspectError
from tests import run_folder


def inspected(folder: Path, full: bool = False) -> str:
    blocks: list[str] = []
    inspect_run(folder, full, print=blocks.append)
    return "\n".join(blocks)


@pytest.mark.slow
def test_inspect_answers_everything_in_full(tmp_path: Path) -> None:
    answers_everything(tmp_path, run_folder.discrete())


@pytest.mark.usefixtures("unrendered")
def test_inspect_answers_everything_of_continuous_actions(tmp_path: Path) -> None:
    answers_everything(tmp_path, run_folder.continuous())


def answers_everything(tmp_path: Path, run: dict[str, xr.Dataset]) -> None:
    folder = run_folder.write(tmp_path / "run", **run)
    text, recorded = inspected(folder, full=True), read(folder)
    assert text.startswith(f"{recorded.title}\n\n{as_text(findings(recorded))}")
    for part in ("summarised by ArviZ", "think ahead", "KL(rho || P)", "log score"):
        assert part in text
    for learner in ("rommeo_q", "rommeo_q_emp", "jal") if "jal" in recorded.learners else ("rommeo_q",):
        assert re.search(rf"^{learner}\b", text, flags=re.MULTILINE)
    *lines, figures = text.splitlines()
    assert max(map(len, lines)) <= 120
    assert not any(line != line.rstrip() for line in lines)
    assert figures.startswith("Figures in ")
    names = figures.partition(": ")[2].split(", ")
    assert sorted(names) == sorted(path.name for path in (folder / "figures").iterdir())
    assert "beliefs.png" in names


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_inspect_is_one_screen_unless_everything_is_asked_for(tmp_path: Path) -> None:
    folder = run_folder.write(tmp_path / "run", **run_folder.discrete(4, 6))
    text, recorded = inspected(folder), read(folder)
    assert text.startswith(f"{recorded.title}\n\n{as_text(overview(recorded))}")
    assert len(text.splitlines()) <= 24
    assert "summarised by ArviZ" not in text


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("full", [False, True])
def test_runs_without_beliefs(tmp_path: Path, full: bool) -> None:
    run = run_folder.discrete(3, 6)
    folder = run_folder.write(tmp_path / "bare", metrics=run["metrics"])
    text = inspected(folder, full)
    assert text.startswith(f"{report_of(folder).text()}\n\nBeliefs\n"), "results come first"
    assert text.count(read(folder).title) == 1
    assert "This run did not record beliefs" in text
    assert "Figures in " in text


@pytest.mark.usefixtures("unrendered")
def test_results_stand_for_beliefs_that_nobody_has(tmp_path: Path) -> None:
    run = {name: each.sel(learner=["wolf_phc"]) for name, each in run_folder.discrete(3, 6).items()}
    folder = run_folder.write(tmp_path / "plain", **run)
    assert inspected(folder).startswith(f"{report_of(folder).text()}\n\nBeliefs\n")
    blocks: list[str] = []
    inspect_run(folder, print=blocks.append, known=True)
    assert blocks[0].startswith(f"{read(folder).title}\n\nBeliefs\n"), "printed before"


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("make", [run_folder.discrete, run_folder.continuous])
def test_one_replicate_and_one_record_have_no_intervals(tmp_path: Path, make: type, full: bool) -> None:
    run = {name: data.isel(step=[-1]) if "step" in data.dims else data for name, data in make(1, 6).items()}
    text = inspected(run_folder.write(tmp_path / "run", **run), full)
    assert "1 replicate, at step" in text
    assert "nan" not in text.lower()
    assert not re.search(r"\[\S+, \S+\]", text)
    assert "When did the belief change?" not in text, "there is nothing to compare with"


def test_the_tables_that_suit_a_folder(tmp_path: Path) -> None:
    folder = run_folder.write(tmp_path / "run", **run_folder.discrete(2, 3))
    (folder / "spec.yaml").write_text("arms: {rommeo_q: null, rommeo_q_emp: null, jal: null, wolf_phc: null}\n")
    assert (report_of(folder).name, report_of(folder, compare=True).name) == ("results", "ablation")


def test_errors_reach_the_user(tmp_path: Path) -> None:
    for look in (inspect_run, report_of):
        with pytest.raises(InspectError, match=r"without spec\.yaml"):
            look(tmp_path)


@pytest.mark.slow
def test_a_run_that_can_only_be_read_is_inspected(tmp_path: Path) -> None:
    """Without figures, of which it says why there are none."""
    recorded = run_folder.recorded(tmp_path, **run_folder.discrete(2, 4))
    (recorded.folder / "figures").write_text("")
    said: list[str] = []
    inspect_run(recorded, print=said.append)
    assert said[-1].startswith(f"\nNo figures: {recorded.folder / 'figures'}")
    assert "What do the agents believe" in said[0]
