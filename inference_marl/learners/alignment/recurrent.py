"""Advantage Alignment with recurrent networks."""

from __future__ import annotations

from dataclasses import field

import torch
from torch import Tensor

from inference_marl.described import Clip, Count, NotNegative, Positive, Probability, hyperparameters
from inference_marl.inference.networks import BatchedGRU, BatchedLinear
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.schedules import Schedule, current
from inference_marl.learners.alignment.base import AdvantageAlignment, CategoricalPolicy, Values
from inference_marl.spaces import Space, encode
from inference_marl.types import Memory, Seat, Trajectory

HIDDEN = "hidden"
"""The key of a network's hidden state in its memory."""


class RecurrentNetwork(CategoricalPolicy):
    """A gated recurrent unit and a linear layer per replicate, over observations.

    Args:
        seat: provides replicates, device and floating type.
        spaces: spaces of the inputs, whose features are concatenated.
        hidden: number of hidden units.
        outputs: number of outputs.
    """

    def __init__(self, seat: Seat, spaces: tuple[Space, ...], hidden: int, outputs: int) -> None:
        super().__init__()
        self.spaces, self.seat, self.width = spaces, seat, hidden
        inputs = sum(space.features for space in spaces)
        self.unit = BatchedGRU(seat.replicates, inputs, hidden, device=seat.device, dtype=seat.dtype)
        self.last = BatchedLinear(seat.replicates, hidden, outputs, device=seat.device, dtype=seat.dtype)

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """A hidden state of 0, `replicates x environments x hidden`."""
        shape = (replicates, environments, self.width)
        return {HIDDEN: torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device)}

    def logits(self, obs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """See `CategoricalPolicy`."""
        hidden = self.unit(self.encoded(obs), memory[HIDDEN])
        return self.last(hidden), {HIDDEN: hidden}

    def encoded(self, *obs: Tensor) -> Tensor:
        """The inputs as features, `... x features`."""
        return encode(self.spaces, obs, self.seat.dtype)

    def along(self, x: Tensor, hidden: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and hidden states after each step of a trajectory.

        Args:
            x: features of the inputs, `time x replicates x environments x features`.
            hidden: hidden state before the first step.
            ended: where episodes end, `time x replicates x environments`; the next one begins with a hidden state of 0.
        """
        kept = None
        if len(ended) > 1 and bool(ended[:-1].any()):
            kept = torch.cat([torch.ones_like(ended[:1]), ~ended[:-1]]).to(x.dtype)
        states = self.unit.unrolled(x, hidden, kept)
        return self._said(states.transpose(0, 1).flatten(1, 2), len(x)), states

    def after(self, x: Tensor, states: Tensor) -> Tensor:
        """Outputs at the observations after each step, given the hidden states of `along`."""
        inputs, states = (each.transpose(0, 1).flatten(1, 2) for each in (x, states))
        return self._said(self.unit(inputs, states), len(x))

    def _said(self, states: Tensor, steps: int) -> Tensor:
        """Outputs, `time x replicates x environments x outputs`, given hidden states with `replicates` first."""
        outputs: Tensor = self.last(states).unflatten(1, (steps, -1))
        return outputs.transpose(0, 1)


@hyperparameters
class RecurrentAlignment(AdvantageAlignment):
    """Advantage Alignment, or LOQA, with a recurrent policy and a recurrent critic of both agents' observations.

    The weights are standardised over the trajectory, in each replicate, and both networks are trained by Adam. The
    defaults differ from those of `TabularAlignment`: with `past_trace_decay` = 0 networks do not find cooperation in
    the coin game.

    Args:
        hidden: hidden units of each network.
        learning_rate: Adam's step size for the policy; a number or a schedule over updates.
        critic_learning_rate: likewise for the critic.
        critic_steps: gradient steps of the critic per update.
        max_gradient_norm: clip each network's gradient in each replicate; `None` for no clipping.
        beta, weight, discount, trace_decay, past_trace_decay, entropy: see `AdvantageAlignment`.
    """

    by_replicate = AdvantageAlignment.by_replicate | {"learning_rate", "critic_learning_rate"}

    beta: NotNegative | Schedule = 0.2
    past_trace_decay: Probability | Schedule = 0.95
    entropy: NotNegative | Schedule = 0.04
    hidden: Count = 32
    learning_rate: Positive | Schedule = 0.01
    critic_learning_rate: Positive | Schedule = 0.003
    critic_steps: Count = 1
    max_gradient_norm: Clip = None
    actor: RecurrentNetwork = field(init=False)
    critic: RecurrentNetwork = field(init=False)
    actor_optimiser: Optimiser = field(init=False)
    critic_optimiser: Optimiser = field(init=False)

    def setup(self) -> None:
        """Check the seat and create the networks; raises `IncompatibleError` like the base."""
        super().setup()
        seat = self.seat
        (j,) = seat.opponents
        outputs = 2 + (seat.action_spaces[j].features if self.weight == "loqa" else 0)
        self.actor = RecurrentNetwork(seat, (seat.observation,), self.hidden, seat.action.features)
        self.critic = RecurrentNetwork(seat, (seat.observation, seat.observations[j]), self.hidden, outputs)
        for name, network in (("actor", self.actor), ("critic", self.critic)):
            optimiser = Optimiser(name, network.parameters(), 1.0, self.max_gradient_norm)
            setattr(self, f"{name}_optimiser", optimiser)

    def _read(self, newest: Trajectory, after: bool = False) -> Tensor:
        """Features of the critic's inputs before or after each step."""
        played, i = newest.stacked, self.seat.index
        obs = played.next_obs if after else played.obs
        return self.critic.encoded(obs[i], obs[1 - i])

    def _criticised(self, newest: Trajectory) -> tuple[Tensor, Tensor]:
        """The critic's outputs and hidden states along a trajectory."""
        ended = newest.stacked.ended
        hidden = self.critic.initial_memory(*ended.shape[1:])[HIDDEN]
        return self.critic.along(self._read(newest), hidden, ended)

    @torch.no_grad()
    def values(self, newest: Trajectory) -> Values:
        """The critic's values; its hidden state is 0 at the start of the trajectory."""
        now, states = self._criticised(newest)
        after = self.critic.after(self._read(newest, after=True), states)
        of_actions = now[..., 2:] if self.weight == "loqa" else None
        return Values(now[..., 0], after[..., 0], now[..., 1], after[..., 1], of_actions)

    def follow(self, newest: Trajectory, weights: Tensor) -> None:
        """Take a step of Adam."""
        played, i = newest.stacked, self.seat.index
        spread = weights.std((0, 2), correction=0, keepdim=True) + 1e-8
        weights = (weights - weights.mean((0, 2), keepdim=True)) / spread
        hidden = newest.memories[i][HIDDEN]
        logits, _ = self.actor.along(self.actor.encoded(played.obs[i]), hidden, played.ended)
        log_policy = logits.log_softmax(-1)
        chosen = log_policy.gather(-1, played.actions[i].unsqueeze(-1)).squeeze(-1)
        entropy = -(log_policy.exp() * log_policy).sum(-1)
        gain = weights * chosen + current(self.entropy, self.updates) * entropy
        self.actor_optimiser.set_rate(current(self.learning_rate, self.updates))
        self.actor_optimiser.step(-gain.mean((0, 2)))

    def fit(self, newest: Trajectory, said: Values, own: Tensor, other: Tensor) -> None:
        """Take steps of Adam on squared errors."""
        chosen = newest.stacked.actions[1 - self.seat.index].unsqueeze(-1)
        targets = torch.stack([own, other], -1)
        self.critic_optimiser.set_rate(current(self.critic_learning_rate, self.updates))
        for _ in range(self.critic_steps):
            found, _ = self._criticised(newest)
            loss = (found[..., :2] - targets).square().sum(-1)
            if self.weight == "loqa":
                loss = loss + (found[..., 2:].gather(-1, chosen).squeeze(-1) - other).square()
            self.critic_optimiser.step(loss.mean((0, 2)))
