"""A run, or several compared, as one self-contained HTML file: the command `inference-marl report`.

Figures are embedded, styles are inline, and there are no scripts: the file can be mailed, archived, opened offline and
printed.
"""

from __future__ import annotations

import base64
import platform
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from string import Template

from inference_marl.analysis.comparison import comparison, run_names
from inference_marl.analysis.plots import writing
from inference_marl.analysis.recorded import Recorded, read
from inference_marl.analysis.report import ablation, suite, tournament
from inference_marl.analysis.report.findings import findings
from inference_marl.analysis.report.text import results
from inference_marl.analysis.tables import Section, as_html
from inference_marl.described import InspectError
from inference_marl.experiment import is_tournament
from inference_marl.experiment import learners as learners_of
from inference_marl.runs.files import write_atomically
from inference_marl.runs.suite import check_none, is_suite

PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
"""Markup and styles around the body of a report."""

PACKAGES = ("inference-marl", "torch", "pyro-ppl", "arviz", "numpy", "xarray", "matplotlib")
"""Packages whose versions the report names, if the run does not."""


def report(runs: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write the report of a run, or of several runs compared with the first.

    An ablation is a run like any other: its table and figures come first. Of a tournament there are its cross tables
    and heat maps; of a suite the tables and heat maps of all runs together, then every run.

    Args:
        runs: folders of finished runs, or the folder of one suite.
        out: the file; `report.html` in the run's folder if `None`, for several runs `comparison.html` in the first's.

    Returns:
        The file.

    Raises:
        InspectError: if there is no run, a folder is not a run or is not finished, or runs cannot be compared.
    """
    if not runs:
        raise InspectError("runs: got none, expected the folder of a run, or several")
    page = _Page()
    if len(runs) == 1 and is_suite(runs[0]):
        played = suite.read(runs[0])
        return _written(played.folder.name, _suite(page, played), out or played.folder / "report.html")
    check_none(runs)
    recorded = [read(run) for run in runs]
    first, *others = recorded
    if others:
        title = f"{len(recorded)} runs compared"
        body = [f"<h1>{escape(title)}</h1>", page.table(_overview(recorded))]
        for other in others:
            names = run_names(first, other)
            body.append(f"<h2>{escape(' and '.join(names))}</h2>")
            body += [page.section(section, 3, {}) for section in comparison(first, other)]
            figure = writing.write_comparison(first, other)
            body += [] if figure is None else [page.figure(figure, writing.comparison_caption(names))]
        for each in recorded:
            body += [f"<h2>{escape(each.name)}</h2>", *_run(page, each, 3)]
    else:
        title = first.name
        body = [f"<h1>{escape(title)}</h1>", *_run(page, first, 2)]
    return _written(title, body, out or first.folder / ("comparison.html" if others else "report.html"))


def _written(title: str, body: Iterable[str], path: Path | str) -> Path:
    text = PAGE.substitute(title=escape(title), body="\n".join(body))
    path = Path(path)
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))
    return path


@dataclass
class _Page:
    """Numbers tables and figures as they come."""

    tables: Iterator[int] = field(default_factory=lambda: count(1))
    figures: Iterator[int] = field(default_factory=lambda: count(1))

    def section(self, section: Section, level: int, pictures: dict[str, Path]) -> str:
        """Heading, table and the figures that belong to it, which are taken out of `pictures`."""
        parts = [f"<h{level}>{escape(section.title)}</h{level}>"] if section.title else []
        if section.rows:
            parts.append(self.table(section))
        elif section.explanation:
            parts.append(f"<p>{escape(section.explanation)}</p>")
        parts += [f'<p class="note">{escape(section.note)}</p>'] if section.note else []
        parts += [self.figure(pictures.pop(name)) for name in section.figures if name in pictures]
        return "<section>\n" + "\n".join(parts) + "\n</section>"

    def table(self, section: Section) -> str:
        """A numbered table."""
        return as_html(section, f"<b>Table {next(self.tables)}.</b> {escape(section.explanation or section.title)}")

    def figure(self, path: Path, caption: str = "") -> str:
        """One picture, embedded."""
        said = caption or writing.CAPTIONS.get(path.stem, path.stem.replace("_", " ").capitalize() + ".")
        content = path.read_bytes()
        # PNG: the width in pixels is a big-endian number at byte 16. A CSS pixel is 1/96 inch.
        width = round(int.from_bytes(content[16:20], "big") * 96 / writing.DPI)
        data = base64.b64encode(content).decode("ascii")
        return (
            f'<figure><img alt="Chart: {escape(said)}" width="{width}" src="data:image/png;base64,{data}">'
            f"<figcaption><b>Figure {next(self.figures)}.</b> {escape(said)}</figcaption></figure>"
        )


def _suite(page: _Page, played: suite.Played) -> Iterable[str]:
    """All runs of a suite together, then one by one."""
    yield f"<h1>{escape(played.folder.name)}</h1>"
    yield from (page.section(section, 2, {}) for section in suite.sections(played))
    yield from (page.figure(path) for path in suite.write(played) if path.suffix == ".png")
    for run in played.runs:
        yield f"<h2>{escape(run.name)}</h2>"
        yield from _run(page, read(run.folder), 3) if run.summary else ["<p>No results.</p>"]


def _run(page: _Page, recorded: Recorded, level: int) -> Iterable[str]:
    """Everything about one run."""
    yield _facts(recorded)
    if _is_tournament(recorded):
        yield from (page.section(section, level, {}) for section in tournament.sections(recorded))
        yield from (page.figure(path) for path in tournament.write(recorded) if path.suffix == ".png")
    else:
        yield from _findings(page, recorded, level)
    spec = escape((recorded.folder / "spec.yaml").read_text(encoding="utf-8").strip())
    yield (
        f"<section><h{level}>The experiment</h{level}>\n"
        f"<p>Fully resolved, as in spec.yaml: every default is written out.</p>\n<pre>{spec}</pre></section>"
    )


def _is_tournament(recorded: Recorded) -> bool:
    return is_tournament(recorded.spec.get("levels"))


def _findings(page: _Page, recorded: Recorded, level: int) -> Iterable[str]:
    """What a run that is no tournament found, with its figures."""
    pictures = {path.stem: path for path in writing.write_all(recorded)}
    if recorded.spec.get("levels"):
        ablation.write(recorded)
    # Whatever else was drawn into the folder comes last; comparisons with other runs have their own report.
    for path in sorted((recorded.folder / "figures").glob("*.png")):
        if not path.stem.startswith(writing.COMPARED):
            pictures.setdefault(path.stem, path)
    found = results(recorded)
    found = replace(found, title="Results", explanation=f"{found.title}.")
    if recorded.spec.get("levels"):
        for name in found.figures:  # many lines in one panel: the ablation has figures of its own
            pictures.pop(name, None)
        for section in ablation.sections(recorded):
            yield page.section(section, level, pictures)
    else:
        yield page.section(found, level, pictures)
    for section in findings(recorded):
        yield page.section(section, level, pictures)
    if pictures:
        drawn = "\n".join(page.figure(path) for path in pictures.values())
        yield f"<section><h{level}>Further figures</h{level}>\n{drawn}</section>"


def _facts(recorded: Recorded) -> str:
    """What was run, with what, and how to run it again."""
    metrics, spec = recorded.metrics, recorded.spec
    file = f"{recorded.name}.yaml"  # which names the new run; where this one is, readers of the page cannot know
    paired = _is_tournament(recorded)
    command = shlex.join(["inference-marl", "ablate" if spec.get("levels") and not paired else "run", file])
    used = recorded.summary.get("made", {}).get("versions")
    versions = [f"Python {platform.python_version()}", *map(_version, PACKAGES)]
    facts = {
        "Game": metrics.attrs.get("game", "-"),
        "Learners": ", ".join(learners_of(spec["levels"]) if paired else recorded.learners),
        "Replicates": f"{metrics.sizes['replicate']} independent, all from seed {metrics.attrs.get('seed', '-')}",
        "Steps": f"{recorded.last_step:,} environment steps, {metrics.sizes['step']:,} records",
        "Time": _time(recorded),
        "Reproduce": f"save the run's spec.yaml, which is at the end of this page, as {file}; then, where that is: ",
        "Versions": ", ".join(f"{name} {number}" for name, number in used.items()) if used else ", ".join(versions),
    }
    facts |= {f"Failed: {arm}": reason for arm, reason in recorded.failed.items()}
    how = f"<code>{escape(command)}</code>"
    rows = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}{how if name == 'Reproduce' else ''}</dd>"
        for name, value in facts.items()
    )
    note = "" if used else '<p class="note">Versions are those this report was written with.</p>'
    return f'<dl class="facts">\n{rows}\n</dl>\n{note}'


def _time(recorded: Recorded) -> str:
    """How long it took, and when it was done."""
    done = datetime.fromtimestamp((recorded.folder / "summary.json").stat().st_mtime, UTC)
    seconds = recorded.summary.get("made", {}).get("seconds")
    took = [] if seconds is None else [f"{seconds:,.1f} seconds"]
    return ", ".join([*took, f"finished {done:%Y-%m-%d %H:%M} UTC"])


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def _overview(recorded: Sequence[Recorded]) -> Section:
    """The runs by name."""
    rows = [
        [
            str(each.folder),
            str(each.metrics.attrs.get("game", "-")),
            str(each.metrics.sizes["replicate"]),
            str(each.last_step),
            ", ".join(each.learners),
        ]
        for each in recorded
    ]
    header = ["run", "game", "replicates", "steps", "learners"]
    return Section("Runs", "The runs, the first being what the others are compared with.", header, rows)
