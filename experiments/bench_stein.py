"""CPU time of one agent's update of MASQL and PR2-AC, compared with plain torch and with its matrix products.

The max of two quadratics, float32, one torch thread. The plain torch version is written for this game only, without the
Stein discrepancy and other metrics. First both are checked to make the same updates. CPU time is that of one thread, so
that other work on the machine has little effect; compared functions are timed in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from timing import expect_same, quick, seconds
from torch import Tensor, nn

from inference_marl import Experiment
from inference_marl.games import MaxOfTwoQuadratics
from inference_marl.guides import SamplerNetwork
from inference_marl.learners import Masql, Pr2Ac
from inference_marl.learners.stein import SteinLearner
from inference_marl.models import NetworkCritic
from inference_marl.play import Collector, GameSimulator
from inference_marl.types import Trajectory

EDGE, RATE, GAMMA, ALPHA, TAU, REGULARISATION = 10.0, 1e-2, 0.95, 1.0, 0.01, 1e-3
PARTICLES, STORED = 16, 600
"""Numbers of fixed particles, moved ones and those in the value; and of stored transitions."""
SIZES = [
    *((replicates, (64, 64), 64, 8) for replicates in (1, 16, 64)),
    *((replicates, (100, 100), 512, 64) for replicates in (1, 8)),
]


def forward(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """Evaluate networks with weights `replicates x in x out` at `replicates x ... x in`."""
    out = x.flatten(1, -2)
    for layer in range(0, len(weights), 2):
        out = torch.baddbmm(weights[layer + 1], out, weights[layer])
        if layer < len(weights) - 2:
            out = out.relu_()
    return out.view(*x.shape[:-1], -1)


def with_one(*values: Tensor) -> Tensor:
    """Network input: the feature of the only state, and actions scaled to [-1, 1], `replicates x ... x dim`."""
    return torch.cat([torch.ones_like(values[0][..., :1]), *values], -1)


class ByHand:
    """The update of a `Masql` or `Pr2Ac` in plain torch, with a copy of its state and replay buffer."""

    def __init__(self, learner: SteinLearner) -> None:
        self.critic, self.slow_critic, self.sampler = (
            self.copy(part) for part in (learner.critic, learner.target_critic, learner.sampler)
        )
        self.learns(self.critic, self.sampler)
        self.critic_adam, self.sampler_adam = self.adam(self.critic), self.adam(self.sampler)
        self.recursive = isinstance(learner, Pr2Ac)
        if isinstance(learner, Pr2Ac):
            self.actor, self.slow_actor = self.copy(learner.actor), self.copy(learner.slow_actor)
            self.learns(self.actor)
            self.actor_adam = self.adam(self.actor)
        held = learner.transitions
        self.held = torch.stack([held.action_0 / EDGE, held.action_1 / EDGE, held.rewards[..., :1]])
        self.replicates, self.batch, self.sampled = (
            held.rewards.shape[0],
            learner.batch_size,
            learner.sampler_batch_size,
        )

    @staticmethod
    def copy(part: nn.Module) -> list[Tensor]:
        """Copy the weights of a network."""
        return [each.detach().clone() for each in part.parameters()]

    @staticmethod
    def learns(*networks: Sequence[Tensor]) -> None:
        """Enable gradients of weights."""
        for each in (weight for network in networks for weight in network):
            each.requires_grad_()

    @staticmethod
    def adam(weights: list[Tensor]) -> torch.optim.Adam:
        """The optimiser of a network."""
        return torch.optim.Adam(weights, lr=RATE, fused=True)

    @staticmethod
    def step(adam: torch.optim.Adam, weights: Sequence[Tensor], loss: Tensor) -> None:
        """Make a descent step on the sum of the replicates' losses."""
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        adam.step()

    def update(self) -> None:
        """Update critic, sampler and actor, if there is one, and their target networks."""
        rows = torch.arange(self.replicates).view(-1, 1)
        chosen = torch.randint(STORED, (self.replicates, self.batch))
        action, opponent_action, reward = self.held[:, rows, chosen]
        with torch.no_grad():
            target = reward + GAMMA * self.next_value()
        value = forward(self.critic, with_one(action, opponent_action))
        self.step(self.critic_adam, self.critic, 0.5 * (value - target).square().sum() / self.batch)
        with torch.no_grad():
            torch._foreach_lerp_(self.slow_critic, self.critic, TAU)
        self.move_sampler(action[:, : self.sampled])
        if self.recursive:
            self.move_actor()

    def next_value(self) -> Tensor:
        """V, `replicates x batch x 1`: at uniform joint actions (MASQL) or responses to the target actor (PR2-AC)."""
        shape = (self.replicates, PARTICLES, self.batch)
        if not self.recursive:
            q = forward(self.slow_critic, with_one(2 * torch.rand(*shape, 2) - 1))
            mean = torch.logsumexp(q / ALPHA, 1) - math.log(PARTICLES)
            return ALPHA * (mean + 2 * math.log(2 * EDGE))
        own = torch.tanh(forward(self.slow_actor, torch.ones(self.replicates, self.batch, 1)))
        own = own.unsqueeze(1).expand(-1, PARTICLES, -1, -1)
        answers = torch.tanh(self.draw(own, PARTICLES))
        return forward(self.slow_critic, with_one(own, answers)).mean(1)

    def draw(self, own: Tensor, count: int) -> Tensor:
        """Sample unsquashed actions, `replicates x count x batch x dim`; PR2-AC's sampler is given `own`, likewise."""
        noise = torch.randn(self.replicates, count, own.shape[-2], 1 if self.recursive else 2)
        return forward(self.sampler, with_one(own, noise) if self.recursive else with_one(noise))

    def move_sampler(self, action: Tensor) -> None:
        """Make a step along the Stein variational gradient."""
        own = action.unsqueeze(1).expand(-1, PARTICLES, -1, -1)
        with torch.no_grad():
            fixed = self.draw(own, PARTICLES)
        moved = self.draw(own, PARTICLES)
        points = fixed.requires_grad_()
        inside = torch.tanh(points)
        frozen = [each.detach() for each in self.critic]
        q = forward(frozen, with_one(own, inside) if self.recursive else with_one(inside))
        slope = -2 * (points + torch.nn.functional.softplus(-2 * points))
        (score,) = torch.autograd.grad(q.sum() / ALPHA + slope.sum(), points)
        x, y, score = (each.detach().transpose(1, 2) for each in (points, moved, score))
        first, second = torch.triu_indices(PARTICLES, PARTICLES, 1)
        between = (y.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)[..., first, second]
        bandwidth = (between.median(-1).values / math.log(PARTICLES + 1)).clamp_min(1e-6)[..., None, None]
        kernel = torch.exp(-(y.unsqueeze(-2) - x.unsqueeze(-3)).square().sum(-1) / bandwidth)
        apart = 2 / bandwidth * (kernel.sum(-1, keepdim=True) * y - kernel @ x)
        direction = (kernel @ score + apart) / PARTICLES
        loss = -(direction * moved.transpose(1, 2)).sum() / (PARTICLES * action.shape[1])
        self.step(self.sampler_adam, self.sampler, loss)

    def move_actor(self) -> None:
        """Make an ascent step on the value of the responses to the actor."""
        assert self.sampled is not None
        outputs = forward(self.actor, torch.ones(self.replicates, self.sampled, 1))
        own = torch.tanh(outputs).unsqueeze(1).expand(-1, PARTICLES, -1, -1)
        noise = torch.randn(self.replicates, PARTICLES, self.sampled, 1)
        answers = torch.tanh(forward([each.detach() for each in self.sampler], with_one(own, noise)))
        value = forward([each.detach() for each in self.critic], with_one(own, answers)).mean((1, 2, 3))
        self.step(self.actor_adam, self.actor, (REGULARISATION * outputs.square().mean((1, 2)) - value).sum())
        with torch.no_grad():
            torch._foreach_lerp_(self.slow_actor, self.actor, TAU)


def products(recursive: bool, replicates: int, hidden: tuple[int, int], batch: int, sampled: int) -> Callable[[], None]:
    """Only the matrix products of an update."""

    def layers(inputs: int, outputs: int, rows: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        shapes = pairwise([inputs, *hidden, outputs])
        return [tuple(torch.randn(replicates, *shape) for shape in ((rows, i), (i, o), (rows, o))) for i, o in shapes]  # type: ignore[misc]

    def passes() -> Iterator[tuple[list[tuple[Tensor, Tensor, Tensor]], bool, bool]]:
        """The evaluated layers, and whether gradients of the weights and of the input are computed."""
        particles, drawn = PARTICLES * batch, PARTICLES * sampled
        noise = 3  # inputs: the constant, the action and one noise number; or the constant and two noise numbers
        if recursive:
            yield layers(1, 1, batch), False, False
            yield layers(noise, 1, particles), False, False
        yield layers(3, 1, particles), False, False
        yield layers(3, 1, batch), True, False
        yield layers(noise, 1 if recursive else 2, drawn), False, False
        yield layers(noise, 1 if recursive else 2, drawn), True, False
        yield layers(3, 1, drawn), False, True
        if recursive:
            yield layers(1, 1, sampled), True, False
            yield layers(noise, 1, drawn), False, True
            yield layers(3, 1, drawn), False, True

    every = list(passes())

    def work() -> None:
        for its, of_weights, of_input in every:
            for number, (x, weight, gradient) in enumerate(its):
                torch.bmm(x, weight)
                if of_weights:
                    torch.bmm(x.mT, gradient)
                if of_input or (of_weights and number):
                    torch.bmm(gradient, weight.mT)

    return work


def learner_with_play(
    kind: type[SteinLearner], replicates: int, hidden: tuple[int, int], batch: int, sampled: int
) -> tuple[SteinLearner, Trajectory]:
    """A learner that has stored some uniform play, and its last trajectory."""
    more: dict[str, Any] = {"hidden": hidden, "regularisation": REGULARISATION} if kind is Pr2Ac else {}
    described = kind(
        sampler=SamplerNetwork(hidden),
        critic=NetworkCritic(hidden, RATE, TAU),
        temperature=ALPHA,
        discount=GAMMA,
        value_particles=PARTICLES,
        replay=STORED,
        batch_size=batch,
        sampler_batch_size=sampled,
        learning_rate=RATE,
        **more,
    )
    game = MaxOfTwoQuadratics()
    actors = Experiment(game, {"it": described}, replicates=replicates).bind("it")
    learner = actors[0]
    assert isinstance(learner, SteinLearner)
    uniform = kind(warmup=STORED, **more).bind(learner.seat), *actors[1:]
    collector = Collector(GameSimulator(game, replicates, 1), uniform)
    for _ in range(STORED):
        newest = collector.collect()
        learner.store(newest)
    return learner, newest


def check(kind: type[SteinLearner]) -> None:
    """Check that both versions make the same updates.

    Raises:
        RuntimeError: if five updates with the same random numbers differ by 1e-4.
    """
    learner, newest = learner_with_play(kind, 2, (64, 64), 64, 8)
    hand = ByHand(learner)
    for update in (hand.update, lambda: learner.learn(newest, [])):
        torch.manual_seed(1)
        for _ in range(5):
            update()
    pairs: list[tuple[list[Tensor], nn.Module]] = [
        (hand.critic, learner.critic),
        (hand.slow_critic, learner.target_critic),
        (hand.sampler, learner.sampler),
    ]
    if isinstance(learner, Pr2Ac):
        pairs += [(hand.actor, learner.actor), (hand.slow_actor, learner.slow_actor)]
    expect_same(pairs, 1e-4)


def main() -> None:
    """Print the table."""
    rounds, at_least = (3, 0.1) if quick(__doc__) else (8, 0.4)
    kinds: tuple[type[SteinLearner], ...] = (Masql, Pr2Ac)
    for kind in kinds:
        check(kind)

    print(f"An update of one agent, {PARTICLES} fixed and {PARTICLES} moved particles: CPU time, one thread, float32")
    heads = f"{'learner':<8} {'hidden':<8} {'batch':>5} {'of sampler':>10} {'replicates':>10} {'ms':>8}"
    print(f"{heads} {'/ by hand':>10} {'/ its products':>15}")
    for kind in kinds:
        for replicates, hidden, batch, sampled in SIZES:
            learner, newest = learner_with_play(kind, replicates, hidden, batch, sampled)
            least_work = products(kind is Pr2Ac, replicates, hidden, batch, sampled)
            works = [partial(learner.learn, newest, []), ByHand(learner).update, least_work]
            ours, hand, least = seconds(works, rounds, at_least)
            shape = "x".join(map(str, hidden))
            print(
                f"{kind.__name__:<8} {shape:<8} {batch:>5} {sampled:>10} {replicates:>10} {1e3 * ours:>8.2f} "
                f"{ours / hand:>10.2f} {ours / least:>15.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
