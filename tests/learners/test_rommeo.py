"""Rommeo's own promises: what is updated by what, isolation of critic and replicates, exact small cases."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from scipy.stats import chisquare
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    Empirical,
    Guide,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    Tabular,
    TanhNormalNetwork,
)
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.objectives import optimal_value
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.schedules import ExponentialDecay, Linear
from inference_marl.inference.svi import elbo_loss
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import (
    Amortised,
    BayesianCritic,
    BernoulliOptimality,
    ControlModel,
    DirichletMultinomial,
    EmpiricalFrequency,
    ExponentialOptimality,
    Fixed,
    GaussianEnsemble,
    HierarchicalDirichlet,
    NetworkCritic,
    OpponentPrior,
    TabularCritic,
    Uniform,
)
from inference_marl.play import update
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Actor, Game, Seat, Trajectory, Transition
from tests.steps import teach


def seat_of(game: Game, index: int = 0, replicates: int = 2) -> Seat:
    return Seat(index, game.observations, game.action_spaces, replicates, dtype=torch.float64)


def transition(own: Tensor, other: Tensor, reward: Tensor, terminated: bool) -> Transition:
    obs = torch.zeros_like(own)
    done = torch.full(own.shape, terminated)
    return Transition((obs, obs), (own, other), torch.stack([reward, reward], -1), (obs, obs), done, done)


def test_one_update_by_hand_one_shot() -> None:
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(initial=1.0, rate=0.25),
    )
    bound = learner.bind(seat_of(MatrixGame("stag_hunt")))
    own, other = torch.tensor([[0], [1]]), torch.tensor([[1], [1]])
    teach(bound, transition(own, other, torch.tensor([[5.0], [-3.0]], dtype=torch.float64), True), [])
    expected = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    expected[0, 0, 0, 1] = 1 + 0.25 * (5 - 1)
    expected[1, 0, 1, 1] = 1 + 0.25 * (-3 - 1)
    torch.testing.assert_close(bound.critic.values, expected)


def test_one_update_by_hand_with_bootstrap() -> None:
    """gamma V(s') with V of Eq. 9 under the prior as it is after seeing the step."""
    critic = TabularCritic(initial=2.0, rate=1.0)
    learner = Rommeo(
        opponent_prior=DirichletMultinomial(1.0),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=critic,
        temperature=0.5,
        discount=0.9,
    )
    bound = learner.bind(seat_of(MatrixGame("stag_hunt", horizon=None), replicates=1))
    own, other = torch.tensor([[0]]), torch.tensor([[1]])
    teach(bound, transition(own, other, torch.tensor([[5.0]], dtype=torch.float64), False), [])
    # All values are 2, so S(b) = 2 + 0.5 log 2 for both b and V is the same, whatever the prior.
    assert bound.critic.values[0, 0, 0, 1].item() == pytest.approx(5 + 0.9 * (2 + 0.5 * math.log(2)))
    assert bound.opponent_prior(torch.zeros(1, 1, dtype=torch.int64)).probs.flatten().tolist() == pytest.approx(
        [1 / 3, 2 / 3]
    )


def test_the_target_critic_lags() -> None:
    critic = TabularCritic(initial=0.0, rate=1.0, target_rate=0.1)
    bound = Rommeo(opponent_prior=Uniform(), guide=OpponentFirst(Optimal(), Optimal()), critic=critic).bind(
        seat_of(MatrixGame("stag_hunt"))
    )
    cell = torch.zeros(2, 1, dtype=torch.int64)
    teach(bound, transition(cell, cell, torch.full((2, 1), 10.0, dtype=torch.float64), True), [])
    assert bound.critic.values[0, 0, 0, 0].item() == pytest.approx(10)
    assert bound.target_critic.values[0, 0, 0, 0].item() == pytest.approx(1)


def test_q_learning_reaches_the_soft_fixed_point() -> None:
    """Eq. 12 on a repeated game against a scripted opponent: Q = r + gamma V with V from Eq. 9."""
    game = MatrixGame("stag_hunt", horizon=None)
    alpha, gamma, probabilities = 0.7, 0.8, [0.3, 0.7]
    learner = Rommeo(
        opponent_prior=Fixed(probabilities),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(initial=0.0, rate=1.0),
        temperature=alpha,
        discount=gamma,
    ).bind(seat_of(game))
    obs = torch.zeros(2, 8, dtype=torch.int64)
    for _ in range(400):
        own, other = torch.randint(2, (2, 8)), torch.randint(2, (2, 8))
        rewards = torch.tensor([[4.0, 1.0], [3.0, 2.0]], dtype=torch.float64)[own, other]
        done = torch.zeros(2, 8, dtype=torch.bool)
        teach(learner, Transition((obs, obs), (own, other), torch.stack([rewards] * 2, -1), (obs, obs), done, done), [])
    q = learner.critic.values[:, 0]
    prior = torch.tensor(probabilities, dtype=torch.float64).log()
    payoff = game.expected_payoff[0].to(torch.float64)
    torch.testing.assert_close(q, payoff + gamma * optimal_value(q, prior, alpha).view(2, 1, 1), rtol=1e-6, atol=1e-6)


def actor_critic(**more: object) -> Rommeo:
    chosen: dict[str, object] = {
        "opponent_prior": Amortised(TanhNormalNetwork((8,)), window=50, batch_size=8),
        "guide": OpponentFirst(TanhNormalNetwork((8,)), TanhNormalNetwork((8,))),
        "critic": NetworkCritic((8,), target_rate=0.1),
        "replay": 50,
        "batch_size": 8,
        **more,
    }
    return Rommeo(**chosen)  # type: ignore[arg-type]


def box_step(game: Game, players: list[Actor], replicates: int = 2) -> None:
    state = game.reset(replicates, 1, torch.device("cpu"), torch.float64)
    obs = game.observe(state).obs
    actions = tuple(player.act(o, {}).action for player, o in zip(players, obs, strict=True))
    state, rewards, done, _ = game.step(state, actions)
    for player in players:
        teach(player, Transition(obs, actions, rewards, game.observe(state).obs, done, done), players)


def values_of(module: torch.nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(before: list[Tensor], module: torch.nn.Module) -> bool:
    return any(not torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize("frozen", [True, False], ids=["as it learns", "nothing frozen"])
def test_svi_leaves_critic_and_prior_untouched(frozen: bool) -> None:
    game = MaxOfTwoQuadratics()
    learner = actor_critic().bind(seat_of(game))
    critic, prior, guide = values_of(learner.critic), values_of(learner.opponent_prior), values_of(learner.guide)
    assert learner.optimiser is not None
    obs = torch.zeros(2, 8, dtype=torch.int64)
    if frozen:
        learner.fit_guide(obs)
    else:
        learner.optimiser.step(elbo_loss(learner.elbo, *learner.pair(), 8, obs))
    assert moved(guide, learner.guide)
    assert not moved(critic, learner.critic)
    assert not moved(prior, learner.opponent_prior)
    for part in (learner.critic, learner.opponent_prior):
        # That nothing moved is not enough: the guide's optimiser knows the guide alone.
        assert all(parameter.grad is None for parameter in part.parameters())
        assert all(parameter.requires_grad for parameter in part.parameters())


NUMBERS: dict[str, Any] = {"learning_rate": 0.3, "max_gradient_norm": 0.2}


@pytest.mark.parametrize(
    ("part_of", "given"),
    [
        (
            lambda seat: actor_critic(guide_learning_rate=0.3, max_gradient_norm=0.2, particles=6).bind(seat),
            {"max_gradient_norm": 0.2, "particles": 6},
        ),
        (lambda seat: NetworkCritic((4,), **NUMBERS).bind(seat), {"max_gradient_norm": 0.2, "particles": 1}),
        (
            lambda seat: BayesianCritic((4,), **NUMBERS, particles=6).bind(seat),
            {"max_gradient_norm": 0.2, "particles": 6},
        ),
        (
            lambda seat: Amortised(TanhNormalNetwork((4,)), **NUMBERS).bind(
                seat, seat.opponent_action, [seat.observation]
            ),
            {"max_gradient_norm": 0.2},
        ),
        (
            lambda seat: GaussianEnsemble(2, (4,), **NUMBERS).bind(
                seat, Box(-1, 1), [Box(-1, 1), seat.action, seat.opponent_action]
            ),
            {"max_gradient_norm": 0.2},
        ),
        (
            lambda seat: HierarchicalDirichlet(learning_rate=0.3, particles=6).bind(
                replace(seat, observations=seat.observations[:1] * 3, action_spaces=(Discrete(2),) * 3),
                Discrete(4),
                [seat.observation],
            ),
            {"particles": 6},
        ),
    ],
    ids=["guide", "NetworkCritic", "BayesianCritic", "Amortised", "GaussianEnsemble", "HierarchicalDirichlet"],
)
def test_numbers_reach_the_optimiser(part_of: Callable[[Seat], Any], given: dict[str, float]) -> None:
    """None of them shows in what is learnt from one step of Adam, so they are read where they should have arrived."""
    part = part_of(seat_of(MaxOfTwoQuadratics()))
    assert part.optimiser.adam.param_groups[0]["lr"] == 0.3
    assert part.optimiser.max_gradient_norm == given.get("max_gradient_norm")
    if "particles" in given:  # others have nothing to draw
        assert part.elbo.num_particles == given["particles"]


def test_fitting_critic_and_prior_leaves_the_guide_untouched() -> None:
    learner = actor_critic(guide_steps=0).bind(seat_of(MaxOfTwoQuadratics()))
    other = Stationary().bind(seat_of(MaxOfTwoQuadratics(), 1))
    critic, prior, guide = values_of(learner.critic), values_of(learner.opponent_prior), values_of(learner.guide)
    box_step(MaxOfTwoQuadratics(), [learner, other])
    assert moved(critic, learner.critic)
    assert moved(prior, learner.opponent_prior)
    assert not moved(guide, learner.guide)


def test_warmup_plays_uniformly_and_leaves_the_guide_alone() -> None:
    game = MaxOfTwoQuadratics()
    learner = actor_critic(warmup=3).bind(seat_of(game, replicates=4000))
    actions = learner.act(torch.zeros(4000, 1, dtype=torch.int64), {}).action
    counts = torch.histc(actions, 10, -10, 10).numpy()
    assert chisquare(counts).pvalue > 1e-6
    small = actor_critic(warmup=3).bind(seat_of(game))
    before = values_of(small.guide)
    other = Stationary().bind(seat_of(game, 1))
    for _ in range(3):
        box_step(game, [small, other])
        assert not moved(before, small.guide)
    box_step(game, [small, other])
    assert moved(before, small.guide)


def test_in_warmup_the_policy_and_beliefs_are_what_is_played() -> None:
    obs = torch.zeros(2, 3, dtype=torch.int64)
    table = Rommeo(
        opponent_prior=Uniform(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(initial=(0.0, 5.0)),
        temperature=0.1,
        warmup=1,
    ).bind(seat_of(MatrixGame("climbing")))
    third = torch.full((2, 3, 3), 1 / 3, dtype=torch.float64)
    distribution, _ = table.policy(obs, {})
    assert isinstance(distribution, dist.Categorical)
    torch.testing.assert_close(distribution.probs, third)
    torch.testing.assert_close(table.beliefs(obs, {}, 1)["policy"], third)
    cell = torch.zeros(2, 1, dtype=torch.int64)
    teach(table, transition(cell, cell, torch.zeros(2, 1, dtype=torch.float64), True))
    distribution, _ = table.policy(obs, {})
    assert isinstance(distribution, dist.Categorical)
    torch.testing.assert_close(table.beliefs(obs, {}, 1)["policy"], distribution.probs)
    assert not torch.allclose(distribution.probs, third, atol=0.1)

    box = actor_critic(warmup=1).bind(seat_of(MaxOfTwoQuadratics()))
    uniform, _ = box.policy(obs, {})
    assert uniform is not None
    assert uniform.batch_shape == (2, 3)
    draws = box.beliefs(obs, {}, 4000)["policy"].flatten()
    torch.testing.assert_close(uniform.log_prob(torch.zeros(2, 3, 1)).exp(), torch.full((2, 3), 0.05).double())
    assert chisquare(torch.histc(draws, 10, -10, 10).numpy()).pvalue > 1e-6


def test_several_updates_see_a_trajectory_once() -> None:
    """The prior counts every step once, and replay keeps it once, however often is learned from it."""
    game = MatrixGame("stag_hunt")
    learner = Rommeo(
        opponent_prior=DirichletMultinomial(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(),
        replay=10,
        batch_size=4,
    ).bind(seat_of(game))
    zeros, done = torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1, dtype=torch.bool)
    steps = [
        Transition(
            (zeros,) * 2, (zeros, zeros + i % 2), torch.full((2, 1, 2), 1.0 + i).double(), (zeros,) * 2, done, done
        )
        for i in range(3)
    ]
    update([learner], Trajectory(steps), updates=5)
    assert learner.updates == 5
    assert learner.opponent_prior.counts[:, 0].tolist() == [[2.0, 1.0]] * 2
    assert learner.transitions is not None
    assert learner.transitions.rewards[:, :4, 0].tolist() == [[1.0, 2.0, 3.0, 0.0]] * 2


def test_replicates_in_one_plate_equal_lone_runs() -> None:
    """With enumeration nothing is sampled: fitting R replicates together is fitting each alone, exactly."""
    seat = Seat(0, (Discrete(2),) * 2, (Discrete(3), Discrete(4)), 3, dtype=torch.float64)
    values = torch.randn(3, 2, 3, 4, dtype=torch.float64)

    def fitted(rows: Tensor) -> list[Tensor]:
        one = replace(seat, replicates=len(rows))
        critic = TabularCritic().bind(one)
        critic.values = rows
        prior = Uniform().bind(one, one.opponent_action, [one.observation])
        model = ControlModel(one, prior, critic, ExponentialOptimality())
        guide = OpponentFirst(Tabular(), Tabular()).bind(one)
        elbo, obs = TraceEnum_ELBO(max_plate_nesting=2), torch.arange(2).expand(len(rows), 2)
        optimiser = Optimiser("guide", guide.parameters(), learning_rate=0.1, max_gradient_norm=0.5)
        for _ in range(10):
            optimiser.step(elbo_loss(elbo, model, partial(guide, model=model), 2, obs))
        return values_of(guide)

    together = fitted(values)
    for r in range(3):
        for parameter, alone in zip(together, fitted(values[r : r + 1]), strict=True):
            torch.testing.assert_close(parameter[r : r + 1], alone, rtol=1e-12, atol=1e-12)


def test_actions_follow_the_marginal_policy() -> None:
    game = MatrixGame("climbing")
    seat = seat_of(game, replicates=1)
    learner = Rommeo(
        opponent_prior=Fixed([0.2, 0.5, 0.3]),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic((-2.0, 2.0)),
        temperature=0.8,
    ).bind(seat)
    many = torch.zeros(1, 20_000, dtype=torch.int64)
    policy = learner.beliefs(many[:, :1], {}, 1)["policy"].flatten()
    counts = torch.bincount(learner.act(many, {}).action.flatten(), minlength=3)
    assert chisquare(counts.numpy(), (policy * 20_000).numpy()).pvalue > 1e-6
    assert (learner.act(many, {}, explore=False).action == policy.argmax()).all()


def test_the_policy_conditions_on_the_sampled_opponent() -> None:
    """Pure coordination: with a spread-out opponent model, own action and imagined opponent action agree."""
    game = MatrixGame("pure_coordination")
    learner = Rommeo(
        opponent_prior=Uniform(), guide=OpponentFirst(Empirical(), Optimal()), critic=TabularCritic(), temperature=0.05
    ).bind(seat_of(game))
    learner.critic.values = game.expected_payoff[0].to(torch.float64).expand(2, 1, 2, 2).clone()
    action, (imagined,) = learner.guide(torch.zeros(2, 500, dtype=torch.int64), learner.model)
    assert (action == imagined).all()
    assert 0.4 < imagined.double().mean() < 0.6


def test_schedules_follow_the_updates() -> None:
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(),
        temperature=ExponentialDecay(500, 0.1, 0.1),
        kl_weight=Linear(2.0, 1.0, 10),
    ).bind(seat_of(MatrixGame("stag_hunt")))
    assert learner.model.temperature == pytest.approx(500.1)
    cell = torch.zeros(2, 1, dtype=torch.int64)
    for _ in range(5):
        teach(learner, transition(cell, cell, torch.zeros(2, 1, dtype=torch.float64), True), [])
    assert learner.model.temperature == pytest.approx(500 * math.exp(-0.5) + 0.1)
    assert learner.model.kl_weight == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("make", "seat", "message"),
    [
        (
            lambda: Rommeo(
                opponent_prior=EmpiricalFrequency(), guide=OpponentFirst(Tabular(), Tabular()), critic=TabularCritic()
            ),
            Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), 1),
            r"opponent_prior: got EmpiricalFrequency with actions of probability 0",
        ),
        (
            lambda: Rommeo(
                opponent_prior=Uniform(), guide=OpponentFirst(Optimal(), Empirical()), critic=TabularCritic()
            ),
            Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), 1),
            r"guide\.policy: Empirical got the policy's place",
        ),
        (
            lambda: Rommeo(opponent_prior=Uniform(), guide=OpponentFirst(Optimal(), Optimal()), critic=NetworkCritic()),
            Seat(0, (Discrete(1),) * 2, (Box(0, 1), Box(0, 1)), 1),
            r"guide\.opponent_model: Optimal got Box",
        ),
        (
            lambda: Rommeo(opponent_prior=Uniform(), guide=OpponentFirst(Optimal(), Optimal()), critic=NetworkCritic()),
            Seat(0, (Discrete(1),) * 2, (Discrete(2), Box(0, 1)), 1),
            r"guide\.opponent_model: Optimal got Box",
        ),
        (
            lambda: Rommeo(opponent_prior=Uniform(), guide=OpponentFirst(Optimal(), Optimal()), critic=TabularCritic()),
            Seat(0, (Discrete(1),), (Discrete(2),), 1),
            r"a game of one agent",
        ),
        (
            lambda: Rommeo(
                opponent_prior=Fixed([1, 2, 3]), guide=OpponentFirst(Optimal(), Optimal()), critic=TabularCritic()
            ),
            Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), 1),
            r"opponent_prior\.probabilities: got 3 numbers, expected one per value: 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: object, seat: Seat, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        make().bind(seat)  # type: ignore[operator]


@pytest.mark.parametrize("order", [OpponentFirst, PolicyFirst])
@pytest.mark.parametrize(
    "spaces",
    [(Discrete(2), Box(0, 1)), (Box(0, 1), Discrete(3)), (Discrete(2), Box(0, 1), Discrete(3))],
    ids=["own discrete", "own box", "opponents of both kinds"],
)
def test_action_spaces_may_be_mixed(order: type[Guide], spaces: tuple[Space, ...]) -> None:
    """Networks fit, act and report what they believe, whoever has boxes."""
    networks = {Discrete: CategoricalNetwork((4,)), Box: TanhNormalNetwork((4,))}
    own, *others = (networks[type(space)] for space in spaces)
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=order(Autoregressive(others), own),
        critic=NetworkCritic((4,)),
        replay=20,
        batch_size=4,
    ).bind(Seat(0, (Discrete(1),) * len(spaces), spaces, 2, dtype=torch.float64))
    obs, cpu = torch.zeros(2, 1, dtype=torch.int64), torch.device("cpu")
    actions = tuple(space.uniform(torch.float64, cpu).sample((2, 1)) for space in spaces)
    agents, rewards, done = len(spaces), torch.ones(2, 1, len(spaces), dtype=torch.float64), torch.zeros(2, 1).bool()
    before = values_of(learner.guide)
    teach(learner, Transition((obs,) * agents, actions, rewards, (obs,) * agents, done, done), [])
    assert moved(before, learner.guide)
    for explore in (True, False):
        assert spaces[0].misfit(learner.act(obs, {}, explore=explore).action) is None
    assert torch.isfinite(learner.beliefs(obs, {}, 3)["elbo"]).all()


@pytest.mark.parametrize("learning", [EmpiricalFrequency(), DirichletMultinomial(), Amortised(Tabular())])
def test_a_prior_that_learns_cannot_be_a_factor(learning: Conditional) -> None:
    """A guide shows its factors nothing, so it would stay what it was at the start, in silence."""
    learner = Rommeo(opponent_prior=Uniform(), guide=OpponentFirst(learning, Optimal()), critic=TabularCritic())
    with pytest.raises(
        IncompatibleError, match=r"^guide\.opponent_model: got \w+, which learns .* expected .*Empirical"
    ):
        learner.bind(seat_of(MatrixGame("stag_hunt")))


def test_a_schedule_that_runs_out_says_so() -> None:
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(),
        temperature=ExponentialDecay(1.0, 50.0),
    ).bind(seat_of(MatrixGame("stag_hunt")))
    cell = torch.zeros(2, 1, dtype=torch.int64)
    step = transition(cell, cell, torch.zeros(2, 1, dtype=torch.float64), True)
    teach(learner, step, [])
    with pytest.raises(ValueError, match=r"^temperature: got 3.7\d+e-44 at update 2, expected a number that st"):
        teach(learner, step, [])


@pytest.mark.parametrize("environments", [3, 7])
def test_a_bounded_table_stays_bounded(environments: int) -> None:
    """The mean of equal rewards at the bound is the bound, whatever the rounding."""
    critic = TabularCritic(initial=0.0, rate=1.0)
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=critic,
        optimality=BernoulliOptimality(upper=11.1),
    ).bind(Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), 2, environments))
    cell = torch.zeros(2, environments, dtype=torch.int64)
    for _ in range(3):
        teach(learner, transition(cell, cell, torch.full((2, environments), 11.1), True), [])
        assert torch.isfinite(learner.beliefs(cell, {}, 1)["elbo"]).all()
    torch.testing.assert_close(learner.critic.values[:, 0, 0, 0], torch.full((2,), 11.1))


class _Narrow(OpponentPrior):
    """A prior whose batch dimension is 1: it has no use for the observation."""

    def forward(self, obs: Tensor) -> dist.TorchDistribution:
        zeros = torch.zeros(obs.shape[0], 1, 1, dtype=self.seat.dtype)
        return dist.Normal(zeros, zeros + 1).to_event(1)


def test_a_continuous_prior_may_broadcast() -> None:
    learner = actor_critic(opponent_prior=_Narrow()).bind(seat_of(MaxOfTwoQuadratics()))
    belief = learner.beliefs(torch.zeros(2, 3, dtype=torch.int64), {}, draws=5)
    assert belief["opponent_prior"].shape == (2, 3, 5, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"discount": 1.0},
        {"guide_learning_rate": 0.0},
        {"max_gradient_norm": -1.0},
        {"discount": -0.1},
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"kl_weight": -1.0},
        {"replay": 0},
        {"batch_size": 0},
        {"warmup": -1},
        {"particles": 0},
        {"guide_steps": -1},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}: got .*expected"):
        Rommeo(opponent_prior=Uniform(), guide=OpponentFirst(Optimal(), Optimal()), critic=TabularCritic(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("model_of_others", [Uniform, Optimal])
def test_a_fixed_opponent_model_must_not_go_where_the_prior_does_not(model_of_others: Callable[[], Any]) -> None:
    """Without parameters to fit nothing diverges, but the ELBO is minus infinity all the same; closed forms follow."""
    game = MatrixGame("climbing")
    learner = Rommeo(
        opponent_prior=Fixed([1, 1, 0]), guide=OpponentFirst(model_of_others(), Optimal()), critic=TabularCritic()
    )
    seat = Seat(0, game.observations, game.action_spaces, 2, game=game)
    if model_of_others is Optimal:
        learner.bind(seat)
        return
    with pytest.raises(IncompatibleError, match="an opponent model that does not follow it") as error:
        learner.bind(seat)
    assert error.value.key == "opponent_prior"


@pytest.mark.parametrize("optimality", [ExponentialOptimality(), BernoulliOptimality(50.0)])
def test_the_optimal_guide_leaves_no_gap_whatever_values_count_from(optimality: Any) -> None:
    """The evidence is on the scale of the ELBO: both count values from the upper bound of a Bernoulli's."""
    game = MatrixGame("climbing")
    learner = Rommeo(
        opponent_prior=DirichletMultinomial(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(),
        optimality=optimality,
        temperature=0.7,
        kl_weight=0.4,
    ).bind(Seat(0, game.observations, game.action_spaces, 2, dtype=torch.float64, game=game))
    belief = learner.beliefs(torch.zeros(2, 1, dtype=torch.int64), {}, draws=1)
    torch.testing.assert_close(belief["elbo_gap"], torch.zeros(2, 1, dtype=torch.float64), atol=1e-9, rtol=0)
