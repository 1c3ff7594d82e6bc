"""The coin game's rules, by hand, and what its agents observe."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.games import CoinGame
from inference_marl.play import GameSimulator
from inference_marl.types import State

CPU = torch.device("cpu")
UP, DOWN, LEFT, RIGHT = range(4)
SEEN = ("history", "index", "relative", "absolute")


def at(first: int, second: int, coin: int, owner: int, **more: Any) -> State:
    """A state of one environment on the 3 x 3 torus, cells counted row by row."""
    state = {"first": first, "second": second, "coin": coin, "owner": owner, "takers": 0, "steps": 0} | more
    found = {name: torch.tensor([[value]]) for name, value in state.items()}
    return found | {"taken": torch.zeros(1, 1, 2, 2).double()}


def moved(state: State, one: int, other: int, game: CoinGame | None = None) -> tuple[State, list[float]]:
    after, rewards, terminated, truncated = (game or CoinGame()).step(
        state, (torch.tensor([[one]]), torch.tensor([[other]]))
    )
    assert not terminated.any()
    assert truncated is None
    return after, rewards.flatten().tolist()


def random_state(game: CoinGame, environments: int = 500) -> State:
    """After some random steps, so that coins of all kinds have been taken."""
    state = game.reset(2, environments, CPU, torch.float64)
    for _ in range(20):
        state = game.step(state, tuple(torch.randint(4, (2, environments)) for _ in range(2))).state
    return state


@pytest.mark.parametrize(
    ("start", "action", "end"), [(0, UP, 6), (0, LEFT, 2), (8, DOWN, 2), (8, RIGHT, 6), (4, UP, 1), (4, RIGHT, 5)]
)
def test_the_grid_is_a_torus(start: int, action: int, end: int) -> None:
    after, rewards = moved(at(start, 4, 3, 0), action, LEFT)
    assert after["first"].item() == end
    assert rewards == [-2.0, 1.0]  # meanwhile, the other one has taken the first one's coin


@pytest.mark.parametrize(
    ("owner", "first", "second", "expected", "takers"),
    [
        (0, 3, 8, [1.0, 0.0], 3),
        (0, 8, 3, [-2.0, 1.0], 6),
        (0, 3, 5, [-1.0, 1.0], 6),
        (1, 8, 5, [0.0, 1.0], 1),
        (1, 5, 8, [1.0, -2.0], 2),
        (1, 3, 5, [1.0, -1.0], 2),
        (0, 8, 8, [0.0, 0.0], 0),
    ],
)
def test_who_takes_whose_coin(owner: int, first: int, second: int, expected: list[float], takers: int) -> None:
    """The coin is on the middle; from 3 and 5 a step right and left leads there, and from 8 none does."""
    one, other = (RIGHT if cell == 3 else LEFT for cell in (first, second))
    before = at(first, second, 4, owner)
    after, rewards = moved(before, one, other)
    assert rewards == expected
    assert after["takers"].item() == takers
    taken = expected != [0.0, 0.0]
    assert after["owner"].item() == (1 - owner if taken else owner)
    assert (after["coin"].item() == 4) != taken
    takes = [cell in (3, 5) for cell in (first, second)]
    own = [[int(takes[agent]) * (owner == agent), int(takes[agent]) * (owner != agent)] for agent in (0, 1)]
    assert after["taken"].squeeze().tolist() == own


def test_of_each_colour_the_last_taker_is_remembered() -> None:
    state, _ = moved(at(3, 8, 4, 0), RIGHT, LEFT)  # the first takes its own
    state["coin"] = state["first"] + 1
    state, _ = moved(state, RIGHT, UP)  # and then the second's
    assert state["takers"].item() == 3 * 1 + 2
    game = CoinGame()
    seen = [obs.item() % 9 for obs in game.observe(state).obs]
    assert seen == [3 * 1 + 2, 3 * 2 + 1]  # of one's own colour first


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_coin_appears_on_any_free_cell(size: int) -> None:
    game = CoinGame(size)
    first, second = (torch.randint(size**2, (1, 40_000)) for _ in range(2))
    coin = game._free(first, second)
    assert ((coin >= 0) & (coin < size**2)).all()
    assert ((coin != first) & (coin != second)).all()
    for pair in ((0, 0), (0, size**2 - 1), (1, 0)):
        here = (first == pair[0]) & (second == pair[1])
        share = coin[here].bincount(minlength=size**2) / here.sum()
        free = [cell not in pair for cell in range(size**2)]
        expected = torch.tensor(free).float() / sum(free)
        assert (share - expected).abs().max() < 5 * 0.5 / here.sum().sqrt()


def test_everybody_begins_on_a_cell_of_its_own() -> None:
    state = CoinGame().reset(3, 500, CPU, torch.float32)
    places = torch.stack([state["first"], state["second"], state["coin"]])
    for one in range(3):
        assert places[one].unique().tolist() == list(range(9))
        assert (places[one] != places[one - 1]).all()
    assert 0.45 < state["owner"].float().mean() < 0.55


@pytest.mark.parametrize("seen", SEEN)
def test_seats_are_alike(seen: Any) -> None:
    """Who sits in the other seat sees and gets what the first one did."""
    game = CoinGame(observation=seen)
    state = random_state(game)
    turned = state | {
        "first": state["second"],
        "second": state["first"],
        "owner": 1 - state["owner"],
        "takers": 3 * (state["takers"] % 3) + state["takers"] // 3,
        "taken": state["taken"].flip(2),
    }
    obs, other = game.observe(state).obs, game.observe(turned).obs
    assert torch.equal(obs[0], other[1])
    assert torch.equal(obs[1], other[0])
    actions = tuple(torch.randint(4, state["coin"].shape) for _ in range(2))
    torch.manual_seed(1)
    one = game.step(state, actions)
    torch.manual_seed(1)
    two = game.step(turned, actions[::-1])
    assert torch.equal(one.rewards, two.rewards.flip(-1))
    assert all(map(torch.equal, game.observe(one.state).obs, game.observe(two.state).obs[::-1]))
    for name, value in game.judge(one.state).items():
        assert torch.equal(value, game.judge(two.state)[name].flip(-1))


def test_observations_by_hand() -> None:
    """Agents on 0 and 5, the first one's coin on 7: from the first two down and one right, else one down and left."""
    state = at(0, 5, 7, 0, takers=5)
    first, second = CoinGame(observation="index").observe(state).obs
    assert (first.item(), second.item()) == (2 * (9 * 5 + 7) + 0, 2 * (9 * 7 + 5) + 1)
    history = CoinGame().observe(state).obs
    assert [obs.item() for obs in history] == [9 * first.item() + 5, 9 * second.item() + 7]

    def ones(obs: Tensor) -> list[int]:
        assert set(obs.unique().tolist()) == {0.0, 1.0}
        return [int(place) for place in obs.flatten().nonzero()]

    one, other = map(ones, CoinGame(observation="relative").observe(state).obs)
    assert (one, other) == ([5, 9 + 7], [7, 18 + 5])
    one, other = map(ones, CoinGame(observation="absolute").observe(state).obs)
    assert (one, other) == ([0, 9 + 5, 18 + 7], [5, 9 + 0, 27 + 7])


@pytest.mark.parametrize("seen", SEEN)
def test_the_coin_is_read_back_from_observations(seen: Any) -> None:
    game = CoinGame(4, observation=seen)
    state = random_state(game)
    for agent, obs in enumerate(game.observe(state).obs):
        where, own = game.coin_seen(obs)
        here = state["second" if agent else "first"]
        down, right = ((state["coin"] // 4 - here // 4) % 4, (state["coin"] - here) % 4)
        assert torch.equal(where, 4 * down + right)
        assert torch.equal(own, state["owner"] == agent)


def test_episodes_are_judged_by_whose_coins_were_taken() -> None:
    game = CoinGame()
    state = game.reset(2, 2, CPU, torch.float64)
    state["taken"][0] = torch.tensor([[[3.0, 1.0], [0.0, 0.0]], [[5.0, 1.0], [0.0, 0.0]]])
    state["steps"] += 4
    judged = game.judge(state)
    assert judged["own_coins"][0, :, 0].tolist() == [0.8, 0.8]  # of both environments together
    assert judged["own_coins"][0, :, 1].isnan().all()  # it has taken none
    assert judged["coins"][0].tolist() == [[1.0, 0.0], [1.5, 0.0]]


def test_an_episode_has_50_steps_and_does_not_terminate() -> None:
    simulator = GameSimulator(CoinGame(), 1, 2)
    simulator.reset()
    for step in range(1, 51):
        outcome = simulator.step((torch.randint(4, (1, 2)),) * 2)
        assert outcome.ended.all() == (step == 50)
        assert not outcome.terminated.any()
    assert outcome.judged is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1}, "size: got 1, expected an integer of at least 2"),
        ({"observation": "all"}, "observation: got 'all', expected history or index or relative or absolute"),
        ({"horizon": 0}, "horizon: got 0, expected a positive integer, or null for a game without end"),
        ({"discount": 1.0}, r"discount: got 1.0, expected a number in \[0, 1\)"),
    ],
)
def test_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CoinGame(**arguments)


def test_refuses_actions_that_do_not_fit() -> None:
    game = CoinGame()
    state = game.reset(1, 2, CPU, torch.float32)
    with pytest.raises(ValueError, match="actions: got shapes"):
        game.step(state, (torch.zeros(1, 2, dtype=torch.int64),))
    with pytest.raises(IndexError):
        game.step(state, (torch.full((1, 2), 4),) * 2)
    with pytest.raises(IndexError):
        game.step(state, (torch.zeros(1, 2),) * 2)
