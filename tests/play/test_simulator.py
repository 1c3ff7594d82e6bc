"""`GameSimulator`: its clocks, in lockstep and out of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.play import GameSimulator
from inference_marl.spaces import Discrete
from inference_marl.types import Game, Observed, State, Step

R, E = 2, 3
WHERE = torch.tensor([[True, False, False], [False, False, True]])


class Told(Game):
    """Ends where action 1 is played by the first, and is cut off where it is by the second."""

    observations = (Discrete(1), Discrete(1))
    action_spaces = (Discrete(2), Discrete(2))

    def __init__(self, horizon: int | None = None, cuts: bool = True) -> None:
        self.horizon, self.cuts = horizon, cuts

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        return {"made": torch.zeros(replicates, environments, dtype=torch.int64)}

    def observe(self, state: State) -> Observed:
        return Observed((torch.zeros_like(state["made"]),) * 2)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        rewards = torch.zeros(*state["made"].shape, 2)
        return Step({"made": state["made"] + 1}, rewards, actions[0] == 1, actions[1] == 1 if self.cuts else None)


def idle() -> tuple[Tensor, Tensor]:
    return (torch.zeros(R, E, dtype=torch.int64),) * 2


@pytest.mark.parametrize("horizon", [None, 1, 2])
@pytest.mark.parametrize("cuts", [True, False])
def test_an_episode_ends_where_the_game_ends_or_cuts_it_or_its_time_is_up(horizon: int | None, cuts: bool) -> None:
    simulator = GameSimulator(Told(horizon, cuts), R, E)
    simulator.reset()
    cut = torch.tensor([[False, True, False], [False, False, True]])
    over = simulator.step((WHERE.long(), cut.long()))
    assert torch.equal(over.terminated, WHERE)
    if horizon == 1:
        assert over.ended.all()
        return
    assert torch.equal(over.ended, WHERE | cut if cuts else WHERE)
    over = simulator.step(idle())
    assert not over.terminated.any()
    assert torch.equal(over.ended, torch.full((R, E), horizon == 2))


@pytest.mark.parametrize("game", [Told(horizon=3), MatrixGame("climbing", horizon=3, memory=1)])
def test_a_reset_begins_the_clock_of_those_environments_alone(game: Game) -> None:
    """Also where all of them ran in lockstep until then."""
    simulator = GameSimulator(game, R, E)
    simulator.reset()
    simulator.step(idle())
    simulator.reset(WHERE)
    made = [simulator.step(idle()).ended for _ in range(2)]
    assert torch.equal(made[0], torch.zeros_like(WHERE))
    assert torch.equal(made[1], ~WHERE)
    simulator.reset(~WHERE)
    assert torch.equal(simulator.step(idle()).ended, WHERE)


@pytest.mark.parametrize("where", [None, torch.ones(R, E, dtype=torch.bool)])
@pytest.mark.parametrize("game", [Told(horizon=3), MatrixGame("climbing", horizon=3, memory=1)])
def test_a_reset_of_all_begins_every_clock(game: Game, where: Tensor | None) -> None:
    simulator = GameSimulator(game, R, E)
    simulator.reset()
    for _ in range(2):
        simulator.step(idle())
    simulator.reset(where)
    assert [bool(simulator.step(idle()).ended.all()) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("game", [Told(horizon=3), MatrixGame("climbing", horizon=3, memory=1)])
def test_clocks_go_on_from_a_saved_state(game: Game, apart: bool) -> None:
    first = GameSimulator(game, R, E)
    first.reset()
    first.step(idle())
    if apart:
        first.reset(WHERE)
    saved = first.state_dict()
    expected = [first.step(idle()).ended for _ in range(2)]
    second = GameSimulator(game, R, E)
    second.load_state_dict(saved)
    assert all(torch.equal(second.step(idle()).ended, ended) for ended in expected)
