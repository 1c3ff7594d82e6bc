"""Differential games: formulas by hand, where the optimum is, what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch import Tensor

from inference_marl.games import (
    DifferentialGame,
    MatchingPenniesContinuous,
    MaxOfTwoQuadratics,
    Rotational,
    Trigonometric,
    Wolf,
    ZeroSum,
)
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Game

CPU = torch.device("cpu")
GAMES: list[DifferentialGame] = [
    MaxOfTwoQuadratics(),
    MaxOfTwoQuadratics(agents=3),
    ZeroSum(),
    MatchingPenniesContinuous(),
    Rotational(),
    Trigonometric(),
    Wolf(),
]

actions = st.floats(-10, 10)


def pay(game: DifferentialGame, *joint: float) -> list[float]:
    """Rewards of one joint action, through `step`."""
    state = game.reset(1, 1, CPU, torch.float64)
    rewards = game.step(state, [torch.tensor([[[value]]], dtype=torch.float64) for value in joint])[1]
    return [float(reward) for reward in rewards[0, 0]]


def optimal(game: MaxOfTwoQuadratics, *joint: float) -> bool:
    return bool(game.is_optimal([torch.tensor([value], dtype=torch.float64) for value in joint]))


@pytest.mark.parametrize(
    ("game", "joint", "expected"),
    [
        # 0.8 * -((3 / 3)^2 + (6 / 3)^2) = -4 against 10 - (49 + 16) = -55
        (MaxOfTwoQuadratics(), (-2, 1), [-4, -4]),
        # 0.8 * -(3^2 / 3 + 6^2 / 3) = -12 against the same
        (MaxOfTwoQuadratics(variant="code"), (-2, 1), [-12, -12]),
        # 10 - (1 + 4) = 5 against less than 0
        (MaxOfTwoQuadratics(), (4, 7), [5, 5]),
        (MaxOfTwoQuadratics(variant="code"), (4, 7), [5, 5]),
        # 3 - 2 * ((0.5 / 2)^2 + (1 / 2)^2) = 2.375, and 3 - 2 * (0.5^2 / 2 + 1^2 / 2) = 1.75
        (
            MaxOfTwoQuadratics(offset=3, global_width=2, global_height=2, success_reward=1),
            (5.5, 6),
            [2.375] * 2,
        ),
        (
            MaxOfTwoQuadratics(offset=3, global_width=2, global_height=2, success_reward=1, variant="code"),
            (5.5, 6),
            [1.75] * 2,
        ),
        # three agents, the public code's centres: 10 - (0 + 1 + 4)
        (MaxOfTwoQuadratics([-5, -5, 3], [5, 5, -3], agents=3), (5, 6, -1), [5, 5, 5]),
        (MaxOfTwoQuadratics([-5, -5, 3], [5, 5, -3], agents=3), (-5, -5, 3), [0, 0, 0]),
        (ZeroSum(), (2, -3), [-6, 6]),
        (MatchingPenniesContinuous(), (2, 1), [0.75, -0.75]),
        (MatchingPenniesContinuous(variant="code"), (2, 1), [0.75, 0.75]),
        (Rotational(), (2, 3), [2 + 60, 4.5 - 60]),
        (Trigonometric(), (math.pi / 2, math.pi), [-math.pi / 2, math.pi]),
    ],
)
def test_payoffs_by_hand(game: DifferentialGame, joint: tuple[float, ...], expected: list[float]) -> None:
    assert pay(game, *joint) == pytest.approx(expected)


def test_wolf_extends_its_matrices() -> None:
    first, second = [[0, 3], [1, 2]], [[3, 2], [0, 1]]
    for row in (0, 1):
        for column in (0, 1):
            assert pay(Wolf(), 1 - row, 1 - column) == [first[row][column], second[row][column]]


@given(p=st.floats(0, 1), q=st.floats(0, 1))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_wolf_is_the_expected_payoff_of_mixed_strategies(p: float, q: float) -> None:
    row, column = torch.tensor([p, 1 - p]).double(), torch.tensor([q, 1 - q]).double()
    matrices = torch.tensor([[[0, 3], [1, 2]], [[3, 2], [0, 1]]]).double()
    assert pay(Wolf(), p, q) == pytest.approx(torch.einsum("r,irc,c->i", row, matrices, column).tolist(), abs=1e-6)


def test_wolf_equilibrium_is_indifference() -> None:
    assert [pay(Wolf(), p, 0.5)[0] for p in (0, 0.3, 1)] == pytest.approx([1.5] * 3)
    assert [pay(Wolf(), 0.5, q)[1] for q in (0, 0.3, 1)] == pytest.approx([1.5] * 3)


@given(a=actions, b=actions)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_zero_sum_games_sum_to_zero(a: float, b: float) -> None:
    assert sum(pay(ZeroSum(), a, b)) == 0
    assert sum(pay(MatchingPenniesContinuous(), a, b)) == 0


@given(data=st.data(), agents=st.integers(2, 4), variant=st.sampled_from(["text", "code"]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_optimum_is_where_claimed(data: st.DataObject, agents: int, variant: Any) -> None:
    centres = st.lists(st.integers(-10, 10).map(float), min_size=agents, max_size=agents)
    offset = data.draw(st.floats(1, 20))
    local_centre = data.draw(centres)
    game = MaxOfTwoQuadratics(
        local_centre,
        data.draw(centres),
        local_width=data.draw(st.floats(0.5, 4)),
        global_width=data.draw(st.floats(0.5, 4)),
        local_height=data.draw(st.floats(0.1, 2)),
        global_height=data.draw(st.floats(0.1, 2)),
        offset=offset,
        success_reward=offset / 2,
        variant=variant,
        agents=agents,
    )
    assert pay(game, *game.optimum) == [pytest.approx(offset)] * agents
    assert optimal(game, *game.optimum)
    seed = data.draw(st.integers(0, 2**31))
    points = torch.rand(200, agents, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 20 - 10
    assert bool((game.payoffs(points) <= offset + 1e-12).all())
    assert pay(game, *local_centre)[0] >= 0  # exactly 0, unless the global hill covers it


@pytest.mark.parametrize("variant", ["text", "code"])
def test_landscape(variant: Any) -> None:
    """Global maximum 10 at (5, 5), local maximum 0 at (-5, -5), on a grid over all actions."""
    game = MaxOfTwoQuadratics(variant=variant)
    grid = torch.linspace(-10, 10, 81, dtype=torch.float64)
    rewards = game.payoffs(torch.cartesian_prod(grid, grid))[:, 0].reshape(81, 81)
    assert rewards.max() == rewards[60, 60] == 10
    assert rewards[20, 20] == 0
    neighbours = rewards[19:22, 19:22].flatten()
    assert neighbours.max() == 0
    assert int((neighbours == 0).sum()) == 1
    assert int((rewards == 10).sum()) == 1


def test_optimum_radius_and_success_reward() -> None:
    game = MaxOfTwoQuadratics()
    assert game.success_reward == 9
    assert optimal(game, 5.5, 4.2)
    assert optimal(game, 6, 5)
    assert not optimal(game, 5.8, 5.8)  # each within 1, together 1.13 away
    assert pay(game, 5.5, 4.2)[0] >= 9 > pay(game, 5.8, 5.8)[0]
    assert not optimal(game, -5, -5)
    assert optimal(MaxOfTwoQuadratics(optimum_radius=2), 6.2, 6.2)  # 1.7 away
    assert not optimal(MaxOfTwoQuadratics(optimum_radius=2), 6.5, 6.5)  # 2.1 away
    broadcast = game.is_optimal([torch.tensor([[5.0], [0.0]]), torch.tensor([[[5.0]], [[5.5]], [[9.0]]])])
    assert broadcast.tolist() == [[True, False], [True, False], [False, False]]


@given(data=st.data())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_permuting_agents_permutes_rewards(data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(3)))
    joint = data.draw(st.lists(actions, min_size=3, max_size=3))
    first, second = [-5.0, -4.0, 3.0], [5.0, 6.0, -3.0]
    game = MaxOfTwoQuadratics(first, second, agents=3)
    other = MaxOfTwoQuadratics([first[i] for i in order], [second[i] for i in order], agents=3)
    rewards = pay(game, *joint)
    assert [rewards[i] for i in order] == pytest.approx(pay(other, *(joint[i] for i in order)))


@pytest.mark.parametrize("game", GAMES, ids=lambda game: f"{type(game).__name__}{game.agents}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contract(game: DifferentialGame, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    assert game.horizon == 25
    assert game.observations == (Discrete(1),) * game.agents
    state = game.reset(4, 3, CPU, dtype)
    joint = [
        space.uniform(dtype, CPU).sample(torch.Size([4, 3]))  # type: ignore[no-untyped-call, unused-ignore]
        for space in game.action_spaces
    ]
    for obs in game.observe(state).obs:
        assert (obs.shape, obs.dtype, int(obs.sum())) == ((4, 3), torch.int64, 0)
    after, rewards, terminated, _ = game.step(state, joint)
    assert (rewards.shape, rewards.dtype) == ((4, 3, game.agents), dtype)
    assert (terminated.shape, terminated.dtype, bool(terminated.any())) == ((4, 3), torch.bool, False)
    assert all(torch.equal(after[name], state[name]) for name in state)
    lone = game.step(game.reset(1, 1, CPU, dtype), [action[2:3, 1:2] for action in joint])[1]
    torch.testing.assert_close(rewards[2:3, 1:2], lone)
    rewards.add_(1)  # rewards are ordinary tensors, not views that share memory
    for twin in (pickle.loads(pickle.dumps(game)), copy.deepcopy(game)):
        assert torch.equal(twin.step(state, joint)[1], game.step(state, joint)[1])
    verdict = game.is_optimal(joint)
    assert isinstance(game, MaxOfTwoQuadratics) == (verdict is not None)
    assert verdict is None or verdict.shape == (4, 3)


def test_action_ranges() -> None:
    assert ZeroSum().action_spaces == (Box(-10, 10),) * 2
    assert Wolf().action_spaces == (Box(0, 1),) * 2
    assert Rotational(low=-1, high=2, horizon=None).action_spaces == (Box(-1, 2),) * 2
    assert MaxOfTwoQuadratics(agents=4).action_spaces == (Box(-10, 10),) * 4


def test_a_game_is_one_formula() -> None:
    class Average(DifferentialGame):
        def payoffs(self, actions: Tensor) -> Tensor:
            return actions.mean(-1, keepdim=True).expand_as(actions)

    assert pay(Average(agents=3), 1, 2, 6) == [3, 3, 3]
    assert Average().is_optimal([torch.zeros(1), torch.zeros(1)]) is None


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (MaxOfTwoQuadratics, {"agents": 1}, "agents: got 1, expected an integer of at least 2"),
        (ZeroSum, {"low": 3.0, "high": 3.0}, "low: got 3.0 with high = 3.0, expected"),
        (Wolf, {"high": math.inf}, "high: got inf, expected a finite number"),
        (Trigonometric, {"horizon": 0}, "horizon: got 0, expected a positive integer"),
        (MaxOfTwoQuadratics, {"local_width": 0.0}, "local_width: got 0.0, expected a positive number"),
        (MaxOfTwoQuadratics, {"global_height": -1.0}, "global_height: got -1.0, expected a positive number"),
        (MaxOfTwoQuadratics, {"offset": math.nan}, "offset: got nan, expected a positive number"),
        (MaxOfTwoQuadratics, {"optimum_radius": 0.0}, "optimum_radius: got 0.0"),
        (MaxOfTwoQuadratics, {"variant": "paper"}, "variant: got 'paper', expected text or code"),
        (
            MatchingPenniesContinuous,
            {"variant": "text"},
            "variant: got 'text', expected zero_sum or code",
        ),
        (MaxOfTwoQuadratics, {"offset": 5.0}, "success_reward: got 9.0, expected .* at most offset = 5.0"),
        (MaxOfTwoQuadratics, {"success_reward": 0.0}, "success_reward: got 0.0, expected more than 0"),
        (MaxOfTwoQuadratics, {"global_centre": 11.0}, "global_centre: got 11.0, expected .* low = -10.0"),
        (MaxOfTwoQuadratics, {"local_centre": [1.0]}, r"local_centre: got \[1.0\], expected .* 2 of them"),
    ],
)
def test_what_is_refused(build: type[DifferentialGame], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_step_refuses_wrong_shapes() -> None:
    game = ZeroSum()
    state = game.reset(2, 3, CPU, torch.float32)
    fine = torch.zeros(2, 3, 1)
    with pytest.raises(ValueError, match=r"got shapes \[\(2, 3\), \(2, 3\)\], expected \[\(2, 3, 1\), \(2, 3, 1\)\]"):
        game.step(state, [fine[..., 0], fine[..., 0]])
    with pytest.raises(ValueError, match=r"got shapes \[\(2, 3, 1\)\], expected \[\(2, 3, 1\), \(2, 3, 1\)\]"):
        game.step(state, [fine])


@pytest.mark.parametrize(
    ("build", "init_args"),
    [
        (MaxOfTwoQuadratics, {"variant": "code", "agents": 3, "local_centre": [-5, -5, 3]}),
        (MaxOfTwoQuadratics, {"global_centre": 4, "horizon": None}),
        (MatchingPenniesContinuous, {"variant": "code"}),
        (ZeroSum, {"horizon": 10}),
        (Rotational, {"low": -1}),
        (Trigonometric, {}),
        (Wolf, {}),
    ],
)
def test_jsonargparse_reads_what_the_constructor_takes(
    build: type[DifferentialGame], init_args: dict[str, Any]
) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--game", type=Game)
    game = build(**init_args)
    for description in ({"class_path": build.__name__, "init_args": init_args}, game.describe()):
        checked = parser.parse_object({"game": description}).as_dict()["game"]
        assert checked["class_path"].endswith(f".{build.__name__}")
        twin = build(**checked["init_args"])
        joint = [0.25 * (agent + 1) for agent in range(game.agents)]
        assert pay(twin, *joint) == pay(game, *joint)
        assert (twin.horizon, twin.action_spaces) == (game.horizon, game.action_spaces)
