"""Names of what actors believe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.learners import Stationary
from inference_marl.runs.measures import MOST_RECORDED, Measures
from inference_marl.runs.run import run
from inference_marl.spaces import Discrete
from inference_marl.types import Memory, Seat, about_all, about_each, check_belief_names, is_belief, numbered


def test_every_opponent_has_a_number_if_there_are_several() -> None:
    assert numbered("opponent_model", 1) == ("opponent_model",)
    assert numbered("opponent_model", 2) == ("opponent_model_0", "opponent_model_1")
    for name in ("policy", "opponent_type", "opponent_prior", "opponent_model_11", "joint_opponent_model"):
        assert is_belief(name)
    for name in ("elbo", "return_0", "policy_0", "opponent_model_gap", "joint_policy"):
        assert not is_belief(name)


def test_a_joint_table_says_what_each_opponent_does() -> None:
    joint = torch.rand(4, 5, 6)
    found = about_all("opponent_prior", joint, (Discrete(2), Discrete(3)))
    assert list(found) == ["opponent_prior_0", "opponent_prior_1", "joint_opponent_prior"]
    torch.testing.assert_close(found["opponent_prior_0"], joint.reshape(4, 5, 2, 3).sum(-1))
    torch.testing.assert_close(found["opponent_prior_1"], joint.reshape(4, 5, 2, 3).sum(-2))
    assert about_all("opponent_prior", joint, (Discrete(6),)) == {"opponent_prior": joint}


@pytest.mark.parametrize(
    ("names", "opponents", "expected"),
    [
        (["opponent_model"], 2, "got opponent_model of 2 opponents, expected opponent_model_0, opponent_model_1"),
        (["opponent_model_0"], 2, "got opponent_model_0 of 2 opponents"),
        (["opponent_prior_0"], 1, "got opponent_prior_0 of 1 opponents, expected opponent_prior"),
    ],
)
def test_other_names_are_refused(names: list[str], opponents: int, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        check_belief_names(names, opponents)
    check_belief_names(["policy", "elbo", *numbered("opponent_model", opponents)], opponents)


class Confused(Stationary):
    """Believes something of its opponents' joint action under the name for a single opponent."""

    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        return {**super().beliefs(obs, memory, draws), "opponent_model": torch.full((*obs.shape[:2], 4), 0.25)}


def test_they_are_refused_before_anything_is_played(tmp_path: Path) -> None:
    three = MatrixGame(torch.zeros(2, 2, 2).tolist(), common=True)
    with pytest.raises(ValueError, match="expected opponent_model_0, opponent_model_1"):
        run(Experiment(three, {"confused": Confused()}, replicates=2, steps=3), tmp_path)
    assert not list(tmp_path.rglob("*.nc"))


def test_large_tables_of_joint_actions_are_not_recorded() -> None:
    for size in (8, 9):
        spaces = (Discrete(2), Discrete(8), Discrete(size))
        seats = [Seat(agent, (Discrete(1),) * 3, spaces, replicates=1) for agent in range(3)]
        joint = torch.full((1, 1, 8 * size), 1 / (8 * size))
        believed = {"policy": torch.full((1, 1, 2), 0.5), **about_all("opponent_model", joint, spaces[1:])}
        others = [{"policy": torch.full((1, 1, space.n), 1 / space.n)} for space in spaces[1:]]
        game = MatrixGame(torch.zeros(2, 8, size).tolist(), common=True)
        kept = Measures(game, seats, 1).kept([believed, *others])
        assert {"opponent_model_0.0", "opponent_model_1.0"} <= kept.keys()
        assert ("joint_opponent_model.0" in kept) == (math.prod((8, size)) <= MOST_RECORDED)
        assert about_each("opponent_model", [joint]) == {"opponent_model": joint}
