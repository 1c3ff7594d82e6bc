"""What stands for an arm: whose rows are whose, and beside which a published number stands."""

from __future__ import annotations

from typing import Any

import pytest

from inference_marl.analysis.report.agents import of_agents, published_value


def row(**changed: Any) -> dict[str, Any]:
    return {"learner": "a", "metric": "return", "step": 9, **changed}


def test_agents_are_those_of_the_same_learner_metric_and_step() -> None:
    mine = [row(agent=0), row(agent=1)]
    others = [row(agent=0, learner="b"), row(agent=0, metric="reward"), row(agent=0, step=5)]
    assert of_agents({"agents": [*others, *mine]}, row()) == mine
    assert of_agents({"agents": [*others, *mine]}, row(step=7)) == []
    assert of_agents({}, row()) == []


@pytest.mark.parametrize(
    ("numbers", "agent", "zero_sum", "apart", "expected"),
    [
        ({"return": 2.0}, None, False, False, 2.0),
        ({"return": 2.0, "return_0": 5.0}, None, False, False, 2.0),
        ({"return_0": 5.0, "return_1": 2.0, "reward_0": 99.0}, None, False, False, 3.5),
        ({"return_0": 5.0, "return_1": 2.0}, None, False, True, None),
        ({"return_deviation": 1.0}, None, False, False, None),
        ({"return": 2.0, "return_0": 5.0}, 0, True, False, 5.0),
        ({"return": 2.0}, 0, True, False, 2.0),  # of agent 0, since it can be no mean
        ({"return": 2.0}, 1, True, False, None),
        ({"return": 2.0}, 0, False, False, None),
        ({"return_1": 3.0}, 1, False, False, 3.0),
        ({}, 0, True, False, None),
    ],
)
def test_where_a_published_number_stands(
    numbers: dict[str, float], agent: int | None, zero_sum: bool, apart: bool, expected: float | None
) -> None:
    of = row() if agent is None else row(agent=agent)
    assert published_value({"published": {"a": numbers, "b": {"return": 77.0}}}, of, zero_sum, apart) == expected
