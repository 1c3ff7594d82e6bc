"""Autoregressive opponent models: their joint is the product of their factors, and it can be correlated."""

import itertools
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from scipy.stats import chisquare
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.guides import (
    Autoregressive,
    CategoricalNetwork,
    Empirical,
    Guide,
    Independent,
    Joint,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    Shared,
    SplineFlow,
    Tabular,
    TanhNormalMixture,
    TanhNormalNetwork,
)
from inference_marl.inference.conditional import Conditional
from inference_marl.inference.factored import Factored, opponent_sites
from inference_marl.inference.objectives import one_step, optimal_value
from inference_marl.inference.opponents import Opponents, bind_over_opponents
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
from inference_marl.spaces import Box, Discrete, Space, joint_action
from inference_marl.types import Seat

DOUBLE = torch.float64
R, B = 2, 5
SIZES = (2, 3, 4)  # of the opponents' actions
HIDDEN = (6,)


def a_seat(own: Space, *opponents: Space, index: int = 0, replicates: int = R) -> Seat:
    spaces = [*opponents[:index], own, *opponents[index:]]
    return Seat(index, (Discrete(4),) * len(spaces), tuple(spaces), replicates, dtype=DOUBLE)


def bound(factor: Conditional, seat: Seat, *more: Space) -> Any:
    return bind_over_opponents(Autoregressive(factor), seat, [seat.observation, *more])


def discrete(factor: Conditional, *more: Space, index: int = 0) -> Any:
    return bound(factor, a_seat(Discrete(5), *map(Discrete, SIZES), index=index), *more)


def boxes(factor: Conditional, *more: Space) -> Any:
    """Three opponents with 1, 2 and 1 dimensions."""
    return bound(factor, a_seat(Box(-2, 3, 2), *(Box(-2, 3, dim) for dim in (1, 2, 1))), *more)


def drawn(distribution: Factored) -> dict[str, Any]:
    """Its sites, one per opponent, drawn and scored as Pyro does."""
    names = opponent_sites(len(distribution.spaces))

    def program() -> None:
        with pyro.plate_stack("data", (R, distribution.factor(0).batch_shape[-1])):
            distribution.sites(names)

    trace = poutine.trace(program).get_trace()
    trace.compute_log_prob()
    return {name: trace.nodes[name] for name in names}


def drawn_values(distribution: Factored) -> tuple[list[Tensor], Tensor]:
    """What is drawn of every opponent, and its log-density."""
    sites = drawn(distribution).values()
    return [site["value"] for site in sites], torch.stack([site["log_prob"] for site in sites]).sum(0)


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
    distribution = conditional(obs)
    joint = distribution.table()
    assert joint.shape == (R, B, 24)
    for number, actions in enumerate(itertools.product(*map(range, SIZES))):
        values = [torch.full_like(obs, action) for action in actions]
        by_hand = sum(conditional.factors[j](obs, *values[:j]).log_prob(values[j]) for j in range(3))
        torch.testing.assert_close(joint[..., number], by_hand)
        torch.testing.assert_close(distribution.log_prob(values), by_hand)
    torch.testing.assert_close(joint.exp().sum(-1), torch.ones(R, B, dtype=DOUBLE))


@pytest.mark.parametrize("make", FACTORS)
def test_an_enumerated_own_action_is_a_loop(make: Any) -> None:
    conditional = discrete(make(), Discrete(5))
    obs = torch.randint(4, (R, B))
    wide = conditional(obs, torch.arange(5).view(-1, 1, 1)).table()
    assert wide.shape == (5, R, B, 24)
    for action in range(5):
        torch.testing.assert_close(wide[action], conditional(obs, torch.full_like(obs, action)).table())


def test_discrete_draws_follow_the_table() -> None:
    """Drawn one after the other, joint actions have the frequencies of the table."""
    conditional = discrete(Tabular(1.0))
    obs = torch.zeros(R, 1, dtype=torch.int64)
    number = joint_action(conditional.spaces, conditional(obs).sample((40_000, R, 1)))
    expected = conditional(obs).table().exp()[:, 0]
    for r in range(R):
        counts = torch.bincount(number[:, r, 0], minlength=24)
        assert chisquare(counts.numpy(), (40_000 * expected[r]).detach().numpy()).pvalue > 1e-6


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
    (found,) = conditional(obs).sample((R, B))
    assert torch.equal(found, value)
    torch.testing.assert_close(conditional(obs).log_prob([value]), factor(obs).log_prob(value))
    assert list(drawn(conditional(obs))) == ["opponent_action"]


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
    parts, log_prob = drawn_values(distribution)
    assert [part.shape for part in parts] == [(R, B, 1), (R, B, 2), (R, B, 1)]
    assert list(drawn(distribution)) == ["opponent_action_0", "opponent_action_1", "opponent_action_2"]
    by_hand = sum(conditional.factors[j](obs, *parts[:j]).log_prob(parts[j]) for j in range(3))
    torch.testing.assert_close(log_prob, by_hand)  # as drawn
    torch.testing.assert_close(distribution.log_prob([part.clone() for part in parts]), by_hand)  # as stored


@pytest.mark.parametrize("make", BOX_FACTORS)
def test_box_extra_dimensions_are_a_loop(make: Any) -> None:
    own = Box(-2, 3, 2)
    conditional = boxes(make(), own)
    obs = torch.randint(4, (R, B))
    action = own.uniform(DOUBLE, obs.device).sample((7, R, B))
    wide = conditional(obs, action)
    value, log_prob = drawn_values(wide)
    assert [part.shape for part in value] == [(7, R, B, 1), (7, R, B, 2), (7, R, B, 1)]
    looped = torch.stack([conditional(obs, action[i]).log_prob([part[i] for part in value]) for i in range(7)])
    torch.testing.assert_close(wide.log_prob(value), looped)
    torch.testing.assert_close(log_prob, looped)

    narrow = conditional(obs, action[0])
    many = narrow.sample((3, 7, R, B))
    assert [part.shape for part in many] == [(3, 7, R, B, 1), (3, 7, R, B, 2), (3, 7, R, B, 1)]
    assert narrow.log_prob(many).shape == (3, 7, R, B)
    assert all((part[0, 0] != part[0, 1]).all() for part in many)
    torch.testing.assert_close(narrow.log_prob(value)[2], narrow.log_prob([part[2] for part in value]))
    first = [part[0] for part in value]
    under_all = wide.log_prob([part.expand(7, *part.shape) for part in first])
    torch.testing.assert_close(under_all[2], conditional(obs, action[2]).log_prob(first))


def test_box_gradients_run_through_the_earlier_draws() -> None:
    """The last opponent's action moves with the first factor's parameters, by as much as a finite difference says."""
    conditional = boxes(TanhNormalNetwork(HIDDEN))
    obs = torch.randint(4, (R, B))
    bias = conditional.factors[0].network.layers[-1].bias

    def last() -> Tensor:
        pyro.set_rng_seed(3)
        (*_, value), _ = drawn_values(conditional(obs))
        return value.sum()

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
    value = distribution.sample((R, B))
    assert not any(part.requires_grad for part in value)
    gradients = torch.autograd.grad(distribution.log_prob(value).sum(), list(conditional.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_box_draws_on_the_edge_are_scored_as_drawn() -> None:
    """Where tanh rounds to 1 a stored value is clamped, so its score differs from that of the draw itself."""
    conditional = boxes(TanhNormalNetwork(HIDDEN))
    with torch.no_grad():
        conditional.factors[0].network.layers[-1].bias[..., 0] = 40.0
    distribution = conditional(torch.randint(4, (R, B)))
    value, as_drawn = drawn_values(distribution)
    assert (value[0] == 3).all()
    as_stored = distribution.log_prob([part.clone() for part in value])
    assert torch.isfinite(as_drawn).all()
    assert torch.isfinite(as_stored).all()
    assert not torch.isclose(as_drawn, as_stored).any()


@pytest.mark.parametrize("order", [OpponentFirst, PolicyFirst])
def test_box_guide_under_particles(order: type[Guide]) -> None:
    """Pyro's vectorised particles and its validation, in both orders; gradients reach every factor."""
    seat = a_seat(Box(-2, 3), Box(-2, 3), Box(-2, 3, 2))
    amortised = Amortised(Autoregressive(TanhNormalNetwork(HIDDEN)), window=20, batch_size=4)
    prior = bind_over_opponents(amortised, seat, [seat.observation])
    model = ControlModel(seat, prior, NetworkCritic(HIDDEN).bind(seat), ExponentialOptimality())
    factors = order(Autoregressive(TanhNormalNetwork(HIDDEN)), TanhNormalNetwork(HIDDEN)).bind(seat)
    guide = partial(factors, model=model)
    obs = torch.randint(4, (R, B))
    elbo = Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=2)
    elbo.differentiable_loss(model, guide, obs).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in factors.opponent_model.parameters())
    nodes = poutine.trace(guide).get_trace(obs).nodes
    assert [nodes[f"opponent_action_{j}"]["value"].shape for j in range(2)] == [(R, B, 1), (R, B, 2)]
    assert one_step(model, guide, obs).kl.shape == (R, B)


@pytest.mark.parametrize("make", BOX_FACTORS)
def test_opponents_may_have_other_edges(make: Any) -> None:
    """Each is drawn between its own; their joint box, of learners that have one, has all."""
    spaces = (Box(-2, 3), Box([0.0, 10.0], [0.5, 30.0], 2))
    conditional = bound(make(), a_seat(Box(-1, 1), *spaces))
    obs = torch.randint(4, (R, 50))
    distribution = conditional(obs)
    parts, _ = drawn_values(distribution)
    joint = conditional.seat.opponent_action
    assert conditional.target == distribution.spaces == spaces
    assert joint == Box([-2.0, 0.0, 10.0], [3.0, 0.5, 30.0], 3)
    assert joint.misfit(torch.cat(parts, -1).detach()) is None
    for part, space in zip(parts, spaces, strict=True):
        assert space.misfit(part.detach()) is None
    assert joint.misfit(torch.cat([parts[0], parts[1] + torch.tensor([0.6, 0.0])], -1).detach()) is not None
    by_hand = sum(conditional.factors[j](obs, *parts[:j]).log_prob(parts[j]) for j in range(2))
    torch.testing.assert_close(distribution.log_prob([part.clone() for part in parts]), by_hand)


class Sometimes(Tabular):
    """Has full support over four actions and not over fewer."""

    @property
    def full_support(self) -> bool:
        return self.target.features == 4


def test_it_has_full_support_if_every_factor_has() -> None:
    assert discrete(Tabular()).full_support
    assert not discrete(Sometimes()).full_support
    assert bound(Sometimes(), a_seat(Discrete(2), Discrete(4), Discrete(4))).full_support


def coordination(seat: Seat) -> ControlModel:
    """Own action 0 pays 4 where the two opponents match, so Eq. 11 puts nearly all its mass on the diagonal."""
    prior = bind_over_opponents(Uniform(), seat, [seat.observation])
    critic: Any = TabularCritic(initial=(-0.5, 0.5)).bind(seat)
    critic.values[:, :, 0] += 4 * torch.eye(3, dtype=DOUBLE).flatten()
    return ControlModel(seat, prior, critic, ExponentialOptimality(), temperature=0.5, kl_weight=1.0)


def jointly(guide: Guide, model: ControlModel, obs: Tensor) -> Tensor:
    """Probabilities of the opponents' joint actions, `replicates x batch x (joint actions)`."""
    log_pi, log_rho, _ = guide.tables(obs, model)
    return (log_pi + log_rho).exp().sum(-2)


def fitted_gap(opponents: Opponents, order: type[Guide], policy: Conditional) -> tuple[Tensor, Tensor]:
    """Evidence minus the fitted ELBO, and the largest error of the fitted joint marginal, `replicates x states`."""
    seat = a_seat(Discrete(2), Discrete(3), Discrete(3))
    model = coordination(seat)
    factors = order(opponents, policy).bind(seat)
    guide = partial(factors, model=model)
    obs = torch.arange(4).expand(R, -1)
    elbo = TraceEnum_ELBO(max_plate_nesting=2)
    for rate, steps in [(0.2, 120), (0.02, 80)]:
        optimiser = Optimiser("guide", factors.parameters(), learning_rate=rate)
        for _ in range(steps):
            optimiser.step(elbo_loss(elbo, model, guide, 1, obs))
    with torch.no_grad():
        optimal = order(Optimal(), Optimal()).bind(seat)
        exact = one_step(model, partial(optimal, model=model), obs)
        step = one_step(model, guide, obs)
        joint, best = (jointly(each, model, obs) for each in (factors, optimal))
    if order is OpponentFirst:  # the exact guide is Eq. 9's
        value = optimal_value(model.q_table(obs), model.opponent_prior(obs).table(), 0.5)
        torch.testing.assert_close(exact.elbo + 0.5 * seat.action.log_size, value)
    return exact.elbo - step.elbo, (joint - best).abs().amax(-1)


@pytest.mark.parametrize("order", [OpponentFirst, pytest.param(PolicyFirst, marks=pytest.mark.slow)])
def test_it_reaches_the_closed_form_for_three_agents(order: type[Guide]) -> None:
    """Eq. 9-11 of Tian et al. (2019), by SVI with exact enumeration."""
    gap, error = fitted_gap(Autoregressive(Tabular()), order, Tabular())
    assert (gap < 1e-4).all()
    assert (error < 2e-3).all()


@pytest.mark.slow
def test_a_product_of_marginals_cannot_follow_correlated_opponents() -> None:
    """The reason for the class: with the policy optimal, the best product is far from the posterior.

    Matching pairs are about e^4 as probable as others. A product either gives up two of three matches (log 3 nats) or
    puts mass on mismatches; all else equal, its gap is a good part of a nat.
    """
    gap, error = fitted_gap(Independent(Tabular(scale=1.0)), OpponentFirst, Optimal())
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


@pytest.mark.parametrize("several", [Shared, Joint])
def test_one_template_for_all_is_not_a_list(several: Any) -> None:
    seat = a_seat(Discrete(2), Discrete(3), Discrete(3))
    with pytest.raises(IncompatibleError, match=r"^opponent_model\W+factor: \w+ got a list"):
        OpponentFirst(several([Tabular(), Tabular()]), Optimal()).bind(seat)


def test_it_is_refused_as_the_policy() -> None:
    seat = a_seat(Discrete(2), Discrete(3), Discrete(3))
    with pytest.raises(IncompatibleError, match=r"^policy: Autoregressive got the policy's place"):
        OpponentFirst(Optimal(), Autoregressive(Tabular())).bind(seat)
