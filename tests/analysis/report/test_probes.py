"""What beliefs know, and of which knowledge they are too sure: tables, and the sentence that says so by itself."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.report.findings import findings
from inference_marl.analysis.report.page import report
from inference_marl.analysis.report.probes import probes
from inference_marl.analysis.report.text import inspect_run
from inference_marl.analysis.tables import TABLE_WIDTH, Section
from inference_marl.statistics.probes import probed_everywhere
from tests.run_folder import latents, of_beliefs


def recorded(folder: Path, far_error: float = 0.1, error: float = 0.1) -> Recorded:
    """Opponents called new, and others called far; errors of z's mean, of which the belief always expects 0.1."""
    return read(of_beliefs(folder / "run", new=latents(0, 0.1, error), far=latents(1, 0.1, far_error)))


def table(section: Section) -> pd.DataFrame:
    assert section.table is not None
    return section.table


def test_tables_are_of_every_population_arm_and_number(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    knows, sure = probes(run)
    assert knows.title == "What does the belief know?"
    assert "one half of the new opponents" in knows.explanation
    whom = "far ones are scored by probes fitted to all new ones, except those that are the same as the scored ones"
    assert whom in knows.explanation
    rows = [(each, "it", f"after {number}") for each in ("new", "far") for number in (0, 5)]
    assert table(knows).index.tolist() == table(sure).index.tolist() == rows
    assert table(knows).columns.tolist() == ["fire", "water"]
    expected = probed_everywhere(run.latents, "it")["far"]["r2"].sel(episodes=5, ability="fire")
    assert table(knows).loc[("far", "it", "after 5"), "fire"].startswith(f"{float(expected.mean()):.3f} ± ")
    assert table(sure).columns.tolist() == ["fire"]  # what is not known has no width
    assert max(map(len, "\n".join(map(Section.text, (knows, sure))).splitlines())) <= TABLE_WIDTH


def test_it_says_where_a_belief_is_confident_and_wrong(tmp_path: Path) -> None:
    assert probes(recorded(tmp_path))[1].note == ""
    run = recorded(tmp_path / "wrong", far_error=0.5)
    share = float(probed_everywhere(run.latents, "it")["far"]["coverage"].sel(episodes=5, ability="fire").mean())
    assert share < 0.4
    assert probes(run)[1].note == (
        "it is confident and wrong about fire of far opponents: after 5 episodes with them, its 90 % intervals "
        f"contain {100 * share:.0f} % of the true numbers."
    )


def test_what_nobody_knows_nobody_is_wrong_about(tmp_path: Path) -> None:
    """Nor is anything said of numbers that are not in the belief, however narrow it is."""
    (knows,) = probes(recorded(tmp_path, error=20.0))
    assert knows.title == "What does the belief know?"


def test_points_without_populations_and_nothing(tmp_path: Path) -> None:
    point = latents().assign(sd=latents()["sd"] * float("nan"))
    run = read(of_beliefs(tmp_path / "point", new=point))
    (knows,) = probes(run)
    assert "; " not in knows.explanation
    assert table(knows).index.tolist() == [("new", "it", "after 0"), ("new", "it", "after 5")]
    assert probes(read(of_beliefs(tmp_path / "unknown", new=latents().drop_vars(["type", "ability"])))) == []
    silent = xr.full_like(latents(), float("nan"))
    assert probes(read(of_beliefs(tmp_path / "silent", new=silent))) == []


@pytest.mark.usefixtures("unrendered")
def test_inspect_and_report_show_it(tmp_path: Path) -> None:
    run = recorded(tmp_path)
    assert {"What does the belief know?", "How sure is the belief of what it knows?"} <= {
        section.title for section in findings(run)
    }
    blocks: list[str] = []
    inspect_run(run.folder, print=blocks.append)
    text = "\n".join(blocks)
    assert "\nWhat does the belief know?\n" in text
    for name in ("probes.png", "belief_width.png"):
        assert name in text
    page = report([run.folder]).read_text()
    assert page.index("What does the belief know?</h2>") < page.index("Chart: What linear probes read off")
