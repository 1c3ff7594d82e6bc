"""Opponents who are alike: against numerical integration, against priors that do not pool, and at the limits."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.inference.svi import elbo_loss
from inference_marl.models import DirichletMultinomial, HierarchicalDirichlet
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat

DOUBLE = torch.float64


def bound(prior: Any, opponents: int, actions: int, replicates: int = 1, states: int = 1) -> Any:
    seat = Seat(0, (Discrete(states),) * 2, (Discrete(2), *[Discrete(actions)] * opponents), replicates, dtype=DOUBLE)
    return prior.bind(seat, seat.opponent_action, [seat.observation])


def start(replicates: int = 1) -> Tensor:
    return torch.zeros(replicates, 1, dtype=torch.int64)


def update(prior: Any, obs: Tensor, joint_action: Tensor) -> None:
    """What a learner does to its prior in one update."""
    prior.observe(obs, joint_action)
    prior.fit()


def settle(prior: HierarchicalDirichlet, steps: int) -> None:
    """Fit to what was seen, then read q(mu) with Adam's noise averaged out."""
    total = torch.zeros_like(prior.log_concentration)
    for step in range(steps):
        prior.optimiser.step(elbo_loss(prior.elbo, prior.likelihood, prior.approximation, 1))
        if step >= steps // 2:
            total += prior.log_concentration.detach()
    prior.log_concentration.data = total / (steps - steps // 2)


def log_joint(counts: list[list[int]], strength: float, mu: Tensor) -> Tensor:
    """`log p(mu, actions in their order)` for two actions, up to nothing: the prior's density is 1."""
    alpha = strength * torch.stack([mu, 1 - mu], -1)
    total = torch.zeros_like(mu)
    for row in counts:
        n = torch.tensor(row, dtype=DOUBLE)
        total += math.lgamma(strength) - math.lgamma(strength + sum(row))
        total += (torch.lgamma(alpha + n) - torch.lgamma(alpha)).sum(-1)
    return total


def seen(prior: HierarchicalDirichlet, counts: list[list[int]]) -> None:
    """Show joint actions of two opponents with these counts each, of two actions."""
    actions = [[0] * zeros + [1] * ones for zeros, ones in counts]
    joint = torch.tensor([2 * one + other for one, other in zip(*actions, strict=True)])
    update(prior, torch.zeros(1, len(joint), dtype=torch.int64), joint.view(1, -1))


CASES = [([[2, 1], [3, 0]], 10.0), ([[15, 5], [12, 8]], 10.0), ([[15, 5], [12, 8]], 1.0), ([[1, 30], [6, 25]], 50.0)]


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "strength"), CASES)
def test_the_predictive_against_numerical_integration(counts: list[list[int]], strength: float) -> None:
    """The mean-field family is exact in form only at the prior: within 0.01 of the integral over mu."""
    prior = bound(HierarchicalDirichlet(strength, learning_rate=0.1, particles=64), 2, 2)
    seen(prior, counts)
    settle(prior, 100)
    mu = torch.linspace(0, 1, 20_002, dtype=DOUBLE)[1:-1]
    weight = log_joint(counts, strength, mu).softmax(0)
    exact = [(weight * (zeros + strength * mu)).sum() / (zeros + ones + strength) for zeros, ones in counts]
    joint = prior(start()).probs.view(2, 2)
    assert joint.sum(1)[0].item() == pytest.approx(exact[0].item(), abs=0.01)
    assert joint.sum(0)[0].item() == pytest.approx(exact[1].item(), abs=0.01)
    torch.testing.assert_close(joint, torch.outer(joint.sum(1), joint.sum(0)))


def test_the_elbo_against_numerical_integration() -> None:
    """At q = Beta(3, 2): E_q[log p - log q] by quadrature, and below log p(actions)."""
    counts, strength = [[4, 2], [3, 3]], 5.0
    prior = bound(HierarchicalDirichlet(strength, particles=20_000), 2, 2)
    seen(prior, counts)
    prior.log_concentration.data = torch.tensor([[[3.0, 2.0]]], dtype=DOUBLE).log()
    mu = torch.linspace(0, 1, 20_002, dtype=DOUBLE)[1:-1]
    # Pyro's site is of counts, of which `binomial` orders each are possible.
    log_p = log_joint(counts, strength, mu) + sum(math.log(math.comb(sum(row), row[0])) for row in counts)
    log_q = torch.distributions.Beta(3.0, 2.0).log_prob(mu)
    expected = (log_q.exp() * (log_p - log_q)).mean().item()
    # The draws' terms have a standard deviation of 1.02: six standard errors of 20000.
    assert -prior.elbo.loss(prior.likelihood, prior.approximation) == pytest.approx(expected, abs=0.043)
    assert expected < log_p.exp().mean().log().item()


def test_the_forecast_by_hand() -> None:
    """Last opponent fastest: joint action 5 of two opponents with three actions is (1, 2)."""
    prior = bound(HierarchicalDirichlet(4.0, steps=1), 2, 3)
    update(prior, torch.zeros(1, 3, dtype=torch.int64), torch.tensor([[5, 5, 2]]))
    prior.log_concentration.data = torch.tensor([[[1.0, 2.0, 5.0]]], dtype=DOUBLE).log()
    common = torch.tensor([0.5, 1.0, 2.5], dtype=DOUBLE)
    one, other = (torch.tensor(row, dtype=DOUBLE) for row in ([1.0, 2, 0], [0.0, 0, 3]))
    expected = torch.outer((one + common) / 7, (other + common) / 7).flatten()
    torch.testing.assert_close(prior(start()).probs.flatten(), expected)


def test_it_counts_when_it_observes_and_moves_when_it_fits() -> None:
    prior = bound(HierarchicalDirichlet(), 2, 2)
    state = torch.random.get_rng_state()
    for joint in (0, 3, 2):
        prior.observe(start(), torch.tensor([[joint]]))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert prior.counts.tolist() == [[[1, 0, 1, 1]]]
    assert not prior.log_concentration.any()
    prior.fit()
    assert prior.log_concentration.all()


def test_a_window_forgets() -> None:
    """Of four joint actions the last two, both (1, 0), are left."""
    prior = bound(HierarchicalDirichlet(window=2, steps=1), 2, 2)
    for joint in (0, 3, 2, 2):
        update(prior, start(), torch.tensor([[joint]]))
    assert prior.counts.tolist() == [[[0, 0, 2, 0]]]


def test_states_and_replicates_have_their_own_strategies_and_an_unseen_one_stays_uniform() -> None:
    prior = bound(HierarchicalDirichlet(), 2, 3, replicates=2, states=3)
    for _ in range(5):
        update(prior, torch.tensor([[0], [2]]), torch.tensor([[0], [8]]))
    obs = torch.arange(3).expand(2, -1)
    table = prior(obs).probs
    uniform = torch.full((9,), 1 / 9, dtype=DOUBLE)
    for r, state in [(0, 1), (0, 2), (1, 0), (1, 1)]:
        torch.testing.assert_close(table[r, state], uniform, rtol=1e-12, atol=0)
    assert table[0, 0].argmax() == 0
    assert table[1, 2].argmax() == 8
    torch.testing.assert_close(prior(obs.flip(1)).probs, table.flip(1))


def test_what_one_opponent_does_tells_about_the_others() -> None:
    """Opponent 1 always plays 0 while opponent 2 alternates: 2 is expected to lean to 0 only if it is like 1."""

    def leaning(strength: float) -> float:
        prior = bound(HierarchicalDirichlet(strength, learning_rate=0.1, particles=64), 2, 2)
        seen(prior, [[10, 0], [5, 5]])
        settle(prior, 60)
        return float(prior(start()).probs.detach().view(2, 2).sum(0)[0])

    assert leaning(1e-3) == pytest.approx(0.5, abs=1e-3)
    assert leaning(10.0) > 0.55
    # One common strategy: 15 of 20 with a uniform prior.
    assert leaning(1e4) == pytest.approx(16 / 22, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("opponents", "actions"), [(2, 4), (3, 3)])
def test_pooling_forecasts_opponents_that_are_alike_better(opponents: int, actions: int) -> None:
    """Log score of 15 forecasts over 200 replicates, drawn from the model: it has to win by 5 standard errors.

    The rivals are posterior predictives too: of each opponent alone, and of the joint action.
    """
    replicates, steps, strength = 200, 15, 20.0
    common = torch.distributions.Dirichlet(torch.ones(replicates, 1, actions, dtype=DOUBLE)).sample()
    strategies = torch.distributions.Dirichlet(strength * common.expand(-1, opponents, -1).clamp_min(1e-6)).sample()
    pooled = bound(HierarchicalDirichlet(strength), opponents, actions, replicates)
    joint = bound(DirichletMultinomial(), opponents, actions, replicates)
    counts = torch.zeros(replicates, opponents, actions, dtype=DOUBLE)
    scores = {name: torch.zeros(replicates, dtype=DOUBLE) for name in ("pooled", "joint", "alone")}
    for _ in range(steps):
        played = torch.distributions.Categorical(strategies).sample()
        index = torch.zeros(replicates, dtype=torch.int64)
        for opponent in range(opponents):
            index = index * actions + played[:, opponent]
        for name, prior in [("pooled", pooled), ("joint", joint)]:
            scores[name] += prior(start(replicates)).log_prob(index.unsqueeze(1)).detach().squeeze(1)
            update(prior, start(replicates), index.unsqueeze(1))
        alone = ((counts + 1) / (counts + 1).sum(-1, keepdim=True)).gather(-1, played.unsqueeze(-1))
        scores["alone"] += alone.log().sum((1, 2))
        counts.scatter_add_(-1, played.unsqueeze(-1), torch.ones(replicates, opponents, 1, dtype=DOUBLE))
    for rival in ("joint", "alone"):
        difference = scores["pooled"] - scores[rival]
        assert difference.mean() > 5 * difference.std() / math.sqrt(replicates)


def test_opponents_need_equally_many_actions() -> None:
    seat = Seat(1, (Discrete(1),) * 3, (Discrete(2), Discrete(4), Discrete(3)), 1)
    message = "^HierarchicalDirichlet got opponents with 2, 3 actions, expected equally many, .*DirichletMultinomial$"
    with pytest.raises(IncompatibleError, match=message):
        HierarchicalDirichlet().bind(seat, seat.opponent_action, [seat.observation])
    seat = Seat(0, (Discrete(1),) * 2, (Box(0, 1), Box(0, 1)), 1)
    with pytest.raises(IncompatibleError, match="HierarchicalDirichlet got Box"):
        HierarchicalDirichlet().bind(seat, seat.opponent_action, [seat.observation])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strength": 0.0}, r"^strength: got 0\.0, expected a positive number"),
        ({"strength": math.nan}, "^strength: got nan"),
        ({"window": 0}, "^window: got 0, expected a positive integer, or null"),
        ({"steps": 0}, "^steps: got 0, expected a positive integer"),
        ({"particles": 0}, "^particles: got 0"),
        ({"learning_rate": 0.0}, r"^learning_rate: got 0\.0"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HierarchicalDirichlet(**wrong)
