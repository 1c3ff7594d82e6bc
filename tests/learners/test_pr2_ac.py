"""PR2-AC: its targets, the gradient of its actor, and what it plays and believes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.games import MaxOfTwoQuadratics
from inference_marl.guides import SamplerNetwork
from inference_marl.inference.noise import OrnsteinUhlenbeckNoise
from inference_marl.inference.stein import Stein
from inference_marl.learners import Pr2Ac
from inference_marl.models import NetworkCritic
from inference_marl.types import numbered
from tests.learners.boxes import E, R, ThreeBoxes, trained

B = 4


def pr2_ac(**changes: Any) -> Pr2Ac:
    parts: dict[str, Any] = {
        "sampler": SamplerNetwork((6,)),
        "critic": NetworkCritic((6,)),
        "stein": Stein(4, 3),
        "hidden": (6,),
        "value_particles": 5,
        "replay": 40,
        "batch_size": B,
        "warmup": 1,
    }
    return Pr2Ac(**parts | changes)


LEARNERS = {
    "Pr2Ac": ("box", pr2_ac),
    "Pr2Ac, soft, noise with a memory": ("box", lambda: pr2_ac(value="soft", noise=OrnsteinUhlenbeckNoise())),
    "Pr2Ac, no noise": ("box", lambda: pr2_ac(noise=None)),
}


def layers(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """A network with one hidden layer, `replicates x rows x in`."""
    first, bias, second, last = weights
    return torch.relu(x @ first + bias) @ second + last


@pytest.mark.parametrize("value", ["mean", "soft"])
def test_targets_by_hand(value: str) -> None:
    """`r + gamma V(s')`, with a' = mu'(s'), and the opponents' actions as they are drawn next, in -10 to 6."""
    arm = pr2_ac(temperature=0.7, discount=0.9, value=value)
    (learner, _), _ = trained(arm, MaxOfTwoQuadratics(high=6.0))
    seen: list[Tensor] = []
    learner.critic.__dict__["fit"] = lambda *data, target: seen.append(target)
    parts = (learner.target_critic, learner.slow_actor, learner.sampler)
    critic, actor, sampler = ([parameter.clone() for parameter in part.parameters()] for part in parts)
    torch.manual_seed(4)
    learner.learn(None, [])
    torch.manual_seed(4)
    data = learner.transitions.draw(B).seen_by(learner.seat)
    ones = torch.ones(R, B, 1, dtype=torch.float64)
    own = torch.tanh(layers(ones, actor))
    seen_by_all = torch.cat([ones, own], -1).unsqueeze(1).expand(-1, 5, -1, -1)
    if value == "mean":
        noise = torch.randn(R, 5, B, 1, dtype=torch.float64)
        others = torch.tanh(layers(torch.cat([seen_by_all, noise], -1).flatten(1, 2), sampler))
    else:
        others = (torch.rand(R, 5, B, 1, dtype=torch.float64).flatten(1, 2) * 16 - 8) / 8
    q = layers(torch.cat([seen_by_all.flatten(1, 2), others], -1), critic).view(R, 5, B)
    expected = q.mean(1) if value == "mean" else 0.7 * (torch.exp(q / 0.7).mean(1) * 16).log()
    torch.testing.assert_close(seen[0], data.reward + 0.9 * expected)


def test_the_actors_gradient_is_that_of_its_expected_value() -> None:
    """Against finite differences at the same noise, so also by how the expected answers move with the action."""
    actors, _ = trained(pr2_ac(regularisation=0.1), ThreeBoxes())
    learner = actors[0]  # whose observation is an index: a network at 0 has a kink there
    obs = learner.transitions.draw(B).seen_by(learner.seat).obs

    def loss() -> Tensor:
        torch.manual_seed(6)
        outputs = learner.actor(learner.seat.observation.encode(obs, torch.float64))
        action = 0.5 + 1.5 * torch.tanh(outputs)
        answers = learner.sampler.particles(obs, action, count=5)
        q = learner.critic(obs, action, answers[..., :1], answers[..., 1:])
        return 0.1 * outputs.square().mean((-1, -2)) - q.mean((0, -1))

    torch.manual_seed(6)
    found, value = learner.actor_loss(obs)
    torch.testing.assert_close(found, loss())
    assert value.shape == (R,)
    parameters = list(learner.actor.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(found.sum(), parameters), strict=True):
        at = (1, *[0] * (parameter.dim() - 1))
        with torch.no_grad():
            parameter[at] += 1e-6
            above = loss()
            parameter[at] -= 2e-6
            below = loss()
            parameter[at] += 1e-6
        change = (above - below) / 2e-6
        assert float(gradient[at]) == pytest.approx(float(change[1]), rel=1e-4, abs=1e-8)
        assert float(change[[0, 2]].abs().max()) == 0.0


def test_a_step_moves_only_what_it_should() -> None:
    (learner, _), _ = trained(pr2_ac(), MaxOfTwoQuadratics())
    data = learner.transitions.draw(B).seen_by(learner.seat)
    before = {name: value.clone() for name, value in learner.named_parameters()}
    assert set(learner.improve(data)) == {metric.name for metric in learner.metrics}
    changed = [name for name, value in learner.named_parameters() if not torch.equal(value, before[name])]
    assert {name.partition(".")[0] for name in changed} == {"actor", "slow_actor", "sampler"}
    assert all(parameter.requires_grad for parameter in learner.parameters())


def test_beliefs_are_its_action_and_the_answers_to_it() -> None:
    actors, collector = trained(pr2_ac(noise=None), ThreeBoxes(), 6)
    for actor, obs, memory in zip(actors, collector.observe().obs, collector.memories, strict=True):
        torch.manual_seed(2)
        belief = actor.beliefs(obs, memory, 7)
        action = actor.act(obs, memory).action
        assert torch.equal(action, actor.act(obs, memory, explore=False).action)
        assert torch.equal(belief["policy"], action.unsqueeze(2).expand(R, E, 7, -1))
        torch.manual_seed(2)
        answers = actor.sampler.particles(obs, action, count=7)
        believed = [belief[name] for name in numbered("opponent_model", len(actor.seat.opponents))]
        assert torch.equal(torch.cat(believed, -1), answers.movedim(0, 2))
        for space, each in zip(actor.seat.opponent_actions, believed, strict=True):
            assert space.misfit(each) is None
