"""The autoregressive opponent model: its joint is the product of its factors, and it can be correlated."""

import itertools
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    Empirical,
    Guide,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    SplineFlow,
    Tabular,
    TanhNormalMixture,
    TanhNormalNetwork,
)
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.objectives import one_step, optimal_value
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.svi import elbo_loss
from inference_marl.models import (
    Amortised,
    ControlModel,
    DirichletMultinomial,
    ExponentialOptimality,
    NetworkCritic,
    TabularCritic,
    Uniform,
)
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Seat

DOUBLE = torch.float64
R, B = 2, 5
SIZES = (2, 3, 4)  # of the opponents' actions
HIDDEN = (6,)


def a_seat(own: Space, *opponents: Space, index: int = 0, replicates: int = R) -> Seat:
    spaces = [*opponents[:index], own, *opponents[index:]]
    return Seat(index, (Discrete(4),) * len(spaces), tuple(spaces), replicates, dtype=DOUBLE)


def bound(factor: Conditional, seat: Seat, *more: Space) -> Any:
    return Autoregressive(factor).bind(seat, seat.opponent_action, [seat.observation, *more])


def discrete(factor: Conditional, *more: Space, index: int = 0) -> Any:
    return bound(factor, a_seat(Discrete(5), *map(Discrete, SIZES), index=index), *more)


def boxes(factor: Conditional, *more: Space) -> Any:
    """Three opponents with 1, 2 and 1 dimensions."""
    return bound(factor, a_seat(Box(-2, 3, 2), *(Box(-2, 3, dim) for dim in (1, 2, 1))), *more)


FACTORS = [
    pytest.param(lambda: Tabular(1.0), id="Tabular"),
    pytest.param(lambda: CategoricalNetwork(HIDDEN), id="CategoricalNetwork"),
]


@pytest.mark.parametrize("make", FACTORS)
@pytest.mark.parametrize("index", [0, 2])
def test_discrete_joint_is_the_product_of_the_factors(make: Any, index: int) -> None:
    """Joint action by joint action, the last opponent's running fastest; seat order whichever seat this is."""
    conditional = discrete(make(), index=index)
    obs = torch.randint(4, (R, B))
    joint = conditional(obs)
    assert joint.logits.shape == (R, B, 24)
    for number, actions in enumerate(itertools.product(*map(range, SIZES))):
        values = [torch.full_like(obs, action) for action in actions]
        by_hand = sum(conditional.factors[j](obs, *values[:j]).log_prob(values[j]) for j in range(3))
        torch.testing.assert_close(joint.log_prob(torch.full_like(obs, number)), by_hand)
    torch.testing.assert_close(joint.logits.exp().sum(-1), torch.ones(R, B, dtype=DOUBLE))


@pytest.mark.parametrize("make", FACTORS)
def test_an_enumerated_own_action_is_a_loop(make: Any) -> None:
    conditional = discrete(make(), Discrete(5))
    obs = torch.randint(4, (R, B))
    wide = conditional(obs, torch.arange(5).view(-1, 1, 1)).logits
    assert wide.shape == (5, R, B, 24)
    for action in range(5):
        torch.testing.assert_close(wide[action], conditional(obs, torch.full_like(obs, action)).logits)


@pytest.mark.parametrize(
    ("make", "opponent"),
    [
        (lambda: Tabular(1.0), Discrete(3)),
        (lambda: CategoricalNetwork(HIDDEN), Discrete(3)),
        (lambda: TanhNormalNetwork(HIDDEN), Box(-2, 3, 2)),
    ],
)
def test_with_one_opponent_it_is_the_factor(make: Any, opponent: Space) -> None:
    conditional = bound(make(), a_seat(opponent, opponent))
    factor = make().bind(conditional.seat, opponent, [Discrete(4)])
    factor.load_state_dict(conditional.factors[0].state_dict())
    obs = torch.randint(4, (R, B))
    pyro.set_rng_seed(1)
    value = factor(obs).sample()
    pyro.set_rng_seed(1)
    assert torch.equal(conditional(obs).sample(), value)
    torch.testing.assert_close(conditional(obs).log_prob(value), factor(obs).log_prob(value))


BOX_FACTORS = [
    pytest.param(lambda: TanhNormalNetwork(HIDDEN), id="TanhNormalNetwork"),
    pytest.param(lambda: TanhNormalMixture(2, HIDDEN), id="TanhNormalMixture"),
    pytest.param(lambda: SplineFlow(HIDDEN), id="SplineFlow"),
]


@pytest.mark.parametrize("make", BOX_FACTORS)
def test_box_density_is_the_product_of_the_factors(make: Any) -> None:
    conditional = boxes(make())
    obs = torch.randint(4, (R, B))
    distribution = conditional(obs)
    assert distribution.batch_shape == (R, B)
    assert distribution.event_shape == (4,)
    value = distribution.rsample()
    parts = value[..., :1], value[..., 1:3], value[..., 3:]
    by_hand = sum(conditional.factors[j](obs, *parts[:j]).log_prob(parts[j]) for j in range(3))
    torch.testing.assert_close(distribution.log_prob(value), by_hand)  # as drawn
    torch.testing.assert_close(distribution.log_prob(value.clone()), by_hand)  # as stored


@pytest.mark.parametrize("make", BOX_FACTORS)
def test_box_extra_dimensions_are_a_loop(make: Any) -> None:
    own = Box(-2, 3, 2)
    conditional = boxes(make(), own)
    obs = torch.randint(4, (R, B))
    action = own.uniform(DOUBLE, obs.device).sample((7, R, B))
    wide = conditional(obs, action)
    value = wide.rsample()
    assert value.shape == (7, R, B, 4)
    looped = torch.stack([conditional(obs, action[i]).log_prob(value[i]) for i in range(7)])
    torch.testing.assert_close(wide.log_prob(value), looped)

    expanded = conditional(obs, action[0]).expand((7, R, B))
    assert expanded.batch_shape == (7, R, B)
    drawn = expanded.rsample((3,))
    assert drawn.shape == (3, 7, R, B, 4)
    assert expanded.log_prob(drawn).shape == (3, 7, R, B)
    assert (drawn[0, 0] != drawn[0, 1]).all()
    torch.testing.assert_close(expanded.log_prob(value)[2], conditional(obs, action[0]).log_prob(value[2]))
    assert expanded.log_prob(value[0]).shape == (7, R, B)


def test_box_gradients_run_through_the_earlier_draws() -> None:
    """The last opponent's action moves with the first factor's parameters, by as much as a finite difference says."""
    conditional = boxes(TanhNormalNetwork(HIDDEN))
    obs = torch.randint(4, (R, B))
    bias = conditional.factors[0].network.layers[-1].bias

    def last() -> Tensor:
        pyro.set_rng_seed(3)
        value: Tensor = conditional(obs).rsample()[..., 3].sum()
        return value

    (gradient,) = torch.autograd.grad(last(), bias)
    with torch.no_grad():
        bias[0, 0, 0] += 1e-5
        above = last()
        bias[0, 0, 0] -= 2e-5
        below = last()
    assert abs(gradient[0, 0, 0].item()) > 1e-4
    assert gradient[0, 0, 0].item() == pytest.approx(((above - below) / 2e-5).item(), rel=1e-4)


def test_box_draws_without_gradient_are_scored_with_it() -> None:
    """So that a score-function estimate is not silently 0."""
    conditional = boxes(TanhNormalNetwork(HIDDEN))
    distribution = conditional(torch.randint(4, (R, B)))
    value = distribution.sample()
    assert not value.requires_grad
    gradients = torch.autograd.grad(distribution.log_prob(value).sum(), list(conditional.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_box_draws_on_the_edge_are_scored_as_drawn() -> None:
    """Where tanh rounds to 1 a stored value is clamped, so its score differs from that of the draw itself."""
    conditional = boxes(TanhNormalNetwork(HIDDEN))
    with torch.no_grad():
        conditional.factors[0].network.layers[-1].bias[..., 0] = 40.0
    distribution = conditional(torch.randint(4, (R, B)))
    value = distribution.rsample()
    assert (value[..., 0] == 3).all()
    by_factors = distribution.log_prob(value)
    assert torch.isfinite(by_factors).all()
    assert torch.isfinite(distribution.log_prob(value.clone())).all()
    assert not torch.isclose(by_factors, distribution.log_prob(value.clone())).any()


@pytest.mark.parametrize("order", [OpponentFirst, PolicyFirst])
def test_box_guide_under_particles(order: type[Guide]) -> None:
    """Pyro's vectorised particles and its validation, in both orders; gradients reach every factor."""
    seat = a_seat(Box(-2, 3), Box(-2, 3), Box(-2, 3, 2))
    prior = Amortised(Autoregressive(TanhNormalNetwork(HIDDEN)), window=20, batch_size=4).bind(
        seat, seat.opponent_action, [seat.observation]
    )
    model = ControlModel(seat, prior, NetworkCritic(HIDDEN).bind(seat), ExponentialOptimality())
    factors = order(Autoregressive(TanhNormalNetwork(HIDDEN)), TanhNormalNetwork(HIDDEN)).bind(seat)
    guide = partial(factors, model=model)
    obs = torch.randint(4, (R, B))
    elbo = Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=2)
    elbo.differentiable_loss(model, guide, obs).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in factors.opponent_model.parameters())
    site = poutine.trace(guide).get_trace(obs).nodes["opponent_action"]
    assert site["value"].shape == (R, B, 3)
    assert one_step(model, guide, obs).kl.shape == (R, B)


@pytest.mark.parametrize("make", BOX_FACTORS)
def test_opponents_may_have_other_edges(make: Any) -> None:
    """Each is drawn between its own, and the support that Pyro validates by is the joint box."""
    spaces = (Box(-2, 3), Box([0.0, 10.0], [0.5, 30.0], 2))
    conditional = bound(make(), a_seat(Box(-1, 1), *spaces))
    obs = torch.randint(4, (R, 50))
    distribution = conditional(obs)
    value = distribution.rsample()
    assert conditional.target == Box([-2.0, 0.0, 10.0], [3.0, 0.5, 30.0], 3)
    assert conditional.target.misfit(value.detach()) is None
    assert distribution.support.check(value).all()
    assert not distribution.support.check(value + torch.tensor([0.0, 0.6, 0.0])).any()
    parts = value[..., :1], value[..., 1:]
    by_hand = sum(conditional.factors[j](obs, *parts[:j]).log_prob(parts[j]) for j in range(2))
    torch.testing.assert_close(distribution.log_prob(value.clone()), by_hand)


class Sometimes(Tabular):
    """Has full support over four actions and not over fewer."""

    @property
    def full_support(self) -> bool:
        return self.target.features == 4


def test_it_has_full_support_if_every_factor_has() -> None:
    assert discrete(Tabular()).full_support
    assert not discrete(Sometimes()).full_support
    assert bound(Sometimes(), a_seat(Discrete(2), Discrete(4), Discrete(4))).full_support


class Blind(Tabular):
    """Sees the state and not the earlier opponents: the product of their marginals."""

    def setup(self) -> None:
        self.parents = self.parents[:1]
        super().setup()

    def forward(self, *parents: Tensor) -> Any:
        return super().forward(parents[0])


def coordination(seat: Seat) -> ControlModel:
    """Own action 0 pays 4 where the two opponents match, so Eq. 11 puts nearly all its mass on the diagonal."""
    prior = Uniform().bind(seat, seat.opponent_action, [seat.observation])
    critic: Any = TabularCritic(initial=(-0.5, 0.5)).bind(seat)
    critic.values[:, :, 0] += 4 * torch.eye(3, dtype=DOUBLE).flatten()
    return ControlModel(seat, prior, critic, ExponentialOptimality(), temperature=0.5, kl_weight=1.0)


def fitted_gap(factor: Conditional, order: type[Guide], policy: Conditional) -> tuple[Tensor, Tensor]:
    """Evidence minus the fitted ELBO, and the largest error of the fitted joint marginal, `replicates x states`."""
    seat = a_seat(Discrete(2), Discrete(3), Discrete(3))
    model = coordination(seat)
    factors = order(Autoregressive(factor), policy).bind(seat)
    guide = partial(factors, model=model)
    obs = torch.arange(4).expand(R, -1)
    elbo = TraceEnum_ELBO(max_plate_nesting=2)
    for rate, steps in [(0.2, 120), (0.02, 80)]:
        optimiser = Optimiser("guide", factors.parameters(), learning_rate=rate)
        for _ in range(steps):
            optimiser.step(elbo_loss(elbo, model, guide, 1, obs))
    with torch.no_grad():
        exact = one_step(model, partial(order(Optimal(), Optimal()).bind(seat), model=model), obs)
        step = one_step(model, guide, obs)
    if order is OpponentFirst:  # the exact guide is Eq. 9's
        value = optimal_value(model.q_table(obs), model.opponent_prior(obs).logits, 0.5)
        torch.testing.assert_close(exact.elbo + 0.5 * seat.action.log_size, value)
    return exact.elbo - step.elbo, (step.opponent_action - exact.opponent_action).abs().amax(-1)


@pytest.mark.parametrize("order", [OpponentFirst, pytest.param(PolicyFirst, marks=pytest.mark.slow)])
def test_it_reaches_the_closed_form_for_three_agents(order: type[Guide]) -> None:
    """Eq. 9-11 of Tian et al. (2019), by SVI with exact enumeration."""
    gap, error = fitted_gap(Tabular(), order, Tabular())
    assert (gap < 1e-4).all()
    assert (error < 2e-3).all()


@pytest.mark.slow
def test_a_product_of_marginals_cannot_follow_correlated_opponents() -> None:
    """The reason for the class: with the policy optimal, the best product is far from the posterior.

    Matching pairs are about e^4 as probable as others. A product either gives up two of three matches (log 3 nats) or
    puts mass on mismatches; all else equal, its gap is a good part of a nat.
    """
    gap, error = fitted_gap(Blind(scale=1.0), OpponentFirst, Optimal())
    assert (gap > 0.5).all()
    assert (error > 0.2).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (DirichletMultinomial, r"^factor: got DirichletMultinomial, expected a conditional over one"),
        (Empirical, "^factor: got Empirical"),
        (lambda: Autoregressive(Tabular()), "^factor: got Autoregressive"),
        (lambda: TanhNormalNetwork(HIDDEN), r"^factor: TanhNormalNetwork got Discrete\(n=2\)"),
    ],
)
def test_a_factor_that_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        discrete(make())


def test_it_is_refused_as_the_policy() -> None:
    seat = a_seat(Discrete(2), Discrete(3), Discrete(3))
    with pytest.raises(IncompatibleError, match=r"^policy: Autoregressive got .* expected the opponents' joint action"):
        OpponentFirst(Optimal(), Autoregressive(Tabular())).bind(seat)
