"""What ROMMEO offers beside its defaults: the paper to the letter, copied targets, estimators, many agents."""

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.guides import (
    CategoricalNetwork,
    Empirical,
    Guide,
    Joint,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    Tabular,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.estimators import Enumerate, Local, Played, Relax, Sample
from inference_marl.inference.objectives import one_step, sampled_value
from inference_marl.inference.opponents import bind_over_opponents
from inference_marl.inference.optimise import frozen
from inference_marl.inference.tables import total_correlation
from inference_marl.learners import Planner, Rommeo
from inference_marl.learners.tabular.exploration import EpsilonGreedy
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.models import (
    Amortised,
    ControlModel,
    EmpiricalFrequency,
    ExponentialOptimality,
    Fixed,
    KnownReward,
    NetworkCritic,
    TabularCritic,
    Uniform,
)
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat, Trajectory, Transition

DOUBLE = torch.float64
STATES, REPLICATES = 3, 2
SPACES = (Discrete(3), Discrete(2), Discrete(2))
ORDERS = [OpponentFirst, PolicyFirst]
NET = CategoricalNetwork((4,))


def seat(*spaces: Any, index: int = 0) -> Seat:
    return Seat(index, (Discrete(STATES),) * len(spaces), spaces, REPLICATES, dtype=DOUBLE)


def step(at: Seat, batch: int = 8) -> Trajectory:
    """Random play, in which no episode ends."""
    states = torch.randint(STATES, (2, REPLICATES, batch))
    actions = tuple(
        space.uniform(DOUBLE, torch.device("cpu")).sample((REPLICATES, batch)) for space in at.action_spaces
    )
    obs, following = ((each,) * len(actions) for each in states)
    ends = torch.zeros(REPLICATES, batch, dtype=torch.bool)
    rewards = torch.randn(REPLICATES, batch, len(actions), dtype=DOUBLE)
    return Trajectory([Transition(obs, actions, rewards, following, ends, ends)])


def tabular(**changes: Any) -> Rommeo:
    chosen: dict[str, Any] = {
        "opponent_prior": Uniform(),
        "guide": OpponentFirst(Tabular(1.0), Tabular(1.0)),
        "critic": TabularCritic((-1.0, 1.0), rate=0.5),
        "temperature": 0.7,
    }
    return Rommeo(**chosen | changes)


def learn(learner: Rommeo, data: Trajectory) -> None:
    learner.store(data)
    learner.learn(data, [])


class TestTargets:
    @pytest.mark.parametrize(
        "critic",
        [TabularCritic((0, 1), rate=0.5, target_interval=3), NetworkCritic((4,), target_rate=1.0, target_interval=3)],
    )
    def test_a_target_is_copied_now_and_then(self, critic: Any) -> None:
        learner = tabular(critic=critic).bind(seat(*SPACES))
        obs = torch.arange(STATES).expand(REPLICATES, -1)
        before = learner.target_critic.table(obs)
        for update in range(1, 7):
            learn(learner, step(learner.seat))
            same = torch.equal(learner.target_critic.table(obs), before)
            assert same == (update % 3 != 0)
            if update % 3 == 0:
                before = learner.target_critic.table(obs)
                assert torch.equal(before, learner.critic.table(obs))

    def test_hoped_for_values_have_no_target(self) -> None:
        with pytest.raises(ValueError, match="target_interval: got 2 with optimistic values"):
            TabularCritic("optimistic", target_interval=2)


class TestAllActionsAtOnce:
    def test_an_output_is_the_value_of_an_action(self) -> None:
        at = seat(*SPACES)
        critic = NetworkCritic((5,), outputs="actions").bind(at)
        obs = torch.arange(STATES).expand(REPLICATES, -1)
        table = critic.table(obs)
        assert table.shape == (REPLICATES, STATES, 3, 4)
        for own in range(3):
            values = critic(obs, torch.full_like(obs, own), torch.ones_like(obs), torch.zeros_like(obs))
            torch.testing.assert_close(values, table[:, :, own, 2])

    @pytest.mark.parametrize("order", ORDERS)
    def test_it_learns_as_a_table_of_targets(self, order: type[Guide]) -> None:
        network = CategoricalNetwork((8,))
        critic = NetworkCritic((16,), outputs="actions")
        learner = tabular(opponent_prior=Uniform(), guide=order(network, network), critic=critic).bind(seat(*SPACES))
        learn(learner, step(learner.seat))
        assert learner.beliefs(torch.zeros(REPLICATES, 1, dtype=torch.int64), {}, 4)["policy"].shape == (
            REPLICATES,
            1,
            3,
        )

    def test_boxes_have_no_output_each(self) -> None:
        with pytest.raises(IncompatibleError, match="outputs: got actions"):
            NetworkCritic((4,), outputs="actions").bind(seat(Box(-1, 1, 1), Discrete(2)))


class TestBootstrap:
    @pytest.mark.parametrize("order", ORDERS)
    def test_the_sampled_value_of_the_optimal_guide_at_temperature_one(self, order: type[Guide]) -> None:
        """Every draw has the same weight there, exp V: so one is enough, of several opponents too."""
        at = seat(*SPACES)
        prior = bind_over_opponents(Fixed([1, 2, 3, 4]), at, [at.observation])
        model = ControlModel(at, prior, TabularCritic((-3, 3)).bind(at), ExponentialOptimality(), 1.0, 1.0)
        guide = partial(order(Optimal(), Optimal()).bind(at), model=model)
        obs = torch.arange(STATES).expand(REPLICATES, -1)
        exact = one_step(model, guide, obs).elbo + math.log(3)
        torch.testing.assert_close(sampled_value(model, guide, obs, 1), exact)

    def test_by_hand(self) -> None:
        """The mean of exp of many values is `sum P exp Q` inside the logarithm, whatever the guide."""
        at = seat(*SPACES)
        prior = bind_over_opponents(Fixed([1, 2, 3, 4]), at, [at.observation])
        model = ControlModel(at, prior, TabularCritic((-1, 1)).bind(at), ExponentialOptimality(), 0.3, 1.0)
        guide = partial(OpponentFirst(Tabular(0.5), Tabular(0.5)).bind(at), model=model)
        obs = torch.arange(STATES).expand(REPLICATES, -1)
        with torch.no_grad(), local_parameters():
            found = sampled_value(model, guide, obs, 40_000).exp()
        exact = (torch.tensor([1, 2, 3, 4], dtype=DOUBLE) / 10 * model.q_table(obs).exp()).sum((-1, -2))
        torch.testing.assert_close(found, exact, rtol=0.03, atol=0)

    def test_a_learner_uses_it(self) -> None:
        exact, sampled = (
            tabular(
                bootstrap=how,
                discount=0.9,
                guide=OpponentFirst(Optimal(), Optimal()),
                temperature=1.0,
                bootstrap_draws=1,
            )
            for how in ("elbo", "monte_carlo")
        )
        data = step(seat(*SPACES))
        bound = []
        for each in (exact, sampled):
            torch.manual_seed(0)
            bound.append(each.bind(seat(*SPACES)))
            learn(bound[-1], data)
        torch.testing.assert_close(bound[0].critic.values, bound[1].critic.values)


class TestImprovement:
    def test_in_turn_moves_both_factors_each_by_its_own_gradient(self) -> None:
        data = step(seat(*SPACES))
        moved: dict[str, tuple[Tensor, Tensor]] = {}
        for how in ("jointly", "in_turn", "with_replay"):
            torch.manual_seed(0)
            learner = tabular(improve=how, opponent_prior=Uniform()).bind(seat(*SPACES))
            starts = [each.detach().clone() for each in learner.guide.parameters()]
            learn(learner, data)
            rho, pi = (after - before for after, before in zip(learner.guide.parameters(), starts, strict=True))
            moved[how] = rho.detach(), pi.detach()
        assert torch.equal(moved["jointly"][1], moved["in_turn"][1]), "the policy moves first, beside the same rho"
        assert torch.equal(moved["with_replay"][1], moved["in_turn"][1])
        assert not torch.equal(moved["with_replay"][0], moved["in_turn"][0])

    def test_replayed_actions_give_the_gradient_of_equation_19(self) -> None:
        """By hand, summed over b: rho(b|s) [log rho(b|s) - log P(b|s) - Q(s, a, b) + alpha log pi(a|s, b)]."""
        at = seat(Discrete(3), Discrete(4))
        torch.manual_seed(0)
        learner = tabular(improve="with_replay", guide_learning_rate=1e-3).bind(at)
        (data,) = step(at).seen_by(at)
        learner.critic.updates = 0
        rho, pi = learner.guide.opponent_model.logits, learner.guide.policy.logits
        found: list[Tensor | None] = []

        def keep(loss: Tensor) -> None:
            found.append(torch.autograd.grad(loss.sum(), rho)[0] if rho.requires_grad else None)

        learner.optimiser.step = keep
        learner._improve(data)
        log_rho = rho.log_softmax(-1)[at.rows, data.obs]
        log_pi = pi.detach().log_softmax(-1)[at.rows, data.obs, :, data.action]
        q = learner.critic.values[at.rows, data.obs, data.action]
        loss = (log_rho.exp() * (log_rho + math.log(4) - q + 0.7 * log_pi)).sum(-1).mean(-1).sum()
        (expected,) = torch.autograd.grad(loss, rho)
        assert found[0] is None, "the policy's step leaves rho"
        torch.testing.assert_close(found[1], expected)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**31), alpha=st.floats(0.1, 5.0), beta=st.floats(0.2, 3.0))
    def test_alternating_improvement_is_monotone(self, seed: int, alpha: float, beta: float) -> None:
        """Theorems 4 and 5 (Tian et al. 2019), for any weights: a better factor raises the value in every state.

        On random games of several states, evaluated exactly: V of a guide is the fixed point of its soft Bellman
        operator, and either factor is replaced by the best beside the other, in turn.
        """
        generator = torch.Generator().manual_seed(seed)
        states, own, others, gamma = 4, 3, 4, 0.9

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=DOUBLE, generator=generator)

        reward, moves = random(states, own, others), random(states, own, others, states).softmax(-1)
        log_prior, log_rho = random(states, others).log_softmax(-1), random(states, others).log_softmax(-1)
        log_pi = random(states, own, others).log_softmax(-2)

        def evaluated() -> tuple[Tensor, Tensor]:
            """V and Q of the guide: linear equations."""
            joint = log_pi.exp() * log_rho.exp().unsqueeze(-2)
            costs = alpha * log_pi + beta * (log_rho - log_prior).unsqueeze(-2)
            gain = (joint * (reward - costs)).sum((-1, -2))
            chain = torch.einsum("sab,sabt->st", joint, moves)
            v = torch.linalg.solve(torch.eye(states, dtype=DOUBLE) - gamma * chain, gain)
            return v, reward + gamma * moves @ v

        v, q = evaluated()
        for _ in range(3):
            log_pi = (q / alpha).log_softmax(-2)
            better, q = evaluated()
            assert (better >= v - 1e-9).all()
            worth = (log_pi.exp() * (q - alpha * log_pi)).sum(-2)
            log_rho = (log_prior + worth / beta).log_softmax(-1)
            v, q = evaluated()
            assert (v >= better - 1e-9).all()


@pytest.mark.parametrize("estimator", [None, Enumerate(), Local(), Sample()])
@pytest.mark.parametrize("order", ORDERS)
def test_four_agents_of_networks_learn_by_any_estimator(order: type[Guide], estimator: Any) -> None:
    at = seat(*[Discrete(3)] * 4)
    network = CategoricalNetwork((8,))
    learner = Rommeo(
        opponent_prior=Amortised(network, window=50, batch_size=8),
        guide=order(network, network),
        critic=NetworkCritic((8,)),
        temperature=0.5,
        estimator=estimator,
    ).bind(at)
    assert isinstance(learner.estimates, Local if estimator is None else type(estimator)), "27 joint actions are many"
    before = [each.detach().clone() for each in learner.guide.parameters()]
    for _ in range(2):
        learn(learner, step(at))
    assert all(not torch.equal(one, other) for one, other in zip(before, learner.guide.parameters(), strict=True))
    assert all(each.isfinite().all() for each in learner.parameters())


def test_how_correlated_opponents_are_believed_to_be() -> None:
    """By hand: two that always agree share log 2, independent ones nothing; of one there is no such number."""
    agree = torch.tensor([0.5, 0.0, 0.0, 0.5], dtype=DOUBLE)
    assert total_correlation(agree, [2, 2]).item() == pytest.approx(math.log(2))
    apart = torch.tensor([0.3, 0.7], dtype=DOUBLE).unsqueeze(-1) * torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE)
    assert total_correlation(apart.flatten(), [2, 3]).item() == pytest.approx(0.0, abs=1e-12)
    obs = torch.zeros(REPLICATES, 1, dtype=torch.int64)
    three = tabular(guide=OpponentFirst(Optimal(), Optimal())).bind(seat(*SPACES)).beliefs(obs, {}, 1)
    assert (three["total_correlation"] > 0).all(), "values are not additive"
    assert "total_correlation" not in tabular().bind(seat(Discrete(3), Discrete(2))).beliefs(obs, {}, 1)


def test_more_joint_actions_than_a_table_has() -> None:
    """Six agents of five actions: everything but beliefs about joint actions."""
    at = seat(*[Discrete(5)] * 6)
    network = CategoricalNetwork((4,))
    learner = Rommeo(
        opponent_prior=Amortised(network, window=20, batch_size=4),
        guide=OpponentFirst(network, network),
        critic=NetworkCritic((4,), outputs="actions"),
        temperature=0.5,
    ).bind(at)
    learn(learner, step(at, 4))
    obs = torch.zeros(REPLICATES, 2, dtype=torch.int64)
    beliefs = learner.beliefs(obs, {}, 8)
    assert {"policy", "elbo"} <= set(beliefs)
    assert "opponent_model" not in beliefs
    torch.testing.assert_close(beliefs["policy"].sum(-1), torch.ones(REPLICATES, 2, dtype=DOUBLE))
    assert learner.act(obs, {}).action.shape == learner.act(obs, {}, explore=False).action.shape == obs.shape


def test_a_greedy_action_in_a_box_is_judged_by_what_is_believed() -> None:
    """Not beside the luckiest draw of the opponents' action: here a miss costs more than a hit pays."""
    at = seat(Box(-1, 1, 1), Box(-1, 1, 1))
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=OpponentFirst(Uniform(), TanhNormalNetwork((4,))),
        critic=NetworkCritic((4,)),
        temperature=0.5,
    ).bind(at)

    def risky(obs: Tensor, own: Tensor, other: Tensor) -> Tensor:
        met = (own - other).abs() < 0.05
        gamble = torch.where(met, 10.0, -10.0) * (own > 0)
        return gamble.squeeze(-1)

    learner.critic.forward = risky  # type: ignore[method-assign]
    obs = torch.zeros(REPLICATES, 20, dtype=torch.int64)
    assert (learner.act(obs, {}, explore=False).action <= 0).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("improve", ["in_turn", "with_replay"])
@pytest.mark.parametrize("fitted", ["policy", "opponent_model"])
def test_improvement_in_turn_beside_a_factor_in_closed_form(order: type[Guide], improve: str, fitted: str) -> None:
    factors = {"policy": Optimal(), "opponent_model": Optimal(), fitted: Tabular(1.0)}
    learner = tabular(improve=improve, guide=order(**factors)).bind(seat(*SPACES))
    (start,) = (each.detach().clone() for each in learner.guide.parameters())
    learn(learner, step(learner.seat))
    assert not torch.equal(start, next(iter(learner.guide.parameters())))


@pytest.mark.slow
@pytest.mark.parametrize("improve", ["jointly", "in_turn", "with_replay"])
@pytest.mark.parametrize("estimator", [None, Local(), Sample(), Enumerate()])
@pytest.mark.parametrize("particles", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_every_way_to_improve_with_every_estimator(improve: Any, estimator: Any, particles: int) -> None:
    """Four agents of networks, also where rho := P, so that some steps have nothing to fit."""
    at, network = seat(*[Discrete(3)] * 4), CategoricalNetwork((6,))
    for order, opponent_model in itertools.product(ORDERS, (network, Empirical())):
        learner = Rommeo(
            opponent_prior=Amortised(network, window=50, batch_size=8),
            guide=order(opponent_model, network),
            critic=NetworkCritic((6,)),
            temperature=0.5,
            estimator=estimator,
            improve=improve,
            particles=particles,
            guide_steps=2,
        ).bind(at)
        start = [each.detach().clone() for each in learner.guide.parameters()]
        learn(learner, step(at))
        assert all(not torch.equal(a, b) for a, b in zip(start, learner.guide.parameters(), strict=True))


@pytest.mark.parametrize("order", ORDERS)
def test_replayed_actions_of_both_kinds(order: type[Guide]) -> None:
    """The gradient of Eq. 19 beside a continuous opponent: pathwise, and no score of what was played.

    Held to the mean of the equation at draws of the opponent model, by hand.
    """
    at = seat(Discrete(3), Box(-1.0, 1.0, 1))
    torch.manual_seed(0)
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=order(TanhNormalNetwork((6,), (-1.5, -0.5)), CategoricalNetwork((6,))),
        critic=NetworkCritic((6,)),
        temperature=0.7,
        improve="with_replay",
        particles=200,
    ).bind(at)
    (data,) = step(at, 3).seen_by(at)
    weights = list(learner.guide.opponent_model.parameters())
    played, model = Played("action", data.action), learner.model

    def by_package() -> Tensor:
        loss = learner.guide_loss(model, played(partial(learner.guide, model=model)), data.obs)
        return torch.cat([each.flatten() for each in torch.autograd.grad(loss, weights)])

    def by_hand() -> Tensor:
        obs = data.obs.repeat_interleave(200, 1)
        action = data.action.repeat_interleave(200, 1)
        factor = learner.guide.believed(model, obs, action).factor(0)
        drawn = factor.rsample()
        first = [] if order is PolicyFirst else [drawn]
        log_pi = learner.guide.factor("action", model, obs, *first).log_prob([action])
        value = model.q(obs, action, drawn) - 0.7 * log_pi - factor.log_prob(drawn)
        loss = -value.unflatten(1, (3, 200)).mean(-1).mean(-1).sum()
        return torch.cat([each.flatten() for each in torch.autograd.grad(loss, weights)])

    with frozen(learner.guide.policy.parameters()), local_parameters():
        one, other = (torch.stack([make() for _ in range(30)]) for make in (by_package, by_hand))
    error = ((one.var(0) + other.var(0)) / 30).sqrt() + 1e-3 * other.mean(0).abs().max()
    assert ((one.mean(0) - other.mean(0)) / error).square().mean().sqrt() < 1.6


def test_one_opponent_is_summed_out_however_many_actions_it_has() -> None:
    at, network = seat(Discrete(12), Discrete(12)), CategoricalNetwork((4,))
    learner = tabular(guide=OpponentFirst(network, network), critic=NetworkCritic((4,))).bind(at)
    assert isinstance(learner.estimates, Enumerate)
    obs = torch.zeros(REPLICATES, 5, dtype=torch.int64)
    guide = partial(learner.guide, model=learner.model)
    value = one_step(learner.model, Local().drawn(guide, at), obs).elbo
    assert torch.equal(value, value[:, :1].expand_as(value)), "nothing is drawn"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": Relax()}, "estimator: got Relax with TabularCritic"),
        ({"estimator": Relax(), "critic": NetworkCritic((4,))}, "estimator: got Relax with Tabular"),
        (
            {"estimator": Relax(), "critic": NetworkCritic((4,)), "guide": OpponentFirst(Joint(NET), NET)},
            "estimator: got Relax with Joint",
        ),
        (
            {"estimator": Relax(), "critic": NetworkCritic((4,)), "guide": OpponentFirst(NET, NET)},
            "estimator: got Relax with EmpiricalFrequency",
        ),
    ],
)
def test_relaxed_actions_need_networks(change: dict[str, Any], message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        tabular(**{"opponent_prior": EmpiricalFrequency(smoothing=1.0), **change}).bind(seat(*SPACES))


def test_an_estimator_that_would_be_biased_is_refused_and_not_chosen() -> None:
    at = seat(Box(-1.0, 1.0, 1), Discrete(4), Discrete(4))
    guide = PolicyFirst(NET, TanhNormalNetwork((4,)))
    parts: dict[str, Any] = {
        "opponent_prior": Uniform(),
        "guide": guide,
        "critic": NetworkCritic((4,)),
        "temperature": 1.0,
    }
    assert isinstance(Rommeo(**parts).bind(at).estimates, Sample)
    with pytest.raises(IncompatibleError, match="estimator: got Local with own actions Box"):
        Rommeo(**parts, estimator=Local()).bind(at)


def test_what_plans_or_tables_cannot_hold_is_refused_before_work_starts() -> None:
    reward = {"reward": KnownReward(), "guide": TrajectoryGuide(NET, NET), "opponent_prior": Uniform()}
    for spaces in ((Discrete(2), Box(-1, 1, 1), Discrete(2)), (Discrete(2), Box(-1, 1, 1)), (Discrete(5),) * 6):
        with pytest.raises(IncompatibleError, match="Planner got actions"):
            Planner(**reward).bind(seat(*spaces))
    with pytest.raises(IncompatibleError, match=r"guide\.policy: a joint action"):
        tabular(guide=OpponentFirst(NET, Optimal()), critic=NetworkCritic((4,))).bind(seat(*[Discrete(5)] * 6))
    boxes, normal = seat(*[Box(-1, 1, 1)] * 3), TanhNormalNetwork((4,))
    with pytest.raises(IncompatibleError, match=r"guide\.opponent_model\.factor: .* got Box"):
        tabular(guide=OpponentFirst(Joint(normal), normal), critic=NetworkCritic((4,))).bind(boxes)


def test_independent_learners_need_no_joint_actions() -> None:
    assert IndependentQ(exploration=EpsilonGreedy(0.1)).bind(seat(*[Discrete(5)] * 6)).actions == 5
    assert Rommeo().bind(seat(Discrete(65), Discrete(65))).exact, "with one opponent there is no joint action"


def test_one_template_for_opponents_of_both_kinds_is_refused() -> None:
    both = seat(Discrete(2), Discrete(3), Box(-1, 1, 1))
    with pytest.raises(IncompatibleError, match=r"guide\.opponent_model\.factor: got one CategoricalNetwork .* a list"):
        tabular(guide=OpponentFirst(NET, NET), critic=NetworkCritic((4,))).bind(both)
