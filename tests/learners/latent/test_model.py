"""The model of trials and its guide: plates, what the ELBO is, what the weight of its KL does, and who learns by it."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from inference_marl.games import MatrixGame
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.schedules import ByReplicate
from inference_marl.inference.svi import elbo_loss
from inference_marl.learners.latent import GaussianFactors, Pearl
from inference_marl.learners.latent.model import CONTEXT, TrialModel
from inference_marl.spaces import Discrete
from tests.learners.boxes import bound
from tests.learners.latent.matching import EPISODES, HORIZON, SMALL, Matching, R, pearl, trained

M, N = 2, 4


def model_of(context: str = "factors", **changes: Any) -> tuple[Any, TrialModel]:
    """A learner, and the model of what it would learn from next."""
    learner, _ = trained(pearl(context, **changes), EPISODES * HORIZON + 2)
    groups = learner.trials.draw_tasks(M)
    return learner, learner.model(learner.belief.draw(learner.trials, groups, N, False))


@local_parameters()
def by_hand(learner: Any, model: TrialModel) -> Tensor:
    """Mean squared error of both critics, and of -log P(b | s, z), and the weighted mean KL; summed over replicates."""
    mean, sd = model.drawn.before
    z = mean if sd is None else mean + sd * torch.randn_like(mean)
    leads = learner.trained_by in ("critic", "both")
    given = z if leads else z.detach()
    if learner.critic_reads == "moments" and sd is not None:
        given = torch.cat([mean, sd], -1)
        given = given if leads else given.detach()
    target = model.target(z.detach())
    if learner.critic_reads == "actions":
        given = torch.cat(model.seen.opponent_actions, -1)
    values = learner.critics(model.seen.obs, given, model.seen.action)
    loss = sum((value - target).square() for value in values)
    if learner.opponents is not None:
        for act, action in zip(learner.opponents(model.seen.obs, z), model.seen.opponent_actions, strict=True):
            loss = loss - act.log_prob(action)
    if learner.outcomes is not None:
        outputs = learner.outcomes.network(
            torch.cat([*(part.expand(-1, -1, loss.shape[2], -1) for part in (*model.seen[:2], *model.seen[2], z))], -1)
        )
        mean_r, log_sd_r, mean_o, log_sd_o = outputs.split([1, 1, *[(outputs.shape[-1] - 2) // 2] * 2], -1)
        reward = model.seen.reward / (learner.rewards.highest - learner.rewards.lowest).unsqueeze(-1)
        loss = loss - dist.Normal(mean_r, log_sd_r.clamp(-5, 1).exp()).log_prob(reward.unsqueeze(-1)).squeeze(-1)
        loss = loss - dist.Normal(mean_o, log_sd_o.clamp(-5, 1).exp()).log_prob(model.seen.next_obs).sum(-1)
    there = model.drawn.steps.there
    there = torch.ones_like(loss, dtype=torch.bool) if there is None else there
    total = torch.stack([loss[r][there[r]].mean() for r in range(R)])
    if sd is not None:
        kl = kl_divergence(dist.Normal(mean, sd), dist.Normal(0.0, 1.0)).sum(-1).mean((1, 2))
        weight = model.kl_weight.flatten() if isinstance(model.kl_weight, Tensor) else model.kl_weight
        total = total + weight * kl
    return total.sum()


@local_parameters()
def by_pyro(learner: Any, model: TrialModel) -> Tensor:
    """The same from the learner's own loss, without the constants of the critics' normals."""
    loss = elbo_loss(learner.elbo, model, model.guide, model.seen.reward[0].numel())
    return loss - R * math.log(math.pi)


def gradients(learner: Any, loss: Tensor) -> list[Tensor]:
    parameters = [*learner.critics.parameters(), *learner.belief.parameters()]
    parameters += [] if learner.opponents is None else list(learner.opponents.parameters())
    parameters += [] if learner.outcomes is None else list(learner.outcomes.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_as_by_hand(learner: Any, model: TrialModel) -> None:
    """The learner's loss and its gradients are those written by hand."""
    found = []
    for loss in (by_pyro, by_hand):
        torch.manual_seed(5)
        value = loss(learner, model)
        found.append([value.detach(), *gradients(learner, value)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("trained_by", ["critic", "opponents", "both", "transitions"])
@pytest.mark.parametrize("critic_reads", ["draw", "moments"])
@pytest.mark.parametrize("context", ["none", "factors", "recurrent", "recurrent, some steps", "told"])
def test_the_loss_is_the_one_written_by_hand(context: str, trained_by: Any, critic_reads: Any) -> None:
    learner, model = model_of(context, trained_by=trained_by, critic_reads=critic_reads, kl_weight=0.3)
    assert_as_by_hand(learner, model)


@pytest.mark.parametrize("context", ["none", "factors"])
def test_the_loss_of_critics_of_actions_is_the_one_written_by_hand(context: str) -> None:
    learner, model = model_of(context, trained_by="opponents", critic_reads="actions", kl_weight=0.3)
    assert_as_by_hand(learner, model)


def test_a_context_that_explains_itself_has_its_elbo() -> None:
    """Of all tasks of an update: log P(b | s, z) summed over their contexts, minus the KLs with weight 1."""
    explaining = GaussianFactors(latent=2, hidden=(8,), context_steps=3, least_context_steps=1, explains="context")
    made = Pearl(context=explaining, **SMALL | {"trained_by": "opponents", "opponent_sd": 0.5})
    learner, _ = trained(made, EPISODES * HORIZON + 2)
    drawn = learner.belief.draw(learner.trials, learner.trials.draw_tasks(M), N, False)
    there = drawn.steps.there
    assert there is not None
    assert there.shape == (R, M, 3)
    model = learner.model(drawn)
    steps = there.sum((1, 2)).double()
    model.kl_weight = (M / steps).view(R, 1, 1)
    torch.manual_seed(3)
    mean, sd = drawn.before
    (act,) = learner.opponents(model.seen.obs, mean + sd * torch.randn_like(mean))
    elbo = (act.log_prob(model.seen.opponent_actions[0]) * there).sum((1, 2))
    elbo = elbo - kl_divergence(dist.Normal(mean, sd), dist.Normal(0.0, 1.0)).sum((1, 2, 3))
    both = [*learner.belief.parameters(), *learner.opponents.parameters()]
    expected = torch.autograd.grad(-(elbo / steps).sum(), both, retain_graph=True)
    torch.manual_seed(3)
    every = gradients(learner, by_pyro(learner, model))[-len(both) :]
    for one, other in zip(every, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("weight", [0.01, 2.0])
def test_the_scale_weighs_the_kl(weight: float) -> None:
    """In the encoder's gradient, which a scale on the model alone would leave as it is."""
    learner, model = model_of(kl_weight=weight)
    mean, sd = model.drawn.before
    assert sd is not None
    kl = kl_divergence(dist.Normal(mean, sd), dist.Normal(0.0, 1.0)).sum(-1).mean((1, 2)).sum()
    parameters = list(learner.belief.parameters())
    of_kl = torch.autograd.grad(kl, parameters, retain_graph=True)
    found = []
    for factor in (1.0, 3.0):
        model.kl_weight = factor * weight
        torch.manual_seed(1)
        found.append(torch.autograd.grad(by_pyro(learner, model), parameters, retain_graph=True))
    for one, three, expected in zip(*found, of_kl, strict=True):
        torch.testing.assert_close(three - one, 2 * weight * expected, rtol=1e-6, atol=1e-9)


def test_weights_by_replicate() -> None:
    learner, model = model_of(kl_weight=ByReplicate([0.1, 1.0, 10.0]))
    assert isinstance(model.kl_weight, Tensor)
    assert model.kl_weight.shape == (R, 1, 1)
    torch.manual_seed(5)
    one = by_pyro(learner, model)
    torch.manual_seed(5)
    torch.testing.assert_close(one, by_hand(learner, model))


@pytest.mark.parametrize("discrete", [False, True])
def test_sites_and_plates(discrete: bool) -> None:
    learner, _ = trained(pearl(trained_by="both"), 4, Matching(discrete))
    drawn = learner.belief.draw(learner.trials, learner.trials.draw_tasks(M), N, False)
    model = learner.model(drawn)
    with local_parameters():
        guide = poutine.trace(model.guide).get_trace()
        trace = poutine.trace(poutine.replay(model, trace=guide)).get_trace()
    trace.compute_log_prob()
    assert set(guide.stochastic_nodes) - {"replicate", "task", "batch"} == {CONTEXT}
    sizes = {site.name: (site.size, site.dim) for site in trace.nodes["target_0"]["cond_indep_stack"]}
    assert sizes == {"replicate": (R, -3), "task": (M, -2), "batch": (N, -1)}
    assert {site.name for site in trace.nodes[CONTEXT]["cond_indep_stack"]} == {"replicate", "task"}
    assert trace.nodes[CONTEXT]["value"].shape == (R, M, 1, 2)
    assert trace.nodes[CONTEXT]["log_prob"].shape == (R, M, 1)
    for name in ("target_0", "target_1", "opponent_action"):
        assert trace.nodes[name]["log_prob"].shape == (R, M, N)
    assert isinstance(learner.seat.action, Discrete) == discrete


@pytest.mark.parametrize(("trained_by", "leads"), [("critic", True), ("opponents", False), ("both", True)])
@pytest.mark.parametrize("critic_reads", ["draw", "moments"])
def test_whose_gradient_reaches_the_encoder(trained_by: Any, leads: bool, critic_reads: Any) -> None:
    """Of the squared error alone: the KL has no weight to speak of, and what opponents do has no gradient here."""
    learner, model = model_of(trained_by=trained_by, critic_reads=critic_reads, kl_weight=1e-20)
    model.opponents = None
    loss = elbo_loss(learner.elbo, model, model.guide, M * N)
    found = torch.autograd.grad(loss, list(learner.belief.parameters()), allow_unused=True)
    largest = max(0.0 if each is None else float(each.abs().max()) for each in found)
    assert (largest > 1e-6) == leads


@pytest.mark.parametrize("sd", [None, 0.4])
def test_what_opponents_do_is_a_normal_in_units_of_half_the_box(sd: float | None) -> None:
    learner, model = model_of(trained_by="opponents", opponent_sd=sd)
    z = torch.zeros(R, M, 1, 2, dtype=torch.float64)
    (act,) = learner.opponents(model.seen.obs, z)
    (action,) = model.seen.opponent_actions
    mean, spread = act.base_dist.loc, act.base_dist.scale
    if sd is not None:
        assert bool((spread == sd).all())
    expected = -((action - mean) ** 2) / (2 * spread**2) - spread.log() - math.log(2 * math.pi) / 2
    torch.testing.assert_close(act.log_prob(action), expected.squeeze(-1))
    by_pyro(learner, model)
    (at_z,) = learner.opponents(model.seen.obs, model.z)
    assert model.opponent_nll is not None
    torch.testing.assert_close(model.opponent_nll, -at_z.log_prob(action).detach().mean((1, 2)))


def test_discrete_opponents_are_categorical() -> None:
    (learner, _) = bound(pearl("none", trained_by="both"), MatrixGame("climbing"))
    obs = torch.zeros(R, 1, 1, 1, dtype=torch.float64)
    (act,) = learner.opponents(obs, learner.belief.zeros(R, 1, 1, 0))
    every = torch.eye(3, dtype=torch.float64).view(1, 1, 3, 3).expand(R, 1, 3, 3)
    torch.testing.assert_close(act.log_prob(every).exp().sum(-1), torch.ones(R, 1, dtype=torch.float64))


def test_lengths_of_trials_do_not_weigh() -> None:
    """A trial that has just begun is filled up with steps that do not count: nothing else changes with them."""
    learner, model = model_of("recurrent", trained_by="both")
    assert model.drawn.steps.there is not None
    assert not bool(model.drawn.steps.there.all())
    torch.manual_seed(2)
    before = by_pyro(learner, model).detach()
    rows = model.drawn.steps.rows
    junk = torch.where(model.drawn.steps.there.unsqueeze(-1), rows, 7.0)
    drawn = model.drawn._replace(steps=model.drawn.steps._replace(rows=junk))
    torch.manual_seed(2)
    torch.testing.assert_close(by_pyro(learner, learner.model(drawn)).detach(), before)
