"""LOLA from imagined play: its estimates against exact derivatives, by hand, and what is learnt from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame, StochasticGame
from inference_marl.inference.failures import NonFiniteError
from inference_marl.inference.returns import expected_return, state_values
from inference_marl.learners import Stationary
from inference_marl.learners.lola import Lola, LolaDice, NaiveGradient
from inference_marl.learners.lola.derivatives import Autograd, free_logits
from inference_marl.learners.lola.dice import advantages, fitted_values
from inference_marl.learners.lola.gradient import GradientLearner
from inference_marl.play import Functional, update
from inference_marl.types import Actor, Game, Learner, Memory, Seat, Trajectory, Transition
from tests.steps import teach

CASES: dict[str, Callable[[], Learner]] = {
    "LolaDice": lambda: LolaDice(rollouts=5, length=4),
    "LolaDice, two steps, every other time": lambda: LolaDice(rollouts=4, length=3, look_ahead=2, update_every=2),
    "LolaDice, original": lambda: LolaDice(rollouts=4, length=3, estimator="dice"),
    "LolaDice, original, mean": lambda: LolaDice(rollouts=4, length=3, estimator="dice", baseline="mean"),
    "LolaDice, products": lambda: LolaDice(rollouts=4, length=3, estimator="products"),
}
LEARNERS = {name: ("known, two agents", make) for name, make in CASES.items()}
"""Cases that tests/test_contract.py drives through the contract."""

IPD = MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.96)
MANY = 2048
MEAN = {"estimator": "dice", "baseline": "mean"}


def ending_game() -> StochasticGame:
    """In state 0 the first agent may end the game and earn 1, or go on to earn 1.05 later, after which it ends.

    The former is worth 1 and the latter .945 to it. Were values bootstrapped where the game is over, in the state that
    it ended in, the latter would be worth more.
    """
    transition = torch.zeros(2, 2, 2, 2).double()
    transition[0, 1, :, 1] = 1
    reward = torch.zeros(2, 2, 2, 2).double()
    reward[0, 0, 0], reward[0, 1] = 1.0, 1.05
    reward[1, 0, :, 0] = 2.0
    return StochasticGame([1.0, 0.0], transition, reward, discount=0.9)


def uneven_game() -> StochasticGame:
    """Three states, two and three actions, neither symmetric nor zero-sum; it may terminate."""
    of = torch.Generator().manual_seed(0)
    rows = torch.rand(3, 2, 3, 3, dtype=torch.float64, generator=of)
    reward = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=of)
    return StochasticGame([0.5, 0.3, 0.2], 0.9 * rows / rows.sum(-1, keepdim=True), reward, discount=0.8)


def seats(game: Game, replicates: int) -> list[Seat]:
    return [
        Seat(i, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game)
        for i in range(game.agents)
    ]


def pair(game: Game, one: Learner, other: Learner, replicates: int) -> list[Learner]:
    return [learner.bind(seat) for learner, seat in zip((one, other), seats(game, replicates), strict=True)]


def a_step(replicates: int, action: int = 0) -> Transition:
    """Both agents played `action`; of which only an estimate of the opponent takes note."""
    seen = torch.zeros(replicates, 1, dtype=torch.int64)
    played = (seen + action,) * 2
    return Transition((seen,) * 2, played, torch.zeros(replicates, 1, 2), (seen,) * 2, seen < 0, seen < 0)


def step(players: Sequence[Learner], action: int = 0) -> None:
    """One update of all, from what they were."""
    update(players, Trajectory([a_step(players[0].seat.replicates, action)]))


def logits_of(players: Sequence[Learner]) -> tuple[Tensor, Tensor]:
    first, second = (player.logits.detach().clone() for player in players if isinstance(player, GradientLearner))
    return first, second


def drawn(game: Game, replicates: int) -> tuple[Tensor, Tensor]:
    """Logits of both agents, N(0, 1)."""
    states = game.observations[0].features
    first, second = (torch.randn(replicates, states, space.features - 1).double() for space in game.action_spaces)
    return first.requires_grad_(), second.requires_grad_()


def exactly(game: Game, of: int, first: Tensor, second: Tensor) -> Tensor:
    """An agent's value from the start, `replicates`."""
    dynamics = game.dynamics()
    assert dynamics is not None
    return state_values(dynamics, [free_logits(first), free_logits(second)], game.discount)[:, of] @ dynamics.initial


def alike(one: Tensor, other: Tensor) -> float:
    """Mean cosine over replicates."""
    return float(cosine_similarity(one.detach().flatten(1), other.detach().flatten(1)).mean())


def test_advantages_by_hand() -> None:
    """Of two rollouts, the second over after two steps."""
    error = torch.tensor([[[1.0, 2.0], [10.0, 4.0], [100.0, 0.0]]]).double()
    expected = torch.tensor([[[1 + 5 + 25, 2 + 2], [10 + 50, 4], [100, 0]]]).double()
    torch.testing.assert_close(advantages(error, 0.5), expected)
    torch.testing.assert_close(advantages(error, 0.0), error)


def test_fitted_values_by_hand() -> None:
    """State 0 pays 1 and 3 and leads to itself and to 1, which ends; a step that is left out; 2 is nobody's start."""
    obs, next_obs = torch.tensor([[[0, 0], [0, 1], [1, 2]]]), torch.tensor([[[0, 1], [1, 1], [2, 0]]])
    reward = torch.tensor([[[1.0, 3.0], [3.0, 6.0], [8.0, 1e6]]]).double()
    onward = torch.tensor([[[0.5, 0.5], [0.5, 0.0], [0.5, 0.5]]]).double()
    counted = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]]).double()
    (found,) = fitted_values(obs, next_obs, reward, onward, counted, 3)
    zero, one, two = found.tolist()
    assert two == pytest.approx((3 * zero + 2 * one) / 5)
    assert one == pytest.approx((6 + 8 + 0.5 * two) / 2)
    assert zero == pytest.approx((1 + 3 + 3 + 0.5 * (zero + one + one)) / 3)


def test_no_value_follows_termination_and_one_follows_a_time_limit() -> None:
    """One state that pays 1 at each of its four steps, the last of which is over."""
    nowhere, reward = torch.zeros(1, 4, 1, dtype=torch.int64), torch.ones(1, 4, 1).double()
    for last, value in [(0.0, 4 / (4 - 0.9 * 3)), (0.9, 1 / (1 - 0.9))]:
        onward = torch.tensor([0.9, 0.9, 0.9, last]).double().view(1, 4, 1)
        found = fitted_values(nowhere, nowhere, reward, onward, torch.ones_like(reward), 1)
        assert found.item() == pytest.approx(value)


@pytest.mark.parametrize(
    "estimated",
    [
        {"estimator": "loaded"},
        {"estimator": "dice"},
        {"estimator": "no_magic_box"},
        pytest.param(MEAN, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("make_game", [ending_game, uneven_game])
def test_gradients_where_the_game_may_be_over(estimated: Any, make_game: Callable[[], Game]) -> None:
    """Both agents' values in both agents' parameters; of a rollout that is over, later episodes are left out."""
    game = make_game()
    rollouts = 8 * MANY if estimated is MEAN else MANY  # which is noisier without values
    learner = LolaDice(rollouts=rollouts, length=40, **estimated).bind(seats(game, 8)[0])
    both = drawn(game, 8)
    for of in (0, 1):
        found = torch.autograd.grad(learner.objective(of, (free_logits(both[0]), free_logits(both[1]))).sum(), both)
        expected = torch.autograd.grad(exactly(game, of, *both).sum(), both, materialize_grads=True)
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm() < 0.15 * torch.stack(list(map(torch.norm, expected))).norm()


@pytest.mark.parametrize(
    ("estimated", "own", "cross"),
    [
        ({"estimator": "loaded"}, (0.99, 1.0), (0.95, 1.0)),
        ({"estimator": "dice"}, (0.99, 1.0), (0.3, 0.75)),
        pytest.param({**MEAN, "length": 150}, (0.99, 1.0), (0.9, 1.0), marks=pytest.mark.slow),
        pytest.param({"estimator": "products", "length": 150}, (0.99, 1.0), (0.9, 1.0), marks=pytest.mark.slow),
        ({"estimator": "no_magic_box"}, (0.99, 1.0), (0, 0)),
    ],
)
def test_the_opponents_step_against_the_exact_games(
    estimated: Any, own: tuple[float, float], cross: tuple[float, float]
) -> None:
    """Its own gradient, and how that depends on the learner's parameters, which the controls do not know."""
    learner = LolaDice(rollouts=MANY, **estimated).bind(seats(IPD, 16)[0])
    first, second = drawn(IPD, 16)
    tables = (free_logits(first), free_logits(second))
    (gradient,) = torch.autograd.grad(learner.objective(1, tables).sum(), second, create_graph=True)
    once = gradient.detach()
    if estimated["estimator"] == "products":
        (gradient,) = torch.autograd.grad(learner.crossed(1, tables).sum(), second, create_graph=True)
    dynamics = IPD.dynamics()
    assert dynamics is not None
    at = Autograd(dynamics, IPD.discount, (free_logits, free_logits), (first.detach(), second.detach()))
    found, expected = [], []
    for state in range(5):
        direction = torch.zeros_like(second)
        direction[:, state] = 1
        along = (gradient * direction).sum()
        found += torch.autograd.grad(along, first, retain_graph=True, materialize_grads=True)
        expected.append(at.change(1, 0, direction))
    cosines = alike(once, at.gradients(1)[1]), alike(torch.stack(found, 1), torch.stack(expected, 1))
    print(f"{estimated}: own gradient {cosines[0]:.4f}, cross term {cosines[1]:.4f}")
    assert own[0] <= cosines[0] <= own[1]
    assert cross[0] <= cosines[1] <= cross[1]


@pytest.mark.parametrize("seat", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("look_ahead", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_step_is_the_gradient_after_the_opponents_steps(seat: int, look_ahead: int) -> None:
    game, eta = uneven_game(), 2.0
    both = (LolaDice(rollouts=MANY, length=40, look_ahead=look_ahead, opponent_step_size=eta), NaiveGradient())
    players = pair(game, *(both if seat == 0 else both[::-1]), replicates=16)
    logits = [own.requires_grad_() for own in logits_of(players)]
    own, other = logits[seat], logits[1 - seat]

    def value(of: int, opponent: Tensor) -> Tensor:
        return exactly(game, of, *((own, opponent) if seat == 0 else (opponent, own))).sum()

    ahead = other
    for _ in range(look_ahead):
        ahead = ahead + eta * torch.autograd.grad(value(1 - seat, ahead), ahead, create_graph=True)[0]
    (expected,) = torch.autograd.grad(value(seat, ahead), own)
    step(players)
    found = logits_of(players)[seat] - own.detach()
    assert (found - expected).norm() < 0.15 * expected.norm()  # .06 to .1; of a step more or less, .22 and above


@pytest.mark.parametrize("seat", [0, 1])
def test_a_step_by_products_is_lolas(seat: int) -> None:
    game, eta = uneven_game(), 2.0
    found = []
    estimated = LolaDice(rollouts=MANY, length=40, estimator="products", opponent_step_size=eta)
    for shaping in (estimated, Lola(opponent_step_size=eta)):
        torch.manual_seed(2)
        both = (shaping, NaiveGradient())
        players = pair(game, *(both if seat == 0 else both[::-1]), replicates=16)
        before = logits_of(players)[seat]
        step(players)
        found.append(logits_of(players)[seat] - before)
    by_products, exact = found
    assert (by_products - exact).norm() < 0.15 * exact.norm()


def test_advantages_decay_by_discount_and_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which no mean shows, as errors far ahead are 0 on average."""
    decays: list[float] = []

    def spy(error: Tensor, decay: float) -> Tensor:
        decays.append(decay)
        return advantages(error, decay)

    monkeypatch.setattr("inference_marl.learners.lola.dice.advantages", spy)
    moves(lambda: LolaDice(rollouts=2, length=3, trace_decay=0.5))
    assert decays == pytest.approx([0.96 * 0.5] * 4)


def moves(make: Callable[[], Learner], change: Callable[[Learner], None] = lambda learner: None) -> Tensor:
    """Logits of both after an update from the same seed, `agents x replicates x ...`."""
    torch.manual_seed(5)
    players = pair(IPD, make(), make(), 4)
    change(players[0])
    step(players)
    return torch.stack(logits_of(players))


def test_replicates_know_nothing_of_each_other() -> None:
    def elsewhere(learner: Learner) -> None:
        assert isinstance(learner, LolaDice)
        learner.logits.data[1] += 3.0

    one, other = moves(CASES["LolaDice"]), moves(CASES["LolaDice"], elsewhere)
    rest = [0, 2, 3]
    torch.testing.assert_close(one[:, rest], other[:, rest], rtol=0, atol=0)
    assert (one[:, 1] != other[:, 1]).any()


def test_how_much_is_imagined_does_not_change_what_is_drawn_in_play() -> None:
    after = []
    for rollouts, length in [(2, 3), (5, 7)]:
        torch.manual_seed(0)
        step(pair(IPD, LolaDice(rollouts=rollouts, length=length), LolaDice(rollouts=rollouts), 3))
        after.append(torch.rand(4))
    assert torch.equal(*after)


class PlainLogits(Learner):
    """The learners' own kind of policy, in another class and another shape."""

    def setup(self) -> None:
        self.theta = torch.nn.Parameter(torch.zeros(self.seat.replicates, 5, dtype=self.seat.dtype))

    def forward(self, obs: Tensor, memory: Memory) -> tuple[dist.Categorical, Memory]:
        return dist.Categorical(probs=free_logits(self.theta[self.seat.rows, obs].unsqueeze(-1))), memory

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        return {}

    def snapshot(self) -> Functional:
        return Functional.of(self, self.seat)


def test_reads_a_differentiable_opponent_whatever_its_class() -> None:
    found = []
    for opponent in (NaiveGradient(init_scale=0.0), PlainLogits()):
        torch.manual_seed(3)
        players = pair(IPD, LolaDice(rollouts=20), opponent, 4)
        learner = players[0]
        assert isinstance(learner, LolaDice)
        before = learner.logits.detach().clone()
        torch.manual_seed(3)
        step(players)
        found.append(learner.logits.detach() - before)
    assert found[0].abs().min() > 0
    torch.testing.assert_close(*found)


def test_a_step_that_is_not_finite_is_not_taken() -> None:
    learner, other = pair(IPD, LolaDice(rollouts=3, length=3), NaiveGradient(), 4)
    assert isinstance(learner, LolaDice)
    learner.logits.data[2] = torch.nan
    before = learner.logits.detach().clone()
    with pytest.raises(NonFiniteError, match=r"gradient.*replicate 2"):
        teach(learner, a_step(4), [learner, other])
    torch.testing.assert_close(learner.logits.detach(), before, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_floating_types(dtype: torch.dtype) -> None:
    seat, other = (Seat(i, IPD.observations, IPD.action_spaces, 2, dtype=dtype, game=IPD) for i in range(2))
    learner, opponent = LolaDice(rollouts=3, length=3).bind(seat), PlainLogits().bind(other)
    teach(learner, a_step(2), [learner, opponent])
    assert learner.logits.dtype == dtype
    assert learner.act(torch.zeros(2, 1, dtype=torch.int64), {}).action.dtype == torch.int64


def test_learns_to_defect_against_an_estimated_opponent_that_cannot_be_shaped() -> None:
    game = MatrixGame("prisoners_dilemma")
    players = pair(game, LolaDice(step_size=2.0, rollouts=20), Stationary(probabilities=[0.2, 0.8]), 8)
    for turn in range(40):
        step(players, action=int(turn % 5 > 0))
    every = torch.zeros(8, 1, dtype=torch.int64)
    belief = players[0].beliefs(every, {}, 1)
    assert (belief["policy"][..., 0] < 0.1).all()
    torch.testing.assert_close(belief["opponent_model"][..., 0], torch.full((8, 1), 0.2).double(), atol=0.05, rtol=0)


def test_both_step_sizes_count() -> None:
    def small(**sizes: float) -> Tensor:
        return moves(lambda: LolaDice(rollouts=3, length=3, **sizes))  # type: ignore[arg-type]

    start = small(update_every=2)
    assert torch.equal(small(step_size=0.0), start)
    torch.testing.assert_close(small(step_size=0.5) - start, 0.5 * (small() - start))
    assert not torch.equal(small(opponent_step_size=0.5), small())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LolaDice(rollouts=0), "rollouts: got 0, expected a positive integer"),
        (lambda: LolaDice(length=0), "length: got 0, expected a positive integer"),
        (lambda: LolaDice(look_ahead=-1), "look_ahead: got -1, expected an integer that is not negative"),
        (
            lambda: LolaDice(look_ahead=2, estimator="products"),
            "look_ahead: got 2 with estimator: products, expected 0 or 1",
        ),
        (lambda: LolaDice(trace_decay=1.5), r"trace_decay: got 1.5, expected a number in \[0, 1\]"),
        (lambda: LolaDice(opponent_step_size=-1.0), "opponent_step_size: got -1.0"),
        (lambda: LolaDice(step_size=-1.0), "step_size: got -1.0"),
        (
            lambda: LolaDice(estimator="box"),
            "estimator: got 'box', expected loaded or dice or products or no_magic_box",
        ),  # type: ignore[arg-type]
    ],
)
def test_refuses_numbers_out_of_range(make: Callable[[], Learner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def three_agents() -> MatrixGame:
    return MatrixGame([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [1.0, 0.0]]], common=True)


class Private(MatrixGame):
    """Nothing says that both agents observe the same."""

    shared_observation = False


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (three_agents(), "LolaDice got 3 agents, expected 2"),
        (MatrixGame("stag_hunt", horizon=4, memory=1), "discount: got None for a game of more than one step"),
        (Private("stag_hunt"), "LolaDice got Private, whose agents may observe different things, expected a pure game"),
    ],
)
def test_refuses_games_that_it_cannot_imagine(game: Game, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        LolaDice().bind(seats(game, 1)[0])


def test_refuses_a_simulator() -> None:
    with pytest.raises(IncompatibleError, match="LolaDice got no game, expected a pure game"):
        LolaDice().bind(Seat(0, IPD.observations, IPD.action_spaces, 1))


def returns(game: Game, make: Callable[[], Learner], replicates: int, updates: int) -> tuple[Tensor, Tensor]:
    """Of self-play: exact returns after it, averaged over both, `replicates`; policies, `agents x replicates x ...`."""
    torch.manual_seed(0)
    players = pair(game, make(), make(), replicates)
    for _ in range(updates):
        step(players)
    policies = [free_logits(logits) for logits in logits_of(players)]
    dynamics = game.dynamics()
    assert dynamics is not None
    return expected_return(dynamics, policies, game.discount), torch.stack(policies)


@pytest.mark.slow
def test_cooperates_in_the_prisoners_dilemma_and_without_the_magic_box_does_not() -> None:
    """As a share of seeds, 11 of 16; the exact look-ahead itself gets about 13 of 16 there."""
    worth, _ = returns(IPD, LolaDice, 64, 300)
    control, _ = returns(IPD, lambda: LolaDice(estimator="no_magic_box"), 16, 300)
    above = (worth.mean(1) > -1.25).double().mean()
    print(f"loaded: {worth.mean():.3f}, above -1.25: {above:.3f}; no magic box: {control.mean():.3f}")
    assert above >= 11 / 16
    assert control.mean() <= -1.9


@pytest.mark.slow
def test_finds_the_equilibrium_of_matching_pennies() -> None:
    game = MatrixGame("matching_pennies", horizon=None, memory=1, discount=0.9)
    worth, policies = returns(game, LolaDice, 16, 200)
    near = ((policies[..., 0] - 0.5).abs() < 0.25).all(0).double().mean()
    print(f"matching pennies: {worth.abs().mean():.4f}, near the equilibrium {near:.3f}")
    assert worth.abs().mean() < 0.02
    assert near >= 0.95
