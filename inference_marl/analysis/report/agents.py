"""Rows of arms in tables: the mean over an arm's agents or, where that says too little, the agents one by one.

It does where each seat has a learner of its own, and in zero-sum games, where the mean is always 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]
"""A row of `summary.json`: of `results`, which are means over agents, or of `agents`, which have an `agent`."""


def has_own_learners(spec: Mapping[str, Any], arm: str) -> bool:
    """Whether an arm of `spec.yaml` is a list, with one learner per seat."""
    return isinstance((spec.get("arms") or {}).get(arm), list)


def of_agents(summary: Mapping[str, Any], row: Row) -> list[Row]:
    """The rows of single agents that a row is the mean of; none where these are unknown."""
    keys = ("learner", "metric", "step")
    return [each for each in summary.get("agents", []) if all(each[key] == row[key] for key in keys)]


def name_of(row: Row) -> str:
    """The arm and, if the row is of one of its agents, which."""
    return f"{row['learner']}, agent {row['agent']}" if "agent" in row else str(row["learner"])


def published_value(summary: Mapping[str, Any], row: Row, zero_sum: bool = False, apart: bool = False) -> float | None:
    """The published number that belongs beside a row.

    Beside agent 0 of a zero-sum game it is that of `return_0`, else of `return`, which cannot be a mean there.

    Args:
        summary: `summary.json`.
        row: of `results` or of `agents`.
        zero_sum: whether the game is.
        apart: whether the agents have rows of their own; if not, and no mean over agents is published, it is the mean
            of what is published of single agents (such as `return_0`).
    """
    numbers: Mapping[str, float] = (summary.get("published") or {}).get(row["learner"], {})
    metric, agent = row["metric"], row.get("agent")
    if agent is not None:
        return numbers.get(f"{metric}_{agent}", numbers.get(metric) if zero_sum and agent == 0 else None)
    single = [number for name, number in numbers.items() if name.removeprefix(f"{metric}_").isdecimal()]
    return numbers.get(metric, fmean(single) if single and not apart else None)
