"""Opponent priors: counts against a list of what was seen, closed forms, and what an amortised prior learns."""

from collections import Counter, deque
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.guides import CategoricalNetwork, Tabular, TanhNormalNetwork
from inference_marl.inference.failures import NonFiniteError
from inference_marl.models import (
    Amortised,
    DirichletMultinomial,
    EmpiricalFrequency,
    Fixed,
    OpponentPrior,
    TabularCounts,
    Uniform,
)
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Seat

DOUBLE = torch.float64
STATES, ACTIONS = 3, 4


def seat_of(opponent: Space, replicates: int = 2, states: int = STATES, own: Space | None = None) -> Seat:
    return Seat(0, (Discrete(states),) * 2, (own or opponent, opponent), replicates, dtype=DOUBLE)


def bound(prior: OpponentPrior, opponent: Space | None = None, **options: int) -> Any:
    seat = seat_of(opponent or Discrete(ACTIONS), **options)
    return prior.bind(seat, seat.opponent_action, [seat.observation])


def every_state(replicates: int, states: int = STATES) -> Tensor:
    return torch.arange(states).expand(replicates, -1)


def at_random(replicates: int, environments: int) -> tuple[Tensor, Tensor]:
    return torch.randint(STATES, (replicates, environments)), torch.randint(ACTIONS, (replicates, environments))


def update(prior: Any, obs: Tensor, opponent_action: Tensor) -> None:
    """What a learner does to its prior in one update."""
    prior.observe(obs, opponent_action)
    prior.fit()


class _Slow:
    """What was seen, in order, per replicate."""

    def __init__(self, replicates: int, window: int | None) -> None:
        self.seen: list[deque[tuple[int, int]]] = [deque(maxlen=window) for _ in range(replicates)]

    def observe(self, obs: Tensor, opponent_action: Tensor) -> None:
        for memory, states, actions in zip(self.seen, obs.tolist(), opponent_action.tolist(), strict=True):
            memory.extend(zip(states, actions, strict=True))

    def counts(self) -> Tensor:
        tallies = [Counter(memory) for memory in self.seen]
        rows = [[[tally[s, a] for a in range(ACTIONS)] for s in range(STATES)] for tally in tallies]
        return torch.tensor(rows, dtype=DOUBLE)


@pytest.mark.parametrize("window", [None, 1, 3, 50])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    environments=st.integers(1, 5),
    steps=st.integers(0, 40),
    smoothing=st.sampled_from([0.0, 0.1, 2.0]),
    seed=st.integers(0, 2**31),
)
def test_empirical_frequency_against_a_list(
    window: int | None, environments: int, steps: int, smoothing: float, seed: int
) -> None:
    torch.manual_seed(seed)
    prior, slow = bound(EmpiricalFrequency(window, smoothing)), _Slow(2, window)
    initial = prior(every_state(2)).probs
    for _ in range(steps):
        batch = at_random(2, environments)
        prior.observe(*batch)
        slow.observe(*batch)
    counts = slow.counts()
    assert torch.equal(prior.counts, counts)
    total = counts.sum(-1, keepdim=True)
    smoothed = (counts + smoothing) / (total + smoothing * ACTIONS).clamp_min(1e-300)
    torch.testing.assert_close(prior(every_state(2)).probs, torch.where(total > 0, smoothed, initial))


def test_the_number_of_environments_may_exceed_the_window() -> None:
    prior = bound(EmpiricalFrequency(window=2))
    actions = torch.tensor([[0, 1, 2, 3], [3, 3, 1, 3]])
    prior.observe(torch.zeros_like(actions), actions)
    assert prior.counts[:, 0].tolist() == [[0, 0, 1, 1], [0, 1, 0, 1]]
    prior.observe(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64))
    assert prior.counts[:, 0].tolist() == [[1, 0, 0, 1], [1, 0, 0, 1]]


def test_unseen_actions_have_no_probability_unless_smoothed() -> None:
    for smoothing in (0.0, 0.5):
        prior = bound(EmpiricalFrequency(smoothing=smoothing))
        assert prior.full_support == (smoothing > 0)
        one = torch.ones(2, 1, dtype=torch.int64)
        prior.observe(one, one)
        expected = [smoothing, 1 + smoothing, smoothing, smoothing]
        probabilities = prior(one).probs[0, 0].tolist()
        assert probabilities == pytest.approx([part / sum(expected) for part in expected])


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_the_exponent_hardens_habits(smoothing: float) -> None:
    """At 2: the probability that two memories drawn at random agree on an action, given that they agree on one."""
    prior = bound(EmpiricalFrequency(smoothing=smoothing, initial="uniform", exponent=2.0), replicates=1)
    assert prior.full_support == (smoothing > 0)
    prior.observe(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[0, 0, 0, 2]]))
    weights = [count + smoothing for count in (3, 0, 1, 0)]
    agree = [weight * weight for weight in weights]
    probabilities = prior(torch.zeros(1, 1, dtype=torch.int64)).probs[0, 0].tolist()
    assert probabilities == pytest.approx([each / sum(agree) for each in agree])


def test_the_exponent_holds_before_anything_was_seen_as_well() -> None:
    prior = bound(EmpiricalFrequency(exponent=2.0))
    squared = prior.start**2
    assert prior.start.std() > 0.1
    torch.testing.assert_close(prior(every_state(2)).probs, squared / squared.sum(-1, keepdim=True))


def test_frequencies_are_read_at_the_given_states() -> None:
    prior = bound(EmpiricalFrequency())
    for _ in range(20):
        prior.observe(*at_random(2, 3))
    obs = torch.tensor([[2, 0, 2, 1], [0, 0, 1, 2]])
    table = prior(every_state(2)).probs
    distribution = prior(obs)
    assert distribution.batch_shape == (2, 4)
    for r in range(2):
        torch.testing.assert_close(distribution.probs[r], table[r, obs[r]])


def test_the_initial_distribution_is_one_dirichlet_draw_per_replicate_and_state() -> None:
    start = bound(EmpiricalFrequency(), replicates=400)(every_state(400)).probs
    torch.testing.assert_close(start.sum(-1), torch.ones(400, STATES, dtype=DOUBLE))
    # Dirichlet(1, 1, 1, 1): mean 1/4, variance 3/80. Six standard errors of 1200 draws.
    torch.testing.assert_close(start.mean((0, 1)), torch.full((ACTIONS,), 0.25, dtype=DOUBLE), atol=0.034, rtol=0)
    torch.testing.assert_close(start.var((0, 1)), torch.full((ACTIONS,), 3 / 80, dtype=DOUBLE), atol=0.011, rtol=0)
    assert len(set(start[..., 0].flatten().tolist())) == 1200
    uniform = bound(EmpiricalFrequency(initial="uniform"))(every_state(2)).probs
    torch.testing.assert_close(uniform, torch.full((2, STATES, ACTIONS), 0.25, dtype=DOUBLE))


def test_the_initial_distribution_returns_when_everything_is_forgotten() -> None:
    prior = bound(EmpiricalFrequency(window=1))
    initial = prior(every_state(2)).probs
    prior.observe(torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1, dtype=torch.int64))
    prior.observe(torch.ones(2, 1, dtype=torch.int64), torch.ones(2, 1, dtype=torch.int64))
    torch.testing.assert_close(prior(every_state(2)).probs[:, 0], initial[:, 0])


@pytest.mark.parametrize("window", [None, 3])
def test_dirichlet_multinomial_is_the_posterior_predictive(window: int | None) -> None:
    """(count + c) / (total + c |B|) is the mean of the posterior over theta."""
    prior, slow = bound(DirichletMultinomial(0.5, window)), _Slow(2, window)
    torch.testing.assert_close(prior(every_state(2)).probs, torch.full((2, STATES, ACTIONS), 0.25, dtype=DOUBLE))
    for _ in range(10):
        batch = at_random(2, 2)
        prior.observe(*batch)
        slow.observe(*batch)
    counts = slow.counts()
    predictive = prior(every_state(2)).probs
    torch.testing.assert_close(predictive, (counts + 0.5) / (counts.sum(-1, keepdim=True) + 2.0))
    posterior = prior.posterior(every_state(2))
    torch.testing.assert_close(posterior.concentration, counts + 0.5)
    torch.testing.assert_close(posterior.mean, predictive)
    assert prior.full_support


def test_dirichlet_posterior_is_proportional_to_prior_times_likelihood() -> None:
    prior = bound(DirichletMultinomial(2.0), replicates=1)
    obs, actions = torch.zeros(1, 6, dtype=torch.int64), torch.tensor([[0, 0, 1, 3, 3, 3]])
    prior.observe(obs, actions)
    posterior = prior.posterior(obs[:, :1])
    theta = dist.Dirichlet(torch.ones(ACTIONS, dtype=DOUBLE)).sample((5,))
    joint = dist.Dirichlet(torch.full((ACTIONS,), 2.0, dtype=DOUBLE)).log_prob(theta) + theta.log()[:, actions[0]].sum(
        -1
    )
    evidence = joint - posterior.log_prob(theta.view(5, 1, 1, -1)).flatten()
    torch.testing.assert_close(evidence, evidence[:1].expand(5))


@pytest.mark.parametrize("make", [lambda: EmpiricalFrequency(window=3), lambda: DirichletMultinomial(window=3)])
def test_counts_survive_a_state_dict(make: type[TabularCounts]) -> None:
    prior, other = bound(make()), bound(make())
    for _ in range(4):
        prior.observe(*at_random(2, 2))
    other.load_state_dict({k: v.clone() if torch.is_tensor(v) else v for k, v in prior.state_dict().items()})
    for _ in range(4):
        batch = at_random(2, 2)
        prior.observe(*batch)
        other.observe(*batch)
        assert torch.equal(prior(every_state(2)).probs, other(every_state(2)).probs)


def test_fixed_is_normalised_and_the_same_everywhere() -> None:
    prior = bound(Fixed([1, 2, 5, 0]))
    assert prior(every_state(2)).probs.tolist() == pytest.approx([0.125, 0.25, 0.625, 0.0])
    assert not prior.full_support
    assert bound(Fixed([1, 2, 5, 1])).full_support


def test_uniform_on_both_kinds_of_space() -> None:
    discrete = bound(Uniform())(every_state(2))
    assert discrete.probs.tolist() == pytest.approx([0.25] * 4)
    box = bound(Uniform(), Box(-2.0, 2.0, 3))(every_state(2))
    assert box.event_shape == (3,)
    assert box.log_prob(torch.tensor([-1.0, 0.0, 1.9], dtype=DOUBLE)).item() == pytest.approx(-3 * 1.3862943611)


@pytest.mark.parametrize("make", [Tabular, lambda: CategoricalNetwork([16])])
def test_amortised_learns_the_opponents_frequencies_per_state_and_replicate(make: type[Tabular]) -> None:
    torch.manual_seed(3)
    prior = bound(Amortised(make(), window=600, batch_size=200, learning_rate=0.05), states=2)
    truth = torch.tensor(
        [[[0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]], [[0.0, 0.5, 0.5, 0.0], [0.25] * 4]], dtype=DOUBLE
    )
    obs = torch.arange(300).remainder(2).expand(2, 300)
    here = truth[torch.arange(2).view(-1, 1), obs]
    for _ in range(150):
        update(prior, obs, dist.Categorical(here).sample())
    # Each cell is a frequency among 300 remembered, of a standard error of at most .03, under Adam's noise.
    torch.testing.assert_close(prior(every_state(2, 2)).probs, truth, atol=0.12, rtol=0)


def test_amortised_follows_a_continuous_opponent() -> None:
    prior = bound(Amortised(TanhNormalNetwork([16]), window=500, batch_size=100, learning_rate=0.02), Box(-10.0, 10.0))
    centre = torch.tensor([[-6.0, 0.0, 5.0], [4.0, 4.0, -3.0]], dtype=DOUBLE)
    obs = torch.arange(60).remainder(3).expand(2, 60)
    for _ in range(200):
        seen = centre[torch.arange(2).view(-1, 1), obs]
        update(prior, obs, (seen + 0.5 * torch.randn_like(seen)).unsqueeze(-1))
    draws = prior(every_state(2)).sample((500,)).squeeze(-1)
    torch.testing.assert_close(draws.mean(0), centre, atol=0.5, rtol=0)
    torch.testing.assert_close(draws.std(0), torch.full_like(centre, 0.5), atol=0.25, rtol=0)


def test_amortised_fits_its_own_parameters_only() -> None:
    """As many steps of Adam per update as it says, on the conditional's parameters; nothing else has a gradient."""
    prior = bound(Amortised(Tabular(), window=10, batch_size=8, steps=3, learning_rate=0.1))
    bystander = bound(Amortised(Tabular(), window=10, batch_size=8))
    assert [name for name, _ in prior.named_parameters()] == ["conditional.logits"]
    update(prior, torch.zeros(2, 4, dtype=torch.int64), torch.ones(2, 4, dtype=torch.int64))
    assert not bystander.conditional.logits.any()
    assert bystander.conditional.logits.grad is None
    logits = prior.conditional.logits.detach()
    assert not logits[:, 1:].any()  # states never seen
    # Adam's first steps have size 0.1 whatever the gradient: up for the action seen, down for the others.
    torch.testing.assert_close(
        logits[:, 0], 0.3 * torch.tensor([-1.0, 1, -1, -1], dtype=DOUBLE).expand(2, -1), atol=0.01, rtol=0
    )


def test_amortised_remembers_when_it_observes_and_moves_when_it_fits() -> None:
    """So that it may see several trajectories before an update, draws no random numbers before it, and none twice."""
    prior = bound(Amortised(Tabular(), window=10, batch_size=8, learning_rate=0.1))
    state = torch.random.get_rng_state()
    for _ in range(3):
        prior.observe(*at_random(2, 2))
    torch.random.set_rng_state(state)
    obs, actions = zip(*(at_random(2, 2) for _ in range(3)), strict=True)
    assert torch.equal(prior.observed.obs[:, :6], torch.cat(obs, 1))
    assert torch.equal(prior.observed.opponent_action[:, :6], torch.cat(actions, 1))
    assert not prior.conditional.logits.any()
    prior.fit()
    assert prior.conditional.logits.any()


@pytest.mark.parametrize("make", [lambda: EmpiricalFrequency(window=3), DirichletMultinomial])
def test_counting_priors_have_nothing_to_fit(make: Any) -> None:
    prior = bound(make())
    prior.observe(*at_random(2, 5))
    before, state = prior(every_state(2)).logits, torch.random.get_rng_state()
    prior.fit()
    assert torch.equal(prior(every_state(2)).logits, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_amortised_forgets_what_leaves_its_window() -> None:
    prior = bound(Amortised(Tabular(), window=20, batch_size=20, learning_rate=0.3), states=1)
    for action in (0, 2):
        for _ in range(60):
            update(prior, torch.zeros(2, 10, dtype=torch.int64), torch.full((2, 10), action))
        assert (prior(torch.zeros(2, 1, dtype=torch.int64)).probs[..., action] > 0.9).all()


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_amortised_names_itself_and_the_replicate_when_its_loss_breaks() -> None:
    prior = bound(Amortised(TanhNormalNetwork([4]), window=10, batch_size=8), Box(-1.0, 1.0))
    actions = torch.zeros(2, 4, 1, dtype=DOUBLE)
    actions[1] = torch.nan
    message = "^opponent prior is not finite in replicate 1$"
    with pyro.validation_enabled(False), pytest.raises(NonFiniteError, match=message):
        update(prior, torch.zeros(2, 4, dtype=torch.int64), actions)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmpiricalFrequency(window=0), "^window: got 0, expected a positive integer, or null"),
        (lambda: EmpiricalFrequency(smoothing=-0.1), "^smoothing: got -0.1, expected a number that is not negative"),
        (lambda: EmpiricalFrequency(exponent=0.0), "^exponent: got 0.0, expected a positive number"),
        (lambda: DirichletMultinomial(0.0), "^concentration: got 0.0, expected a positive number"),
        (lambda: DirichletMultinomial(window=-3), "^window: got -3"),
        (lambda: Fixed([]), r"^probabilities: got \[\], expected numbers that are not negative and not all 0"),
        (lambda: Fixed([0, 0]), r"^probabilities: got \[0, 0\]"),
        (lambda: Fixed([1, -1]), r"^probabilities\[1\]: got -1, expected a number that is not negative"),
        (lambda: Amortised(Tabular(), window=0), "^window: got 0, expected a positive integer"),
        (lambda: Amortised(Tabular(), batch_size=0), "^batch_size: got 0"),
        (lambda: Amortised(Tabular(), steps=0), "^steps: got 0"),
        (lambda: Amortised(Tabular(), learning_rate=0.0), "^learning_rate: got 0.0, expected a positive number"),
        (lambda: Amortised(Tabular(), max_gradient_norm=0.0), "^max_gradient_norm: got 0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("prior", "opponent", "message"),
    [
        (EmpiricalFrequency(), Box(0.0, 1.0), "EmpiricalFrequency got Box.* for the variable it describes, expected"),
        (DirichletMultinomial(), Box(0.0, 1.0), "DirichletMultinomial got Box"),
        (Fixed([0.5, 0.5]), Box(0.0, 1.0), "Fixed got Box"),
        (Fixed([0.5, 0.5]), Discrete(3), "^probabilities: got 2 numbers, expected one per value: 3"),
        (Amortised(Uniform()), Discrete(3), "^conditional: got Uniform, which has no parameters to fit, expected one"),
        (Amortised(TanhNormalNetwork()), Discrete(3), "^conditional: TanhNormalNetwork got Discrete"),
        (Amortised(CategoricalNetwork()), Box(0.0, 1.0), "^conditional: CategoricalNetwork got Box"),
    ],
)
def test_what_does_not_fit_the_opponents_is_refused(prior: OpponentPrior, opponent: Space, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        bound(prior, opponent)


def test_counts_need_discrete_states() -> None:
    seat = Seat(0, (Box(-1.0, 1.0, 2),) * 2, (Discrete(2), Discrete(2)), 1)
    with pytest.raises(IncompatibleError, match=r"EmpiricalFrequency got Box.* for what it conditions on"):
        EmpiricalFrequency().bind(seat, seat.opponent_action, [seat.observation])
