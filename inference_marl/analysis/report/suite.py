"""Reports of suites: tables over all runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from inference_marl.analysis.estimates import at_the_end, pivot
from inference_marl.analysis.recorded import ESTIMATE, Recorded
from inference_marl.analysis.recorded import read as read_run
from inference_marl.analysis.report import tournament
from inference_marl.analysis.report.tables import PUBLISHED, Report
from inference_marl.analysis.tables import NO_INTERVAL, Section, failures
from inference_marl.experiment import is_tournament
from inference_marl.runs.suite import read_index
from inference_marl.statistics.metrics import NASH_CONV, OF_AGENTS, OPTIMUM_PROBABILITY, RETURN, REWARD, SUCCESS_RATE
from inference_marl.statistics.summary import STEPS_TO_98, STEPS_TO_SUCCESS
from inference_marl.types import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTATION = f"At each run's last step. Brackets hold the ends of the 95 % interval, ± is half of it. {NO_INTERVAL}"
OF_ARMS = "Means over agents and replicates; rewards and returns of an arm with one learner per seat are each agent's."
OF_LEARNERS = "Of a learner, averaged over all opponents, itself included, and over replicates."
"""How to read the tables, and what is averaged over, in suites of runs and of tournaments."""

USUAL = tuple(metric.name for metric in (SUCCESS_RATE, RETURN, REWARD, NASH_CONV, STEPS_TO_98, STEPS_TO_SUCCESS))
"""Metrics that are tabulated unless the suite says otherwise."""

DRAWN = (SUCCESS_RATE.name, NASH_CONV.name)
"""Metrics with a heat map, if they are tabulated."""

ZERO_SUM = "Where the agents' rewards sum to 0, of agent 0: {}."
"""Explanation of rewards and returns in zero-sum games, given their names."""


@dataclass(frozen=True)
class RunOfSuite:
    """A run of a suite and its results.

    Attributes:
        name: name of the run in the suite.
        folder: folder of the run.
        arms: names of the arms; for a tournament, of its learners.
        recorded: the run; `None` if it has no results.
    """

    name: str
    folder: Path
    arms: list[str]
    recorded: Recorded | None

    @property
    def is_tournament(self) -> bool:
        """Whether the arms are pairs of learners."""
        return self.recorded is not None and is_tournament(self.recorded.spec.get("levels"))

    @property
    def failed(self) -> dict[str, str]:
        """The reasons of failed arms or, in a tournament, of learners that lack averages since a pair failed."""
        if self.recorded is None:
            return dict.fromkeys(self.arms, "no results")
        return tournament.missing_averages(self.recorded) if self.is_tournament else self.recorded.failed

    def estimates(self) -> pd.DataFrame:
        """Results at the last step (averages for a tournament), with a column `name` for the row."""
        if self.recorded is None:
            numbers = dict.fromkeys([*ESTIMATE, "published"], "float64")
            return pd.DataFrame(columns=["learner", "metric", *numbers, "run", "name"]).astype(numbers)
        if self.is_tournament:
            found = tournament.averages(self.recorded)
            return found.assign(run=self.name, name=found["learner"])
        return _in_rows(self.recorded, at_the_end(self.recorded.frame())).assign(run=self.name)


def _in_rows(recorded: Recorded, found: pd.DataFrame) -> pd.DataFrame:
    """Means over agents or, in their place, single agents; then each agent's, as separate metrics."""
    known, apart = found["metric"].isin(OF_AGENTS), found["learner"].map(recorded.has_own_learners)
    mean, agent = found["agent"].isna(), found["agent"].map("{:g}".format)
    kept = (mean & ~(known & (apart | recorded.zero_sum))) | (~mean & known & apart)
    kept |= ~mean & known & ~apart & recorded.zero_sum & (found["agent"] == 0)
    names = found["learner"].where(~apart | mean, found["learner"] + ", agent " + agent)
    single = found[~mean & known]
    single = single.assign(name=single["learner"], metric=single["metric"] + "_" + agent[single.index])
    return pd.concat([found.assign(name=names)[kept], single])


@dataclass(frozen=True)
class Played:
    """The content of a suite's folder: its runs in order, and the metrics that its file selects."""

    folder: Path
    runs: list[RunOfSuite]
    show: list[str]

    @property
    def metrics(self) -> dict[str, Metric]:
        """The declarations of all metrics that its runs report."""
        declared = {name: each for run in self.runs if run.recorded for name, each in run.recorded.declared.items()}
        single = {f"{name}_{agent}": declared[name] for name in OF_AGENTS if name in declared for agent in range(2)}
        return declared | single


def read(folder: Path | str) -> Played:
    """Read a suite's folder.

    Raises:
        RunError: if the folder is not a suite.
        InspectError: if the results of a run cannot be read.
    """
    content, runs = read_index(Path(folder)), []
    for name, at in content["runs"].items():
        where = Path(folder) / at["folder"]
        runs.append(
            RunOfSuite(name, where, at["arms"], read_run(where) if (where / "summary.json").is_file() else None)
        )
    return Played(Path(folder), runs, content["show"])


def suite_report(played: Played) -> Report:
    """Tables of arms (for tournaments, learners) by runs, for each selected metric."""
    found = pd.concat([run.estimates() for run in played.runs])

    def draw() -> Mapping[str, Figure]:
        from inference_marl.analysis.plots.heat_map import heat_map

        figures = {}
        for metric in (name for name in _metrics(played, found) if name in DRAWN):
            rows, columns = _order(played, found[found["metric"] == metric])
            means = found[found["metric"] == metric].pivot(index="name", columns="run", values="mean")
            limits = SUCCESS_RATE.bounds if metric == SUCCESS_RATE.name else None
            label = played.metrics[metric].label
            means = means.reindex(rows, columns=columns).rename_axis(_rows_are(played))
            figures[metric] = heat_map(means, label, played.folder.name, limits, _failed(played, found))
        return figures

    return Report(played.folder, "suite", sections(played, found), found, draw)


def sections(played: Played, found: pd.DataFrame) -> list[Section]:
    """The runs, for tournaments the pairs of each, a table of arms by runs for each metric, and failures."""
    pairs = [run for run in played.runs if run.is_tournament]
    notation = f"{OF_LEARNERS if pairs else OF_ARMS} {NOTATION} A dash: not known there."
    notation += PUBLISHED if found["published"].notna().any() else ""
    facts = {run.name: run.recorded.summary if run.recorded else {} for run in played.runs}
    what = ["game", "replicates", "steps"]
    head = pd.DataFrame({key: [str(fact.get(key, "-")) for fact in facts.values()] for key in what}, list(facts))
    count = f"{len(facts)} run{'s' if len(facts) > 1 else ''}"
    tables = [Section(f"{played.folder.name}: {count}", notation, head.rename_axis("run"))]
    for run in pairs:
        assert run.recorded is not None
        against = tournament.table(run.recorded, tournament.pairs(run.recorded), REWARD.name, intervals=False)
        tables.append(Section(f"reward per step of the row's learner, {run.name}", table=against))
    metrics = _metrics(played, found)
    tables += [_table(played, found[found["metric"] == metric], metric) for metric in metrics]
    failed = {f"{run.name}, {arm}": why for run in played.runs for arm, why in run.failed.items()}
    unknown = [f"not shown, since no run has it: {metric}" for metric in played.show if metric not in metrics]
    return [*tables, *failures(failed), *([Section("\n".join(unknown))] if unknown else [])]


def _metrics(played: Played, found: pd.DataFrame) -> list[str]:
    """The names of the metrics to tabulate."""
    known = set(found["metric"])
    exact = set(found.loc[found["metric"] == RETURN.name, "run"]) == set(found["run"])
    usual = [name for name in USUAL if not (exact and name == REWARD.name)]  # a noisy version of the return
    return [name for name in played.show or usual if name in known]


def _table(played: Played, found: pd.DataFrame, metric: str) -> Section:
    rows, columns = _order(played, found)
    texts = pivot(found, ["name"], "run", played.metrics).rename_axis(columns=None)
    texts = texts.reindex(rows, columns=columns).astype(object)  # columns without values are not numeric
    for row, run in _failed(played, found):
        texts.loc[row, run] = "failed"
    declared = played.metrics[metric]
    said = "" if metric == OPTIMUM_PROBABILITY.name else declared.meaning
    zero_sum = [run.name for run in played.runs if run.recorded and run.recorded.zero_sum and not run.is_tournament]
    if metric in OF_AGENTS and zero_sum:
        said = f"{said} {ZERO_SUM.format(', '.join(zero_sum))}"
    label = declared.label if metric == declared.name else f"{declared.label}, agent {metric.rpartition('_')[2]}"
    return Section(label, said, texts.fillna("-").rename_axis(_rows_are(played)))


def _rows_are(played: Played) -> str:
    """The name of a table's rows."""
    return "learner" if any(run.is_tournament for run in played.runs) else "arm"


def _order(played: Played, found: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Rows and columns of a table: arms, or their agents, by runs."""
    names = found.groupby("learner", sort=False)["name"].unique()
    arms = dict.fromkeys(arm for run in played.runs for arm in run.arms)
    return [name for arm in arms for name in names.get(arm, [arm])], [run.name for run in played.runs]


def _failed(played: Played, found: pd.DataFrame) -> dict[tuple[str, str], str]:
    """The reasons of missing numbers, by row and run."""
    names = found.groupby("learner", sort=False)["name"].unique()
    failed = ((run.name, arm, why) for run in played.runs for arm, why in run.failed.items())
    return {(name, run): why for run, arm, why in failed for name in names.get(arm, [arm])}
