"""Opponent types: Bayes' rule against Pyro's enumeration, forecasts before learning, and types that are ruled out."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from inference_marl.config import files as spec
from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal, Tabular
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.svi import no_guide
from inference_marl.learners import Rommeo
from inference_marl.models import (
    Amortised,
    DirichletMultinomial,
    EmpiricalFrequency,
    Fixed,
    LevelK,
    OpponentTypes,
    TabularCritic,
    Uniform,
)
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat

DOUBLE = torch.float64
STATES, ACTIONS, R = 2, 3, 2
SEAT = Seat(0, (Discrete(STATES),) * 2, (Discrete(2), Discrete(ACTIONS)), R, dtype=DOUBLE)


def bound(*types: Any, seat: Seat = SEAT, **options: Any) -> OpponentTypes:
    return OpponentTypes(types, **options).bind(seat, seat.opponent_action, [seat.observation])


def play(steps: int) -> tuple[Tensor, Tensor]:
    return torch.randint(STATES, (R, steps)), torch.randint(ACTIONS, (R, steps))


def here(action: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(R, 1, dtype=torch.int64), torch.full((R, 1), action)


def q(prior: OpponentTypes) -> Tensor:
    return prior.types(torch.zeros(R, 1, dtype=torch.int64))[:, 0]


def enumeration() -> TraceEnum_ELBO:
    return TraceEnum_ELBO(max_plate_nesting=2)


def some_types() -> tuple[Any, ...]:
    """Three, of which one's forecasts depend on the state and differ between replicates."""
    return Fixed([1, 2, 3]), Uniform(), EmpiricalFrequency(smoothing=0.3)


def test_the_filter_is_pyros_enumerated_posterior() -> None:
    prior = bound(*some_types(), weights=[1, 2, 3])
    prior.priors[2].observe(*play(9))
    for _ in range(3):  # the second and third are posteriors given all before
        newest = play(4)
        marginal = enumeration().compute_marginals(prior.likelihood, no_guide, *newest)["opponent_type"]
        prior.observe(*newest)
        torch.testing.assert_close(q(prior), marginal.probs.squeeze(-2))


def test_log_evidence_is_pyros() -> None:
    prior = bound(*some_types(), weights=[1, 2, 3])
    prior.priors[2].observe(*play(9))
    newest = play(12)
    evidence = -enumeration().loss(prior.likelihood, no_guide, *newest)
    prior.observe(*newest)
    assert evidence == pytest.approx((prior.log_weights + prior.log_evidence).logsumexp(-1).sum().item())


def test_steps_one_by_one_are_all_at_once_for_types_that_do_not_learn() -> None:
    one, other = (bound(Fixed([1, 2, 3]), Fixed([3, 1, 1])) for _ in range(2))
    obs, actions = play(10)
    one.observe(obs, actions)
    for t in range(10):
        other.observe(obs[:, t : t + 1], actions[:, t : t + 1])
    torch.testing.assert_close(one.log_evidence, other.log_evidence)


def test_a_bayesian_types_evidence_is_its_marginal_likelihood() -> None:
    """Forecasts multiply to Gamma(cA) / Gamma(cA + n) prod_b Gamma(c + n_b) / Gamma(c), state by state."""
    prior = bound(DirichletMultinomial(0.5), Uniform())
    obs, actions = play(15)
    for t in range(15):
        prior.observe(obs[:, t : t + 1], actions[:, t : t + 1])
    for r in range(R):
        expected = 0.0
        for state in range(STATES):
            counts = [int(((obs[r] == state) & (actions[r] == b)).sum()) for b in range(ACTIONS)]
            expected += math.lgamma(1.5) - math.lgamma(1.5 + sum(counts))
            expected += sum(math.lgamma(0.5 + n) - math.lgamma(0.5) for n in counts)
        assert prior.log_evidence[r].tolist() == pytest.approx([expected, -15 * math.log(3)])


def test_the_mixture_by_hand() -> None:
    prior = bound(Fixed([1, 1, 2]), Fixed([2, 1, 1]), weights=[3, 1])
    assert q(prior).tolist() == [pytest.approx([0.75, 0.25])] * R
    obs = torch.zeros(R, 1, dtype=torch.int64)
    assert prior(obs).probs[0, 0].tolist() == pytest.approx([0.3125, 0.25, 0.4375])
    prior.observe(*here(0))  # 3/4 1/4 against 1/4 1/2
    assert q(prior).tolist() == [pytest.approx([0.6, 0.4])] * R
    assert prior(obs).probs[1, 0].tolist() == pytest.approx([0.35, 0.25, 0.4])


def test_forgetting_shrinks_the_old_evidence() -> None:
    prior = bound(Fixed([1, 1, 2]), Fixed([2, 1, 1]), weights=[3, 1], forget=0.25)
    prior.observe(*here(0))
    prior.observe(*here(2))
    odds = 3 * (1 / 2) ** 0.75 * 2
    assert q(prior)[0].tolist() == pytest.approx([odds / (1 + odds), 1 / (1 + odds)])
    for _ in range(400):  # an action that says nothing: only the weights are left
        prior.observe(*here(1))
    assert q(prior)[0].tolist() == pytest.approx([0.75, 0.25])


def test_what_opponents_do_reveals_their_type() -> None:
    types = ([2.0, 1, 1], [1, 2, 1], [1, 1, 2])
    seat = Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(3)), 300, dtype=DOUBLE)
    prior = bound(*map(Fixed, types), seat=seat)
    truth = torch.arange(300) % 3
    actions = dist.Categorical(torch.tensor(types, dtype=DOUBLE)[truth]).sample((300,)).T
    prior.observe(torch.zeros_like(actions), actions)
    # The odds against a wrong type are 2 to the power of how much more often the true type's action was seen than its
    # own: 75 on average, with a standard deviation of 14.4. Below 7 (odds of 128) with probability 2e-6; 600 cases.
    assert (prior.log_posterior.exp()[torch.arange(300), truth] > 0.98).all()


def test_a_type_is_ruled_out_while_another_is_left() -> None:
    prior = bound(Fixed([1, 1, 0]), Uniform(), forget=0.5)
    prior.observe(*here(2))
    assert q(prior).tolist() == [[0.0, 1.0]] * R
    prior.observe(*here(0))
    assert q(prior).tolist() == [[0.0, 1.0]] * R
    assert prior(here(0)[0]).probs.flatten().tolist() == pytest.approx([1 / 3] * 6)


def test_evidence_against_every_type_is_dropped() -> None:
    prior = bound(Fixed([2, 1, 0]), Fixed([1, 2, 0]), weights=[1, 3])
    prior.observe(*here(0))
    obs, _ = here(0)
    prior.observe(obs, torch.tensor([[2], [0]]))
    torch.testing.assert_close(q(prior)[0], torch.tensor([0.25, 0.75], dtype=DOUBLE))
    torch.testing.assert_close(q(prior)[1], torch.tensor([4 / 7, 3 / 7], dtype=DOUBLE))
    assert prior(obs).probs[0, 0].tolist() == pytest.approx([5 / 12, 7 / 12, 0])


def test_summing_the_type_out_is_enumerating_it_and_beats_guessing_it() -> None:
    """The ELBO of a guide rho(b) is the same either way; with a factor q(z) in the guide it is lower."""
    prior = bound(Fixed([1, 2, 3]), Fixed([5, 1, 1]), weights=[1, 2])
    values, rho = torch.randn(ACTIONS, dtype=DOUBLE), torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE)
    obs = torch.zeros(R, 1, dtype=torch.int64)
    given = torch.stack([p(obs).probs.expand(R, 1, -1) for p in prior.priors])

    def guess() -> Tensor:
        z: Tensor = pyro.sample("z", dist.Categorical(q(prior).unsqueeze(1)), infer={"enumerate": "parallel"})
        return z

    def summed() -> None:
        with ONE_STEP.open(obs.shape).within():
            pyro.factor("optimality", values[pyro.sample("b", prior(obs))])

    def enumerated() -> None:
        with ONE_STEP.open(obs.shape).within():
            b = pyro.sample("b", dist.Categorical(given[guess(), torch.arange(R).view(-1, 1), 0]))
            pyro.factor("optimality", values[b])

    def guide() -> None:
        with ONE_STEP.open(obs.shape).within():
            pyro.sample("b", dist.Categorical(rho), infer={"enumerate": "parallel"})

    def guesses() -> None:
        with ONE_STEP.open(obs.shape).within():
            guess()
            pyro.sample("b", dist.Categorical(rho), infer={"enumerate": "parallel"})

    elbo = -enumeration().loss(summed, guide)
    assert -enumeration().loss(enumerated, guide) == pytest.approx(elbo)
    # p(z | b) by Bayes' rule; the loss is E_rho[KL(q(z) || p(z | b))], once per replicate.
    joint = q(prior)[0, :, None] * given[:, 0, 0]
    divergence = (q(prior)[0, :, None] * (q(prior)[0, :, None] / (joint / joint.sum(0))).log()).sum(0)
    assert -enumeration().loss(enumerated, guesses) == pytest.approx(elbo - R * (rho * divergence).sum().item())


def test_types_see_the_model_and_what_is_played() -> None:
    game = MatrixGame("climbing")
    learner = Rommeo(
        opponent_prior=OpponentTypes([LevelK(1), DirichletMultinomial()]),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(),
    ).bind(Seat(0, game.observations, game.action_spaces, R, dtype=DOUBLE))
    prior = learner.opponent_prior
    assert isinstance(prior, OpponentTypes)
    obs, action = here(2)
    level_1 = learner.critic.table(obs)[:, 0].mean(1).softmax(-1)
    torch.testing.assert_close(prior.priors[0].given(learner.model, obs).probs[:, 0], level_1)
    torch.testing.assert_close(learner.model.opponent_prior(obs).table().exp()[:, 0], (level_1 + 1 / 3) / 2)
    prior.observe_given(learner.model, obs, action)
    torch.testing.assert_close(q(prior)[:, 0], level_1[:, 2] / (level_1[:, 2] + 1 / 3))
    belief = learner.beliefs(obs, {}, 1)
    assert belief["opponent_type"] is not None
    torch.testing.assert_close(belief["opponent_type"][:, 0], q(prior))
    assert prior.priors[1].counts[:, 0].tolist() == [[0, 0, 1]] * R


def test_the_filter_of_types_that_read_values_is_pyros_enumerated_posterior() -> None:
    game = MatrixGame("climbing")
    learner: Any = Rommeo(
        opponent_prior=OpponentTypes([LevelK(1), LevelK(2), Uniform()], weights=[1, 2, 3]),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(initial=(-2.0, 2.0)),
    ).bind(Seat(0, game.observations, game.action_spaces, R, dtype=DOUBLE))
    prior, model = learner.opponent_prior, learner.model
    obs, action = torch.zeros(R, 4, dtype=torch.int64), torch.randint(3, (R, 4))
    marginal = enumeration().compute_marginals(prior.likelihood, no_guide, obs, action, model)["opponent_type"]
    prior.observe_given(model, obs, action)
    torch.testing.assert_close(q(prior), marginal.probs.squeeze(-2))
    with pytest.raises(IncompatibleError, match="LevelK got no model to read values from"):
        prior.observe(obs, action)
    torch.testing.assert_close(q(prior), marginal.probs.squeeze(-2))


def test_types_that_are_fitted_are_fitted_each_to_what_it_saw() -> None:
    """Beside others and inside others, and not before `fit`."""
    prior = bound(Uniform(), OpponentTypes([Amortised(Tabular(), window=5, batch_size=4, learning_rate=0.1)]))
    inner: Any = prior.priors[1].priors[0]
    prior.observe(*here(1))
    assert not inner.conditional.logits.any()
    prior.fit()
    # Adam's first step: 0.1 up for the action seen, down for the others, in the state seen.
    expected = torch.tensor([[-0.1, 0.1, -0.1], [0.0, 0.0, 0.0]], dtype=DOUBLE)
    torch.testing.assert_close(inner.conditional.logits.detach(), expected.expand(R, -1, -1), rtol=0, atol=1e-6)


def test_support_is_that_of_a_type_that_never_leaves() -> None:
    assert not bound(Fixed([1, 0, 1]), Fixed([0, 1, 0])).full_support
    assert bound(Fixed([1, 0, 1]), Uniform()).full_support
    game = MatrixGame("climbing")
    seat = Seat(0, game.observations, game.action_spaces, R)
    with pytest.raises(IncompatibleError, match=r"^opponent_prior: got OpponentTypes with actions of probability 0"):
        Rommeo(
            opponent_prior=OpponentTypes([EmpiricalFrequency()]),
            guide=OpponentFirst(Tabular(), Tabular()),
            critic=TabularCritic(),
        ).bind(seat)


def test_a_type_with_overwhelming_evidence_keeps_the_mixture_finite() -> None:
    prior = bound(Fixed([1, 1, 0]), Uniform())
    prior.observe(torch.zeros(R, 5000, dtype=torch.int64), torch.zeros(R, 5000, dtype=torch.int64))
    log_probability = prior(here(0)[0]).logits[0, 0, 2].item()
    assert log_probability == pytest.approx(5000 * math.log(2 / 3) - math.log(3))


def test_a_file_can_say_it() -> None:
    config = {
        "game": "MatrixGame",
        "steps": 2,
        "arms": {
            "a": {
                "class_path": "Rommeo",
                "init_args": {
                    "opponent_prior": {
                        "class_path": "OpponentTypes",
                        "init_args": {
                            "types": ["LevelK", {"class_path": "Fixed", "init_args": {"probabilities": [1, 2, 3]}}],
                            "weights": [1, 2],
                        },
                    },
                    "guide": {
                        "class_path": "OpponentFirst",
                        "init_args": {"opponent_model": "Optimal", "policy": "Optimal"},
                    },
                    "critic": "TabularCritic",
                },
            }
        },
    }
    experiment = spec.build(config)
    twin = OpponentTypes([LevelK(), Fixed([1, 2, 3])], [1, 2])
    assert isinstance(experiment.arms["a"], Rommeo)
    assert experiment.arms["a"].opponent_prior.describe() == twin.describe()
    spec.override(config, "arms.a.opponent_prior.types.1.probabilities", [1, 2])
    with pytest.raises(spec.SpecError, match=r"^arms\.a\.opponent_prior\.types\[1\]\.probabilities: got 2 numbers"):
        spec.build(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "^types: got none, expected at least one opponent prior"),
        (([Uniform()], [1, 2]), r"^weights: got \[1, 2\], expected one positive number per type: 1"),
        (([Uniform(), Uniform()], [1, 0]), r"^weights\[1\]: got 0, expected a positive number"),
        (([Uniform()], [math.nan]), r"^weights\[0\]: got nan"),
        (([Uniform()], None, 1.0), r"^forget: got 1\.0, expected a number in \[0, 1\)"),
        (([Uniform()], None, -0.1), r"^forget: got -0\.1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpponentTypes(*arguments)


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ([Uniform(), Fixed([1, 2])], r"^types\[1\]\.probabilities: got 2 numbers, expected one per value"),
        ([Amortised(Uniform())], r"^types\[0\]\.conditional: got Uniform, which has no parameters"),
        ([OpponentTypes([Fixed([1])])], r"^types\[0\]\.types\[0\]\.probabilities: got 1 numbers"),
    ],
)
def test_a_type_that_does_not_fit_is_named(types: list[Any], message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        bound(*types)


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(IncompatibleError, match="OpponentTypes got Box"):
        bound(Uniform(), seat=Seat(0, (Discrete(1),) * 2, (Box(0, 1), Box(0, 1)), 1))
