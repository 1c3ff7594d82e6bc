"""The meeting grid: moves by hand, walls, goals, slips, and the symmetry of the two agents."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference_marl.config.files import build
from inference_marl.games import MeetingGrid
from inference_marl.runs.measures import MAX_STATES
from inference_marl.spaces import Discrete

CPU = torch.device("cpu")
STAY, UP, DOWN, LEFT, RIGHT = range(5)


def number(game: MeetingGrid, first: tuple[int, int], second: tuple[int, int]) -> int:
    assert game.state_names is not None
    return game.state_names.index(f"({first[0]},{first[1]}) ({second[0]},{second[1]})")


def play(game: MeetingGrid, moves: list[tuple[int, int]], copies: int = 1) -> tuple[list[str], Tensor]:
    """The first copy's states by name, and rewards, `steps x copies`."""
    assert game.state_names is not None
    state = game.reset(copies, 1, CPU, torch.float64)
    seen, paid = [game.state_names[int(state["obs"][0, 0])]], []
    for joint in moves:
        state, rewards, terminated, _ = game.step(state, [torch.full((copies, 1), move) for move in joint])
        assert not terminated.any()
        assert torch.equal(rewards[..., 0], rewards[..., 1])
        seen.append(game.state_names[int(state["obs"][0, 0])])
        paid.append(rewards[:, 0, 0])
    return seen, torch.stack(paid)


def test_a_meeting_by_hand() -> None:
    game = MeetingGrid(starts=[(0, 0), (2, 2)], step_cost=0.25)
    seen, paid = play(game, [(RIGHT, UP), (DOWN, LEFT), (STAY, STAY), (UP, STAY), (STAY, STAY)])
    assert seen == ["(0,0) (2,2)", "(0,1) (1,2)", "(1,1) (1,1)", "(1,1) (1,1)", "(0,1) (1,1)", "(0,1) (1,1)"]
    assert paid[:, 0].tolist() == [-0.5, -0.5, 1.0, 0.75, 0.0]


def test_agents_pass_through_each_other_and_not_through_edges() -> None:
    game = MeetingGrid(2, 1, starts=[(0, 0), (0, 1)])
    seen, paid = play(game, [(RIGHT, LEFT), (UP, DOWN), (RIGHT, LEFT)])
    assert seen == ["(0,0) (0,1)", "(0,1) (0,0)", "(0,1) (0,0)", "(0,1) (0,0)"]
    assert not paid.any()


def test_walls_are_no_cells_and_stop_moves() -> None:
    game = MeetingGrid(3, 2, walls=[(0, 1)], starts=[(0, 0), (0, 2)])
    assert game.cells == ((0, 0), (0, 2), (1, 0), (1, 1), (1, 2))
    assert game.observations == (Discrete(25),) * 2
    seen, _ = play(game, [(RIGHT, LEFT), (DOWN, DOWN), (RIGHT, LEFT), (UP, UP)])
    assert seen[1:] == ["(0,0) (0,2)", "(1,0) (1,2)", "(1,1) (1,1)", "(1,1) (1,1)"]


def test_goals_are_several_equilibria() -> None:
    game = MeetingGrid(goals=[(0, 2, 1.0), (2, 0, 3.0)])
    reward = game.dynamics().reward[0, :, 0, 0]
    assert reward.nonzero().flatten().tolist() == [number(game, (0, 2), (0, 2)), number(game, (2, 0), (2, 0))]
    assert float(reward[number(game, (2, 0), (2, 0))]) == 3
    assert MeetingGrid().dynamics().reward[0, :, 0, 0].sum() == 9


def test_slips_are_independent() -> None:
    game = MeetingGrid(slip=0.2)
    row = game.dynamics().transition[number(game, (0, 0), (2, 2)), RIGHT, UP]
    expected = {((0, 1), (1, 2)): 0.64, ((0, 0), (1, 2)): 0.16, ((0, 1), (2, 2)): 0.16, ((0, 0), (2, 2)): 0.04}
    for (first, second), probability in expected.items():
        assert float(row[number(game, first, second)]) == pytest.approx(probability)
    assert float(row.sum()) == pytest.approx(1)


def test_slips_happen_as_often_as_told() -> None:
    copies = 10_000
    game = MeetingGrid(2, 1, starts=[(0, 0), (0, 1)], slip=0.3)
    paid = play(game, [(RIGHT, STAY), (STAY, STAY)], copies)[1]
    # off by 5 standard errors once in 1.7 million seeds
    assert abs(float(paid[1].mean()) - 0.7) < 5 * (0.3 * 0.7 / copies) ** 0.5


def test_starts() -> None:
    uniform = MeetingGrid().dynamics().initial
    assert uniform.tolist() == pytest.approx([1 / 81] * 81)
    game = MeetingGrid(starts=[(0, 1), (2, 0)])
    assert game.dynamics().initial.nonzero().tolist() == [[number(game, (0, 1), (2, 0))]]


def test_the_default_is_recorded_state_by_state() -> None:
    assert MeetingGrid().observations[0].features <= MAX_STATES


def test_rows_are_complete() -> None:
    for game in (MeetingGrid(), MeetingGrid(3, 2, walls=[(0, 1)], slip=0.35)):
        totals = game.dynamics().transition.sum(-1)
        torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-14)


@given(data=st.data())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_exchanging_the_agents_changes_nothing_else(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    grid = list(itertools.product(range(height), range(width)))
    walls = data.draw(st.lists(st.sampled_from(grid), max_size=len(grid) - 1))
    free = [cell for cell in grid if cell not in walls]
    first, second = data.draw(st.sampled_from(free)), data.draw(st.sampled_from(free))
    rules: dict[str, Any] = {
        "goals": [(*first, 2.0)],
        "walls": walls,
        "slip": data.draw(st.floats(0, 0.9)),
        "step_cost": data.draw(st.floats(0, 1)),
    }
    here = MeetingGrid(width, height, starts=[first, second], **rules).dynamics()
    there = MeetingGrid(width, height, starts=[second, first], **rules).dynamics()
    count = len(free)
    swapped = torch.arange(count * count).view(count, count).T.flatten()
    torch.testing.assert_close(here.initial, there.initial[swapped])
    torch.testing.assert_close(here.transition, there.transition[swapped][..., swapped].transpose(1, 2))
    torch.testing.assert_close(here.reward, there.reward[:, swapped].transpose(2, 3))


def test_a_file_gives_cells_as_lists() -> None:
    init_args = {
        "width": 3,
        "goals": [[0, 0, 1], [2, 2, 1.5]],
        "walls": [[1, 1]],
        "starts": [[0, 2], [2, 0]],
    }
    experiment = build({"game": {"class_path": "MeetingGrid", "init_args": init_args}, "arms": {"a": "Stationary"}})
    game = experiment.game
    twin = MeetingGrid(goals=[(0, 0, 1), (2, 2, 1.5)], walls=[(1, 1)], starts=[(0, 2), (2, 0)])
    assert isinstance(game, MeetingGrid)
    assert game.describe() == twin.describe()
    assert torch.equal(game.dynamics().transition, twin.dynamics().transition)
    assert torch.equal(game.dynamics().reward, twin.dynamics().reward)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width: got 0, expected a positive integer"),
        ({"height": -2}, "height: got -2, expected a positive integer"),
        ({"slip": 1.0}, r"slip: got 1.0, expected a number in \[0, 1\)"),
        ({"step_cost": -0.1}, "step_cost: got -0.1, expected a number that is not negative"),
        ({"horizon": 0}, "horizon: got 0, expected a positive integer"),
        ({"walls": [(3, 0)]}, r"walls: got \(3, 0\), expected \[row, column\]"),
        ({"goals": [(0, 3, 1.0)]}, r"goals: got \(0, 3\), expected \[row, column\] of a free cell"),
        ({"goals": [(0, 0, 1.0)], "walls": [(0, 0)]}, r"goals: got \(0, 0\), expected .* a free cell"),
        ({"goals": [(0, 0, math.inf)]}, r"goals\[0\]\[2\]: got inf, expected a finite number"),
        ({"starts": [(0, 0)]}, "starts: got .*expected 2 cells, one per agent"),
        ({"starts": [(0, 0), (1, 1)], "walls": [(1, 1)]}, r"starts: got \(1, 1\), expected"),
        ({"width": 1, "height": 1, "walls": [(0, 0)]}, "walls: got .*at least one cell of 1 x 1 free"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        MeetingGrid(**arguments)
