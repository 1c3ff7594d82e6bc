"""MASQL: its targets, its fit of the joint action, and what it plays and believes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.guides import SamplerNetwork
from inference_marl.inference.noise import OrnsteinUhlenbeckNoise
from inference_marl.inference.schedules import ExponentialDecay
from inference_marl.inference.stein import Stein
from inference_marl.learners import Masql
from inference_marl.models import NetworkCritic
from inference_marl.spaces import Box
from inference_marl.types import numbered
from tests.learners.boxes import E, R, ThreeBoxes, bound, trained

B = 4


def masql(**changes: Any) -> Masql:
    parts: dict[str, Any] = {
        "sampler": SamplerNetwork((6,)),
        "critic": NetworkCritic((6,)),
        "stein": Stein(4, 3),
        "value_particles": 5,
        "replay": 40,
        "batch_size": B,
        "warmup": 1,
    }
    return Masql(**parts | changes)


LEARNERS = {
    "Masql": ("box", masql),
    "Masql, annealed, noise with a memory": (
        "box",
        lambda: masql(noise=OrnsteinUhlenbeckNoise(), temperature=ExponentialDecay(500, 0.1, 0.1)),
    ),
    "Masql, no target, tilted": (
        "box",
        lambda: masql(critic=NetworkCritic((6,), target_rate=1.0), stein=Stein(4, 3, "tilted_box")),
    ),
}


def test_targets_by_hand() -> None:
    """`r + gamma V(s')`, with V the log of the mean over the uniform draws that are drawn next, and the log-volume."""
    (learner, _), _ = trained(masql(temperature=0.7, discount=0.9), MaxOfTwoQuadratics(high=6.0))
    seen: list[Tensor] = []
    learner.critic.__dict__["fit"] = lambda *data, target: seen.append(target)
    slow = [parameter.clone() for parameter in learner.target_critic.parameters()]
    torch.manual_seed(4)
    learner.learn(None, [])
    torch.manual_seed(4)
    data = learner.transitions.draw(B).seen_by(learner.seat)
    points = torch.rand(R, 5, B, 2, dtype=torch.float64) * 16 - 10
    features = (points + 2) / 8
    first, bias, second, last = slow
    x = torch.cat([torch.ones(R, 5, B, 1, dtype=torch.float64), features], -1).flatten(1, 2)
    q = (torch.relu(x @ first + bias) @ second + last).view(R, 5, B)
    value = 0.7 * (torch.exp(q / 0.7).mean(1).log() + torch.tensor(256.0, dtype=torch.float64).log())
    torch.testing.assert_close(seen[0], data.reward + 0.9 * value)


def test_the_sampler_is_led_by_the_whole_joint_action() -> None:
    """The score of a draw is the gradient of Q(s, a, b) / alpha in a and b, own action first."""
    actors, _ = trained(masql(temperature=0.5), ThreeBoxes())
    learner = actors[1]
    assert learner.sampler.target == Box((0, -1, -1, -3, 1), (5, 2, 2, -1, 4), 5)
    data = learner.transitions.draw(B).seen_by(learner.seat)
    found: list[Tensor] = []
    objective = learner.stein

    def spy(draw: Any, box: Box, log_density: Any) -> Any:
        points = box.uniform(torch.float64, torch.device("cpu")).sample((2, R, B))
        expected = learner.critic(data.obs, points[..., :1], points[..., 1:3], points[..., 3:]) / 0.5
        found.extend([log_density(points), expected])
        return objective(draw, box, log_density)

    learner.__dict__["stein"] = spy
    said = learner.improve(data)
    torch.testing.assert_close(found[0], found[1])
    assert set(said) == {metric.name for metric in learner.metrics}


def test_three_agents_with_different_boxes_and_observations() -> None:
    actors, collector = trained(masql(), ThreeBoxes(), 6)
    for actor, obs, memory in zip(actors, collector.observe().obs, collector.memories, strict=True):
        belief = actor.beliefs(obs, memory, 7)
        assert actor.seat.action.misfit(belief["policy"]) is None
        for name, space in zip(numbered("opponent_model", 2), actor.seat.opponent_actions, strict=True):
            assert space.misfit(belief[name]) is None
            assert belief[name].shape == (R, E, 7, space.features)


def test_greedy_actions_are_the_best_of_the_draws() -> None:
    (learner, _), _ = trained(masql(), MaxOfTwoQuadratics())
    obs = torch.zeros(R, E, dtype=torch.int64)
    torch.manual_seed(1)
    action = learner.act(obs, {}, explore=False).action
    torch.manual_seed(1)
    own, others = learner.separate(learner.sampler.particles(obs, count=32))
    values = learner.critic(obs, own, others)
    for r in range(R):
        for e in range(E):
            assert action[r, e] == own[values[:, r, e].argmax(), r, e]


def test_warm_up_fits_the_critic_alone() -> None:
    (learner, _), collector = trained(masql(warmup=10), MaxOfTwoQuadratics())
    before = {name: value.clone() for name, value in learner.named_parameters()}
    assert learner.learn(collector.collect(), []) == {}
    moved = {
        name.partition(".")[0] for name, value in learner.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == {"critic", "target_critic"}


def test_warm_up_may_be_played_by_the_first_policy() -> None:
    obs = torch.zeros(R, 500, dtype=torch.int64)
    spread = []
    for actions in ("uniform", "policy"):
        (learner, _), _ = trained(masql(warmup=10, warmup_actions=actions), MaxOfTwoQuadratics())
        spread.append(float(learner.act(obs, {}).action.std()))
        assert (learner.policy(obs, {})[0] is None) == (actions == "policy")
    assert spread[0] == pytest.approx(10 / 3**0.5, rel=0.05)
    assert spread[1] < 0.8 * spread[0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(IncompatibleError, match="Masql got actions Discrete"):
        bound(masql(), MatrixGame())
    for space in (Box(), Box(-1, 1, (2, 2))):
        game = ThreeBoxes()
        game.action_spaces = (*game.action_spaces[:2], space)
        with pytest.raises(IncompatibleError, match=r"Masql got actions Box.* of agent 2, expected vectors in a Box"):
            bound(masql(), game)
