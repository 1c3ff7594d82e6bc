"""What an actor does that only says how it plays: it draws, plays the mode, masks and remembers by its policy."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.learners import Stationary
from inference_marl.play import Functional
from inference_marl.play.learning import update
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Actor, Learner, Memory, Seat, Start, Trajectory, Transition

R, E = 2, 3


def seat(action: Space, index: int = 0) -> Seat:
    return Seat(index, (Discrete(4),) * 2, (action,) * 2, R, E, dtype=torch.float64)


class Leaning(Actor):
    """Prefers one action by a parameter, heeds masks, and counts how often it was asked."""

    heeds_masks = True

    def setup(self) -> None:
        self.logits = torch.nn.Parameter(torch.tensor([0.0, 0.5, 0.5, 0.2], dtype=torch.float64))

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        return {"asked": torch.zeros(replicates, environments, dtype=torch.int64)}

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        logits = self.logits.expand(*obs.shape, -1)
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf)
        return dist.Categorical(logits=logits), {"asked": memory["asked"] + 1}


def leaning() -> tuple[Actor, Tensor, Memory]:
    actor = Leaning().bind(seat(Discrete(4)))
    return actor, torch.zeros(R, E, dtype=torch.int64), actor.initial_memory(R, E)


def test_exploring_draws_and_not_exploring_plays_the_first_of_the_most_probable() -> None:
    actor, _, _ = leaning()
    many = torch.zeros(R, 200, dtype=torch.int64)
    memory = actor.initial_memory(R, 200)
    assert actor.act(many, memory).action.unique().tolist() == [0, 1, 2, 3]
    assert (actor.act(many, memory, explore=False).action == 1).all()


@pytest.mark.parametrize("explore", [True, False])
def test_a_decision_has_the_policys_memory_and_a_differentiable_density(explore: bool) -> None:
    actor, obs, memory = leaning()
    made = actor.act(obs, memory, explore)
    assert (made.memory["asked"] == 1).all()
    assert not memory["asked"].any()
    assert made.log_prob is not None
    torch.testing.assert_close(made.log_prob, actor.policy(obs, memory)[0].log_prob(made.action))
    (gradient,) = torch.autograd.grad(made.log_prob.sum(), list(actor.parameters()))
    assert gradient.any()
    assert not made.action.requires_grad


@pytest.mark.parametrize("explore", [True, False])
def test_a_mask_reaches_the_policy(explore: bool) -> None:
    actor, obs, memory = leaning()
    mask = torch.zeros(R, E, 4, dtype=torch.bool)
    mask[..., 3] = True
    assert (actor.act(obs, memory, explore, mask).action == 3).all()


class Squashed(Actor):
    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        flat = dist.Normal(torch.zeros(*obs.shape, 2), 1.0).to_event(1)
        return dist.TransformedDistribution(flat, [dist.transforms.TanhTransform()]), memory


def test_a_policy_without_a_mode_cannot_be_played_without_exploring() -> None:
    actor, obs = Squashed().bind(seat(Box(-1.0, 1.0, 2))), torch.zeros(R, E, dtype=torch.int64)
    assert actor.act(obs, {}).action.shape == (R, E, 2)
    with pytest.raises(IncompatibleError, match="TransformedDistribution: got a distribution without a mode"):
        actor.act(obs, {}, explore=False)


def test_beliefs_about_a_continuous_policy_are_draws_of_each_datum() -> None:
    obs = torch.arange(E).expand(R, E)

    class Where(Squashed):
        def policy(
            self, obs: Tensor, memory: Memory, mask: Tensor | None = None
        ) -> tuple[dist.TorchDistribution, Memory]:
            return dist.Normal(obs.double().unsqueeze(-1).expand(*obs.shape, 2), 1e-9).to_event(1), memory

    drawn = Where().bind(seat(Box(shape=2))).beliefs(obs, {}, draws=E)["policy"]
    assert drawn.shape == (R, E, E, 2)
    torch.testing.assert_close(drawn, obs.double()[..., None, None].expand(R, E, E, 2), atol=1e-6, rtol=0)


def test_a_memory_begins_anew_with_the_episode_whether_or_not_the_task_is_new() -> None:
    actor, _, _ = leaning()
    memory = {"asked": torch.full((R, E), 7)}
    episode = torch.tensor([[True, False, True], [False, False, True]])
    for task in (torch.zeros_like(episode), episode, torch.zeros_like(episode).index_fill(1, torch.tensor([0]), True)):
        begun = actor.begin(Start(episode, task & episode), memory)
        assert torch.equal(begun["asked"], torch.where(episode, 0, 7))


class Scaled(torch.nn.Module):
    """Probabilities from a parameter and a buffer, with a memory."""

    def __init__(self, logit: float, scale: float) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([[logit, 0.0]] * R, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))

    def forward(self, obs: Tensor, memory: Memory) -> tuple[dist.Categorical, Memory]:
        logits = (self.scale * self.logits).unsqueeze(1).expand(*obs.shape, 2)
        return dist.Categorical(logits=logits), memory


def test_a_functional_keeps_its_constants_and_its_target_wherever_it_is() -> None:
    """Whatever its module, or its target network, becomes."""
    obs = torch.zeros(R, E, dtype=torch.int64)
    module, target = Scaled(1.0, 2.0), Scaled(-3.0, 2.0)
    taken = Functional.of(module, seat(Discrete(2)), target)
    expected = {"fast": taken.policy(obs, {})[0].probs, "slow": taken.slow().policy(obs, {})[0].probs}
    torch.testing.assert_close(expected["fast"][0, 0, 0], torch.tensor(2.0, dtype=torch.float64).sigmoid())
    torch.testing.assert_close(expected["slow"][0, 0, 0], torch.tensor(-6.0, dtype=torch.float64).sigmoid())
    with torch.no_grad():
        for part in (module, target):
            part.logits.fill_(9.0)
            part.scale.fill_(0.5)
    assert torch.equal(taken.policy(obs, {})[0].probs, expected["fast"])
    assert torch.equal(taken.slow().policy(obs, {})[0].probs, expected["slow"])
    elsewhere = taken.at({"logits": torch.tensor([[0.5, 0.0]] * R, dtype=torch.float64)})
    torch.testing.assert_close(
        elsewhere.policy(obs, {})[0].probs[0, 0, 0], torch.tensor(1.0, dtype=torch.float64).sigmoid()
    )
    assert torch.equal(elsewhere.slow().policy(obs, {})[0].probs, expected["slow"])


def test_a_functional_without_a_target_is_its_own_and_may_have_a_memory() -> None:
    module = Scaled(1.0, 2.0)
    taken = Functional(
        module,
        seat(Discrete(2)),
        dict(module.named_parameters()),
        constants=dict(module.named_buffers()),
        initial_memory=lambda replicates, environments: {"m": torch.ones(replicates, environments)},
    )
    assert taken.slow() is taken
    moved = taken.at({"logits": torch.zeros(R, 2, dtype=torch.float64)})
    for actor in (taken, moved):
        assert actor.initial_memory(R, E)["m"].shape == (R, E)
    assert Functional.of(module, seat(Discrete(2))).initial_memory(R, E) == {}


class Noting(Stationary, Learner):
    """Notes in a common list what it was asked to do, and the stage its peers were in."""

    notes: list[tuple[str, int, list[int]]]

    def setup(self) -> None:
        super().setup()
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))

    def store(self, newest: Trajectory) -> None:
        self.notes.append(("store", self.seat.index, []))

    def learn(self, newest: Trajectory, peers: list[Actor]) -> dict[str, Tensor]:
        self.notes.append(("learn", self.seat.index, [int(peer.get_buffer("stage")) for peer in peers]))
        self.stage += 1
        return {"stage": self.stage.expand(R).clone()}


class Reading(Noting):
    reads_peers = True


def nothing_new() -> Trajectory:
    zeros, done = torch.zeros(R, E, dtype=torch.int64), torch.ones(R, E, dtype=torch.bool)
    return Trajectory([Transition((zeros,) * 2, (zeros,) * 2, torch.zeros(R, E, 2), (zeros,) * 2, done, done)])


def test_all_store_once_then_all_learn_from_peers_as_they_were_before_every_round() -> None:
    notes: list[tuple[str, int, list[int]]] = []
    actors = [kind().bind(seat(Discrete(2), index)) for index, kind in enumerate((Noting, Reading))]
    for actor in actors:
        actor.notes = notes
    said = update(actors, nothing_new(), updates=2)
    assert [(what, who) for what, who, _ in notes] == [
        *(("store", 0), ("store", 1)),
        *(("learn", 0), ("learn", 1), ("learn", 0), ("learn", 1)),
    ]
    assert [stages for _, who, stages in notes if who == 1] == [[], [0, 0], [1, 1]]
    assert [each["stage"].tolist() for each in said] == [[2, 2], [2, 2]]


def test_peers_are_copied_only_if_somebody_reads_them_and_others_say_nothing() -> None:
    notes: list[tuple[str, int, list[int]]] = []
    learner, watcher = Noting().bind(seat(Discrete(2))), Stationary().bind(seat(Discrete(2), 1))
    learner.notes = notes
    said = update([watcher, learner], nothing_new())
    assert notes == [("store", 0, []), ("learn", 0, [])]
    assert said[0] == {}
    assert said[1]["stage"].tolist() == [1, 1]
