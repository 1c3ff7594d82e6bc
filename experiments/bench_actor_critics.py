"""CPU time of an update of the deterministic actor-critics, compared with plain torch and with its matrix products.

Three agents with separate actors on `Spread`, float32, one torch thread. The plain torch version is written for this
game only: a transition is one row of one tensor, and no part can be exchanged. First both are checked to make the same
updates. CPU time is that of one thread, so that other work on the machine has little effect; compared functions are
timed in turn. DDPG-OM's time includes the metrics of its opponent module every 20 updates. Inferred policies, twin
critics and sub-policies are compared with plain MADDPG.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from timing import expect_same, quick, seconds
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gumbel_softmax, one_hot

from inference_marl import Experiment
from inference_marl.games import Spread
from inference_marl.learners import Ddpg, DdpgOm, Maddpg
from inference_marl.learners.deterministic import DeterministicActorCritic, InferredPolicies, PredictedActions
from inference_marl.play import Collector, GameSimulator
from inference_marl.types import Member, Trajectory

AGENTS, SEEN, MOVES = 3, 18, 5
ALL_SEEN, ALL_DONE = AGENTS * SEEN, AGENTS * MOVES
PAIRS = [(agent, other) for agent in range(AGENTS) for other in range(AGENTS) if agent != other]
SIZES = [
    *((replicates, (64, 64), batch) for batch in (256, 1024) for replicates in (1, 5, 16)),
    *((replicates, (256, 256), 512) for replicates in (1, 5)),
]
VARIANTS: list[tuple[str, type[DeterministicActorCritic], dict[str, Any]]] = [
    ("Maddpg, twin critics", Maddpg, {"twin_critics": True}),
    ("Maddpg, inferred policies", Maddpg, {"inferred": InferredPolicies()}),
    ("Maddpg, three sub-policies, 256 of each", Maddpg, {"sub_policies": 3}),
]
CAPACITY, ENVIRONMENTS, COLLECTED = 20_000, 64, 100


def forward(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Evaluate networks with weights `(replicates rows) x in x out` at `replicates x rows x batch x in`."""
    out = x.flatten(0, 1)
    for layer in range(0, len(weights), 2):
        out = torch.baddbmm(weights[layer + 1], out, weights[layer])
        if layer < len(weights) - 2:
            out = out.relu_()
    return out.unflatten(0, x.shape[:2])


class ByHand:
    """The update of a `Maddpg`, `Ddpg` or `DdpgOm` in plain torch, with a copy of its state and replay buffer."""

    def __init__(self, team: DeterministicActorCritic) -> None:
        self.sees_all = isinstance(team, Maddpg)
        self.predictor = self.predictor_of(team) if isinstance(team, DdpgOm) else None
        (group,), held = team.groups, team.replays[0]
        self.actor, self.slow_actor, self.critic, self.slow_critic = (
            [each.detach().clone() for each in network.parameters()]
            for network in (group.actors, group.slow_actors, team.critics[0].stacks[0], team.critics[0].slow[0])
        )
        for each in (*self.actor, *self.critic):
            each.requires_grad_()
        self.actor_adam = torch.optim.Adam(self.actor, lr=team.learning_rate, fused=True)
        self.critic_adam = torch.optim.Adam(self.critic, lr=team.learning_rate, fused=True)
        assert isinstance(team.discount, float)
        self.discount, self.rate, self.norm = team.discount, team.target_rate, team.max_gradient_norm or 1.0
        self.regularisation, self.batch, self.replicates = team.regularisation, team.batch_size, team.seat.replicates
        self.size, self.capacity = COLLECTED * ENVIRONMENTS, held.capacity
        parts = [
            *(getattr(held, f"obs_{agent}") for agent in range(AGENTS)),
            *(one_hot(getattr(held, f"action_{agent}"), MOVES) for agent in range(AGENTS)),
            *(getattr(held, f"next_obs_{agent}") for agent in range(AGENTS)),
            held.rewards,
            ~held.terminated.unsqueeze(-1),
        ]
        self.held = torch.cat([part.to(torch.float32) for part in parts], -1).flatten(0, 1)
        self.first = torch.arange(self.replicates).view(-1, 1) * self.capacity
        self.own = torch.eye(AGENTS).view(1, AGENTS, 1, AGENTS, 1)

    def predictor_of(self, team: DdpgOm) -> list[Tensor]:
        """Copy the weights of an opponent module, its newest transitions and its optimiser."""
        assert team.module is not None
        weights = [each.detach().clone().requires_grad_() for each in team.module.networks[0].parameters()]
        self.predictor_adam = torch.optim.Adam(weights, lr=team.module.learning_rate, fused=True)
        newest = team.module.observed
        parts = [getattr(newest, f"{name}_{agent}") for name in ("obs", "action") for agent in range(AGENTS)]
        self.newest_obs, self.newest_actions = torch.stack(parts[:AGENTS], 1), torch.stack(parts[AGENTS:], 1)
        self.newest_batch = team.module.batch_size
        return weights

    def fit_predictor(self, weights: list[Tensor]) -> None:
        """Make a gradient step of the opponent module, which predicts others' actions from the own observation."""
        chosen = torch.randint(self.newest_obs.shape[2], (self.replicates, self.newest_batch))
        rows = torch.arange(self.replicates).view(-1, 1)
        obs, actions = self.newest_obs[rows, :, chosen], self.newest_actions[rows, :, chosen]  # replicates x batch
        own, theirs = ([each[place] for each in PAIRS] for place in (0, 1))
        logits = forward(weights, obs[:, :, own].transpose(1, 2))
        loss = cross_entropy(logits.flatten(0, 2), actions[:, :, theirs].transpose(1, 2).flatten(), reduction="sum")
        self.step(self.predictor_adam, weights, torch.autograd.grad(loss / self.newest_batch, weights))

    def following(self, own_next: Tensor) -> Tensor:
        """All agents' next actions for each agent's TD targets, `replicates x agents x batch x (agents moves)`."""
        actions = gumbel_softmax(forward(self.slow_actor, own_next), hard=True)
        if self.predictor is None:
            return actions.transpose(1, 2).flatten(2).unsqueeze(1).expand(-1, AGENTS, -1, -1)
        predicted = forward(self.predictor, own_next[:, [agent for agent, _ in PAIRS]])
        expected = gumbel_softmax(predicted, hard=True)
        everybody = torch.empty(self.replicates, AGENTS, self.batch, AGENTS, MOVES)
        for agent in range(AGENTS):
            everybody[:, agent, :, agent] = actions[:, agent]
        for place, (agent, other) in enumerate(PAIRS):
            everybody[:, agent, :, other] = expected[:, place]
        return everybody.flatten(3)

    def update(self) -> None:
        """Update critics, actors and their target networks."""
        if self.predictor is not None:
            self.fit_predictor(self.predictor)
        chosen = (torch.randint(self.size, (self.replicates, self.batch)) + self.first).flatten()
        rows = self.held.index_select(0, chosen).view(self.replicates, self.batch, -1)
        seen_and_done = rows[..., : ALL_SEEN + ALL_DONE]
        obs, actions, next_obs, rewards, goes_on = rows.split([ALL_SEEN, ALL_DONE, ALL_SEEN, AGENTS, 1], -1)
        own_obs = obs.unflatten(-1, (AGENTS, SEEN)).transpose(1, 2)
        joint = seen_and_done.unsqueeze(1).expand(-1, AGENTS, -1, -1)
        if self.predictor is not None:
            joint = torch.cat([own_obs, actions.unsqueeze(1).expand(-1, AGENTS, -1, -1)], -1)
        elif not self.sees_all:
            joint = torch.cat([own_obs, actions.unflatten(-1, (AGENTS, MOVES)).transpose(1, 2)], -1)
        with torch.no_grad():
            own_next = next_obs.unflatten(-1, (AGENTS, SEEN)).transpose(1, 2)
            following = self.following(own_next)
            if self.sees_all:
                after = torch.cat([next_obs.unsqueeze(1).expand(-1, AGENTS, -1, -1), following], -1)
            else:
                own = following.unflatten(-1, (AGENTS, MOVES)).diagonal(dim1=1, dim2=3).movedim(-1, 1)
                after = torch.cat([own_next, own if self.predictor is None else following], -1)
            value = forward(self.slow_critic, after).squeeze(-1)
            target = rewards.mT + self.discount * goes_on.mT * value
        loss = (forward(self.critic, joint).squeeze(-1) - target).square().mean(-1).sum()
        self.step(self.critic_adam, self.critic, torch.autograd.grad(loss, self.critic))

        logits = forward(self.actor, own_obs)
        taken = gumbel_softmax(logits, hard=True)
        joint = torch.cat([own_obs, taken], -1)
        if self.sees_all or self.predictor is not None:
            others = actions.view(self.replicates, 1, self.batch, AGENTS, MOVES)
            done = torch.where(self.own == 1, taken.unsqueeze(3), others).flatten(3)
            joint = torch.cat([obs.unsqueeze(1).expand(-1, AGENTS, -1, -1) if self.sees_all else own_obs, done], -1)
        value = forward([each.detach() for each in self.critic], joint).squeeze(-1)
        loss = (self.regularisation * logits.square().mean(-1) - value).mean(-1).sum()
        self.step(self.actor_adam, self.actor, torch.autograd.grad(loss, self.actor))

        with torch.no_grad():
            torch._foreach_lerp_(self.slow_actor, self.actor, self.rate)
            torch._foreach_lerp_(self.slow_critic, self.critic, self.rate)

    def step(self, adam: torch.optim.Adam, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Make a step of Adam, with the gradient norm of every network clipped."""
        squares = torch.stack([torch.linalg.vector_norm(each.flatten(1), dim=1) for each in gradients])
        scale = (self.norm / torch.linalg.vector_norm(squares, dim=0)).clamp_max(1.0).view(-1, 1, 1)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.mul_(scale)
        adam.step()


def products(
    learner: type[DeterministicActorCritic], replicates: int, hidden: tuple[int, int], batch: int
) -> Callable[[], None]:
    """Only the matrix products of an update."""
    critic = (ALL_SEEN if learner is Maddpg else SEEN) + (MOVES if learner is Ddpg else ALL_DONE)
    shapes = {"actor": (AGENTS, SEEN, MOVES), "critic": (AGENTS, critic, 1), "predictor": (len(PAIRS), SEEN, MOVES)}
    layers = {
        name: [
            (
                torch.randn(replicates * n, batch, i),
                torch.randn(replicates * n, i, o),
                torch.randn(replicates * n, batch, o),
            )
            for i, o in pairwise([inputs, *hidden, outputs])
        ]
        for name, (n, inputs, outputs) in shapes.items()
    }

    def values(name: str) -> None:
        for x, weight, _ in layers[name]:
            torch.bmm(x, weight)

    def gradients(name: str, of_weights: bool, of_input: bool) -> None:
        for number, (x, weight, gradient) in enumerate(layers[name]):
            if of_weights:
                torch.bmm(x.mT, gradient)
            if number or of_input:
                torch.bmm(gradient, weight.mT)

    def work() -> None:
        if learner is DdpgOm:
            values("predictor")
            gradients("predictor", of_weights=True, of_input=False)
            values("predictor")
        for name in ("actor", "critic", "critic"):  # of the targets, and of the critics' step
            values(name)
        gradients("critic", of_weights=True, of_input=False)
        for name in ("actor", "critic"):
            values(name)
        gradients("critic", of_weights=False, of_input=True)
        gradients("actor", of_weights=True, of_input=False)

    return work


def team_with_play(
    learner: type[DeterministicActorCritic], replicates: int, hidden: tuple[int, int], batch: int, **more: Any
) -> tuple[DeterministicActorCritic, Trajectory]:
    """A team that has stored some play, and its last trajectory."""
    game = Spread(AGENTS)
    described = learner(hidden=hidden, batch_size=batch, warmup=0, replay=CAPACITY, **more)
    first, *others = Experiment(game, {"it": described}, replicates=replicates, environments=ENVIRONMENTS).bind("it")
    assert isinstance(first, Member)
    assert isinstance(first.of, DeterministicActorCritic)
    collector = Collector(GameSimulator(game, replicates, ENVIRONMENTS), [first, *others])
    for _ in range(COLLECTED):
        newest = collector.collect()
        first.store(newest)
    return first.of, newest


def check(learner: type[DeterministicActorCritic]) -> None:
    """Check that both versions make the same updates.

    Raises:
        RuntimeError: if five updates with the same random numbers differ by 1e-5.
    """
    team, newest = team_with_play(learner, 2, (64, 64), 256)
    hand = ByHand(team)
    before = [each.clone() for each in hand.actor]
    for update in (hand.update, lambda: team.learn_all(newest, [])):
        torch.manual_seed(1)
        for _ in range(5):
            update()
    (group,) = team.groups
    pairs: tuple[tuple[list[Tensor], nn.Module], ...] = (
        (hand.actor, group.actors),
        (hand.slow_actor, group.slow_actors),
        (hand.critic, team.critics[0].stacks[0]),
        (hand.slow_critic, team.critics[0].slow[0]),
    )
    if isinstance(team, DdpgOm):
        assert hand.predictor is not None
        assert team.module is not None
        pairs = (*pairs, (hand.predictor, team.module.networks[0]))
    expect_same(pairs, 1e-5)
    if not all((one - other).abs().max() > 1e-3 for one, other in zip(hand.actor, before, strict=True)):
        raise RuntimeError("the actors did not move")


def main() -> None:
    """Print the table."""
    rounds, at_least = (3, 0.1) if quick(__doc__) else (8, 0.4)
    for learner in (Maddpg, Ddpg, DdpgOm):
        check(learner)

    print("An update of three agents on spread: CPU time, one thread, float32")
    heads = f"{'learner':<9} {'hidden':<8} {'batch':>5} {'replicates':>10} {'ms':>8}"
    print(f"{heads} {'/ by hand':>10} {'/ its products':>15}")
    for learner in (Maddpg, Ddpg, DdpgOm):
        for replicates, hidden, batch in SIZES:
            module = {"predicted": PredictedActions(hidden=hidden, batch_size=batch)} if learner is DdpgOm else {}
            team, newest = team_with_play(learner, replicates, hidden, batch, **module)
            least_work = products(learner, replicates, hidden, batch)
            works = [partial(team.learn_all, newest, []), ByHand(team).update, least_work]
            ours, hand, least = seconds(works, rounds, at_least)
            shape = "x".join(map(str, hidden))
            print(
                f"{learner.__name__:<9} {shape:<8} {batch:>5} {replicates:>10} {1e3 * ours:>8.2f} {ours / hand:>10.2f} "
                f"{ours / least:>15.2f}",
                flush=True,
            )

    print("\nWhat more it costs, two layers of 64, batch 256, 5 replicates")
    print(f"{'learner':<44} {'ms':>8} {'/ Maddpg':>10}")
    size = (5, (64, 64), 256)
    plain, newest = team_with_play(Maddpg, *size)
    for name, learner, more in VARIANTS:
        team, its = team_with_play(learner, *size, **more)
        ours, base = seconds([partial(team.learn_all, its, []), partial(plain.learn_all, newest, [])], rounds, at_least)
        print(f"{name:<44} {1e3 * ours:>8.2f} {ours / base:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
