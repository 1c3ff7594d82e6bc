"""The filter over an opponent's learning rule and logits: against Pyro's model of the same, and against simulation."""

from collections.abc import Sequence
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from inference_marl.inference.svi import no_guide
from inference_marl.models.learning_rules import (
    PLATES,
    Change,
    FilteredOpponent,
    LearningRuleFilter,
    laplace,
    with_last,
)
from inference_marl.spaces import Discrete
from inference_marl.types import Seat, Trajectory, Transition

DOUBLE = torch.float64


def bound(states: int, actions: int, replicates: int = 1, **options: float) -> LearningRuleFilter:
    seat = Seat(0, (Discrete(states),) * 2, (Discrete(2), Discrete(actions)), replicates, dtype=DOUBLE)
    return LearningRuleFilter(**options).bind(seat)  # type: ignore[arg-type]


def drift(*steps: float) -> Change:
    """Rules that add a number to every logit, a little less of it the larger the logit is."""
    sizes = torch.tensor(steps, dtype=DOUBLE).view(1, -1, 1, 1)
    return lambda logits: sizes * (1 - 0.1 * logits.tanh())


def conditioned(filter_: LearningRuleFilter, counts: Tensor, change: Change) -> LearningRuleFilter:
    for time, newest in enumerate(counts):
        if time:
            filter_.predict(change)
        filter_.condition(newest)
    return filter_


def guide(counts: Tensor, filter_: LearningRuleFilter, change: Change) -> None:
    """Rules from their chain; logits from what was before and what was played, as if frequencies were Gaussian."""
    plates = PLATES.open(counts.shape[1:3])
    mean, scale = torch.zeros_like(counts[0, ..., :-1]), torch.tensor(filter_.init_scale, dtype=DOUBLE)
    rule = torch.zeros(len(mean), 1, dtype=torch.int64)
    for time, newest in enumerate(counts):
        if time:
            with plates.within("replicate"):
                chances = filter_.transition().mean(0) if time == 1 else filter_.transition()[rule]
                rule = pyro.sample(f"rule_{time}", dist.Categorical(chances))
            mean = mean + change(mean.unsqueeze(1))[torch.arange(len(mean)), rule[:, 0]]
            scale = torch.tensor(filter_.process_noise, dtype=DOUBLE)
        smoothed = newest + 0.5
        seen = (smoothed[..., :-1] / smoothed[..., -1:]).log()
        precision = 1 / (1 / smoothed[..., :-1] + 1 / smoothed[..., -1:])
        total = precision + scale**-2
        with plates.within("replicate", "state"):
            likely = dist.Normal((precision * seen + mean * scale**-2) / total, 1.1 * total**-0.5)
            mean = pyro.sample(f"logits_{time}", likely.to_event(1))


@pytest.mark.parametrize("switching", [0.0, 0.2])
@pytest.mark.parametrize("played", [[[9, 11], [12, 8], [15, 5], [16, 4]], [[9, 11], [10, 10], [8, 12], [9, 11]]])
def test_the_rule_is_pyros_by_importance_sampling(switching: float, played: Sequence[Sequence[int]]) -> None:
    """Replicates serve as draws from the guide; what the filter approximates is within .02 here."""
    draws, change = 20_000, drift(0.0, 0.6)
    counts = torch.tensor(played, dtype=DOUBLE).view(-1, 1, 1, 2)
    options = {"rules": 2, "process_noise": 0.15, "switching": switching}
    found = conditioned(bound(1, 2, **options), counts, change)
    many, repeated = bound(1, 2, draws, **options), counts.expand(-1, draws, -1, -1)
    pyro.set_rng_seed(0)
    drawn = poutine.trace(guide).get_trace(repeated, many, change)
    model = poutine.trace(poutine.replay(many.model, drawn)).get_trace(repeated, lambda _: change)
    for trace in (drawn, model):
        trace.compute_log_prob()

    def total(trace: poutine.Trace) -> Tensor:
        sites = [site for name, site in trace.nodes.items() if name.startswith(("rule_", "logits_", "counts_"))]
        return torch.stack([site["log_prob"].flatten(1).sum(1) for site in sites]).sum(0)

    weight = (total(model) - total(drawn)).softmax(0)
    assert 1 / (weight**2).sum() > 2000  # effective draws
    last = len(counts) - 1
    learns = (weight * drawn.nodes[f"rule_{last}"]["value"][:, 0]).sum()
    assert abs(learns - found.weights[0, 1]) < 0.02
    mean = (weight * drawn.nodes[f"logits_{last}"]["value"].flatten()).sum()
    assert abs(mean - found.logits.flatten()) < 0.05


def test_the_rule_is_pyros_enumerated_posterior_where_logits_are_known() -> None:
    """Of a million actions an update; three rules, two states and three actions."""
    pyro.set_rng_seed(1)
    filter_, change = bound(2, 3, 2, rules=3, process_noise=0.4, switching=0.3), drift(0.0, 0.3, -0.5)
    path = (0.3 * torch.randn(4, 2, 2, 2, dtype=DOUBLE)).cumsum(0)
    counts = (1e6 * with_last(path).softmax(-1)).round()
    known = poutine.condition(filter_.model, {f"logits_{time}": logits for time, logits in enumerate(path)})
    elbo = TraceEnum_ELBO(max_plate_nesting=2)
    exact = elbo.compute_marginals(known, no_guide, counts, lambda _: change)["rule_3"].probs.squeeze(-2)
    assert 0.01 < exact.min() < exact.max() < 0.99
    found = conditioned(bound(2, 3, 2, rules=3, process_noise=0.4, switching=0.3), counts, change)
    torch.testing.assert_close(found.weights, exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("actions", [2, 3, 5])
def test_laplace_finds_the_mode_from_anywhere_and_the_curvature_there(actions: int) -> None:
    torch.manual_seed(0)
    free, cells = actions - 1, 200
    mean, scale = 6 * torch.randn(cells, free, dtype=DOUBLE), torch.randn(cells, 1, 1, dtype=DOUBLE).exp()
    covariance = scale * torch.eye(free, dtype=DOUBLE)
    counts = (2000 * torch.rand(cells, 1, dtype=DOUBLE) * torch.rand(cells, actions, dtype=DOUBLE) ** 4).round()
    mode, found, _ = laplace(mean, covariance, counts)

    def log_posterior(logits: Tensor) -> Tensor:
        return (counts * with_last(logits).log_softmax(-1)).sum() - ((logits - mean) ** 2 / (2 * scale[..., 0])).sum()

    at = mode.clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_posterior(at), at, create_graph=True)
    assert slope.abs().max() < 1e-8
    hessian = torch.stack([torch.autograd.grad(each.sum(), at, retain_graph=True)[0] for each in slope.T], 1)
    torch.testing.assert_close(found, torch.linalg.inv(-hessian))


def test_evidence_is_that_of_a_grid() -> None:
    mean, variance, counts = torch.tensor([0.7], dtype=DOUBLE), 1.5, torch.tensor([20.0, 8.0], dtype=DOUBLE)
    grid = torch.linspace(-12, 12, 4001, dtype=DOUBLE)
    log_joint = (counts * with_last(grid.unsqueeze(-1)).log_softmax(-1)).sum(-1)
    log_joint = log_joint + dist.Normal(mean, variance**0.5).log_prob(grid)
    exact = (log_joint.logsumexp(0) + (grid[1] - grid[0]).log()).item()
    _, _, evidence = laplace(mean, torch.full((1, 1), variance, dtype=DOUBLE), counts)
    assert evidence.item() == pytest.approx(exact, abs=0.01)


def test_nothing_seen_changes_nothing() -> None:
    filter_ = bound(3, 4, 2, rules=2)
    before = {name: value.clone() for name, value in filter_.state_dict().items()}
    filter_.condition(torch.zeros(2, 3, 4, dtype=DOUBLE))
    torch.testing.assert_close(dict(filter_.state_dict()), before)


def test_without_switching_filters_are_not_mixed_and_with_it_as_by_hand() -> None:
    apart, mixed = bound(1, 2, rules=2, switching=0.0), bound(1, 2, rules=2, switching=0.5)
    for filter_ in (apart, mixed):
        filter_.mean = torch.tensor([1.0, -1.0], dtype=DOUBLE).view(1, 2, 1, 1)
        filter_.log_weights = torch.tensor([[0.8, 0.2]], dtype=DOUBLE).log()
        filter_.predict(drift(0.0, 0.0))
    torch.testing.assert_close(apart.mean.flatten(), torch.tensor([1.0, -1.0], dtype=DOUBLE))
    torch.testing.assert_close(apart.weights, torch.tensor([[0.8, 0.2]], dtype=DOUBLE))
    # P(0 -> 0) = .75: the first filter is 0.6 / 0.65 itself, the second 0.2 / 0.35 the first.
    torch.testing.assert_close(mixed.weights, torch.tensor([[0.65, 0.35]], dtype=DOUBLE))
    shares = torch.tensor([0.6 / 0.65, 0.2 / 0.35], dtype=DOUBLE)
    torch.testing.assert_close(mixed.mean.flatten(), 2 * shares - 1)
    expected = 1 + 0.15**2 + 4 * shares * (1 - shares)
    torch.testing.assert_close(mixed.covariance.flatten(), expected)


def test_replicates_do_not_touch_each_other() -> None:
    torch.manual_seed(0)
    counts = torch.randint(0, 60, (3, 4, 2, 3)).to(DOUBLE)
    counts[:, 3] *= 100  # takes more steps to its mode
    together = conditioned(bound(2, 3, 4, rules=2), counts, drift(0.0, 0.5))
    alone = conditioned(bound(2, 3, 1, rules=2), counts[:, :1], drift(0.0, 0.5))
    for name in ("mean", "covariance", "log_weights"):
        torch.testing.assert_close(getattr(together, name)[:1], getattr(alone, name), rtol=0, atol=1e-12)


def test_the_posterior_finds_the_rule_in_simulation() -> None:
    """It claims what happens: of rules drawn from the prior, on average as many are right as it says."""
    pyro.set_rng_seed(0)
    replicates, steps = 600, (0.0, 0.2, -0.4)
    change = drift(*steps)
    filter_ = bound(2, 2, replicates, rules=3, switching=0.0, process_noise=0.1)
    truth = torch.randint(3, (replicates,))
    logits = torch.randn(replicates, 2, 1, dtype=DOUBLE)
    for time in range(8):
        if time:
            filter_.predict(change)
            every = change(logits.unsqueeze(1).expand(-1, 3, -1, -1))
            logits = logits + every[torch.arange(replicates), truth] + 0.1 * torch.randn_like(logits)
        filter_.condition(dist.Multinomial(30, logits=with_last(logits)).sample())
    right = (filter_.weights.argmax(1) == truth).double().mean()
    claimed = filter_.weights.amax(1).mean()
    assert right > 0.75
    assert abs(right - claimed) < 0.05  # three standard errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": 0}, "rules: got 0, expected a positive integer"),
        ({"rules": 2, "init_scale": 0.0}, "init_scale: got 0.0, expected a positive number"),
        ({"rules": 2, "process_noise": -0.1}, "process_noise: got -0.1, expected a positive number"),
        ({"rules": 2, "switching": 1.5}, r"switching: got 1.5, expected a number in \[0, 1\]"),
    ],
)
def test_refuses_numbers_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        partial(LearningRuleFilter, **options)()  # type: ignore[arg-type]


def a_trajectory(chance: float) -> Trajectory:
    """Of what both do in two states, the second action with this probability."""
    steps = []
    for _ in range(20):
        obs, played = torch.randint(2, (3, 4)), (torch.rand(3, 4) < chance).long()
        steps.append(Transition((obs,) * 2, (played,) * 2, torch.zeros(3, 4, 2), (obs,) * 2, obs < 0, obs < 0))
    return Trajectory(steps)


def test_a_filtered_opponent_is_a_filter_without_rules() -> None:
    """Which follows an opponent that changes, and is sure of one that is seen for long."""
    seat = Seat(0, (Discrete(2),) * 2, (Discrete(2),) * 2, 3, dtype=DOUBLE)
    model, by_hand = FilteredOpponent(drift=0.3).bind(seat), bound(2, 2, 3, rules=1, process_noise=0.3, init_scale=1.5)
    for chance in (0.9, 0.9, 0.1):
        newest = a_trajectory(chance)
        model.observe(newest)
        by_hand.predict(torch.zeros_like)
        by_hand.condition(by_hand.counted(newest))
        (logits,), (weights,) = model.parameters_believed()
        torch.testing.assert_close(logits, by_hand.mean[:, 0])
        assert weights.tolist() == [1.0] * 3
    assert 0.2 < model.policy()[..., 1].mean() < 0.6


def test_draws_of_an_opponents_logits_are_those_of_its_filter() -> None:
    seat = Seat(0, (Discrete(2),) * 2, (Discrete(3),) * 2, 1, dtype=DOUBLE)
    model = FilteredOpponent(draws=4000, init_scale=2.0, drift=0.1).bind(seat)
    before = torch.get_rng_state()
    draws, weights = model.parameters_believed()
    torch.testing.assert_close(weights.sum(0), torch.ones(1, dtype=DOUBLE))
    assert draws.shape == (4000, 1, 2, 2)
    torch.testing.assert_close(draws.std(0), torch.full((1, 2, 2), 2.0, dtype=DOUBLE), rtol=0.1, atol=0)
    torch.set_rng_state(before)
    torch.testing.assert_close(model.parameters_believed()[0], draws)
