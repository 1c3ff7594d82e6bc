"""Results of runs with trials: adaptation to opponents, paired differences, and predictions of opponents."""

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
"""Coverage below which predictions are called wrong; calibrated ones have `NOMINAL`."""

SURE = f"{100 * NOMINAL:.0f} %"

Rows = dict[tuple[str, ...], dict[str, str]]


def adaptation(recorded: Recorded) -> list[Section]:
    """Results by number of earlier episodes with the same opponents, at the last record; empty if there are none.

    Intervals are 95 % confidence intervals over replicates.
    """
    if not by_evaluation(recorded.metrics, RETURN):
        return []
    found = (adapting(recorded), better(recorded), calibrated(recorded), foreseen(recorded), believed(recorded))
    return [section for section in found if section is not None]


def first_arm(recorded: Recorded) -> str:
    """The experiment's first arm, the reference of comparisons."""
    return str(next(iter(recorded.spec.get("arms") or recorded.learners)))


def adapting(recorded: Recorded) -> Section:
    """Returns by number of episodes, and the gain from the first number to the last."""
    rows = _by_episodes(recorded, RETURN, gained=True)
    what = (
        "Return of an episode after the given number of earlier episodes with the same opponents, at step "
        f"{recorded.last_step}: means over replicates, ± half of the 95 % interval (Student's). Gained: the last minus "
        f"the first, replicate by replicate. {NO_INTERVAL}"
    )
    return Section("Who adapts?", what, _table(rows), figures=("adaptation",))


def better(recorded: Recorded, reference: str | None = None) -> Section | None:
    """Paired differences of returns from one arm, by default the first; `None` if there are none."""
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
        f"Differences from {said} in these returns, between replicates with the same random numbers: "
        "means over replicates, ± half of the 95 % interval (Student's)."
    )
    return Section(title, what, _table(rows)) if rows else None


def calibrated(recorded: Recorded) -> Section | None:
    """Coverage of predictive intervals, with a note on arms that are much too confident."""
    rows = _by_episodes(recorded, COVERAGE)
    what = (
        f"Share of the opponents' actions in the central {SURE} intervals of the opponent model's draws, which "
        f"are made before every step: {NOMINAL:g} if the model is calibrated, less if it is overconfident. Coordinates "
        "count separately; means over replicates with 95 % intervals."
    )
    note = " ".join(_overconfident(recorded))
    return Section("Are the predictions calibrated?", what, _table(rows), note) if rows else None


def _overconfident(recorded: Recorded) -> Iterator[str]:
    """Yield a sentence for each arm and evaluation with coverage below `WRONG` after the most episodes."""
    for evaluation, names in by_evaluation(recorded.metrics, COVERAGE).items():
        most = max(names)
        for learner in recorded.learners:
            values = at_the_end(recorded.metrics, [names[most]], learner)
            if values is not None and (coverage := float(values.mean())) < WRONG:
                yield (
                    f"{learner} is confident and wrong{f' about {evaluation} opponents' if evaluation else ''}: after "
                    f"{episodes(most)} with them, its {SURE} intervals contain {100 * coverage:.0f} % of their actions."
                )


def foreseen(recorded: Recorded) -> Section | None:
    """Quality of predictions by a proper score."""
    rows = _by_episodes(recorded, SCORE)
    scores = [name for names in by_evaluation(recorded.metrics, SCORE).values() for name in names.values()]
    if not rows:
        return None
    what = (
        "Log-probability, in nats, of the opponents' actions under the opponent model, summed over them; higher is "
        "better."
        if in_dataset(recorded.metrics)[scores[0]].higher_is_better
        else "Continuous ranked probability score of the opponent model's draws, in units of actions, mean over the "
        "coordinates of opponents' actions; lower is better."
    )
    return Section(
        "Who predicts the opponents best?", f"{what} Means over replicates, ± half of the 95 % interval.", _table(rows)
    )


def believed(recorded: Recorded) -> Section | None:
    """Widths of the beliefs about opponents."""
    rows = _by_episodes(recorded, WIDTH)
    what = (
        "Mean standard deviation of the coordinates of the belief about the opponents, over the steps of the "
        "episode; means over replicates with 95 % intervals."
    )
    return Section("How wide are their beliefs?", what, _table(rows), figures=("belief_width",)) if rows else None


def _by_episodes(recorded: Recorded, what: str, gained: bool = False) -> Rows:
    """Estimates of a metric by number of episodes, with a row per evaluation and arm that has it."""
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
    """A table with columns sorted by number, and rows named by evaluation, if that has a name, and arm."""
    columns = sorted({column for row in rows.values() for column in row}, key=_place)
    texts = [[row.get(column, "-") for column in columns] for row in rows.values()]
    by_both = pd.MultiIndex.from_tuples(list(rows))
    return pd.DataFrame(texts, by_both if any(name[0] for name in rows) else by_both.droplevel(0), columns)


def _place(column: str) -> tuple[bool, int]:
    """Sort key of columns: `after 0`, `after 10` and so on by number, then others."""
    number = column.rpartition(" ")[2]
    return (False, int(number)) if number.isdecimal() else (True, 0)
