"""What a suite found: tables over all of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_marl.analysis.cross_table import CrossTable, Entry
from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.recorded import read as read_run
from inference_marl.analysis.report import tournament
from inference_marl.analysis.report.agents import Row, has_own_learners, name_of, of_agents, published_value
from inference_marl.analysis.tables import NAMES, Section, as_csv, as_markdown, as_text
from inference_marl.experiment import is_tournament
from inference_marl.runs.files import write_text
from inference_marl.runs.suite import read_index
from inference_marl.statistics.bounds import PROBABILITY
from inference_marl.statistics.metrics import OF_AGENTS, is_zero_sum

NOTATION = (
    "At each run's last step. Brackets hold the ends of the 95 % interval, ± is half of it; replicates that are all "
    "alike give none. A dash: not known there."
)
"""How to read the tables."""

OF_ARMS = "Means over agents and replicates; rewards and returns of an arm with one learner per seat are each agent's."
OF_LEARNERS = "Of a learner, averaged over all opponents, itself included, and over replicates."
"""What the numbers are averages over, in suites and in suites of tournaments."""

TITLES = {"steps_to_98": "steps until the joint probability of the optimum stays at 0.98 or above"}
"""Titles that differ from those of a single run."""

DRAWN = ("success_rate", "nash_conv")
"""Metrics with a heat map, where they are tabulated."""

EXPLAINED = {
    "success_rate": "Only where the game has an optimum; Wilson's interval.",
    "return": "Of one agent, so the welfare per agent.",
    "nash_conv": "What all agents could gain together by best responses to the others; 0 in an equilibrium. In units "
    "of the game's reward, so it cannot be compared between games.",
    "steps_to_98": "The first step from which the mean probability of the optimum stays at 0.98 or above; bootstrap.",
    "steps_to_success": "Environment steps, median over replicates, with its distribution-free interval.",
}
"""Explanations of some metrics."""

ZERO_SUM = "Where the agents' rewards sum to 0, of agent 0: {}."
"""Explanation of rewards and returns in zero-sum games, by name."""


@dataclass(frozen=True)
class RunOfSuite:
    """What a run of a suite found.

    Attributes:
        name: in the suite.
        folder: of the run.
        arms: their names; of a tournament those of its learners.
        rows: as in `summary.json`, at the last step only, with a `name` (the arm's or, of an arm with a learner per
            seat, that of each of its agents) and the `published` number; of a tournament averages over opponents.
        failed: why, by arm, of arms that were not played to their end; of a tournament by learner, of those without
            averages because a pair of theirs failed.
        summary: `summary.json`; empty if the run has no results.
        zero_sum: whether its agents' rewards sum to 0, so that rewards and returns are those of agent 0.
    """

    name: str
    folder: Path
    arms: list[str]
    rows: list[dict[str, Any]]
    failed: dict[str, str]
    summary: dict[str, Any]
    zero_sum: bool = False

    @classmethod
    def read(cls, name: str, folder: Path, arms: list[str]) -> RunOfSuite:
        """Read a run's folder; if it has no results, all of its arms have failed."""
        if not (folder / "summary.json").is_file():
            return cls(name, folder, arms, [], dict.fromkeys(arms, "no results"), {})
        recorded = read_run(folder)
        summary = recorded.summary
        if is_tournament(summary["levels"]):
            averages = [{**row, "name": row["learner"]} for row in tournament.averages(recorded)]
            return cls(name, folder, arms, averages, tournament.missing_averages(recorded), summary)
        zero_sum = is_zero_sum(recorded.metrics)
        last = max(row["step"] for row in summary["results"])
        rows = [row for each in summary["results"] if each["step"] == last for row in _shown(recorded, each, zero_sum)]
        return cls(name, folder, arms, rows, summary["failed"], summary, zero_sum)


def _shown(recorded: Recorded, row: Row, zero_sum: bool) -> Iterator[dict[str, Any]]:
    """A row of `summary.json`, or those of single agents in its place; then each agent's, as metrics of their own."""
    summary = recorded.summary
    own, apart = of_agents(summary, row), has_own_learners(recorded.spec, row["learner"])
    for each in own if own and apart else own[:1] if own and zero_sum else [row]:
        called = name_of(each) if apart else row["learner"]
        yield {**each, "name": called, "published": published_value(summary, each, zero_sum)}
    for each in own:
        metric, published = f"{each['metric']}_{each['agent']}", published_value(summary, each, zero_sum)
        yield {**each, "metric": metric, "name": row["learner"], "published": published}


@dataclass(frozen=True)
class Played:
    """What a suite's folder holds.

    Attributes:
        folder: the suite's.
        runs: in the suite's order.
        show: as in `Suite`.
    """

    folder: Path
    runs: list[RunOfSuite]
    show: list[str]

    @property
    def are_tournaments(self) -> bool:
        """Whether its runs are tournaments."""
        return any(is_tournament(run.summary.get("levels")) for run in self.runs)


def read(folder: Path | str) -> Played:
    """Read a suite's folder.

    Raises:
        RunError: if it is not one.
        InspectError: if what a run left cannot be read.
    """
    content = read_index(Path(folder))
    runs = [RunOfSuite.read(name, Path(folder) / at["folder"], at["arms"]) for name, at in content["runs"].items()]
    return Played(Path(folder), runs, content["show"])


def table(played: Played) -> str:
    """The combined tables of a suite as text, for 120 columns."""
    return as_text(sections(played))


def write(played: Played) -> list[Path]:
    """Write `suite.csv`, `suite.md` and heat maps of the success rate and of NashConv into a suite's folder.

    Returns:
        The files.
    """
    from inference_marl.analysis.plots.heat_map import heat_map  # matplotlib, which the tables do not need
    from inference_marl.analysis.plots.writing import write_figures

    folder, found = played.folder, cross_tables(played)
    figures = {
        cross.metric: heat_map(cross, folder.name, PROBABILITY if cross.metric == "success_rate" else None)
        for cross in found
        if cross.metric in DRAWN
    }
    return [
        write_text(folder / "suite.csv", as_csv(record for cross in found for record in cross.records())),
        write_text(folder / "suite.md", as_markdown(sections(played))),
        *write_figures(folder, figures),
    ]


def sections(played: Played) -> list[Section]:
    """What the runs are; of tournaments, each one's pairs; a table of arms by runs for each metric; what failed."""
    of = ("game", "replicates", "steps")
    rows = [[run.name, *(str(run.summary.get(key, "-")) for key in of)] for run in played.runs]
    notation = f"{OF_LEARNERS if played.are_tournaments else OF_ARMS} {NOTATION}"
    if any(row.get("published") is not None for run in played.runs for row in run.rows):
        notation += tournament.PUBLISHED
    count = f"{len(rows)} run{'s' if len(rows) > 1 else ''}"
    head = Section(f"{played.folder.name}: {count}", notation, ["run", *of], rows, names=2)
    found = cross_tables(played)
    notes = [f"failed  {run.name}, {arm}: {reason}" for run in played.runs for arm, reason in run.failed.items()]
    unknown = [metric for metric in played.show if metric not in {cross.metric for cross in found}]
    notes += [f"not shown, since no run has it: {metric}" for metric in unknown]
    pairs = [run for run in played.runs if is_tournament(run.summary.get("levels"))]
    pairwise = [tournament.rewards(read_run(run.folder)) for run in pairs]
    tables = [cross.section() for cross in found]
    return [head, *pairwise, *tables, *([Section("\n".join(notes))] if notes else [])]


def cross_tables(played: Played) -> list[CrossTable]:
    """Arms by runs (of tournaments, learners by runs), for each metric that is shown."""
    runs = played.runs
    rows = [(run.name, row) for run in runs for row in run.rows]
    exact = {run for run, row in rows if row["metric"] == "return"}
    usual = ["success_rate", "return", "reward", "nash_conv", "steps_to_98", "steps_to_success"]
    if all(run.name in exact for run in runs if run.rows):
        usual.remove("reward")  # the same with noise
    return [
        _cross_table(metric, played, found)
        for metric in played.show or usual
        if (found := [(run, row) for run, row in rows if row["metric"] == metric])
    ]


def _cross_table(metric: str, played: Played, found: Sequence[tuple[str, dict[str, Any]]]) -> CrossTable:
    """One metric, from its rows, each with the name of its run."""
    runs, paired = played.runs, played.are_tournaments
    names: dict[str, dict[str, None]] = {}
    for _, row in found:
        names.setdefault(row["learner"], {})[row["name"]] = None
    arms = {arm: list(names.get(arm, [arm])) for run in runs for arm in run.arms}
    failed: dict[tuple[str, str], Entry] = {
        (name, run.name): {"failed": reason} for run in runs for arm, reason in run.failed.items() for name in arms[arm]
    }
    titles = {name: words for name, (_, words) in tournament.SHOWN.items()} if paired else NAMES | TITLES
    said = [] if paired or metric not in EXPLAINED else [EXPLAINED[metric]]
    zero_sum = [run.name for run in runs if run.zero_sum]
    if metric in OF_AGENTS and zero_sum:
        said.append(ZERO_SUM.format(", ".join(zero_sum)))
    return CrossTable(
        metric=metric,
        title=titles.get(metric, metric.replace("_", " ")),
        explanation=" ".join(said),
        corner="learner" if paired else "arm",
        across="run",
        rows=[name for each in arms.values() for name in each],
        columns=[run.name for run in runs],
        entries={(row["name"], run): row for run, row in found} | failed,
    )
