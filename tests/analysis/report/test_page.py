from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from inference_marl.analysis.plots import learning_curves
from inference_marl.analysis.recorded import read
from inference_marl.analysis.report.findings import findings
from inference_marl.analysis.report.page import Part, _write, report
from inference_marl.analysis.report.tables import run_report
from inference_marl.analysis.tables import Section
from inference_marl.cli import main
from inference_marl.config.factors import ablation
from inference_marl.described import InspectError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.learners import Rommeo
from inference_marl.models import EmpiricalFrequency, TabularCritic
from inference_marl.runs.run import run
from inference_marl.types import Metric
from tests import run_folder


class Page(HTMLParser):
    """What a reader of the file would find."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(path.read_text())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h1", "h2", "h3"}:
            self.headings.append(data)
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data
        if "style" not in self.open:
            self.text += data

    def of(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]


def two_learners(replicates: int, records: int) -> dict[str, xr.Dataset]:
    """One learner with an opponent model and one without."""
    run = run_folder.discrete(replicates, records)
    return {name: dataset.sel(learner=["rommeo_q", "wolf_phc"]) for name, dataset in run.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder.write(tmp_path_factory.mktemp("runs") / "run", **two_learners(4, 8))


def copied(folder: Path, to: Path) -> Path:
    """A copy that a test may write into."""
    return Path(shutil.copytree(folder, to / folder.name))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(report([folder]))


def test_report_has_everything_of_the_run(folder: Path, page: Page) -> None:
    assert page.open == []
    recorded = read(folder)
    assert page.headings[:2] == ["synthetic", "Results"]
    assert [section.title for section in findings(recorded)] == page.headings[2:-2]
    assert page.headings[-2:] == ["What the metrics mean", "The experiment"]
    for metric in recorded.declared.values():
        assert metric.label in page.text
        assert metric.meaning in page.text
    for section in (*run_report(recorded).sections, *findings(recorded)):
        if section.table is not None:
            assert all(text in page.cells for text in section.table.fillna("").to_numpy().ravel())
        assert section.explanation in page.text
        assert section.note in page.text
    assert (folder / "spec.yaml").read_text().strip() in page.text  # with its markup, so escaped in the file
    assert "inference-marl run synthetic.yaml" in page.text
    assert "all from seed 0" in page.text
    for package in ("python", "inference_marl", "torch", "pyro", "numpy"):
        assert re.search(rf"{package} \d", page.text)


def test_the_glossary_has_the_metrics_of_the_run(tmp_path: Path) -> None:
    """Also those that say nothing of themselves; and no others."""
    odd = [Metric("odd_loss"), Metric("odd_size", dims=(), over="last")]
    data = {"reward": np.zeros((1, 2, 3, 2)), "odd_loss": np.ones((1, 2, 3, 2)), "odd_size": np.ones((1, 2, 3))}
    metrics = run_folder.metrics_dataset(data, np.arange(1, 4), declared=odd)
    page = Page(report([run_folder.write(tmp_path / "run", metrics=metrics)]))
    glossary = page.text.partition("What the metrics mean")[2].partition("The experiment")[0]
    assert "odd lossMean of the values since the last record, of each agent; its" in glossary
    assert "odd sizeLatest value; its" in glossary
    assert "opponent model's lead" not in page.text
    assert "Learning curves, a panel for each metric" in page.text


def test_every_figure_is_embedded_once_with_words(folder: Path, page: Page) -> None:
    drawn = list((folder / "figures").glob("*.png"))
    sources = page.of("src")
    assert len(sources) == len(set(sources)) == len(drawn) > 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert len(page.of("alt")) == len(drawn)
    assert all(len(alt) > 30 for alt in page.of("alt"))
    assert page.tags.count("figcaption") == len(drawn) + page.tags.count("table")
    for number in range(1, len(drawn) + 1):
        assert page.text.count(f"Figure {number}.") == 1
    for number in range(1, page.tags.count("table") + 1):
        assert page.text.count(f"Table {number}.") == 1


@pytest.mark.usefixtures("page")
def test_report_needs_nothing_from_outside(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    bare = re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//\w|url\(|@import|<script|<link|<iframe|javascript:", bare)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


@pytest.mark.usefixtures("unrendered")
def test_figures_and_failures_of_others_are_shown(tmp_path: Path) -> None:
    run = run_folder.discrete(3, 5)
    folder = run_folder.write(tmp_path / "run", metrics=run["metrics"])
    (folder / "figures").mkdir()
    learning_curves(run["metrics"]).savefig(folder / "figures" / "my_own_picture.png")
    text = report([folder], tmp_path / "elsewhere.html").read_text()
    assert "My own picture." in text
    assert "Further figures" in text
    assert not (folder / "report.html").exists()


@pytest.mark.usefixtures("unrendered")
def test_ablation_comes_first(tmp_path: Path) -> None:
    run = two_learners(4, 8)
    folder = run_folder.write(tmp_path / "run", **run)
    learners = run["metrics"]["learner"].to_numpy().tolist()
    levels = {name: {"guide": name} for name in learners}
    (folder / "spec.yaml").write_text(yaml.safe_dump({"levels": levels, "arms": dict.fromkeys(learners)}))
    found = Page(report([folder]))
    assert "2 cells" in found.headings[1]
    assert found.text.index("What was reached") < found.text.index("Learning curves of the ablation's cells: means")
    assert "inference-marl ablate synthetic.yaml" in found.text
    assert {path.name for path in folder.glob("ablation.*")} == {"ablation.csv", "ablation.md", "ablation.tex"}


@pytest.mark.usefixtures("unrendered")
def test_an_ablation_answers_each_question_once(tmp_path: Path) -> None:
    guide, prior = OpponentFirst(Optimal(), Optimal()), EmpiricalFrequency(window=5)
    learner = Rommeo(opponent_prior=prior, guide=guide, critic=TabularCritic())
    experiment = Experiment(MatrixGame("climbing"), {"a": learner}, replicates=2, steps=8)
    folder = run(ablation(experiment, {"temperature": [1.0, 5.0]}), tmp_path, progress=False)
    headings = Page(report([folder])).headings
    for title in ("Who predicts better?", "Who predicts better when?"):
        assert headings.count(title) == 1


def test_names_and_cells_are_no_markup(tmp_path: Path) -> None:
    index = pd.MultiIndex.from_tuples([("x<b>&", "1"), ("y", "10")], names=["<factor>", "level"])
    table = pd.DataFrame({"<reward>": ["<i>", "3.0"], "long": ["x" * 150, None]}, index)
    section = Section("<h6>A & B", "What <it> is.", table, "A <note>.")
    path = _write("<title>", iter([Part(2, section, facts={"<fact>": "<b>"}, code="<code>")]), tmp_path / "page.html")
    page = Page(path)
    assert page.open == []
    assert page.headings == ["<title>", "<h6>A & B"]
    assert {"x<b>&", "1", "y", "10", "<factor>", "level", "<reward>", "<i>", "3.0", "x" * 150} <= set(page.cells)
    for text in ("What <it> is.", "A <note>.", "<fact>", "<code>"):
        assert text in page.text
    assert not {"i", "it", "note", "h6"} & set(page.tags)


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_versions_are_those_of_the_run(tmp_path: Path) -> None:
    folder = run_folder.write(tmp_path / "run", **two_learners(2, 3))
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"versions": {"torch": "9.8.7"}}))
    found = Page(report([folder])).text
    assert "torch 9.8.7" in found
    assert "Versions are those" not in found


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_report_of_several_runs_compares_them(folder: Path, tmp_path: Path) -> None:
    first, other = copied(folder, tmp_path), run_folder.write(tmp_path / "other", **two_learners(3, 6))
    path = report([first, other])
    assert path == first / "comparison.html"
    found = Page(path)
    assert found.headings[:3] == ["2 runs compared", "run and other", "What differs in the specifications?"]
    assert "How far are the beliefs of other from those of run?" in found.headings
    assert found.headings.count("Results") == 2
    assert found.headings.count("Are the beliefs calibrated?") == 2


@pytest.mark.usefixtures("unrendered")
def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(copied(folder, tmp_path)), "--out", str(tmp_path / "it.html")]) == 0
    assert str(tmp_path / "it.html") in capsys.readouterr().out
    assert main(["report", str(tmp_path)]) == 2
    assert "without spec.yaml" in capsys.readouterr().err
    with pytest.raises(InspectError, match="runs: got none"):
        report([])
