"""Exact gradients against finite differences and plain autograd, one form against the other, and what is learnt."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, hyperparameters
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, StochasticGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.inference.failures import NonFiniteError
from inference_marl.inference.returns import expected_return, state_values
from inference_marl.learners import Rommeo, Stationary
from inference_marl.learners.alignment import RecurrentAlignment
from inference_marl.learners.lola import (
    BestResponse,
    ExactGradientLearner,
    Lola,
    LookAhead,
    NaiveGradient,
    StableOpponentShaping,
)
from inference_marl.learners.lola.derivatives import Autograd, ClosedForm, Derivatives, free_logits
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.models import ClonedOpponent, CountedOpponent, DirichletMultinomial, TabularCritic
from inference_marl.play import Functional, update
from inference_marl.types import Actor, Game, Learner, Memory, Seat, Trajectory, Transition
from tests.steps import teach

CASES: dict[str, Callable[[], Learner]] = {
    "NaiveGradient": NaiveGradient,
    "Lola": Lola,
    "Lola, autograd, second order": lambda: Lola(order=2, gradients="autograd"),
    "Lola, full, every other step": lambda: Lola(look_ahead=True, update_every=2),
    "LookAhead": LookAhead,
    "StableOpponentShaping": StableOpponentShaping,
    "BestResponse": BestResponse,
    "Lola, a clone": lambda: Lola(opponent_model=ClonedOpponent()),
    "NaiveGradient, counts": lambda: NaiveGradient(opponent_model=CountedOpponent(forget=0.1, pseudocount=0.5)),
}
LEARNERS = {name: ("known, two agents", make) for name, make in CASES.items()}
"""Cases that tests/test_contract.py drives through the contract."""

IPD = MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.96)
IMP = MatrixGame("matching_pennies", horizon=None, memory=1, discount=0.9)


def random_game(discount: float | None = 0.8) -> StochasticGame:
    """Three states, two and three actions, neither symmetric nor zero-sum; it may terminate."""
    of = torch.Generator().manual_seed(0)
    rows = torch.rand(3, 2, 3, 3, dtype=torch.float64, generator=of)
    transition = 0.9 * rows / rows.sum(-1, keepdim=True)
    reward = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=of)
    return StochasticGame([0.5, 0.3, 0.2], transition, reward, discount=discount)


def seats(game: Game, replicates: int, dtype: torch.dtype = torch.float64) -> list[Seat]:
    return [
        Seat(i, game.observations, game.action_spaces, replicates, dtype=dtype, game=game) for i in range(game.agents)
    ]


def pair(game: Game, one: Learner, other: Learner, replicates: int = 4) -> list[Learner]:
    return [learner.bind(seat) for learner, seat in zip((one, other), seats(game, replicates), strict=True)]


def step(players: Sequence[Learner], actions: tuple[int, int] = (0, 0), obs: int = 0) -> None:
    """One update of both, from what both were."""
    replicates = players[0].seat.replicates
    seen = torch.full((replicates, 1), obs)
    played = tuple(torch.full((replicates, 1), action) for action in actions)
    batch = Transition((seen,) * 2, played, torch.zeros(replicates, 1, 2).double(), (seen,) * 2, seen < 0, seen < 0)
    update(players, Trajectory([batch]))


def logits_of(players: Sequence[Learner]) -> tuple[Tensor, Tensor]:
    first, second = (player.logits.detach().clone() for player in players if isinstance(player, ExactGradientLearner))
    return first, second


def value(game: Game, of: int, first: Tensor, second: Tensor) -> Tensor:
    """An agent's value from the start, summed over replicates, through `returns`."""
    dynamics = game.dynamics()
    assert dynamics is not None
    policies = [torch.softmax(torch.cat([own, torch.zeros_like(own[..., :1])], -1), -1) for own in (first, second)]
    return (state_values(dynamics, policies, game.discount)[:, of] @ dynamics.initial).sum()


def gradient(total: Tensor, wrt: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(total, wrt, create_graph=True, materialize_grads=True)
    return found


def literal(game: Game, order: int, look_ahead: bool, eta: float, i: int, both: tuple[Tensor, Tensor]) -> Tensor:
    """The recursion of `Lola`'s docstring word for word, with plain autograd."""
    j = 1 - i
    own = gradient(value(game, i, *both), both[i])
    if order == 0:
        return own
    step_of_other = literal(game, order - 1, look_ahead, eta, j, both)
    weight = gradient(value(game, i, *both), both[j])
    weight = weight if look_ahead else weight.detach()
    return own + eta * gradient((step_of_other * weight).sum(), both[i])


def derivatives(kind: type[Derivatives], game: Game, both: tuple[Tensor, Tensor]) -> Derivatives:
    dynamics = game.dynamics()
    assert dynamics is not None
    return kind(dynamics, game.discount, (free_logits, free_logits), both)


@pytest.mark.parametrize("game", [IPD, IMP, random_game(), random_game(None), MatrixGame("climbing")])
def test_closed_form_equals_autograd(game: Game) -> None:
    states, sizes = game.observations[0].features, [space.features for space in game.action_spaces]
    first, second = (torch.randn(5, states, size - 1, dtype=torch.float64) for size in sizes)
    closed, auto = (derivatives(kind, game, (first, second)) for kind in (ClosedForm, Autograd))
    for of, wrt in itertools.product((0, 1), repeat=2):
        torch.testing.assert_close(closed.gradients(of)[wrt], auto.gradients(of)[wrt], rtol=1e-9, atol=1e-9)
        direction = torch.randn_like((first, second)[1 - wrt])
        one, two = (each.change(of, wrt, direction) for each in (closed, auto))
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [ClosedForm, Autograd])
def test_derivatives_are_limits_of_differences(kind: type[Derivatives]) -> None:
    game, e = random_game(), 1e-5
    both = (torch.randn(1, 3, 1, dtype=torch.float64), torch.randn(1, 3, 2, dtype=torch.float64))
    at = derivatives(kind, game, both)
    for of, wrt in itertools.product((0, 1), repeat=2):
        found = at.gradients(of)[wrt]
        for index in itertools.product(*map(range, found.shape)):
            ends = []
            for sign in (1, -1):
                moved = [own.clone() for own in both]
                moved[wrt][index] += sign * e
                ends.append(value(game, of, moved[0], moved[1]))
            torch.testing.assert_close(found[index], (ends[0] - ends[1]) / (2 * e), rtol=1e-6, atol=1e-8)
        other = 1 - wrt
        direction = torch.randn_like(both[other])
        up, down = (at.moved(other, both[other] + sign * e * direction).gradients(of)[wrt] for sign in (1, -1))
        torch.testing.assert_close(at.change(of, wrt, direction), (up - down) / (2 * e), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("gradients", ["closed", "autograd"])
@pytest.mark.parametrize(("order", "look_ahead"), [(1, False), (2, False), (3, False), (1, True), (2, True)])
@pytest.mark.parametrize("game", [IPD, random_game()])
def test_lola_steps_as_its_formula_says(gradients: str, order: int, look_ahead: bool, game: Game) -> None:
    players = pair(
        game,
        *(
            Lola(order=order, look_ahead=look_ahead, step_size=0.7, opponent_step_size=0.3, gradients=gradients)  # type: ignore[arg-type]
            for _ in "12"
        ),
        replicates=2,
    )
    before = logits_of(players)
    step(players)
    both = tuple(own.requires_grad_() for own in before)
    for i, after in enumerate(logits_of(players)):
        expected = both[i] + 0.7 * literal(game, order, look_ahead, 0.3, i, (both[0], both[1]))
        torch.testing.assert_close(after, expected.detach(), rtol=1e-8, atol=1e-9)


def test_naive_and_look_ahead_step_as_their_formulas_say() -> None:
    game = random_game()
    players = pair(game, NaiveGradient(step_size=0.5), LookAhead(step_size=0.5, opponent_step_size=2.0))
    first, second = (own.requires_grad_() for own in logits_of(players))
    step(players)
    naive, ahead = logits_of(players)
    ascent = gradient(value(game, 0, first, second), first)
    torch.testing.assert_close(naive, (first + 0.5 * ascent).detach())
    opposed = (gradient(value(game, 1, first, second), first) * ascent.detach()).sum()
    expected = second + 0.5 * (gradient(value(game, 1, first, second), second) + 2.0 * gradient(opposed, second))
    torch.testing.assert_close(ahead, expected.detach())


def test_look_ahead_is_the_gradient_at_the_opponents_step_to_first_order() -> None:
    game, eta = random_game(), 1e-4
    players = pair(game, LookAhead(step_size=1.0, opponent_step_size=eta), NaiveGradient())
    first, second = (own.requires_grad_() for own in logits_of(players))
    there = (second + eta * gradient(value(game, 1, first, second), second)).detach()
    step(players)
    moved = logits_of(players)[0] - first
    torch.testing.assert_close(
        moved.detach(), gradient(value(game, 0, first, there), first).detach(), rtol=1e-5, atol=1e-6
    )


def stable_by_hand(
    a: float, b: float, eta: float, first: Tensor, second: Tensor, game: Game
) -> tuple[list[Tensor], tuple[float, float]]:
    """Algorithm 1 of Letcher et al. (2019) for one replicate, in losses, as they write it."""
    both = (first, second)
    losses = [-value(game, i, first, second) for i in (0, 1)]
    grads = [[gradient(loss, own) for own in both] for loss in losses]  # by loss, then by parameters
    xi = [grads[0][0], grads[1][1]]
    xi_0, chi = [], []
    for i, j in [(0, 1), (1, 0)]:
        xi_0.append(xi[i] - eta * gradient((grads[i][j] * xi[j].detach()).sum(), both[i]))
        chi.append(gradient((grads[i][j].detach() * xi[j]).sum(), both[i]))
    xi, xi_0, chi = ([each.detach() for each in parts] for parts in (xi, xi_0, chi))
    turning = float(sum((-eta * c * x).sum() for c, x in zip(chi, xi_0, strict=True)))
    length, norm = (float(sum((x * x).sum() for x in parts)) ** 0.5 for parts in (xi_0, xi))
    p_1 = 1.0 if turning >= 0 else min(1.0, -a * length**2 / turning)
    p_2 = norm**2 if norm < b else 1.0
    moves = [-(x - min(p_1, p_2) * eta * c) for x, c in zip(xi_0, chi, strict=True)]
    return moves, (p_1, p_2)


@pytest.mark.parametrize(("game", "eta"), [(IPD, 3.0), (random_game(), 20.0)])
def test_stable_opponent_shaping_is_algorithm_1(game: Game, eta: float) -> None:
    players = pair(
        game,
        *(StableOpponentShaping(a=0.05, b=0.5, step_size=0.5, opponent_step_size=eta) for _ in "12"),
        replicates=60,
    )
    for player in players:  # some replicates near stationary points, where shaping fades
        assert isinstance(player, ExactGradientLearner)
        player.logits.data[:30] *= torch.linspace(1, 12, 30).view(-1, 1, 1)
    first, second = logits_of(players)
    step(players)
    after, shares = logits_of(players), []
    for r in range(60):
        own = [each[r : r + 1].clone().requires_grad_() for each in (first, second)]
        moves, share = stable_by_hand(0.05, 0.5, eta, own[0], own[1], game)
        shares.append(share)
        for i, start in enumerate((first, second)):
            torch.testing.assert_close(after[i][r], start[r] + 0.5 * moves[i][0], rtol=1e-8, atol=1e-9)
    share = torch.tensor(shares)
    assert ((share[:, 0] < 1).any(), (share[:, 1] < 1).any(), (share == 1).all(1).any()) == (True, True, True)


class Differentiable(Learner):
    """A policy that is a function of parameters, and never changes; `probabilities` says which."""

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        return dist.Categorical(probs=self.probabilities(obs)), memory

    def forward(self, obs: Tensor, memory: Memory) -> tuple[dist.Categorical, Memory]:
        return self.policy(obs, memory)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        return {}

    def snapshot(self) -> Functional:
        return Functional.of(self, self.seat)


class PlainLogits(Differentiable):
    """The learners' own kind of parameters, in another class."""

    def setup(self) -> None:
        seat = self.seat
        shape = (seat.replicates, seat.observation.features, seat.action.features - 1)
        self.theta = torch.nn.Parameter(torch.randn(shape, dtype=seat.dtype))

    def probabilities(self, obs: Tensor) -> Tensor:
        return free_logits(self.theta[self.seat.rows, obs])


class SharedSlope(Differentiable):
    """Parameters of two kinds, fewer than there are states."""

    def setup(self) -> None:
        seat = self.seat
        self.slope = torch.nn.Parameter(torch.randn(seat.replicates, dtype=seat.dtype))
        self.level = torch.nn.Parameter(torch.randn(seat.replicates, seat.action.features, dtype=seat.dtype))
        self.register_buffer("pattern", torch.linspace(-1, 1, seat.observation.features, dtype=seat.dtype))

    def probabilities(self, obs: Tensor) -> Tensor:
        pattern = self.pattern[obs].unsqueeze(-1)
        actions = torch.arange(self.seat.action.features, dtype=self.seat.dtype)
        return torch.softmax(self.slope.view(-1, 1, 1) * pattern * actions + self.level.unsqueeze(1), -1)


@pytest.mark.parametrize("name", CASES)
def test_reads_a_differentiable_opponent_whatever_its_class(name: str) -> None:
    game = random_game()
    for seat in (0, 1):
        both = [CASES[name](), NaiveGradient()] if seat == 0 else [NaiveGradient(), CASES[name]()]
        known = pair(game, both[0], both[1])
        both[1 - seat] = PlainLogits()
        read = pair(game, both[0], both[1])
        learners = [players[seat] for players in (known, read)]
        opponents = [players[1 - seat] for players in (known, read)]
        learners[1].load_state_dict(learners[0].state_dict())
        assert isinstance(opponents[0], NaiveGradient)
        assert isinstance(opponents[1], PlainLogits)
        opponents[1].theta.data.copy_(opponents[0].logits.data)
        start = learners[0].state_dict()["softmax.logits"].clone()
        for players in (known, read):
            for _ in range(2):
                teach(players[seat], a_transition(4), players)
        one, two = (learner.state_dict()["softmax.logits"] for learner in learners)
        assert (one - start).abs().min() > 0
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seat", [0, 1])
def test_shapes_parameters_of_another_kind(seat: int) -> None:
    game = random_game()
    players = pair(game, *((Lola(), SharedSlope()) if seat == 0 else (SharedSlope(), Lola())))
    learner, opponent = players[seat], players[1 - seat]
    assert isinstance(learner, Lola)
    assert isinstance(opponent, SharedSlope)
    dynamics, states = game.dynamics(), torch.arange(3).expand(4, -1)
    own = learner.logits.detach().clone().requires_grad_()

    def worth(of: int) -> Tensor:
        policies = [free_logits(own), opponent.probabilities(states)][:: 1 if seat == 0 else -1]
        return (state_values(dynamics, policies, 0.8)[:, of] @ dynamics.initial).sum()

    theirs = [opponent.slope, opponent.level]
    weights = torch.autograd.grad(worth(seat), theirs)
    steps = torch.autograd.grad(worth(1 - seat), theirs, create_graph=True)
    shaped = sum((weight * move).sum() for weight, move in zip(weights, steps, strict=True))
    expected = own + gradient(worth(seat), own) + gradient(torch.as_tensor(shaped), own)
    step(players)
    torch.testing.assert_close(learner.logits.detach(), expected.detach(), rtol=1e-8, atol=1e-9)
    assert "opponent_model" not in learner.beliefs(states, {}, 1)


class OneForAll(Differentiable):
    """A parameter that all replicates share."""

    def setup(self) -> None:
        self.level = torch.nn.Parameter(torch.zeros(self.seat.action.features, dtype=self.seat.dtype))

    def probabilities(self, obs: Tensor) -> Tensor:
        return torch.softmax(self.level, -1).expand(*obs.shape, -1)


def test_refuses_an_opponent_whose_replicates_share_parameters() -> None:
    players = pair(IPD, Lola(), OneForAll())
    message = r"Lola got a OneForAll for an opponent whose parameter level has shape \(2,\), expected .* 4 replicates"
    with pytest.raises(IncompatibleError, match=message):
        step(players)


def test_estimates_an_opponent_that_cannot_be_differentiated() -> None:
    game, forget, replicates = IPD, 0.1, 3
    players = pair(game, Lola(forget=forget), Stationary(probabilities=[0.3, 0.7]), replicates)
    learner, counts = players[0], torch.zeros(replicates, 5, 2, dtype=torch.float64)
    assert isinstance(learner, Lola)
    every = torch.arange(5).expand(replicates, -1)
    assert "opponent_model" not in learner.beliefs(every, {}, 1)
    for _ in range(12):
        obs, other = torch.randint(5, (replicates, 1)), torch.randint(2, (replicates, 1))
        batch = Transition((obs,) * 2, (other, other), torch.zeros(replicates, 1, 2), (obs,) * 2, obs < 0, obs < 0)
        before = learner.logits.detach().clone()
        teach(learner, batch, players)
        for r in range(replicates):
            counts[r, obs[r, 0]] *= 1 - forget
            counts[r, obs[r, 0], other[r, 0]] += 1
    frequencies = (counts + 1) / (counts + 1).sum(-1, keepdim=True)
    torch.testing.assert_close(learner.beliefs(every, {}, 1)["opponent_model"], frequencies)
    twins = pair(game, Lola(), NaiveGradient(), replicates)
    for twin, logits in zip(twins, (before, torch.logit(frequencies[..., :1])), strict=True):
        assert isinstance(twin, ExactGradientLearner)
        twin.logits.data.copy_(logits)
    step(twins)
    torch.testing.assert_close(learner.logits.detach(), logits_of(twins)[0])


def test_a_trajectory_is_counted_step_by_step_and_learned_from_once() -> None:
    other = Stationary()
    whole, apart = (pair(IPD, Lola(forget=0.1), other, 2)[0] for _ in "12")
    assert isinstance(whole, Lola)
    assert isinstance(apart, Lola)
    apart.load_state_dict(whole.state_dict())
    before, steps = whole.logits.detach().clone(), []
    for _ in range(3):
        obs, played = torch.randint(5, (2, 4)), torch.randint(2, (2, 4))
        steps.append(Transition((obs,) * 2, (played,) * 2, torch.zeros(2, 4, 2), (obs,) * 2, obs < 0, obs < 0))
    update([whole, other], Trajectory(steps))
    for seen in steps[:2]:
        apart.believed.observe(Trajectory([seen]))
    teach(apart, steps[2], [whole, other])
    assert whole.updates == apart.updates == 1
    torch.testing.assert_close(whole.believed.counts, apart.believed.counts, rtol=0, atol=0)
    torch.testing.assert_close(whole.logits, apart.logits, rtol=0, atol=0)
    assert not torch.equal(whole.logits, before)


def a_trajectory(steps: int, environments: int, chance: float) -> Trajectory:
    """Of both agents' second actions with this probability, in states of no order."""
    found = []
    for _ in range(steps):
        obs, played = torch.randint(5, (2, environments)), (torch.rand(2, environments) < chance).long()
        nothing = torch.zeros(2, environments, 2)
        found.append(Transition((obs,) * 2, (played,) * 2, nothing, (obs,) * 2, obs < 0, obs < 0))
    return Trajectory(found)


def test_a_model_is_used_where_the_opponent_could_be_read() -> None:
    """Its step is that against an opponent with the logits that are believed, whatever the true ones are."""
    newest, found = a_trajectory(20, 4, 0.7), []
    for init_scale in (1.0, 3.0):
        torch.manual_seed(1)
        players = pair(IPD, Lola(opponent_model=CountedOpponent()), NaiveGradient(init_scale=init_scale), 2)
        before = players[0].logits.clone()
        update(players, newest)
        found.append(players[0].logits.detach() - before)
    assert torch.equal(*found)
    learner = players[0]
    assert isinstance(learner, Lola)
    played = learner.believed.policy()
    assert played is not None
    torch.manual_seed(1)
    known = pair(IPD, Lola(), NaiveGradient(), 2)
    known[1].logits.data.copy_((played[..., :1] / played[..., 1:]).log())
    before = known[0].logits.clone()
    update(known, newest)
    torch.testing.assert_close(known[0].logits.detach() - before, found[0])


def test_a_clone_knows_the_newest_trajectory_alone() -> None:
    clone, counts = (
        pair(IPD, Lola(opponent_model=model), Stationary(), 2)[0]
        for model in (ClonedOpponent(pseudocount=0.5), CountedOpponent(forget=0.0, pseudocount=0.5))
    )
    trajectories = [a_trajectory(30, 4, 0.9), a_trajectory(30, 4, 0.1)]
    for newest in trajectories:
        clone.believed.observe(newest)
        counts.believed.observe(newest)
    assert clone.believed.policy()[..., 1].mean() < 0.2
    assert abs(counts.believed.policy()[..., 1].mean() - 0.5) < 0.1
    (logits,), (weights,) = clone.believed.parameters_believed()
    torch.testing.assert_close(free_logits(logits), clone.believed.policy())
    assert weights.tolist() == [1.0, 1.0]


@hyperparameters
class EitherOr(CountedOpponent):
    """One of two policies, the first with a quarter of the probability."""

    def parameters_believed(self) -> tuple[Tensor, Tensor]:
        logits = self.counts.new_tensor([-1.0, 2.0]).view(2, 1, 1, 1).expand(2, *self.counts.shape[:2], 1)
        return logits, self.counts.new_tensor([0.25, 0.75]).view(2, 1).expand(2, len(self.counts))


def test_of_several_draws_the_mean_step_is_taken() -> None:
    newest, steps = a_trajectory(1, 1, 0.5), []
    for opponent_model in (EitherOr(), None):
        for logit in (-1.0, 2.0):
            torch.manual_seed(1)
            players = pair(IPD, Lola(opponent_model=opponent_model), NaiveGradient(), 2)
            players[1].logits.data.fill_(logit)
            before = players[0].logits.clone()
            update(players, newest)
            steps.append(players[0].logits.detach() - before)
    torch.testing.assert_close(steps[0], 0.25 * steps[2] + 0.75 * steps[3])
    assert torch.equal(steps[0], steps[1])


@pytest.mark.parametrize("seat", [0, 1])
def test_a_best_response_is_best_in_every_state(seat: int) -> None:
    """Of all deterministic policies none is worth more in any state, and it is taken at once."""
    game = random_game()
    both = (BestResponse(certainty=40.0), NaiveGradient())
    players = pair(game, *(both if seat == 0 else both[::-1]), replicates=3)
    other = free_logits(logits_of(players)[1 - seat])
    step(players)
    rules = game.dynamics()
    assert rules is not None

    def worth(policy: Tensor) -> Tensor:
        policies = [policy, other] if seat == 0 else [other, policy]
        return state_values(rules, policies, game.discount)[:, seat]

    actions = game.action_spaces[seat].features
    found = worth(free_logits(logits_of(players)[seat]))
    for choice in itertools.product(range(actions), repeat=3):
        fixed = torch.nn.functional.one_hot(torch.tensor(choice), actions).double().expand(3, -1, -1)
        assert (worth(fixed) <= found + 1e-9).all()


def test_counts_of_several_environments_forget_once_per_visit() -> None:
    """As if every visit of a state came after the other, but for what the visits of one step forget of each other."""
    learner = pair(IPD, Lola(forget=0.1), Stationary(), 2)[0]
    assert isinstance(learner, Lola)
    start = torch.rand(2, 5, 2, dtype=torch.float64)
    learner.believed.counts.copy_(start)
    obs, other = torch.tensor([[0, 3, 0, 0], [1, 2, 2, 4]]), torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1]])
    batch = Transition((obs,) * 2, (1 - other, other), torch.zeros(2, 4, 2), (obs,) * 2, obs < 0, obs < 0)
    learner.believed.observe(Trajectory([batch]))
    expected = start.clone()
    for r in range(2):
        for s in range(5):
            expected[r, s] *= 0.9 ** int((obs[r] == s).sum())
        for s, b in zip(obs[r].tolist(), other[r].tolist(), strict=True):
            expected[r, s, b] += 1
    torch.testing.assert_close(learner.believed.counts, expected)


def test_plays_its_most_probable_action_when_it_does_not_explore() -> None:
    learner = pair(IPD, Lola(init_scale=0.5), Lola(), 50)[0]
    every = torch.arange(5).expand(50, -1)
    assert torch.equal(learner.act(every, {}, explore=False).action, learner(every).argmax(-1))
    assert not torch.equal(learner.act(every, {}).action, learner(every).argmax(-1))


@pytest.mark.parametrize(
    "opponent",
    [
        lambda: Stationary(probabilities=[0.2, 0.8]),
        lambda: IndependentQ(exploration=Boltzmann(5.0)),
        lambda: Rommeo(
            opponent_prior=DirichletMultinomial(),
            guide=OpponentFirst(Optimal(), Optimal()),
            critic=TabularCritic(),
            temperature=5.0,
        ),
    ],
)
def test_learns_against_any_opponent_to_defect_where_that_is_best(opponent: Callable[[], Learner]) -> None:
    """A one-shot dilemma against one that cannot be shaped: defection is dominant."""
    game = MatrixGame("prisoners_dilemma")
    players = pair(game, Lola(step_size=2.0, forget=0.0), opponent(), 8)
    state, cooperated = game.reset(8, 1, torch.device("cpu"), torch.float64), torch.zeros(8, 1).double()
    for _ in range(40):
        obs = game.observe(state).obs
        actions = tuple(player.act(seen, {}).action for player, seen in zip(players, obs, strict=True))
        after, rewards, terminated, _ = game.step(state, actions)
        batch = Transition(obs, actions, rewards, game.observe(after).obs, terminated, terminated)
        cooperated = cooperated + (actions[1] == 0)
        update(players, Trajectory([batch]))
    belief = players[0].beliefs(game.observe(state).obs[0], {}, 1)
    assert (belief["policy"][..., 0] < 0.1).all()
    torch.testing.assert_close(belief["opponent_model"][..., 0], (cooperated + 1) / 42)


def test_updates_every_so_often_and_counts_always() -> None:
    players = pair(IPD, NaiveGradient(update_every=3, forget=0.0), Stationary())
    learner = players[0]
    assert isinstance(learner, NaiveGradient)
    changed = []
    for _ in range(7):
        before = learner.logits.detach().clone()
        step(players[:1] + players[1:])
        changed.append(not torch.equal(before, learner.logits))
    assert changed == [False, False, True, False, False, True, False]
    assert learner.believed.counts.sum(dim=(1, 2)).tolist() == [7.0] * 4


def test_first_policies_and_what_a_logit_means() -> None:
    learner = Lola(init_scale=0.5).bind(seats(IPD, 20_000, torch.float32)[0])
    assert learner.logits.shape == (20_000, 5, 1)
    assert learner.logits.dtype == torch.float32
    assert abs(learner.logits.std().item() - 0.5) < 0.01
    played = learner(torch.arange(5).expand(20_000, -1)).detach()
    torch.testing.assert_close(played[..., :1], torch.sigmoid(learner.logits).detach())


def test_matching_pennies_is_zero_sum() -> None:
    players = pair(IMP, NaiveGradient(), NaiveGradient(), 50)
    every = torch.arange(5).expand(50, -1)
    dynamics = IMP.dynamics()
    assert dynamics is not None
    worth = expected_return(dynamics, [player(every).detach() for player in players], 0.9)
    torch.testing.assert_close(worth.sum(1), torch.zeros(50, dtype=torch.float64))
    assert worth.std() > 0.05
    at = derivatives(ClosedForm, IMP, logits_of(players))
    for one, other in zip(at.gradients(0), at.gradients(1), strict=True):
        torch.testing.assert_close(one, -other)


def learnt(game: Game, one: Learner, other: Learner, replicates: int, updates: int) -> tuple[Tensor, Tensor]:
    """Returns `replicates x agents`, and both agents' probabilities of action 0, `agents x replicates x states`."""
    players = pair(game, one, other, replicates)
    for _ in range(updates):
        step(players)
    every = torch.arange(5).expand(replicates, -1)
    policies = [player(every).detach() for player in players]
    dynamics = game.dynamics()
    assert dynamics is not None
    return expected_return(dynamics, policies, game.discount), torch.stack(policies)[..., 0]


def test_lola_learns_tit_for_tat_and_naive_learners_defect() -> None:
    """Foerster et al. (2018), table 3; with 1000 seeds the means are known to .005 and 1.3 points."""
    tit_for_tat = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 0, 0]]).double().unsqueeze(1)
    for make, low, high, share in [(Lola, -1.07, -1.02, 0.80), (NaiveGradient, -2.0, -1.98, 0.206)]:
        worth, cooperates = learnt(IPD, make(), make(), 1000, 200)
        assert low < worth.mean() < high
        alike = ((cooperates - tit_for_tat).abs() < 0.5).all(0).double().mean()
        assert abs(alike - share) < 0.04


@pytest.mark.slow
def test_shaping_finds_the_equilibrium_of_matching_pennies() -> None:
    for make, largest in [(Lola, 0.06), (lambda: Lola(look_ahead=True), 0.005), (StableOpponentShaping, 0.005)]:
        worth, plays = learnt(IMP, make(), make(), 500, 200)
        assert worth.std(0).max() < largest
        assert ((plays - 0.5).abs() < 0.25).all(0).double().mean() > 0.95


def a_transition(replicates: int) -> Transition:
    zeros = torch.zeros(replicates, 1, dtype=torch.int64)
    return Transition(
        (zeros,) * 2, (zeros,) * 2, torch.zeros(replicates, 1, 2).double(), (zeros,) * 2, zeros < 0, zeros < 0
    )


def test_a_step_that_is_not_finite_is_not_taken() -> None:
    players = pair(IPD, NaiveGradient(), NaiveGradient())
    learner = players[0]
    assert isinstance(learner, NaiveGradient)
    learner.logits.data[2] = torch.nan
    before = learner.logits.detach().clone()
    with pytest.raises(NonFiniteError, match=r"gradient.*2"):
        teach(learner, a_transition(4), players)
    torch.testing.assert_close(learner.logits.detach(), before, equal_nan=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NaiveGradient(step_size=-1.0), "step_size: got -1.0"),
        (lambda: Lola(order=0), "order: got 0, expected a positive integer; order 0 is NaiveGradient"),
        (lambda: Lola(opponent_step_size=-1.0), "opponent_step_size: got -1.0"),
        (lambda: LookAhead(init_scale=-0.5), "init_scale: got -0.5"),
        (lambda: LookAhead(update_every=0), "update_every: got 0"),
        (lambda: Lola(forget=1.0), "forget: got 1.0"),
        (lambda: Lola(gradients="numeric"), "gradients: got 'numeric', expected closed or autograd"),  # type: ignore[arg-type]
        (lambda: StableOpponentShaping(a=1.0), r"a: got 1\.0"),
        (lambda: StableOpponentShaping(b=0.0), r"b: got 0\.0"),
    ],
)
def test_refuses_numbers_out_of_range(make: Callable[[], Learner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (
            MatrixGame([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [1.0, 0.0]]], common=True),
            "Lola got 3 agents, expected 2",
        ),
        (MatrixGame("stag_hunt", horizon=4, memory=1), "discount: got None for a game that may go on for ever"),
        (MaxOfTwoQuadratics(), "expected Discrete"),
    ],
)
def test_refuses_games_that_it_cannot_know(game: Game, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        Lola().bind(seats(game, 1)[0])


def test_refuses_a_game_whose_rules_are_unknown() -> None:
    seat = Seat(0, IPD.observations, IPD.action_spaces, 1)
    with pytest.raises(IncompatibleError, match="Lola got no game, which does not give its rules as tables"):
        Lola().bind(seat)


def test_an_opponent_with_a_memory_is_modelled_or_refused() -> None:
    newest = a_trajectory(3, 4, 0.5)
    with pytest.raises(IncompatibleError, match=r"^Lola got a RecurrentNetwork for an opponent, which has a memory"):
        update(pair(IPD, Lola(), RecurrentAlignment(hidden=3), 2), newest)
    modelling = pair(IPD, Lola(opponent_model=CountedOpponent()), Stationary(), 2)[0]
    opponent = RecurrentAlignment(hidden=3).bind(seats(IPD, 2)[1])
    before = modelling.logits.clone()
    modelling.learn(newest, [modelling.snapshot(), opponent.snapshot()])
    assert not torch.equal(modelling.logits, before)
