"""The particle environments of mpe2, PettingZoo's own, as games."""

from __future__ import annotations

import warnings
from contextlib import closing

import pytest
import torch

from inference_marl.config.check import check
from inference_marl.experiment import Experiment
from inference_marl.games import Spread
from inference_marl.learners import Maddpg, Stationary
from inference_marl.play import Collector, simulate
from inference_marl.simulators import PettingZoo
from inference_marl.spaces import Box, Discrete

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pygame
    pytest.importorskip("mpe2")

NAMES = {
    "simple_spread_v3": 3,
    "simple_adversary_v3": 3,
    "simple_tag_v3": 4,
    "simple_speaker_listener_v4": 2,
    "simple_reference_v3": 2,
    "simple_crypto_v3": 3,
    "simple_world_comm_v3": 6,
}


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_all_of_them(name: str, continuous: bool) -> None:
    played = PettingZoo(f"mpe2.{name}.parallel_env", {"continuous_actions": continuous, "max_cycles": 3})
    assert played.resumable
    assert played.agents == NAMES[name]
    assert {type(space) for space in played.action_spaces} == {Box if continuous else Discrete}
    actors = [Stationary().bind(seat) for seat in Experiment(played, {"a": Stationary()}, 2, 3, 2).seats()]
    with closing(simulate(played, 2, 2)) as simulator:
        steps = Collector(simulator, actors).collect(6).steps
    assert [bool(step.ended.all()) for step in steps] == [False, False, True] * 2
    assert not any(bool(step.terminated.any()) for step in steps)  # a time limit
    assert bool(torch.stack([step.rewards for step in steps]).isfinite().all())


def test_a_team_learns_in_it() -> None:
    played = PettingZoo("mpe2.simple_spread_v3.parallel_env", {"N": 2}, horizon=5)
    check(Experiment(played, {"maddpg": Maddpg(batch_size=4, warmup=1)}, steps=4, collect=4))


def test_it_has_the_spaces_of_our_own_spread() -> None:
    played = PettingZoo("mpe2.simple_spread_v3.parallel_env", {"N": 3})
    ours = Spread(3)
    assert [space.features for space in played.observations] == [space.features for space in ours.observations]
    assert played.action_spaces == ours.action_spaces
