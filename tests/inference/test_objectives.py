"""The one-step ELBO against closed forms, numbers worked out by hand, and the laws it obeys."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from inference_marl.guides import (
    Empirical,
    Guide,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    SplineFlow,
    Tabular,
    TanhNormalNetwork,
)
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.distributions import logsumexp
from inference_marl.inference.factored import Factored, opponent_sites
from inference_marl.inference.objectives import one_step, optimal_value, soft_value, table_step, td_target
from inference_marl.inference.opponents import bind_over_opponents
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.svi import elbo_loss
from inference_marl.models import (
    Amortised,
    BernoulliOptimality,
    ControlModel,
    ExponentialOptimality,
    Fixed,
    NetworkCritic,
    OpponentPrior,
    TabularCritic,
)
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat

EXACT = {"dtype": torch.float64}


def a_seat(*actions: int, replicates: int = 2, states: int = 1) -> Seat:
    return Seat(0, (Discrete(states),) * len(actions), tuple(map(Discrete, actions)), replicates, dtype=torch.float64)


def a_model(
    seat: Seat, alpha: float, beta: float, prior: OpponentPrior | None = None, spread: float = 3.0
) -> ControlModel:
    chosen = prior or Fixed(torch.rand(seat.opponent_action.features).add(0.05).tolist())
    bound = chosen.bind(seat, seat.opponent_action, [seat.observation])
    critic = TabularCritic(initial=(-spread, spread)).bind(seat)
    return ControlModel(seat, bound, critic, ExponentialOptimality(), alpha, beta)


def guide_of(model: ControlModel, description: Guide) -> Callable[[Tensor], Any]:
    """The guide of a model, as Pyro takes it."""
    return partial(description.bind(model.seat), model=model)


def the_states(seat: Seat) -> Tensor:
    return torch.arange(seat.observation.features).expand(seat.replicates, -1)


def opponents_jointly(guide: Guide, model: ControlModel, obs: Tensor) -> Tensor:
    """Probabilities of the opponents' joint actions, `replicates x batch x (joint actions)`."""
    log_pi, log_rho, _ = guide.tables(obs, model)
    return (log_pi + log_rho).exp().sum(-2)


def marginals(joint: Tensor, seat: Seat) -> tuple[Tensor, ...]:
    """Of every opponent's action, given probabilities of joint ones."""
    table = joint.unflatten(-1, [space.features for space in seat.opponent_actions])
    last = range(2, table.dim())
    return tuple(table.sum([dim for dim in last if dim != kept]) if len(last) > 1 else table for kept in last)


WEIGHTS = [(0.1, 1.0), (1.0, 1.0), (5.0, 1.0), (1.0, 0.3), (0.5, 2.0), (500.0, 1.0)]


class TestHandComputed:
    """A 2 x 2 table small enough to do on paper: alpha = beta = 1, Q = [[0, log 3], [0, 0]], P = (3/4, 1/4)."""

    q = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], **EXACT)
    log_prior = torch.tensor([0.75, 0.25], **EXACT).log()

    def test_value(self) -> None:
        # sum_a exp Q = 2 for b = 0 and 4 for b = 1, so V = log(3/4 * 2 + 1/4 * 4) = log 2.5.
        assert optimal_value(self.q, self.log_prior, 1.0).item() == pytest.approx(math.log(2.5))

    def test_optimal_guide(self) -> None:
        seat = a_seat(2, 2, replicates=1)
        model = a_model(seat, 1.0, 1.0, Fixed([3, 1]))
        model.critic.values = self.q.view(1, 1, 2, 2)
        step = one_step(model, guide_of(model, OpponentFirst(Optimal(), Optimal())), the_states(seat))
        # rho* = (3/4 * 2, 1/4 * 4) / 2.5 = (0.6, 0.4); pi* = (1/2, 1/2) after b = 0, (3/4, 1/4) after b = 1.
        torch.testing.assert_close(step.opponent_actions[0], torch.tensor([[[0.6, 0.4]]], **EXACT))
        torch.testing.assert_close(step.action, torch.tensor([[[0.6, 0.4]]], **EXACT))
        assert step.reward.item() == pytest.approx(0.4 * 0.75 * math.log(3))
        assert step.kl.item() == pytest.approx(0.6 * math.log(0.6 / 0.75) + 0.4 * math.log(0.4 / 0.25))
        entropy = 0.4 * -(0.75 * math.log(0.75 * 2) + 0.25 * math.log(0.25 * 2))
        assert step.entropy.item() == pytest.approx(entropy)
        assert step.elbo.item() == pytest.approx(math.log(2.5) - math.log(2))

    def test_td_target(self) -> None:
        y = td_target(torch.tensor([1.0, 1.0]), 0.5, torch.tensor([False, True]), torch.tensor([4.0, math.nan]))
        assert y.tolist() == [3.0, 1.0]


@pytest.mark.parametrize(("alpha", "beta"), WEIGHTS)
@pytest.mark.parametrize("actions", [(3, 3), (2, 3, 2), (4, 2)])
class TestOptimalGuide:
    """Eq. 9-11 at any weights, for two and three agents, in several states."""

    def test_value_is_the_elbo(self, alpha: float, beta: float, actions: tuple[int, ...]) -> None:
        seat = a_seat(*actions, states=3)
        model = a_model(seat, alpha, beta)
        obs = the_states(seat)
        guide = guide_of(model, OpponentFirst(Optimal(), Optimal()))
        expected = optimal_value(model.q_table(obs), model.opponent_prior(obs).table(), alpha, beta)
        value = soft_value(model, guide, obs, alpha, seat.action.log_size)
        torch.testing.assert_close(value, expected)
        loss = TraceEnum_ELBO(max_plate_nesting=2).loss(model, guide, obs)
        assert -loss == pytest.approx((expected - alpha * seat.action.log_size).sum().item(), rel=1e-6)

    def test_no_other_guide_is_better(self, alpha: float, beta: float, actions: tuple[int, ...]) -> None:
        seat = a_seat(*actions)
        model = a_model(seat, alpha, beta)
        obs = the_states(seat)
        best = one_step(model, guide_of(model, OpponentFirst(Optimal(), Optimal())), obs).elbo
        for rho, pi in product([Tabular(1.0), Optimal(), Empirical()], [Tabular(1.0), Optimal()]):
            other = one_step(model, guide_of(model, OpponentFirst(rho, pi)), obs).elbo
            assert (other <= best + 1e-9 * best.abs()).all()

    def test_optimal_beside_a_given_factor(self, alpha: float, beta: float, actions: tuple[int, ...]) -> None:
        # Eq. 39: rho is the best answer to whatever the policy is. No perturbation of its logits does better.
        seat = a_seat(*actions, replicates=1)
        model = a_model(seat, alpha, beta)
        obs = the_states(seat)
        guide = OpponentFirst(Optimal(), Tabular(1.0)).bind(seat)
        best = one_step(model, partial(guide, model=model), obs).elbo
        optimum = guide.factor("opponent_action", model, obs).table()
        for _ in range(20):
            moved = (optimum + 0.3 * torch.randn_like(optimum)).softmax(-1)
            perturbed = OpponentFirst(Fixed(moved.flatten().tolist()), Tabular()).bind(seat)
            perturbed.policy = guide.policy
            assert one_step(model, partial(perturbed, model=model), obs).elbo <= best + 1e-9 * best.abs()

    def test_policy_first(self, alpha: float, beta: float, actions: tuple[int, ...]) -> None:
        # V = alpha log sum_a exp(beta log sum_b P exp(Q / beta) / alpha).
        seat = a_seat(*actions)
        model = a_model(seat, alpha, beta)
        obs = the_states(seat)
        q, log_prior = model.q_table(obs), model.opponent_prior(obs).table()
        inner = beta * torch.logsumexp(log_prior + q / beta, -1)
        expected = alpha * torch.logsumexp(inner / alpha, -1)
        guide = guide_of(model, PolicyFirst(Optimal(), Optimal()))
        torch.testing.assert_close(soft_value(model, guide, obs, alpha, seat.action.log_size), expected)


def test_both_orders_agree_at_equal_weights() -> None:
    seat = a_seat(3, 4)
    model = a_model(seat, 0.7, 0.7)
    obs = the_states(seat)
    one, other = (
        one_step(model, guide_of(model, order(Optimal(), Optimal())), obs) for order in (OpponentFirst, PolicyFirst)
    )
    torch.testing.assert_close(one.elbo, other.elbo)
    torch.testing.assert_close(one.action, other.action)
    torch.testing.assert_close(one.opponent_actions, other.opponent_actions)


@pytest.mark.parametrize(
    ("alpha", "beta", "actions"),
    [(0.5, 1.0, (3, 3)), (2.0, 0.5, (2, 3, 2)), pytest.param(1.0, 3.0, (2, 3, 2), marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("order", [OpponentFirst, pytest.param(PolicyFirst, marks=pytest.mark.slow)])
def test_svi_reaches_the_closed_form(
    alpha: float, beta: float, actions: tuple[int, ...], order: type[OpponentFirst] | type[PolicyFirst]
) -> None:
    """Probabilities to 1e-3 and the ELBO to 1e-4, on random games of two and three agents."""
    seat = a_seat(*actions, replicates=3)
    model = a_model(seat, alpha, beta)
    obs = the_states(seat)
    tabular = order(Tabular(), Tabular()).bind(seat)
    guide = partial(tabular, model=model)
    elbo = TraceEnum_ELBO(max_plate_nesting=2)
    for rate, steps in [(0.2, 120), (0.02, 80)]:
        optimiser = Optimiser("guide", tabular.parameters(), learning_rate=rate)
        for _ in range(steps):
            optimiser.step(elbo_loss(elbo, model, guide, 1, obs))
    with torch.no_grad():
        fitted = one_step(model, guide, obs)
        optimal = order(Optimal(), Optimal()).bind(seat)
        exact = one_step(model, partial(optimal, model=model), obs)
        joint, best = (opponents_jointly(each, model, obs) for each in (tabular, optimal))
    torch.testing.assert_close(fitted.elbo, exact.elbo, atol=1e-4, rtol=0)
    torch.testing.assert_close(fitted.action, exact.action, atol=1e-3, rtol=0)
    torch.testing.assert_close(fitted.opponent_actions, exact.opponent_actions, atol=1e-3, rtol=0)
    torch.testing.assert_close(joint, best, atol=1e-3, rtol=0)


def test_zero_prior_probability_stays_zero() -> None:
    seat = a_seat(3, 3)
    model = a_model(seat, 0.5, 1.0, Fixed([1, 0, 3]))
    obs = the_states(seat)
    for order in (OpponentFirst, PolicyFirst):
        step = one_step(model, guide_of(model, order(Optimal(), Optimal())), obs)
        assert (step.opponent_actions[0][..., 1] == 0).all()
        assert torch.isfinite(step.elbo).all()
        assert torch.isfinite(step.kl).all()
    torch.testing.assert_close(
        soft_value(model, guide_of(model, OpponentFirst(Optimal(), Optimal())), obs, 0.5, seat.action.log_size),
        optimal_value(model.q_table(obs), model.opponent_prior(obs).table(), 0.5),
    )


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (5.0, 1.0), (0.3, 2.0)])
@pytest.mark.parametrize("order", [OpponentFirst, PolicyFirst])
def test_optimal_value_of_both_orders(
    alpha: float, beta: float, order: type[OpponentFirst] | type[PolicyFirst]
) -> None:
    """The closed form is the ELBO of the guide in closed form, for unequal weights as well."""
    seat = a_seat(3, 4)
    model, obs = a_model(seat, alpha, beta), torch.zeros(2, 1, dtype=torch.int64)
    reached = one_step(model, guide_of(model, order(Optimal(), Optimal())), obs).elbo
    log_prior = model.opponent_prior(obs).table()
    value = optimal_value(model.q_table(obs), log_prior, alpha, beta, policy_first=order is PolicyFirst)
    torch.testing.assert_close(value - alpha * math.log(3), reached)


@pytest.mark.parametrize("order", [OpponentFirst, PolicyFirst])
def test_a_guide_is_of_the_model_that_it_is_called_with(order: type[OpponentFirst] | type[PolicyFirst]) -> None:
    """One guide for several models: other weights, another critic, and the first again as if nothing had been."""
    seat = a_seat(3, 4, states=2)
    obs, guide = the_states(seat), order(Optimal(), Optimal()).bind(seat)
    first = a_model(seat, 0.7, 1.3)
    models = [first, replace(first, temperature=2.0), replace(first, kl_weight=0.4)]
    models += [replace(first, critic=TabularCritic(initial=(-5.0, 5.0)).bind(seat)), first]
    for model in models:
        log_prior = model.opponent_prior(obs).table()
        weights = model.temperature, model.kl_weight
        value = optimal_value(model.q_table(obs), log_prior, *weights, policy_first=order is PolicyFirst)
        reached = soft_value(model, partial(guide, model=model), obs, model.temperature, seat.action.log_size)
        torch.testing.assert_close(reached, value)
    assert not guide.state_dict()


def test_observations_without_a_batch_dimension_are_refused() -> None:
    seat = a_seat(3, 4)
    model = a_model(seat, 1.0, 1.0)
    for part in (model, guide_of(model, OpponentFirst(Optimal(), Optimal()))):
        with pytest.raises(ValueError, match=r"^observations: got shape \(2,\), expected replicate x batch$"):
            part(torch.zeros(2, dtype=torch.int64))


def test_bernoulli_optimality_shifts_the_elbo_only() -> None:
    seat = a_seat(3, 2)
    model = a_model(seat, 0.7, 1.0)
    obs = the_states(seat)
    guide = guide_of(model, OpponentFirst(Optimal(), Optimal()))
    plain = one_step(model, guide, obs)
    proper = replace(model, optimality=BernoulliOptimality(upper=4.0))
    bounded = one_step(proper, guide, obs)
    torch.testing.assert_close(bounded.elbo + proper.optimality.offset, plain.elbo)
    assert (bounded.elbo <= 0).all(), "the log-probability of optimality is at most 0"
    improper = replace(model, optimality=BernoulliOptimality(upper=-10.0))
    with pytest.raises(ValueError, match=r"optimality\.upper: got -10\.0, but Q reaches"):
        one_step(improper, guide, obs)


Scored = tuple[dist.TorchDistribution, Tensor]


def drawn_by_hand(guide: OpponentFirst, model: ControlModel, obs: Tensor) -> tuple[list[Scored], Scored, Tensor]:
    """One opponent after the other, then the agent: every one's distribution and draw, and `log P(b | s)`."""
    rho = guide.opponent_model(obs)
    assert isinstance(rho, Factored)
    first = rho.factor(0)
    b_0 = first.rsample()
    second = rho.factor(1, b_0)
    b_1 = second.rsample()
    pi = guide.policy(obs, b_0, b_1)
    log_prior = sum(model.prior.conditional.factors[j](obs).log_prob(b) for j, b in enumerate((b_0, b_1)))
    assert isinstance(log_prior, Tensor)
    return [(first, b_0), (second, b_1)], (pi, pi.rsample()), log_prior


def continuous_problem(factor: type[Conditional], particles: int) -> tuple[Seat, ControlModel, OpponentFirst, Tensor]:
    seat = Seat(0, (Discrete(2),) * 3, (Box(-2, 2), Box(-2, 2, 2), Box(-2, 2)), 2, dtype=torch.float64)
    prior = bind_over_opponents(Amortised(TanhNormalNetwork(hidden=(5,))), seat, [seat.observation])
    model = ControlModel(seat, prior, NetworkCritic(hidden=(6,)).bind(seat), ExponentialOptimality(), 0.3, 1.7)
    guide = OpponentFirst(factor(hidden=(5,)), factor(hidden=(4,))).bind(seat)
    return seat, model, guide, torch.randint(2, (2, particles))


@pytest.mark.parametrize("factor", [TanhNormalNetwork, SplineFlow])
def test_reparameterised_elbo_is_equations_18_and_19(factor: type[Conditional]) -> None:
    """Pyro's loss and its gradient equal the objective written by hand, with the same draws (Eq. 18 + 19)."""
    seat, model, guide, obs = continuous_problem(factor, 5)
    torch.manual_seed(3)
    loss = Trace_ELBO().differentiable_loss(model, partial(guide, model=model), obs)
    gradients = torch.autograd.grad(loss, list(guide.parameters()))

    torch.manual_seed(3)
    rho, (pi, a), log_prior = drawn_by_hand(guide, model, obs)
    log_rho = sum(factor.log_prob(b) for factor, b in rho)
    alpha, beta = model.temperature, model.kl_weight
    by_hand = (
        alpha * (pi.log_prob(a) + seat.action.log_size)
        + beta * (log_rho - log_prior)
        - model.critic(obs, a, *(b for _, b in rho))
    ).sum()
    torch.testing.assert_close(loss, by_hand)
    for ours, expected in zip(gradients, torch.autograd.grad(by_hand, list(guide.parameters())), strict=True):
        torch.testing.assert_close(ours, expected)


def test_one_draw_of_the_value_is_equation_15() -> None:
    seat, model, guide, obs = continuous_problem(TanhNormalNetwork, 4)
    torch.manual_seed(5)
    value = soft_value(model, partial(guide, model=model), obs, model.temperature, seat.action.log_size)
    torch.manual_seed(5)
    rho, (pi, a), log_prior = drawn_by_hand(guide, model, obs)
    log_rho = sum(factor.log_prob(b) for factor, b in rho)
    by_hand = (
        model.critic(obs, a, *(b for _, b in rho))
        - model.kl_weight * (log_rho - log_prior)
        - model.temperature * pi.log_prob(a)
    )
    torch.testing.assert_close(value, by_hand)


@pytest.mark.parametrize("factor", [TanhNormalNetwork, SplineFlow])
def test_a_particle_plate_breaks_no_shape(factor: type[Conditional]) -> None:
    _, model, bound, obs = continuous_problem(factor, 5)
    guide = partial(bound, model=model)
    loss = Trace_ELBO(num_particles=400, vectorize_particles=True, max_plate_nesting=2)
    single = one_step(model, guide, obs.repeat(1, 400)).elbo.unflatten(1, (400, 5)).sum((0, 2))
    error = single.std() * math.sqrt(2 / 400)
    assert abs(-loss.differentiable_loss(model, guide, obs) - single.mean()) < 5 * error


tables = st.integers(0, 2**31).map(
    lambda seed: torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(seed), **EXACT) * 5
)
weights = st.floats(0.05, 50.0)


def bellman(q: Tensor, reward: Tensor, next_state: Tensor, log_prior: Tensor, alpha: float, beta: float) -> Tensor:
    """The operator of Eq. 60 with known dynamics, `states x actions x opponent_actions`."""
    return reward + 0.9 * (next_state * optimal_value(q, log_prior, alpha, beta)).sum(-1)


@given(tables, tables, tables, weights, weights)
@settings(max_examples=60, deadline=None)
def test_the_soft_bellman_operator_contracts(
    q: Tensor, more: Tensor, dynamics: Tensor, alpha: float, beta: float
) -> None:
    """gamma-contraction in the max norm for every temperature; the paper's Theorem 3 argues alpha = 1 only."""
    one, two = q
    log_prior = more[0, :, 0].log_softmax(-1)
    reward = more[1]
    logits = torch.stack([dynamics[0], dynamics[1], q[0], q[1]], dim=-1)
    next_state = logits.softmax(-1)
    after = bellman(one, reward, next_state, log_prior, alpha, beta) - bellman(
        two, reward, next_state, log_prior, alpha, beta
    )
    assert after.abs().max() <= 0.9 * (one - two).abs().max() * (1 + 1e-9) + 1e-9


@given(tables, weights, weights, st.floats(-50, 50))
@settings(max_examples=40, deadline=None)
def test_a_constant_leaves_the_guide_alone(q: Tensor, alpha: float, beta: float, constant: float) -> None:
    seat = Seat(0, (Discrete(4),) * 2, (Discrete(3), Discrete(3)), 2, dtype=torch.float64)
    model = a_model(seat, alpha, beta)
    obs = the_states(seat)
    guide = guide_of(model, OpponentFirst(Optimal(), Optimal()))
    model.critic.values = q
    before = one_step(model, guide, obs)
    model.critic.values = q + constant
    after = one_step(model, guide, obs)
    torch.testing.assert_close(after.action, before.action, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(after.opponent_actions, before.opponent_actions, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(after.elbo, before.elbo + constant, atol=1e-6, rtol=1e-6)


@given(tables, weights, weights, st.permutations(range(3)), st.permutations(range(3)))
@settings(max_examples=40, deadline=None)
def test_renaming_actions_renames_the_result(
    q: Tensor, alpha: float, beta: float, own: list[int], theirs: list[int]
) -> None:
    log_prior = q[0, :, 0].log_softmax(-1)
    seat = Seat(0, (Discrete(4),) * 2, (Discrete(3), Discrete(3)), 2, dtype=torch.float64)
    model = a_model(seat, alpha, beta, Fixed(log_prior[0].exp().tolist()))
    obs = the_states(seat)
    guide = guide_of(model, OpponentFirst(Optimal(), Optimal()))
    model.critic.values = q
    before = one_step(model, guide, obs)
    model.critic.values = q[:, :, own][..., theirs]
    model.prior.logits = model.prior.logits[theirs]
    after = one_step(model, guide, obs)
    torch.testing.assert_close(after.action, before.action[..., own])
    torch.testing.assert_close(after.opponent_actions[0], before.opponent_actions[0][..., theirs])
    torch.testing.assert_close(after.elbo, before.elbo)


def traced_jointly(guide: Callable[[Tensor], Any], obs: Tensor, seat: Seat) -> Tensor:
    """Probabilities of the opponents' joint actions, from those of the guide's enumerated sites."""
    trace = poutine.trace(poutine.enum(guide, first_available_dim=-3)).get_trace(obs)
    trace.compute_log_prob()
    names = ("action", *opponent_sites(len(seat.opponents)))
    weight = sum(trace.nodes[name]["unscaled_log_prob"] for name in names).exp()
    own, *theirs = (trace.nodes[name]["infer"]["_enumerate_dim"] for name in names)
    apart = weight.sum(own, keepdim=True)
    return apart.movedim((-2, -1, *theirs), tuple(range(2 + len(theirs)))).flatten(2)


@pytest.mark.parametrize("order", [OpponentFirst, PolicyFirst])
@pytest.mark.parametrize("rho", [Optimal, Tabular, Empirical])
@pytest.mark.parametrize("pi", [Optimal, Tabular])
def test_tables_and_traces_give_the_same_step(order: type[Guide], rho: type, pi: type) -> None:
    """Also where the opponents have more actions than the agent, actions are excluded, or are all but excluded."""
    seat = a_seat(2, 3, 2, states=2)
    prior = Fixed([1.0, 0.0, 2.0, 0.0, 0.0, 1.0]) if rho is not Tabular else None
    model = a_model(seat, 0.7, 1.3, prior, spread=400.0)
    guide, obs = order(rho(), pi()).bind(seat), the_states(seat)
    for parameter in guide.parameters():
        torch.nn.init.normal_(parameter, std=300.0)
    expected = one_step(model, partial(guide, model=model), obs)
    at = model.at(obs)
    log_prior = at.prior.table().expand(*obs.shape, -1).unsqueeze(-2)
    log_pi, log_rho, second = guide.tables(obs, at)
    found = table_step(log_pi, log_rho, log_prior, at.table, 0.7, 1.3, math.log(2))
    for name in ("reward", "entropy", "kl", "action"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), msg=name)
    (joint,) = found.opponent_actions
    torch.testing.assert_close(marginals(joint, seat), expected.opponent_actions)
    torch.testing.assert_close(joint, traced_jointly(partial(guide, model=model), obs, seat))
    if second is not None:
        best = (
            optimal_value(at.table, log_prior.squeeze(-2), 0.7, 1.3, order is PolicyFirst, known)
            for known in (None, second)
        )
        torch.testing.assert_close(*best)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logsumexp_is_torchs(scale: float, dtype: torch.dtype) -> None:
    values = (scale * torch.randn(4, 3, 5, dtype=dtype)).requires_grad_()
    values.data[0, 1, 2] = -math.inf
    for dim in (-1, 1):
        torch.testing.assert_close(logsumexp(values, dim), torch.logsumexp(values, dim), rtol=0, atol=0)
        assert logsumexp(values, dim, keepdim=True).shape == torch.logsumexp(values, dim, keepdim=True).shape
        mine, theirs = (
            torch.autograd.grad(sums(values, dim).sum(), values)[0] for sums in (logsumexp, torch.logsumexp)
        )
        torch.testing.assert_close(mine, theirs)
