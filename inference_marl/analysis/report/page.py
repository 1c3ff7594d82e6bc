"""Reports of one or several runs as a self-contained HTML file, for the command `inference-marl report`.

Figures are embedded, styles are inline, and there are no scripts: the file can be mailed, archived, opened offline and
printed. Its layout is in `page.html.jinja` and `page.css`.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from inference_marl.analysis.comparison import comparison, run_names
from inference_marl.analysis.plots import writing
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.report import suite
from inference_marl.analysis.report.findings import findings
from inference_marl.analysis.report.tables import Report, ablation_report, results
from inference_marl.analysis.report.tournament import tournament_report
from inference_marl.analysis.tables import Section
from inference_marl.described import InspectError
from inference_marl.experiment import is_tournament, learners
from inference_marl.runs.files import write_atomically
from inference_marl.runs.suite import check_none, is_suite
from inference_marl.runs.versions import versions
from inference_marl.types import Metric


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    path: Path
    caption: str

    @classmethod
    def of(cls, path: Path) -> Picture:
        """A figure that a run wrote, with its caption."""
        return cls(path, writing.CAPTIONS.get(path.stem, path.stem.replace("_", " ").capitalize() + "."))

    @property
    def data(self) -> str:
        """The file's content in base64."""
        return base64.b64encode(self.path.read_bytes()).decode("ascii")

    @property
    def width(self) -> int:
        """The width in CSS pixels, 96 to the inch; a PNG has its own width at byte 16, big-endian."""
        with self.path.open("rb") as file:
            return round(int.from_bytes(file.read(20)[16:], "big") * 96 / writing.DPI)


@dataclass(frozen=True)
class Part:
    """A part of the page: a heading and its content."""

    level: int
    section: Section
    pictures: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    code: str = ""


def report(runs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write the report of a run, or of several runs compared with the first.

    The report of an ablation begins with its table and figures. That of a tournament has its cross tables and heat
    maps, and that of a suite the tables and heat maps over all runs, followed by every run.

    Args:
        runs: folders of finished runs, or the folder of one suite.
        out: the file; `None` for `report.html` in the run's folder, or `comparison.html` in the first of several.

    Returns:
        The file.

    Raises:
        InspectError: if there is no run, a folder is not a finished run, or runs cannot be compared.
    """
    if not runs:
        raise InspectError("runs: got none, expected the folder of a run, or several")
    if len(runs) == 1 and is_suite(runs[0]):
        played = suite.read(runs[0])
        return _write(played.folder.name, _suite(played), out or played.folder / "report.html")
    check_none(runs)
    recorded = [read(run) for run in runs]
    first = recorded[0]
    if len(recorded) > 1:
        return _write(f"{len(recorded)} runs compared", _compared(recorded), out or first.folder / "comparison.html")
    return _write(first.name, _run(first, 2), out or first.folder / "report.html")


def _write(title: str, parts: Iterator[Part], path: Path | str) -> Path:
    environment = Environment(
        loader=PackageLoader("inference_marl.analysis.report", "."), autoescape=True, undefined=StrictUndefined
    )
    text = environment.get_template("page.html.jinja").render(title=title, parts=list(parts))
    write_atomically(path := Path(path), lambda beside: beside.write_text(text, encoding="utf-8"))
    return path


def _compared(recorded: Sequence[Recorded]) -> Iterator[Part]:
    """Comparisons of every run with the first, then each run."""
    first, *others = recorded
    rows = [
        [str(run.folder), run.game, str(run.metrics.sizes["replicate"]), str(run.last_step), ", ".join(run.learners)]
        for run in recorded
    ]
    table = pd.DataFrame(rows, columns=["run", "game", "replicates", "steps", "learners"]).set_index("run")
    yield Part(2, Section("", "The runs; the others are compared with the first.", table))
    for other in others:
        names = run_names(first, other)
        yield Part(2, Section(" and ".join(names)))
        yield from (Part(3, section) for section in comparison(first, other))
        figure = writing.write_comparison(first, other)
        if figure is not None:
            yield Part(3, Section(""), [Picture(figure, writing.comparison_caption(names))])
    for run in recorded:
        yield Part(2, Section(run.name))
        yield from _run(run, 3)


def _suite(played: suite.Played) -> Iterator[Part]:
    """The tables over all runs of a suite, then each run."""
    yield from _tables(suite.suite_report(played), 2)
    for run in played.runs:
        yield Part(2, Section(run.name, "" if run.recorded else "No results."))
        if run.recorded is not None:
            yield from _run(run.recorded, 3)


def _tables(found: Report, level: int) -> Iterator[Part]:
    """The sections of a report and its figures."""
    yield from (Part(level, section) for section in found.sections)
    pictures = [Picture.of(path) for path in found.write() if path.suffix == ".png"]
    yield Part(level, Section(""), pictures)


def _run(recorded: Recorded, level: int) -> Iterator[Part]:
    """All parts of one run."""
    yield Part(level, Section(""), facts=_facts(recorded))
    if is_tournament(recorded.spec.get("levels")):
        yield from _tables(tournament_report(recorded), level)
    else:
        yield from _findings(recorded, level)
    yield Part(level, Section("What the metrics mean"), facts=_glossary(recorded))
    what = "Fully resolved, as in spec.yaml: every default is written out."
    spec = (recorded.folder / "spec.yaml").read_text(encoding="utf-8").strip()
    yield Part(level, Section("The experiment", what), code=spec)


def _findings(recorded: Recorded, level: int) -> Iterator[Part]:
    """The findings of a run that is not a tournament, with its figures."""
    pictures = {path.stem: path for path in writing.write_all(recorded)}
    found = results(recorded, recorded.frame())
    sections = [replace(found, title="Results", explanation=f"{found.title}.")]
    if recorded.spec.get("levels"):
        for name in found.figures:  # too many lines in one panel; the ablation has its own figures
            pictures.pop(name, None)
        compared = ablation_report(recorded)
        pictures |= {path.stem: path for path in compared.write() if path.suffix == ".png"}
        sections = list(compared.sections)
    # Other figures in the folder come last; comparisons with other runs have their own report.
    for path in sorted((recorded.folder / "figures").glob("*.png")):
        if not path.stem.startswith(writing.COMPARED) and path.stem not in found.figures:
            pictures.setdefault(path.stem, path)
    answered = {section.title for section in sections}
    for section in (*sections, *(each for each in findings(recorded) if each.title not in answered)):
        here = [Picture.of(pictures.pop(name)) for name in section.figures if name in pictures]
        yield Part(level, section, here)
    if pictures:
        yield Part(level, Section("Further figures"), [Picture.of(path) for path in pictures.values()])


def _glossary(recorded: Recorded) -> dict[str, str]:
    """The meaning of the run's metrics by label, or how they are recorded if they declare none."""
    had = {*map(str, recorded.metrics), *recorded.frame()["metric"]}
    return {
        metric.label: metric.meaning or _recorded(metric) for name, metric in recorded.declared.items() if name in had
    }


def _recorded(metric: Metric) -> str:
    """Describe how a metric is computed from measurements."""
    how = {"mean": "Mean of the values since the last record", "last": "Latest value"}[metric.over]
    return f"{how}{', of each agent' if metric.dims else ''}; its declaration has no description."


def _facts(recorded: Recorded) -> dict[str, str]:
    """Facts about the run, its versions, and how to repeat it."""
    metrics, spec, summary = recorded.metrics, recorded.spec, recorded.summary
    file = f"{recorded.name}.yaml"  # names the new run; readers of the page may not have this folder
    paired = is_tournament(spec.get("levels"))
    command = shlex.join(["inference-marl", "ablate" if spec.get("levels") and not paired else "run", file])
    again = f"save the run's spec.yaml, which is at the end of this page, as {file}; then, where that is: {command}"
    used = recorded.made.get("versions")
    known = ", ".join(f"{name} {number}" for name, number in (used or versions()).items())
    done = datetime.fromtimestamp((recorded.folder / "summary.json").stat().st_mtime, UTC)
    seconds = recorded.made.get("seconds")
    took = "" if seconds is None else f"{seconds:,.1f} seconds, "
    facts = {
        "Game": recorded.game,
        "Learners": ", ".join(learners(spec["levels"]) if paired else recorded.learners),
        "Replicates": f"{metrics.sizes['replicate']} independent, all from seed {metrics.attrs.get('seed', '-')}",
        "Steps": f"{recorded.last_step:,} environment steps, {metrics.sizes['step']:,} records",
        "Time": f"{took}finished {done:%Y-%m-%d %H:%M} UTC",
        "Reproduce": again,
        "Versions": known if used else f"{known} (with which this report was written)",
    }
    return facts | {f"Failed: {arm}": reason for arm, reason in summary.get("failed", {}).items()}
