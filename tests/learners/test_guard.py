"""The raiders of Guard do as their type says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.games import BayesianMatrixGame, DirichletTypes, Guard, ListedTypes, ShellTypes, UniformTypes
from inference_marl.learners.scripts import Raiders
from inference_marl.types import Seat

CPU = torch.device("cpu")


def raiders(game: Guard, noise: float = 0.1, shape: tuple[int, int] = (1, 1)) -> Raiders:
    seat = Seat(1, game.observations, game.action_spaces, *shape, dtype=torch.float64, game=game)
    return Raiders(noise=noise).bind(seat)


def aims(places: list[float], stances: list[float], kind: list[float]) -> list[float]:
    """Without noise."""
    game = Guard({"all": ListedTypes([kind])}, len(places))
    obs = torch.tensor([[[*places, *stances, 0.3, *kind]]]).double()
    shots: list[float] = raiders(game, noise=0.0).act(obs, {}).action.flatten().tolist()
    return shots


def test_bluff_and_sides() -> None:
    assert aims([0, 0], [0.5, -1], [0.5, 0, 0, 0, 0, 0]) == pytest.approx([0.2, -0.4])
    assert aims([0, 0], [0.5, -1], [0.5, 1, -0.5, 0, 1, 1]) == pytest.approx([0.8, -0.7])
    assert aims([0, 0, 0], [0.5, 0, 0], [0.5, 1, 0, -1, 0, 0, 0]) == pytest.approx([0.8, 0, -0.6])


def test_aggression_turns_from_the_nearest_defender() -> None:
    base = [0.3, -0.3]  # gaps of -.1 and .2
    for aggression in (1.0, -0.5):
        found = aims([-0.5, 0.4], [0, 0], [0, 0.5, -0.5, aggression, 0, 0])
        gaps = [-0.1, 0.2]
        expected = [
            at + 0.5 * aggression * math.copysign(math.exp(-abs(gap) / 0.4), gap)
            for at, gap in zip(base, gaps, strict=True)
        ]
        assert found == pytest.approx(expected)


def test_shots_are_noisy_and_clipped() -> None:
    game = Guard({"all": ListedTypes([[0.0] * 6])})
    script = raiders(game, shape=(1, 4000))
    obs = torch.zeros(1, 4000, 11).double()
    for explore in (True, False):
        shots = script.act(obs, {}, explore).action
        assert shots.mean().abs() < 0.01
        assert abs(float(shots.std()) - 0.1) < 0.005
    draws = script.beliefs(obs[:, :3], {}, 5)["policy"]
    assert draws.shape == (1, 3, 5, 2)
    obs[..., 6:8] = 1.9  # a side that no type has
    assert (script.act(obs, {}).action <= 1.2).all()
    assert (script.act(obs, {}).action == 1.2).any()


def returns(game: Guard, population: str, guard: str, raiding: Raiders, shape: tuple[int, int]) -> Tensor:
    """Of the defenders in an episode, `replicates x environments`."""
    tasks = game.populations[population]
    task = torch.arange(shape[1]).remainder(len(tasks)).add(tasks.start).expand(shape)
    state, total = game.reset(*shape, CPU, torch.float64, task), torch.zeros(shape).double()
    for _ in range(game.horizon):
        obs = game.observe(state).obs
        expected = raiding(obs[1])
        if guard == "told":  # one defender for each raider, where it is going to shoot
            target = torch.where(
                expected.diff(dim=-1) < 0, expected.flip(-1), expected
            )  # the left one for the left one, so that both have little to go
        else:
            target = torch.tensor([-0.3, 0.3]).double().expand_as(expected)
        speed = 0.5 * (1 - 0.6 * state["type"][..., -1:])
        moves = ((target - state["d"]) / speed).clamp(-1, 1)
        if guard == "random":
            moves = 2 * torch.rand_like(moves) - 1
        step = game.step(state, (moves, raiding.act(obs[1], {}).action))
        state, total = step.state, total + step.rewards[..., 0]
    return total


def test_it_pays_to_know_the_type() -> None:
    """Who moves at random loses; a fixed place gains where types are small, and who is told the type gains more."""
    shape = (6, 600)
    game = Guard({"near": UniformTypes(-0.7, 0.7, 600), "far": ShellTypes(0.8, 1.0, 600)})
    script = raiders(game, shape=shape)
    found = {
        (population, guard): returns(game, population, guard, script, shape).mean().item()
        for population in game.populations
        for guard in ("random", "fixed", "told")
    }
    assert -3.3 < found["near", "random"] < -2.3
    assert 1.5 < found["near", "fixed"] < 2.6
    assert found["near", "told"] > found["near", "fixed"] + 1.2
    assert found["far", "fixed"] < -2.5
    assert found["far", "told"] > found["far", "fixed"] + 1.2


def test_raiders_sit_in_their_seat_only() -> None:
    game = Guard({"all": UniformTypes(-1, 1, 2)})
    with pytest.raises(IncompatibleError, match="Raiders got seat 0 of Guard, expected seat 1 of Guard"):
        Raiders().bind(Seat(0, game.observations, game.action_spaces, 1, game=game))
    other = BayesianMatrixGame("stag_hunt", {"all": DirichletTypes(1.0, 2)})
    with pytest.raises(IncompatibleError, match="Raiders got seat 1 of BayesianMatrixGame"):
        Raiders().bind(Seat(1, other.observations, other.action_spaces, 1, game=other))
