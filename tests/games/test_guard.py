"""Guard: its rules by hand, and in which sense its opponents are worth inferring."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.games import Guard, ListedTypes, UniformTypes
from inference_marl.play import GameSimulator
from inference_marl.types import State

CPU = torch.device("cpu")


def guard(*points: list[float], size: int = 2, **more: Any) -> Guard:
    return Guard({"all": ListedTypes(list(points))}, size, **more)


def exactly(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def at(game: Guard, places: list[float], kind: list[float]) -> State:
    state = game.reset(1, 1, CPU, torch.float64)
    return state | {"d": exactly([[places]]), "type": exactly([[kind]])}


def step(game: Guard, state: State, moves: list[float], shots: list[float]) -> tuple[Tensor, float]:
    """Where the defenders are then, and what they get."""
    after = game.step(state, (exactly([[moves]]), exactly([[shots]])))
    assert after.rewards.sum() == 0
    assert not after.terminated.any()
    assert after.state["steps"].item() == state["steps"].item() + 1
    return after.state["d"].flatten(), after.rewards[0, 0, 0].item()


def worth(miss: float) -> float:
    return 2 * math.exp(-((miss / 0.25) ** 2)) - 1


def test_moves_and_speed() -> None:
    game = guard([0.0] * 6)
    for speed, length in ((0.0, 0.5), (1.0, 0.2), (-1.0, 0.8)):
        places, _ = step(game, at(game, [-0.5, 0.1], [0, 0, 0, 0, 0, speed]), [1.0, -0.5], [0, 0])
        torch.testing.assert_close(places, exactly([-0.5 + length, 0.1 - 0.5 * length]))
    places, _ = step(game, at(game, [-0.8, 0.8], [0.0] * 6), [-1, 1], [0, 0])
    assert places.tolist() == [-1, 1]


def test_rewards_and_strength() -> None:
    """The nearest defender counts, where it is after its move; strength says which raider matters more."""
    game = guard([0.0] * 6)
    for strength in (0.0, 0.5, -1.0):
        state = at(game, [-0.5, 0.5], [0, 0, 0, 0, strength, 0])
        _, reward = step(game, state, [0.2, 0], [-0.3, 0.1])  # defenders at -.4 and .5
        expected = ((1 + 0.7 * strength) * worth(0.1) + (1 - 0.7 * strength) * worth(0.4)) / 2
        assert reward == pytest.approx(expected, abs=1e-12)


def test_three_against_three() -> None:
    """Of three raiders the middle one always counts once."""
    game = guard([0.0] * 7, size=3)
    assert game.feature_names == ("bluff", "side 1", "side 2", "side 3", "aggression", "strength", "speed")
    assert [space.features for space in (*game.observations, *game.action_spaces)] == [7, 14, 3, 3]
    assert game.reset(1, 1, CPU, torch.float64)["d"].flatten().tolist() == [-0.5, 0, 0.5]
    state = at(game, [-0.5, 0, 0.5], [0, 0, 0, 0, 0, 0.5, 0])
    _, reward = step(game, state, [0, 0, 0], [-0.6, 0.1, 0.7])
    assert reward == pytest.approx((1.35 * worth(0.1) + worth(0.1) + 0.65 * worth(0.2)) / 3, abs=1e-12)


def test_rewards_that_are_not_negative() -> None:
    game = guard([0.0] * 6, rewards="no_negative")
    state = at(game, [-0.5, 0.5], [0.0] * 6)
    assert step(game, state, [0, 0], [-0.5, 0.5])[1] == 1
    assert step(game, state, [0, 0], [1.2, 1.2])[1] == 0


def test_rewards_regardless_of_who_is_responsible() -> None:
    """Whoever is nearer stops a shot, a defender or another raider's shot; nobody stops his own."""
    for size, shots, misses in (
        (2, [0.9, 1.0], (0.1, 0.1)),  # far from both defenders, beside each other
        (2, [-0.6, 1.2], (0.1, 0.7)),
        (3, [-0.9, 0.3, 0.35], (0.4, 0.05, 0.05)),
    ):
        game, plain = (guard([0.0] * (size + 4), size=size, rewards=rewards) for rewards in ("regardless", "dense"))
        state = at(game, [-0.5, 0.5] if size == 2 else [-0.5, 0, 0.5], [0.0] * (size + 4))
        _, reward = step(game, state, [0] * size, shots)
        assert reward == pytest.approx(sum(map(worth, misses)) / size, abs=1e-12)
        assert reward >= step(plain, state, [0] * size, shots)[1]


def test_stances_are_drawn_anew_and_seen_by_both() -> None:
    game = Guard({"all": UniformTypes(-1, 1, 8)})
    simulator = GameSimulator(game, 2, 500)
    simulator.reset()
    seen = []
    for number in range(10):
        first, second = simulator.observe().obs
        assert torch.equal(first, second[..., :5])
        torch.testing.assert_close(first[..., 4], torch.full((2, 500), number / 10))
        seen.append(first[..., 2:4])
        ended = simulator.step((torch.zeros(2, 500, 2), torch.zeros(2, 500, 2))).ended
        assert ended.all() == (number == 9)
    stances = torch.stack(seen).flatten(1)
    assert stances.abs().max() <= 1
    assert abs(float(stances.var()) - 1 / 3) < 0.01
    assert float(torch.corrcoef(stances).fill_diagonal_(0).abs().max()) < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1}, "size: got 1, expected an integer of at least 2"),
        ({"horizon": None}, "horizon: got None, expected a positive integer"),
        ({"rewards": "sparse"}, "rewards: got 'sparse', expected dense or no_negative or regardless"),
        ({"size": 3}, "populations.all.points: got 6 numbers, expected 7"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Guard({"all": ListedTypes([[0.0] * 6])}, **arguments)


def test_refuses_actions_that_do_not_fit() -> None:
    game = guard([0.0] * 6)
    with pytest.raises(ValueError, match="actions: got shapes"):
        game.step(game.reset(1, 1, CPU, torch.float64), (torch.zeros(1, 1, 2), torch.zeros(1, 1, 3)))
