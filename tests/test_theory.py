"""What docs/theory.md says of the formulas of Tian et al. (2019): the right ones hold, and those as printed do not."""

import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.inference.exact import Solution, soft_q_iteration
from inference_marl.inference.objectives import optimal_value
from inference_marl.inference.schedules import ExponentialDecay
from inference_marl.learners import Rommeo
from inference_marl.models import TabularCritic, Uniform
from inference_marl.spaces import Discrete
from inference_marl.types import Seat, Transition
from tests.steps import teach

ROOT = Path(__file__).parents[1]
ALPHAS = (0.2, 0.7, 1.0, 1.5, 4.0)


def one_shot(alpha: float) -> tuple[Tensor, Tensor, Solution]:
    """Q, `3 x 4`, and log P of a random game of one step, and its exact solution."""
    q, log_prior = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64).log_softmax(-1)
    end = torch.zeros(1, 3, 4, 1, dtype=torch.float64)
    return q, log_prior, soft_q_iteration(q[None], end, log_prior[None], temperature=alpha)


def elbo(q: Tensor, log_prior: Tensor, alpha: float, policy: Tensor, opponent_model: Tensor) -> Tensor:
    """Eq. 7 of one step, with the weight alpha; `policy` is `actions x opponent_actions`."""
    gained = (policy * (q - alpha * policy.log())).sum(-2)
    return (opponent_model * (gained - opponent_model.log() + log_prior)).sum(-1)


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^\[(\w+)\]: \.\./(tests/\S+\.py)$", page, re.MULTILINE))
    named = re.findall(r"\[`([\w:]+)`\]\[(\w+)\]", page)
    assert {file for _, file in named} == set(files)
    for name, file in named:
        text = (ROOT / files[file]).read_text(encoding="utf-8")
        assert all(re.search(rf"^ *(def|class) {part}\b", text, re.MULTILINE) for part in name.split("::")), name
    own = re.findall(r"^def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)
    assert set(own) - {name for name, _ in named} == {"test_every_test_that_the_page_names_is_there"}


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_opponent_model_of_equation_17_depends_on_the_replayed_action(alpha: float) -> None:
    """P (exp(Q / alpha) / pi)^alpha is Eq. 11, whatever the action, if pi is Eq. 10; else it depends on the action."""
    q, log_prior, best = one_shot(alpha)

    def targets(policy: Tensor) -> Tensor:  # one opponent model for each action
        return (log_prior + q - alpha * policy.log()).softmax(-1)

    torch.testing.assert_close(targets(best.policy[0]), best.opponent_model.expand(3, 4))
    other = targets(torch.full((3, 4), 1 / 3, dtype=torch.float64))
    assert (other - other[:1]).abs().max() > 0.05


@pytest.mark.parametrize("alpha", ALPHAS)
def test_equations_56_and_57_are_right_at_temperature_one_only(alpha: float) -> None:
    """As printed they do not sum to one, and normalised they do not maximise the ELBO."""
    q, log_prior, best = one_shot(alpha)
    value = best.v[0]
    policy = q.exp() / alpha / (q / alpha).exp().sum(-2)
    opponent_model = log_prior.exp() * q.exp().sum(-2) ** alpha / value.exp()
    torch.testing.assert_close(elbo(q, log_prior, alpha, best.policy[0], best.opponent_model[0]), value)
    if alpha == 1:
        torch.testing.assert_close(policy, best.policy[0])
        torch.testing.assert_close(opponent_model, best.opponent_model[0])
        return
    assert ((policy.sum(-2) - 1).abs() > 0.05).all()
    assert (opponent_model.sum(-1) - 1).abs() > 0.05
    policy, opponent_model = policy / policy.sum(-2), opponent_model / opponent_model.sum(-1)
    for pi, rho in [(policy, best.opponent_model[0]), (best.policy[0], opponent_model), (policy, opponent_model)]:
        assert elbo(q, log_prior, alpha, pi, rho) < value - 1e-4


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
def test_a_constant_added_to_q_is_added_to_the_soft_value(alpha: float, beta: float) -> None:
    """Hence the contraction. Eq. 61 bounds the change by alpha times the constant, which is too little below 1."""
    q, more = torch.randn(2, 50, 3, 4, dtype=torch.float64) * 3
    log_prior = torch.randn(50, 4, dtype=torch.float64).log_softmax(-1)
    value = optimal_value(q, log_prior, alpha, beta)
    rise = optimal_value(q + 2.0, log_prior, alpha, beta) - value
    torch.testing.assert_close(rise, torch.full_like(rise, 2.0))
    assert bool((rise <= alpha * 2.0 + 1e-9).all()) == (alpha >= 1)
    assert (optimal_value(q + more.abs(), log_prior, alpha, beta) >= value).all()
    change = optimal_value(more, log_prior, alpha, beta) - value
    assert (change.abs() <= (more - q).abs().amax((-2, -1)) + 1e-9).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_algorithm_1_estimates_the_soft_value_at_temperature_one_only(alpha: float) -> None:
    """The expectation of the weights in its logarithm is a sum over all actions: sum_b P sum_a exp Q."""
    q, log_prior, best = one_shot(alpha)
    inside = optimal_value(q, log_prior, alpha).exp()
    for policy, opponent_model in [
        (best.policy[0], best.opponent_model[0]),
        (torch.randn(3, 4, dtype=torch.float64).softmax(-2), torch.randn(4, dtype=torch.float64).softmax(-1)),
    ]:
        draws = policy * opponent_model
        weights = (log_prior.exp() ** (1 / alpha) * (q / alpha).exp()) ** alpha / draws
        mean = (draws * weights).sum()
        torch.testing.assert_close(mean, (log_prior.exp() * q.exp()).sum())
        assert math.isclose(mean, inside, rel_tol=1e-9) == (alpha == 1)
        assert (mean >= inside * (1 - 1e-9)) == (alpha <= 1)
    # With the policy inside of the power it is exp of Eq. 15, at the optimal guide the same for every draw.
    weights = log_prior.exp() * ((q / alpha).exp() / best.policy[0]) ** alpha / best.opponent_model[0]
    torch.testing.assert_close(weights, inside.expand(3, 4))


def test_draws_from_the_marginal_policy_are_divided_by_their_own_probability() -> None:
    """At temperature one; pi and rho are those of the current critic, and Q is the target critic's."""
    q, log_prior, _ = one_shot(1.0)
    _, _, best = one_shot(1.0)
    policy, opponent_model = best.policy[0], best.opponent_model[0]
    inside = optimal_value(q, log_prior, 1.0).exp()
    weights = (log_prior + q).exp() / (policy * opponent_model)  # as printed
    torch.testing.assert_close((policy * opponent_model * weights).sum(), inside)
    marginal = (policy * opponent_model).sum(-1, keepdim=True)
    apart = marginal * opponent_model  # a from the marginal policy, whatever b is
    assert abs((apart * weights).sum() - inside) > 0.05 * inside
    torch.testing.assert_close((apart * (log_prior + q).exp() / apart).sum(), inside)


def test_the_critic_moves_at_the_state_that_was_left() -> None:
    """Q(s_t, a_t, b_t) <- r + gamma V(s_{t+1}); the cell of s_{t+1}, which Algorithm 1 prints, stays where it was."""
    seat = Seat(0, (Discrete(2),) * 2, (Discrete(2),) * 2, 1, dtype=torch.float64)
    learner = Rommeo(
        opponent_prior=Uniform(),
        guide=OpponentFirst(Optimal(), Optimal()),
        critic=TabularCritic(initial=(0.0, 1.0), rate=1.0),
        temperature=0.5,
        discount=0.9,
    ).bind(seat)
    before = learner.critic.values.clone()
    here, there, own, other = (torch.tensor([[k]]) for k in (0, 1, 1, 0))
    reward, going_on = torch.full((1, 1, 2), 3.0, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.bool)
    teach(learner, Transition((here, here), (own, other), reward, (there, there), going_on, going_on))
    expected = before.clone()
    log_prior = torch.full((2,), -math.log(2), dtype=torch.float64)
    expected[0, 0, 1, 0] = 3 + 0.9 * optimal_value(before[0, 1], log_prior, 0.5)
    torch.testing.assert_close(learner.critic.values, expected)


def test_the_ablation_of_rommeo_ac_has_both_temperatures() -> None:
    """Constant, as in the text, and 0.1 + 500 exp(-0.1 max(t - 10, 0)) at step t, as in the authors' code."""
    levels = yaml.safe_load((ROOT / "experiments" / "rommeo_ac_ablation.yaml").read_text())["factors"]["exploration"]
    assert levels["constant_temperature_no_warmup"] == {"temperature": 0.1, "warmup": 0}
    schedule = levels["authors_annealing_no_warmup"]["temperature"]
    assert schedule["class_path"] == "ExponentialDecay"
    annealed = ExponentialDecay(**schedule["init_args"])
    for step in (0, 10, 11, 35, 200):
        assert annealed(step) == pytest.approx(0.1 + 500 * math.exp(-0.1 * max(step - 10, 0)))


def test_an_episode_of_figure_1_is_one_joint_action() -> None:
    experiment = yaml.safe_load((ROOT / "experiments" / "climbing.yaml").read_text())
    assert experiment["game"]["class_path"] == "MatrixGame"
    assert MatrixGame(**experiment["game"]["init_args"]).horizon == 1
    assert experiment["steps"] == 300


def test_the_kl_term_is_subtracted_in_equation_8() -> None:
    """Q from Eq. 8, as a linear system over states under the optimal factors, is the fixed point of Eq. 12."""
    alpha, gamma = 0.7, 0.8
    reward = torch.randn(3, 2, 4, dtype=torch.float64)
    transition = torch.rand(3, 2, 4, 3, dtype=torch.float64)
    transition /= transition.sum(-1, keepdim=True)
    log_prior = torch.randn(3, 4, dtype=torch.float64).log_softmax(-1)
    best = soft_q_iteration(reward, transition, log_prior, temperature=alpha, discount=gamma)
    joint = best.policy * best.opponent_model.unsqueeze(-2)
    moves = (joint.unsqueeze(-1) * transition).sum((1, 2))
    entropy = -(joint * best.policy.log()).sum((1, 2))
    kl = (best.opponent_model * (best.opponent_model.log() - log_prior)).sum(-1)

    def of_equation_8(gained: Tensor) -> Tensor:
        value = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - gamma * moves, gained)
        return reward + gamma * transition @ value

    gained = (joint * reward).sum((1, 2))
    torch.testing.assert_close(of_equation_8(gained + alpha * entropy - kl), best.q)
    for wrong in (gained + alpha * entropy + kl, gained + entropy - kl):
        assert ((of_equation_8(wrong) - best.q).abs() > 0.05).all()
