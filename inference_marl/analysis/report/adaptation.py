"""What a run with trials tells: who adapts to opponents, who does better than the first arm, who foresees them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from inference_marl.analysis.recorded import Recorded
from inference_marl.analysis.tables import NO_INTERVAL, Section, cell
from inference_marl.statistics.adaptation import (
    COVERAGE,
    NOMINAL,
    RETURN,
    SCORE,
    WIDTH,
    at_the_end,
    by_evaluation,
    episodes,
)
from inference_marl.statistics.intervals import Interval
from inference_marl.statistics.metrics import difference, estimate, in_dataset
from inference_marl.statistics.summary import paired_differences

WRONG = 0.6
"""Coverage below which forecasts are called wrong, where a calibrated one has `NOMINAL`."""

SURE = f"{100 * NOMINAL:.0f} %"

Rows = dict[tuple[str, ...], dict[str, str]]


def adaptation(recorded: Recorded) -> list[Section]:
    """Returns by how many episodes the opponents were met before, at the last record; nothing if none were measured.

    Intervals are 95 % confidence intervals over replicates.
    """
    if not by_evaluation(recorded.metrics, RETURN):
        return []
    found = (adapting(recorded), better(recorded), calibrated(recorded), foreseen(recorded), believed(recorded))
    return [section for section in found if section is not None]


def first_arm(recorded: Recorded) -> str:
    """The experiment's first arm, with which the others are compared."""
    return str(next(iter(recorded.spec.get("arms") or recorded.learners)))


def adapting(recorded: Recorded) -> Section:
    """Returns after so many episodes, and what is gained from the first number to the last."""
    rows = _by_episodes(recorded, RETURN, gained=True)
    what = (
        "Return of an episode against opponents that were met for so many episodes before, at step "
        f"{recorded.last_step}: means over replicates, ± half of the 95 % interval (Student's). Gained: the last minus "
        f"the first, replicate by replicate. {NO_INTERVAL}"
    )
    return Section("Who adapts?", what, _table(rows), figures=("adaptation",))


def better(recorded: Recorded, reference: str | None = None) -> Section | None:
    """Paired differences in returns from one arm, by default the first; `None` if there are none."""
    first, declared, rows = reference or first_arm(recorded), in_dataset(recorded.metrics), Rows()
    title = f"Who does better than {first}?"
    said = first if reference else f"{first}, the first arm of the experiment,"
    if first in recorded.failed:
        return Section(title, f"Not known: {said} failed.")
    for evaluation, names in by_evaluation(recorded.metrics, RETURN).items():
        numbers = {name: number for number, name in names.items()}
        for row in paired_differences(recorded.metrics, first, list(names.values())):
            ends = (math.nan if row[end] is None else row[end] for end in ("mean", "low", "high"))
            text = cell(declared[row["metric"]], Interval(*ends))
            rows.setdefault((evaluation, row["learner"]), {})[_after(numbers[row["metric"]])] = text
    what = (
        f"Differences from {said} in these returns: means over replicates, each "
        "compared with the one that starts from the same random numbers, ± half of the 95 % interval (Student's)."
    )
    return Section(title, what, _table(rows)) if rows else None


def calibrated(recorded: Recorded) -> Section | None:
    """How often forecasts contain what opponents do, and of whom they do much too rarely."""
    rows = _by_episodes(recorded, COVERAGE)
    what = (
        f"Share of what opponents do that lies in central {SURE} intervals of the opponent model's draws, which "
        f"are made before every step: {NOMINAL:g} if the model is calibrated, less if it is too sure. Each coordinate "
        "of their actions counts; means over replicates with 95 % intervals."
    )
    note = " ".join(_overconfident(recorded))
    return Section("Do they know how much they know?", what, _table(rows), note) if rows else None


def _overconfident(recorded: Recorded) -> Iterator[str]:
    """A sentence on each arm and evaluation with a coverage below `WRONG` after the most episodes."""
    for evaluation, names in by_evaluation(recorded.metrics, COVERAGE).items():
        most = max(names)
        for learner in recorded.learners:
            values = at_the_end(recorded.metrics, [names[most]], learner)
            if values is not None and (coverage := float(values.mean())) < WRONG:
                yield (
                    f"{learner} is confident and wrong{f' about {evaluation} opponents' if evaluation else ''}: after "
                    f"{episodes(most)} with them, its {SURE} intervals contain {100 * coverage:.0f} % of what they do."
                )


def foreseen(recorded: Recorded) -> Section | None:
    """How good forecasts are, by a proper score."""
    rows = _by_episodes(recorded, SCORE)
    scores = [name for names in by_evaluation(recorded.metrics, SCORE).values() for name in names.values()]
    if not rows:
        return None
    what = (
        "Log-probability, in nats, that the opponent model gave to what opponents did, summed over them; higher is "
        "better."
        if in_dataset(recorded.metrics)[scores[0]].higher_is_better
        else "Continuous ranked probability score of the opponent model's draws, in units of actions, mean over the "
        "coordinates of opponents' actions; lower is better."
    )
    return Section(
        "Who foresees what opponents do?", f"{what} Means over replicates, ± half of the 95 % interval.", _table(rows)
    )


def believed(recorded: Recorded) -> Section | None:
    """How wide the beliefs about opponents are."""
    rows = _by_episodes(recorded, WIDTH)
    what = (
        "Mean standard deviation of the coordinates of what is believed of the opponents, over the steps of the "
        "episode; means over replicates with 95 % intervals."
    )
    return Section("How wide are their beliefs?", what, _table(rows), figures=("belief_width",)) if rows else None


def _by_episodes(recorded: Recorded, what: str, gained: bool = False) -> Rows:
    """Estimates of metrics after so many episodes, a row per evaluation and arm that has them."""
    declared, rows = in_dataset(recorded.metrics), Rows()
    for evaluation, names in by_evaluation(recorded.metrics, what).items():
        metric = declared[next(iter(names.values()))]
        for learner in recorded.learners:
            values = at_the_end(recorded.metrics, names.values(), learner)
            if values is None:
                continue
            texts = [cell(metric, estimate(metric, each)) for each in values.T]
            rows[evaluation, learner] = dict(zip(map(_after, names), texts, strict=True))
            if gained and len(names) > 1:
                gap = difference(metric, values[:, 0], values[:, -1], paired=True)
                rows[evaluation, learner]["gained"] = cell(metric, gap)
    return rows


def _after(number: int) -> str:
    return f"after {number}"


def _table(rows: Rows) -> pd.DataFrame:
    """A table of texts with columns by number, whose rows are named by evaluation, unless that has no name, and arm."""
    columns = sorted({column for row in rows.values() for column in row}, key=_place)
    texts = [[row.get(column, "-") for column in columns] for row in rows.values()]
    by_both = pd.MultiIndex.from_tuples(list(rows))
    return pd.DataFrame(texts, by_both if any(name[0] for name in rows) else by_both.droplevel(0), columns)


def _place(column: str) -> tuple[bool, int]:
    """Columns `after 0`, `after 10` and so on by number, then others."""
    number = column.rpartition(" ")[2]
    return (False, int(number)) if number.isdecimal() else (True, 0)
