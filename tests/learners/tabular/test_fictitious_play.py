"""Fictitious play: best responses to frequencies, and the equilibria that it is known to find or to miss."""

from collections.abc import Callable

import pytest
import torch

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame, StochasticGame
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.learners.tabular.fictitious_play import FictitiousPlay
from inference_marl.models import DirichletMultinomial, EmpiricalFrequency
from inference_marl.types import Game, Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "FictitiousPlay": ("discrete", FictitiousPlay),
    "FictitiousPlay, stochastic": (
        "discrete",
        lambda: FictitiousPlay(exploration=Boltzmann(0.5), opponent_prior=DirichletMultinomial(2.0)),
    ),
}
"""Cases that tests/test_contract.py drives through the contract."""

SHAPLEY = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]]


def bound(described: Learner, game: Game, replicates: int) -> list[Learner]:
    torch.manual_seed(0)
    return [
        described.bind(Seat(i, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game))
        for i in range(game.agents)
    ]


def play(players: list[Learner], game: Game, replicates: int, steps: int) -> None:
    state = game.reset(replicates, 1, torch.device("cpu"), torch.float64)
    for _ in range(steps):
        obs = game.observe(state).obs
        actions = tuple(player.act(seen, {}).action for player, seen in zip(players, obs, strict=True))
        state, rewards, terminated, _ = game.step(state, actions)
        for player in players:
            teach(player, Transition(obs, actions, rewards, game.observe(state).obs, terminated, terminated), [])


def frequencies(players: list[Learner], obs: torch.Tensor) -> list[torch.Tensor]:
    """How often each of two agents has played what, as the other counted it, `replicates x actions`."""
    beliefs = [player.beliefs(obs, {}, 1)["opponent_model"] for player in players]
    return [belief[:, 0] for belief in reversed(beliefs)]


def test_answers_the_frequencies_of_each_state() -> None:
    reward = torch.tensor([[[3.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [2.0, 0.0]]])  # states x own x other
    game = StochasticGame([1, 0], torch.full((2, 2, 2, 2), 0.5), torch.stack([reward, -reward]))
    learner = bound(FictitiousPlay(), game, 1)[0]
    done = torch.zeros(1, 1, dtype=torch.bool)
    for state, other in [(0, 0), (0, 1), (0, 1), (0, 1), (1, 0), (1, 1), (1, 1)]:
        obs, action = torch.tensor([[state]]), torch.tensor([[other]])
        rewards = torch.full((1, 1, 2), 99.0, dtype=torch.float64)  # what was earned does not matter
        teach(learner, Transition((obs, obs), (obs * 0, action), rewards, (obs, obs), done, done), [])
    policy = learner(torch.tensor([[0, 1]]))[0].tolist()
    assert policy == [[0.0, 1.0], [0.5, 0.5]]  # 3/4 against 1; 2/3 against 2/3, shared


def test_frequencies_settle_at_the_equilibrium_of_a_zero_sum_game() -> None:
    # Values 2 by playing (1/2, 1/2) against (1/4, 3/4); Robinson (1951) proves convergence.
    game = MatrixGame([[[5, 1], [-1, 3]], [[-5, -1], [1, -3]]], common=False)
    players = bound(FictitiousPlay(opponent_prior=EmpiricalFrequency(initial="uniform")), game, 4)
    play(players, game, 4, 1500)
    first, second = frequencies(players, torch.zeros(4, 1, dtype=torch.int64))
    torch.testing.assert_close(first, torch.tensor([[0.5, 0.5]]).double().expand(4, -1), atol=0.05, rtol=0)
    torch.testing.assert_close(second, torch.tensor([[0.25, 0.75]]).double().expand(4, -1), atol=0.05, rtol=0)


def test_cycles_for_ever_in_the_game_of_shapley() -> None:
    game = MatrixGame(SHAPLEY, common=False)
    players = bound(FictitiousPlay(), game, 4)
    obs = torch.zeros(4, 1, dtype=torch.int64)
    farthest = []
    for _ in range(10):
        play(players, game, 4, 100)
        farthest.append((frequencies(players, obs)[0] - 1 / 3).abs().amax())
    assert min(farthest[5:]) > 0.05  # only (1/3, 1/3, 1/3) is an equilibrium


def test_stochastic_play_settles_at_the_logit_equilibrium() -> None:
    # Of matching pennies with 4 instead of 1 for one match: p = sigmoid((7 q - 2) / T), q = sigmoid((2 - 4 p) / T).
    game = MatrixGame([[[4, -1], [-1, 1]], [[-1, 1], [1, -1]]], common=False)
    players = bound(FictitiousPlay(exploration=Boltzmann(1.0), opponent_prior=DirichletMultinomial()), game, 200)
    play(players, game, 200, 1000)
    low, high = 0.0, 1.0
    for _ in range(60):  # p rises with q and q falls with p, so there is one fixed point
        p = (low + high) / 2
        q = torch.sigmoid(torch.tensor(2 - 4 * p, dtype=torch.float64))
        low, high = (p, high) if torch.sigmoid(7 * q - 2) > p else (low, p)
    first, second = frequencies(players, torch.zeros(200, 1, dtype=torch.int64))
    assert float(first[:, 0].mean()) == pytest.approx(p, abs=0.01)
    assert float(second[:, 0].mean()) == pytest.approx(float(q), abs=0.01)


def test_needs_a_game_that_tells_its_payoffs() -> None:
    game = MatrixGame("stag_hunt")
    seat = Seat(0, game.observations, game.action_spaces, 1)
    with pytest.raises(IncompatibleError, match="FictitiousPlay got no game, which does not give its rules as tables"):
        FictitiousPlay().bind(seat)
