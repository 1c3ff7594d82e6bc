"""Stochastic games: draws against tables, termination, tables that are refused, and what the risky bridge tempts to."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

from inference_marl.config.build import SpecError
from inference_marl.config.files import build
from inference_marl.games import RiskyBridge, StochasticGame
from inference_marl.spaces import Discrete
from inference_marl.types import Game

CPU = torch.device("cpu")
SAFE, MIXED, JUMP = (0, 0), (0, 1), (1, 1)
BANK, PATH, ACROSS, RIVER, HOME = range(5)


def random_tables(states: int, sizes: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Initial, transition and per-agent reward; some next states are impossible, about half of the rows terminate."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    weights = uniform(states, *sizes, states) * (uniform(states, *sizes, states) > 0.3)
    weights[..., seed % states] += 0.1
    lasting = 1 - 0.4 * uniform(states, *sizes, 1) * (uniform(states, *sizes, 1) > 0.5)
    initial = uniform(states)
    return (
        initial / initial.sum(),
        lasting * weights / weights.sum(-1, keepdim=True),
        uniform(len(sizes), states, *sizes),
    )


def in_state(game: Game, obs: Tensor) -> dict[str, Tensor]:
    return {"obs": obs, "rewards": torch.zeros(*obs.shape, game.agents, dtype=torch.float64)}


def play(game: StochasticGame, joint: list[tuple[int, ...]], copies: int = 1) -> tuple[list[int], Tensor]:
    """The first copy's states and every copy's undiscounted return, `copies x agents`."""
    state = game.reset(copies, 1, CPU, torch.float64)
    states, total = [int(state["obs"][0, 0])], torch.zeros(copies, game.agents, dtype=torch.float64)
    for cell in joint:
        state, rewards, _, _ = game.step(state, [torch.full((copies, 1), action) for action in cell])
        states.append(int(state["obs"][0, 0]))
        total += rewards[:, 0]
    return states, total


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    """The probability of a statistic at least as large, if counts were drawn from the probabilities."""
    expected = probabilities * counts.sum()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    return float(chi2.sf(float(statistic), max(int(possible.sum()) - 1, 1)))


@pytest.mark.parametrize("sizes", [(2, 3), (2, 1, 2)])
def test_draws_follow_the_tables(sizes: tuple[int, ...]) -> None:
    """Chi-square for every row and for the first state; rewards are the tables'.

    25 tests at level 1e-7 each, so a right game fails once in 400 000 seeds.
    """
    copies = 20_000
    initial, transition, reward = random_tables(4, sizes, seed=1)
    game = StochasticGame(initial, transition, reward)
    first = game.reset(copies, 1, CPU, torch.float64)["obs"]
    assert chi_square(torch.bincount(first.flatten(), minlength=4), initial) > 1e-7
    for obs, *cell in itertools.product(range(4), *map(range, sizes)):
        actions = [torch.full((copies, 1), action) for action in cell]
        after, rewards, terminated, _ = game.step(in_state(game, torch.full((copies, 1), obs)), actions)
        assert torch.equal(rewards, reward[(slice(None), obs, *cell)].expand(copies, 1, -1))
        assert bool((after["obs"][terminated] == obs).all())
        row = transition[(obs, *cell)]
        counts = torch.bincount(torch.where(terminated, 4, after["obs"]).flatten(), minlength=5)
        missing = (1 - row.sum()).clamp(min=0)
        assert chi_square(counts, torch.cat([row, (missing if missing > 1e-9 else missing * 0)[None]])) > 1e-7


def test_draws_differ_between_copies_and_follow_the_global_generator() -> None:
    game = StochasticGame([0.5, 0.5], [[[[0.5, 0.5]]]] * 2, [[[0.0]]] * 2)

    def two_steps() -> list[Tensor]:
        torch.manual_seed(3)
        actions = [torch.zeros(50, 2, dtype=torch.int64)] * 2
        state = game.reset(50, 2, CPU, torch.float32)
        seen = [state["obs"]]
        for _ in range(2):
            state = game.step(state, actions)[0]
            seen.append(state["obs"])
        return seen

    seen = two_steps()
    assert all(map(torch.equal, two_steps(), seen))
    for one, other in itertools.combinations(seen, 2):
        assert not torch.equal(one, other)
    for obs in seen:
        assert not torch.equal(obs[:, 0], obs[:, 1])
        assert not torch.equal(obs[:25], obs[25:])


def test_complete_rows_never_terminate_whatever_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times 0.1 is less than 1 in floating point; the largest draw that there is must not fall into the gap."""
    largest = 1 - 2.0**-53
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, device: torch.full(shape, largest, dtype=dtype))
    tenths = [0.1] * 10
    assert sum(tenths) < 1
    game = StochasticGame([*tenths, 0.0], [[[[*tenths, 0.0]]]] * 11, [[[0.0]]] * 11)
    state = game.reset(1, 1, CPU, torch.float32)
    assert int(state["obs"]) == 9
    state, _, terminated, _ = game.step(state, [torch.zeros(1, 1, dtype=torch.int64)] * 2)
    assert (int(state["obs"]), bool(terminated)) == (9, False)


def test_the_smallest_draw_falls_into_no_impossible_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype, device: torch.zeros(shape, dtype=dtype))
    game = StochasticGame([0, 1], [[[[0, 0]]], [[[0, 0.5]]]], [[[0]], [[0]]])
    state = game.reset(1, 2, CPU, torch.float32)
    assert state["obs"].tolist() == [[1, 1]]
    actions = [torch.zeros(1, 2, dtype=torch.int64)] * 2
    after, _, terminated, _ = game.step(in_state(game, torch.tensor([[0, 1]])), actions)
    assert (after["obs"].tolist(), terminated.tolist()) == ([[0, 1]], [[True, False]])


def test_rounded_rows_are_scaled_and_missing_mass_is_kept() -> None:
    third = 0.3333333
    row = [third, third, third]
    game = StochasticGame(row, [[[row, [0.5, 0.2, 0.0]]]] * 3, [[[1.0, 2.0]]] * 3)
    tables = game.dynamics()
    assert tables.initial.tolist() == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert tables.transition[0, 0, 0].tolist() == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert tables.transition[0, 0, 1].tolist() == [0.5, 0.2, 0.0]
    assert tables.reward.tolist() == [[[[1.0, 2.0]]] * 3] * 2


@given(data=st.data(), sizes=st.lists(st.integers(1, 3), min_size=2, max_size=3), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_permuting_agents_permutes_everything(data: st.DataObject, sizes: list[int], seed: int) -> None:
    order = data.draw(st.permutations(range(len(sizes))))
    initial, transition, reward = random_tables(3, tuple(sizes), seed)
    axes = [1 + agent for agent in order]
    other = StochasticGame(
        initial, transition.permute(0, *axes, -1), reward[list(order)].permute(0, 1, *(1 + axis for axis in axes))
    )
    game = StochasticGame(initial, transition, reward)
    actions = [torch.randint(size, (6, 4)) for size in sizes]
    results = []
    for played, joint in [(game, actions), (other, [actions[agent] for agent in order])]:
        torch.manual_seed(5)
        results.append(played.step(played.reset(6, 4, CPU, torch.float64), joint))
    step, permuted = results
    assert torch.equal(step.state["obs"], permuted.state["obs"])
    assert torch.equal(step.rewards[..., list(order)], permuted.rewards)
    assert torch.equal(step.terminated, permuted.terminated)


def test_pickles_and_copies_carry_no_device_tables() -> None:
    game = RiskyBridge()
    play(game, [SAFE])
    assert game._tables
    for twin in (pickle.loads(pickle.dumps(game)), copy.deepcopy(game)):
        assert twin._tables == {}
        assert play(twin, [SAFE] * 2)[1].tolist() == [[1, 1]]
        assert (twin.horizon, twin.state_names, twin.action_spaces) == (3, game.state_names, (Discrete(2),) * 2)


def test_the_callers_tensors_are_not_shared() -> None:
    initial, transition, reward = random_tables(3, (2, 2), 0)
    game = StochasticGame(initial, transition, reward[0])
    before = copy.deepcopy(game.dynamics())
    for tensor in (initial, transition, reward):
        tensor.zero_()
    for name in ("initial", "transition", "reward"):
        assert torch.equal(getattr(game.dynamics(), name), getattr(before, name))


def test_a_file_can_write_one() -> None:
    described = """
    class_path: StochasticGame
    init_args:
      initial: [1, 0]
      transition:
        - [[[0.5, 0.5], [1, 0]], [[1, 0], [0.25, 0.25]]]
        - [[[0, 1], [0, 1]], [[0, 1], [0, 1]]]
      reward: [[[1, 0], [0, 2]], [[0, 0], [0, 0]]]
      horizon: 4
      state_names: [out, in]
    """
    experiment = build({"game": yaml.safe_load(described), "arms": {"a": "Stationary"}})
    game = experiment.game
    assert isinstance(game, StochasticGame)
    assert (game.horizon, game.state_names, game.agents) == (4, ("out", "in"), 2)
    assert game.dynamics().transition[0, 1, 1].tolist() == [0.25, 0.25]
    again = build(experiment.describe()["init_args"]).game
    assert again.describe() == game.describe()


def test_errors_in_a_file_name_the_key() -> None:
    game = {"class_path": "StochasticGame", "init_args": {"initial": [1], "transition": 3, "reward": [[[0]]]}}
    with pytest.raises(SpecError, match=r"^game\.transition: got 3, expected nested lists"):
        build({"game": game, "arms": {"a": "Stationary"}})


ROWS = [[[[0.5, 0.5], [1, 0]], [[1, 0], [0, 1]]]] * 2
PAY = [[[0, 1], [2, 3]]] * 2


def changed(value: Any, *at: int) -> list[Any]:
    """`ROWS` with another entry somewhere."""
    rows = json.loads(json.dumps(ROWS))
    inner: Any = rows
    for index in at[:-1]:
        inner = inner[index]
    inner[at[-1]] = value
    return rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "^horizon: got 0, expected a positive integer, or null"),
        ({"initial": [0.5, 0.4]}, "^initial: got a row with the sum 0.9, expected 1"),
        ({"initial": [0.5, 0.6]}, "^initial: got a row with the sum 1.1, expected at most 1"),
        ({"initial": [1.5, -0.5]}, r"^initial: got -0.5 at \[1\], expected probabilities"),
        ({"initial": [[1, 0]]}, r"^initial: got shape \(1, 2\), expected one number per state"),
        ({"initial": []}, r"^initial: got \[\], expected nested lists of at least one number"),
        ({"initial": None}, "^initial: got None, expected nested lists of numbers"),
        ({"initial": [1, 0, 0]}, r"^transition: got shape \(2, 2, 2, 2\), expected 3 x A1 x ... x An x 3"),
        ({"transition": [[1, 0], [0, 1]]}, "at least 2 agents"),
        (
            {"transition": changed([0.7, 0.7], 1, 0, 1)},
            r"^transition: got the row at \[1\]\[0\]\[1\] with the sum 1.4, expected at most 1",
        ),
        (
            {"transition": changed([1.2, -0.2], 0, 1, 0)},
            r"^transition: got -0.2 at \[0\]\[1\]\[0\]\[1\], expected probabilities",
        ),
        (
            {"transition": changed([1, 0, 0], 1, 1, 0)},
            r"^transition: got 3 entries at \[1\]\[1\]\[0\] and 2 at \[0\]\[0\]\[0\], expected .* equally long",
        ),
        ({"transition": changed(["a", 0], 1, 1, 0)}, r"^transition: got 'a' at \[1\]\[1\]\[0\]\[0\], expected nested"),
        ({"transition": changed(7, 1, 1, 0)}, r"^transition: got 7 at \[1\]\[1\]\[0\], expected nested"),
        (
            {"transition": changed([math.nan, 0], 1, 1, 0)},
            r"^transition: got nan at \[1\]\[1\]\[0\]\[0\], expected fin",
        ),
        ({"reward": [[0, 1], [2, 3]]}, r"^reward: got shape \(2, 2\), expected \(2, 2, 2\).* or \(2, 2, 2, 2\)"),
        ({"reward": [PAY] * 3}, r"^reward: got shape \(3, 2, 2, 2\), expected"),
        ({"reward": [[[0, 1], [2, math.inf]]] * 2}, r"^reward: got inf at \[0\]\[1\]\[1\], expected finite"),
        ({"discount": 1.0}, r"^discount: got 1.0, expected a number in \[0, 1\)"),
        ({"state_names": ["a"]}, r"^state_names: got \['a'\], expected 2 different names"),
        ({"state_names": ["a", "a"]}, "^state_names: got .*expected 2 different names"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    fine = {"initial": [1, 0], "transition": ROWS, "reward": PAY}
    StochasticGame(**fine)
    with pytest.raises(ValueError, match=message):
        StochasticGame(**{**fine, **arguments})


def test_step_refuses_wrong_actions() -> None:
    game = RiskyBridge()
    state = game.reset(2, 3, CPU, torch.float32)
    fine = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"actions: got shapes \[\(2, 3\)\], expected \[\(2, 3\), \(2, 3\)\]"):
        game.step(state, [fine])
    with pytest.raises(ValueError, match=r"actions: got shapes \[\(2, 3\), \(2, 3, 1\)\], expected"):
        game.step(state, [fine, fine[..., None]])
    with pytest.raises(IndexError):
        game.step(state, [fine, fine + 2])
    with pytest.raises(IndexError):
        game.step(state, [fine, fine.float()])


class TestRiskyBridge:
    def test_walking_by_hand(self) -> None:
        states, total = play(RiskyBridge(safe=2.5), [SAFE, JUMP, MIXED])
        assert states == [BANK, PATH, HOME, HOME]
        assert total.tolist() == [[2.5, 2.5]]

    def test_disagreeing_stays_and_costs_time(self) -> None:
        states, total = play(RiskyBridge(), [MIXED, (1, 0), SAFE, SAFE])
        assert states == [BANK, BANK, BANK, PATH, HOME]
        assert total.tolist() == [[1, 1]]

    def test_jumping_lands_with_the_given_probability(self) -> None:
        copies = 10_000
        game = RiskyBridge(probability=0.3, prize=7, loss=-2)
        total = play(game, [JUMP, SAFE], copies)[1]
        assert set(total.flatten().tolist()) == {7, -2}
        assert torch.equal(total[:, 0], total[:, 1])
        # off by 5 standard errors once in 1.7 million seeds
        assert abs(float((total[:, 0] == 7).double().mean()) - 0.3) < 5 * (0.3 * 0.7 / copies) ** 0.5

    def test_names_and_absorption(self) -> None:
        game = RiskyBridge()
        assert game.state_names == ("bank", "path", "across", "river", "home")
        tables = game.dynamics()
        assert torch.equal(tables.transition.sum(-1), torch.ones(5, 2, 2, dtype=torch.float64))
        assert bool((tables.transition[HOME, ..., HOME] == 1).all())
        assert not tables.reward[:, [BANK, HOME]].any()

    def test_lucky_inference_prefers_the_jump_and_expectation_the_walk(self) -> None:
        """Values of the joint actions at the bank: of the mean return, and of log E[exp(return)]."""
        tables = RiskyBridge().dynamics()
        outcome = tables.reward[0, :, 0, 0]  # what the step after the bank pays, in every state
        mean = tables.transition[BANK] @ outcome
        lucky = (tables.transition[BANK] @ outcome.exp()).log()
        assert float(mean[SAFE]) == float(lucky[SAFE]) == 1
        assert float(mean[JUMP]) == pytest.approx(-8)
        assert float(lucky[JUMP]) == pytest.approx(10 + math.log(0.1), abs=1e-6)  # the loss adds 9 exp(-20)
        assert float(lucky[JUMP]) > 7 * float(lucky[SAFE])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"probability": 1.2}, r"probability: got 1.2, expected a number in \[0, 1\]"),
            ({"prize": math.inf}, "prize: got inf, expected a finite number"),
            ({"loss": math.nan}, "loss: got nan, expected a finite number"),
            ({"horizon": -1}, "horizon: got -1, expected a positive integer"),
        ],
    )
    def test_what_is_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            RiskyBridge(**arguments)
