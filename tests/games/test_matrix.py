"""Matrix games: payoffs by hand, memory, randomness, what is refused."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch import Tensor

from inference_marl.games import PAYOFFS, MatrixGame
from inference_marl.spaces import Discrete
from inference_marl.types import Game

CPU = torch.device("cpu")

EXPECTED: dict[str, tuple[list[list[float]], list[list[float]], list[tuple[int, int]] | None]] = {
    # name: (agent 0's payoff, agent 1's, optimal joint actions)
    "climbing": ([[11, -30, 0], [-30, 7, 6], [0, 0, 5]], [[11, -30, 0], [-30, 7, 6], [0, 0, 5]], [(0, 0)]),
    "partially_stochastic_climbing": (
        [[11, -30, 0], [-30, 7, 6], [0, 0, 5]],
        [[11, -30, 0], [-30, 7, 6], [0, 0, 5]],
        [(0, 0)],
    ),
    "fully_stochastic_climbing": (
        [[11, -30, 0], [-30, 7, 6], [0, 6, 5]],
        [[11, -30, 0], [-30, 7, 6], [0, 6, 5]],
        [(0, 0)],
    ),
    "penalty": (
        [[10, 0, -100], [0, 2, 0], [-100, 0, 10]],
        [[10, 0, -100], [0, 2, 0], [-100, 0, 10]],
        [(0, 0), (2, 2)],
    ),
    "pure_coordination": ([[1, 0], [0, 1]], [[1, 0], [0, 1]], [(0, 0), (1, 1)]),
    "stag_hunt": ([[4, 1], [3, 2]], [[4, 3], [1, 2]], [(0, 0)]),
    "prisoners_dilemma": ([[-1, -3], [0, -2]], [[-1, 0], [-3, -2]], None),
    "chicken": ([[3, 2], [4, 1]], [[3, 4], [2, 1]], None),
    "battle_of_the_sexes": ([[2, 0], [0, 1]], [[1, 0], [0, 2]], None),
    "matching_pennies": ([[1, -1], [-1, 1]], [[-1, 1], [1, -1]], None),
    "rock_paper_scissors": (
        [[0, -1, 1], [1, 0, -1], [-1, 1, 0]],
        [[0, 1, -1], [-1, 0, 1], [1, -1, 0]],
        None,
    ),
    "harmony": ([[4, 3], [2, 1]], [[4, 2], [3, 1]], [(0, 0)]),
}

SUPPORT = {  # cell: the payoffs it may pay
    (0, 0): {10, 12},
    (0, 1): {5, -65},
    (0, 2): {8, -8},
    (1, 0): {5, -65},
    (1, 1): {14, 0},
    (1, 2): {12, 0},
    (2, 0): {8, -8},
    (2, 1): {12, 0},
    (2, 2): {10, 0},
}


def play(game: MatrixGame, cell: tuple[int, ...], replicates: int = 1, environments: int = 1) -> Tensor:
    """Rewards of one joint action from the start, `replicates x environments x agents`."""
    state = game.reset(replicates, environments, CPU, torch.float64)
    actions = [torch.full((replicates, environments), action) for action in cell]
    return game.step(state, actions)[1]


def cells(game: MatrixGame) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(space.features) for space in game.action_spaces)))


def test_every_named_payoff_is_checked_here() -> None:
    assert set(EXPECTED) == set(PAYOFFS)
    assert all(known.source for known in PAYOFFS.values())


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_payoffs_and_optima(name: str) -> None:
    first, second, optimal = EXPECTED[name]
    game = MatrixGame(name)
    torch.testing.assert_close(game.expected_payoff, torch.tensor([first, second], dtype=torch.float64))
    for cell in cells(game):
        verdict = game.is_optimal([torch.tensor(action) for action in cell])
        if optimal is None:
            assert verdict is None
        else:
            assert verdict is not None
            assert bool(verdict) == (cell in optimal)


@pytest.mark.parametrize("name", [name for name in EXPECTED if "stochastic" not in name])
def test_steps_pay_the_payoff(name: str) -> None:
    first, second, _ = EXPECTED[name]
    game = MatrixGame(name)
    for row, column in cells(game):
        assert play(game, (row, column)).tolist() == [[[first[row][column], second[row][column]]]]


def test_penalty_and_pure_coordination_take_a_parameter() -> None:
    assert play(MatrixGame("penalty", k=-7.5), (0, 2)).tolist() == [[[-7.5, -7.5]]]
    game = MatrixGame("pure_coordination", actions=10)
    assert game.action_spaces == (Discrete(10), Discrete(10))
    assert torch.equal(game.expected_payoff, torch.eye(10, dtype=torch.float64).expand(2, 10, 10))
    optimal = game.is_optimal([torch.arange(10)[:, None], torch.arange(10)])
    assert optimal is not None
    assert torch.equal(optimal, torch.eye(10, dtype=torch.bool))


def test_randomly_paid_cells_pay_their_two_values_equally_often() -> None:
    torch.manual_seed(0)
    draws = 4000
    game = MatrixGame("fully_stochastic_climbing")
    for (row, column), values in SUPPORT.items():
        rewards = play(game, (row, column), replicates=draws)
        assert set(rewards.unique().tolist()) == values
        assert torch.equal(rewards[..., 0], rewards[..., 1])  # one draw for all agents
        # the fraction of one value is off by 0.04 = 5 standard errors once in 1.7 million cells
        fraction = (rewards[..., 0] == max(values)).double().mean()
        assert abs(fraction - 0.5) < 5 * 0.5 / draws**0.5


def test_only_the_middle_cell_of_partially_stochastic_climbing_is_random() -> None:
    torch.manual_seed(1)
    game = MatrixGame("partially_stochastic_climbing")
    for cell in cells(game):
        values = set(play(game, cell, replicates=64).unique().tolist())
        assert values == ({0, 14} if cell == (1, 1) else {game.expected_payoff[0][cell].item()})


def test_draws_differ_between_steps_and_copies_and_follow_the_global_generator() -> None:
    game = MatrixGame("fully_stochastic_climbing", horizon=None)
    actions = [torch.zeros(50, 2, dtype=torch.int64)] * 2

    def two_steps() -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        state, first, _, _ = game.step(game.reset(50, 2, CPU, torch.float32), actions)
        return first, game.step(state, actions)[1]

    first, second = two_steps()
    assert not torch.equal(first, second)
    assert not torch.equal(first[:, 0], first[:, 1])
    assert not torch.equal(first[:25], first[25:])
    assert all(map(torch.equal, two_steps(), (first, second)))


def test_a_game_without_chance_draws_nothing() -> None:
    before = torch.get_rng_state()
    play(MatrixGame("climbing"), (0, 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_types(dtype: torch.dtype) -> None:
    payoff = torch.arange(3 * 2 * 3 * 4).reshape(3, 2, 3, 4).tolist()
    game = MatrixGame(payoff, common=False, horizon=5, memory=1)
    assert game.agents == 3
    assert game.action_spaces == (Discrete(2), Discrete(3), Discrete(4))
    assert game.observations == (Discrete(25),) * 3
    state = game.reset(6, 5, CPU, dtype)
    actions = [torch.randint(space.features, (6, 5)) for space in game.action_spaces]
    state, rewards, terminated, _ = game.step(state, actions)
    assert (rewards.shape, rewards.dtype) == ((6, 5, 3), dtype)
    assert (terminated.shape, terminated.dtype) == ((6, 5), torch.bool)
    assert all(value.shape[:2] == (6, 5) for value in state.values())
    for obs in game.observe(state).obs:
        assert (obs.shape, obs.dtype) == ((6, 5), torch.int64)
    for agent in range(3):
        expected = torch.tensor(payoff)[agent][tuple(actions)]
        assert torch.equal(rewards[..., agent], expected.to(dtype))


def test_three_agents_with_a_common_payoff() -> None:
    game = MatrixGame([[[0, 1], [2, 3]], [[4, 5], [6, 9]]], common=True)
    assert game.agents == 3
    assert play(game, (1, 0, 1)).tolist() == [[[5, 5, 5]]]
    optimal = game.is_optimal([torch.tensor(1), torch.tensor(1), torch.tensor([0, 1])])
    assert optimal is not None
    assert optimal.tolist() == [False, True]


def test_own_stochastic_payoff() -> None:
    torch.manual_seed(0)
    game = MatrixGame([[[1, 2, 3]], [[5, 6, 7]], [[6, 7, 8]]], stochastic=True)
    assert game.outcomes.shape == (3, 2, 1, 3)
    assert game.expected_payoff.tolist() == [[[4, 5, 6]]] * 2
    assert set(play(game, (0, 2), replicates=100).unique().tolist()) == {3, 7, 8}
    per_agent = MatrixGame([[[[1, 2]], [[3, 4]]], [[[5, 6]], [[7, 8]]]], stochastic=True, common=False)
    assert per_agent.expected_payoff.tolist() == [[[3, 4]], [[5, 6]]]


def test_optimum_of_rounded_means() -> None:
    """0.1 + 0.2 differs from 0.3 in the last bit; both cells are optimal."""
    game = MatrixGame([[[0.1, 0.3]], [[0.2, 0.0]]], stochastic=True)
    optimal = game.is_optimal([torch.tensor(0), torch.tensor([0, 1])])
    assert optimal is not None
    assert optimal.tolist() == [True, True]


def test_one_shot_terminates_and_repeated_does_not() -> None:
    actions = [torch.zeros(2, 3, dtype=torch.int64)] * 2
    for horizon, ends in [(1, True), (2, False), (None, False)]:
        game = MatrixGame(horizon=horizon)
        assert game.horizon == horizon
        assert game.observations == (Discrete(1),) * 2
        state = game.reset(2, 3, CPU, torch.float32)
        for _ in range(3):
            state, _, terminated, _ = game.step(state, actions)
            assert bool((terminated == ends).all())
            assert all(not obs.any() for obs in game.observe(state).obs)


def test_memory_is_the_last_joint_action_row_major() -> None:
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1)
    assert game.observations == (Discrete(5),) * 2
    state = game.reset(1, 2, CPU, torch.float32)
    assert all(obs.tolist() == [[0, 0]] for obs in game.observe(state).obs)
    for cell, index in {(0, 0): 1, (0, 1): 2, (1, 0): 3, (1, 1): 4}.items():
        before = {name: value.clone() for name, value in state.items()}
        actions = [torch.tensor([[action, 0]]) for action in cell]
        after, _, terminated, _ = game.step(state, actions)
        assert not terminated.any()
        assert all(obs.tolist() == [[index, 1]] for obs in game.observe(after).obs)
        assert all(torch.equal(state[name], value) for name, value in before.items())  # `step` changes nothing
        state = after
    assert all(not obs.any() for obs in game.observe(game.reset(1, 2, CPU, torch.float32)).obs)


def test_memory_with_different_action_counts_is_one_to_one() -> None:
    game = MatrixGame(torch.zeros(3, 2, 3, 4).tolist(), common=False, horizon=None, memory=1)
    state = game.reset(1, 1, CPU, torch.float32)
    seen = []
    for cell in cells(game):
        state, _, _, _ = game.step(state, [torch.tensor([[action]]) for action in cell])
        seen.append(int(game.observe(state).obs[0]))
    assert seen == list(range(1, 25))


@given(data=st.data(), sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_permuting_agents_permutes_everything(data: st.DataObject, sizes: list[int]) -> None:
    agents = len(sizes)
    order = data.draw(st.permutations(range(agents)))
    seed = data.draw(st.integers(0, 2**31))
    payoff = torch.randint(-3, 4, (agents, *sizes), generator=torch.Generator().manual_seed(seed)).double()
    permuted = payoff[list(order)].permute(0, *(1 + agent for agent in order))
    game = MatrixGame(payoff.tolist(), common=False)
    other = MatrixGame(permuted.tolist(), common=False)
    for cell in cells(game):
        moved = tuple(cell[agent] for agent in order)
        assert torch.equal(play(game, cell)[..., list(order)], play(other, moved))
        optimal = game.is_optimal([torch.tensor(action) for action in cell])
        same = other.is_optimal([torch.tensor(action) for action in moved])
        assert (optimal is None) == (same is None)
        assert optimal is None or same is None or bool(optimal) == bool(same)


@given(data=st.data(), sizes=st.lists(st.integers(1, 3), min_size=2, max_size=3), outcomes=st.integers(1, 3))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_optimal_means_best_for_every_agent(data: st.DataObject, sizes: list[int], outcomes: int) -> None:
    shape = (outcomes, len(sizes), *sizes)
    seed = data.draw(st.integers(0, 2**31))
    payoff = torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).double()
    game = MatrixGame(payoff.tolist(), common=False, stochastic=True)
    expected = payoff.sum(0)  # whole numbers, so comparisons are exact
    best = {cell for cell in cells(game) if all(expected[(i, *cell)] == expected[i].max() for i in range(len(sizes)))}
    for cell in cells(game):
        verdict = game.is_optimal([torch.tensor(action) for action in cell])
        assert (verdict is None) == (not best)
        assert verdict is None or bool(verdict) == (cell in best)


def test_pickles_and_copies_carry_no_device_tables() -> None:
    game = MatrixGame("penalty", k=-3.0, horizon=4, memory=1)
    play(game, (0, 0))
    for twin in (pickle.loads(pickle.dumps(game)), copy.deepcopy(game)):
        assert twin._tables == {}
        assert torch.equal(play(twin, (0, 2)), play(game, (0, 2)))
        assert (twin.horizon, twin.memory, twin.payoff) == (4, 1, "penalty")
        assert twin.action_spaces == game.action_spaces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"payoff": "climb"}, r"payoff: got 'climb', expected .*climbing, .*pure_coordination"),
        ({"horizon": 0}, "horizon: got 0, expected a positive integer, or null"),
        ({"memory": 2, "horizon": 5}, "memory: got 2, expected 0 or 1"),
        ({"memory": 1}, "memory: got 1 with horizon = 1, expected 0; a one-shot game .*set memory to 0"),
        ({"k": -5.0}, "k: got -5.0 with payoff = climbing, expected -100.0"),
        ({"payoff": [[1, 2]], "k": -5.0}, "k: got -5.0 with payoff = a nested list"),
        ({"actions": 3}, "actions: got 3 with payoff = climbing, expected 2"),
        ({"payoff": "pure_coordination", "actions": 0}, "actions: got 0, expected a positive integer"),
        ({"common": True}, "common: got True with payoff = climbing, expected None"),
        ({"stochastic": True}, "stochastic: got True with payoff = climbing, expected False"),
        ({"payoff": [[1, 2], [3]]}, "payoff: got .*expected nested lists of numbers, equally long"),
        ({"payoff": [["a"]]}, "payoff: got .*expected nested lists of numbers"),
        ({"payoff": None}, "payoff: got None, expected nested lists of numbers"),
        ({"payoff": []}, "payoff: got .*expected nested lists of at least one number"),
        ({"payoff": [[1, float("nan")]]}, r"payoff: got nan at \[0\]\[1\], expected finite numbers"),
        ({"payoff": "penalty", "k": float("inf")}, "k: got inf, expected a finite number"),
        ({"payoff": [1, 2, 3]}, r"payoff: got shape \(3,\) .*expected A1 x ... x An"),
        ({"payoff": [[1, 2]], "stochastic": True}, r"payoff: got shape \(1, 2\) .*expected outcomes x A1"),
        ({"payoff": [[1, 2]], "common": False}, r"common = False, expected n x A1 .*set common to true"),
        (
            {"payoff": [[[1, 2], [3, 4]], [[1, 2], [3, 4]]]},
            r"got shape \(2, 2, 2\) .*each of 2 agents, or one tensor shared by 3 agents.*common to false",
        ),
        ({"payoff": [[[1, 2]] * 2] * 3, "common": False}, r"got shape \(3, 2, 2\) .*expected n x A1 x"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MatrixGame(**arguments)


def test_a_tensor_with_one_reading_needs_no_hint() -> None:
    assert MatrixGame([[[1, 2], [3, 4]]] * 3).agents == 3


def test_step_refuses_wrong_actions() -> None:
    game = MatrixGame()
    state = game.reset(2, 3, CPU, torch.float32)
    fine = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"actions: got shapes \[\(2, 3\)\], expected \[\(2, 3\), \(2, 3\)\]"):
        game.step(state, [fine])
    with pytest.raises(ValueError, match=r"\(2, 3, 1\)\], expected \[\(2, 3\), \(2, 3\)\]"):
        game.step(state, [fine, fine[..., None]])
    with pytest.raises(IndexError):
        game.step(state, [fine, fine + 3])
    with pytest.raises(IndexError):
        game.step(state, [fine, fine.float()])


@pytest.mark.parametrize(
    "init_args",
    [
        {"payoff": "penalty", "k": -20.0},
        {"payoff": [[1.0, 0.0], [0.0, 2.5]], "horizon": None, "memory": 1},
        {"payoff": [[[1, 0], [0, 2]], [[1, 0], [0, 2]]], "common": False},
        {"payoff": [[[1, 0], [0, 2]], [[1, 0], [0, 2]]], "common": True},
    ],
)
def test_jsonargparse_reads_what_the_constructor_takes(init_args: dict[str, Any]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--game", type=Game)
    game = MatrixGame(**init_args)
    for description in ({"class_path": "MatrixGame", "init_args": init_args}, game.describe()):
        checked = parser.parse_object({"game": description}).as_dict()["game"]
        assert checked["class_path"].endswith(".MatrixGame")
        twin = MatrixGame(**checked["init_args"])
        assert torch.equal(game.outcomes, twin.outcomes)
        assert (game.horizon, game.memory, game.observations) == (
            twin.horizon,
            twin.memory,
            twin.observations,
        )


def test_jsonargparse_reads_nested_lists_from_the_command_line() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--game", type=Game)
    arguments = ["--game=MatrixGame", "--game.payoff=[[1, 0], [0, 2.5]]", "--game.horizon=null"]
    init_args = parser.parse_args(arguments).as_dict()["game"]["init_args"]
    assert init_args["payoff"] == [[1, 0], [0, 2.5]]
    assert init_args["horizon"] is None


@pytest.mark.parametrize(
    ("horizon", "memory", "states", "following"),
    [
        (1, 0, 1, {}),  # a one-shot game terminates: no next state has any probability
        (5, 0, 1, dict.fromkeys(range(6), 0)),
        (None, 1, 7, {joint: 1 + joint for joint in range(6)}),
    ],
)
def test_dynamics_by_hand(horizon: int | None, memory: int, states: int, following: dict[int, int]) -> None:
    payoff = [[[1.0, 2, 3], [4, 5, 6]], [[0, 0, 0], [7, 7, 7]]]
    tables = MatrixGame(payoff, common=False, horizon=horizon, memory=memory).dynamics()
    assert tables.initial.tolist() == [1.0] + [0.0] * (states - 1)
    assert tables.transition.shape == (states, 2, 3, states)
    expected = torch.zeros(6, states, dtype=torch.float64)
    for joint, state in following.items():
        expected[joint, state] = 1
    assert torch.equal(tables.transition, expected.view(1, 2, 3, states).expand(states, -1, -1, -1))
    assert torch.equal(tables.reward, torch.tensor(payoff).double().unsqueeze(1).expand(2, states, 2, 3))


@pytest.mark.parametrize(("horizon", "memory"), [(1, 0), (4, 0), (4, 1), (None, 1)])
def test_dynamics_are_what_steps_do(horizon: int | None, memory: int) -> None:
    """From every state, every joint action leads where the tables say, and pays what they say."""
    game = MatrixGame(torch.arange(2 * 2 * 3).reshape(2, 2, 3).tolist(), common=False, horizon=horizon, memory=memory)
    tables = game.dynamics()
    first = game.reset(1, 1, CPU, torch.float64)
    states = [first] + [game.step(first, [torch.tensor([[a]]) for a in cell])[0] for cell in cells(game) if memory]
    for state in states:
        obs = int(game.observe(state).obs[0])
        for cell in cells(game):
            after, rewards, terminated, _ = game.step(state, [torch.tensor([[a]]) for a in cell])
            row = tables.transition[(obs, *cell)]
            assert row.sum() == 1 - float(terminated)
            assert terminated or row[int(game.observe(after).obs[0])] == 1
            assert torch.equal(rewards[0, 0], tables.reward[(slice(None), obs, *cell)])


def test_dynamics_have_mean_rewards_of_random_payoffs() -> None:
    tables = MatrixGame("fully_stochastic_climbing").dynamics()
    assert tables.reward[:, 0].tolist() == [[[11, -30, 0], [-30, 7, 6], [0, 6, 5]]] * 2


def test_dynamics_seen_by_the_second_agent() -> None:
    payoff = torch.arange(3 * 2 * 3 * 4).reshape(3, 2, 3, 4)
    game = MatrixGame(payoff.tolist(), common=False, horizon=None, memory=1)
    transition, reward = game.dynamics().seen_by(1)
    assert transition.shape == (25, 3, 8, 25)
    for a, b, c in cells(game):  # the opponents' joint action: the last opponent's runs fastest
        assert transition[3, b, 4 * a + c, 1 + 12 * a + 4 * b + c] == 1
        assert reward[3, b, 4 * a + c] == payoff[1, a, b, c]


def test_scores_by_hand() -> None:
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1)

    def score(first: list[float], second: list[float]) -> tuple[float, float]:
        """Of probabilities of action 0 at the start and after AA, AB, BA, BB (agent 0's action first)."""
        policies = [torch.tensor([[[p, 1 - p] for p in row]], dtype=torch.float64) for row in (first, second)]
        found = game.scores(policies)
        assert set(found) == {"tit_for_tat", "near_uniform"}
        assert all(value.shape == (1,) for value in found.values())
        return float(found["tit_for_tat"]), float(found["near_uniform"])

    # What the opponent did last: agent 0 repeats the second letter, agent 1 the first.
    assert score([1, 1, 0, 1, 0], [1, 1, 1, 0, 0]) == (1, 0)
    assert score([1, 1, 1, 0, 0], [1, 1, 0, 1, 0]) == (pytest.approx(3 / 5), 0)
    assert score([0] * 5, [0] * 5) == (pytest.approx(1 / 5), 0)  # always defect: right after BB only
    assert score([0.5] * 5, [0.5] * 5) == (0, 1)
    assert [score([p] * 5, [0.5] * 5)[1] for p in (0.24, 0.26, 0.74, 0.76)] == [0, 1, 1, 0]
    # Right at the start, after AA and after BB, where agent 1 is near one half as well; wrong after AB (agent 1) and
    # after BA (agent 0).
    assert score([0.6, 0.9, 0.3, 0.4, 0.1], [0.7, 0.6, 0.45, 0.2, 0.4]) == (pytest.approx(3 / 5), pytest.approx(2 / 5))


def test_scores_are_of_each_replicate() -> None:
    game = MatrixGame("matching_pennies", horizon=None, memory=1)
    copycat = torch.tensor([[1.0, 1, 0, 1, 0], [1, 1, 1, 0, 0]])
    first = torch.stack([copycat, torch.full((2, 5), 0.5)])  # replicates x agents x states
    policies = list(torch.stack([first, 1 - first], -1).unbind(1))
    found = game.scores(policies)
    assert found["tit_for_tat"].tolist() == [1, 0]
    assert found["near_uniform"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "game",
    [
        MatrixGame("prisoners_dilemma"),
        MatrixGame("climbing", memory=1, horizon=None),
        MatrixGame(torch.ones(2, 2, 2).tolist(), common=True, memory=1, horizon=None),
    ],
)
def test_other_games_have_no_scores(game: MatrixGame) -> None:
    states = game.observations[0].features
    assert game.scores([torch.ones(1, states, space.features) for space in game.action_spaces]) == {}


@pytest.mark.parametrize("name", PAYOFFS)
def test_symmetric_games(name: str) -> None:
    first, second, _ = EXPECTED[name]
    assert MatrixGame(name).symmetric == (second == [list(row) for row in zip(*first, strict=True)])


def test_which_games_are_symmetric() -> None:
    """The climbing game is not, but for the fully stochastic one: (B, C) pays 6, (C, B) nothing."""
    others = {"climbing", "partially_stochastic_climbing", "battle_of_the_sexes", "matching_pennies"}
    assert {name for name in PAYOFFS if not MatrixGame(name).symmetric} == others


def test_every_exchange_must_leave_the_game_as_it_is() -> None:
    common = torch.zeros(2, 2, 2)
    common[0, 1, 1] = common[1, 0, 1] = common[1, 1, 0] = 3.0
    assert MatrixGame(common.tolist(), common=True).symmetric
    common[1, 1, 0] = 2.0  # exchanging agents 0 and 1 still changes nothing, but exchanging 1 and 2 does
    assert not MatrixGame(common.tolist(), common=True).symmetric
    own = torch.zeros(3, 2, 2, 2)
    for agent in range(3):
        own[agent].movedim(agent, 0)[1] = 1.0  # each is paid for its own action
    assert MatrixGame(own.tolist(), common=False).symmetric
    own[2] *= 2
    assert not MatrixGame(own.tolist(), common=False).symmetric
    assert not MatrixGame([[1, 2, 3], [2, 4, 5]]).symmetric  # seats with different actions
    random = [[[0, 1], [2, 0]], [[0, 2], [1, 0]]]  # means are symmetric, what is paid is not
    assert not MatrixGame(random, stochastic=True).symmetric
