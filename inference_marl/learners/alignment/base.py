"""Advantage Alignment and LOQA: what weighs the log-probability of each action."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference_marl.described import BelowOne, IncompatibleError, NotNegative, Probability, hyperparameters
from inference_marl.inference.objectives import discounted
from inference_marl.inference.schedules import ByReplicate, Number, Schedule, current
from inference_marl.inference.tables import draw, finite
from inference_marl.play import Functional
from inference_marl.spaces import Discrete
from inference_marl.types import Actor, Counting, Decision, Learner, Memory, Trajectory


class Values(NamedTuple):
    """What a critic says of a trajectory; tensors lead with `time x replicates x environments`.

    Attributes:
        own, own_next: values of the agent's rewards, of what it observed before each step and after it.
        other, other_next: values of the opponent's rewards.
        other_actions: values of the opponent's rewards by its actions, `... x opponent_actions`; `None` if not needed.
    """

    own: Tensor
    own_next: Tensor
    other: Tensor
    other_next: Tensor
    other_actions: Tensor | None = None


class CategoricalPolicy(nn.Module):
    """A policy over discrete actions, with a memory, all of whose parameters lead with `replicates`."""

    @abstractmethod
    def logits(self, obs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Unnormalised log-probabilities, `replicates x environments x actions`, and the memory after seeing `obs`."""

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """As `Actor.initial_memory`."""
        return {}

    def forward(self, obs: Tensor, memory: Memory) -> tuple[dist.Categorical, Memory]:
        """As `Actor.policy`."""
        logits, memory = self.logits(obs, memory)
        return dist.Categorical(logits=logits), memory


@hyperparameters
class AdvantageAlignment(Counting, Learner):
    """Base of reciprocating learners, by first-order policy gradients::

        gradient  E sum_k w_k grad log pi(a_k | o_k)
        w_k = A_k + beta gamma A'_k sum_(t<k) (gamma lambda)^(k-t-1) G_t

    with the generalised advantages A of the agent's own rewards and A' of the opponent's (Schulman et al. 2016). The
    second part is the opponent's gain from the action, times what the agent has gained before in the episode: after
    gains it makes what is good for the opponent more probable, after losses less. With `beta` = 0 this is an
    actor-critic.

    G_t is A_t with `past_trace_decay` for lambda. In Advantage Alignment (Duque et al. 2024, 'Advantage alignment
    algorithms') and in LOQA it is the estimate of A_t that the policy learns by, with lambda near 1. Such an A_t has
    the rewards that follow a_k in it, too, so that w_k contains A_k A'_k: it also prefers what is good for both, or bad
    for both, to what is good for one only, whatever was before. With 0, the default, G_t is the error of temporal
    differences, the part of A_t that is known when step t is over, so that what is left is reciprocity. Other
    departures are that the weights of the past decay by gamma lambda, not gamma, and that no surrogate is clipped.

    `weight="loqa"` multiplies each G_t by 1 - q(b_t), where q is the softmax of values of the opponent's actions, which
    are estimated from its rewards. The weights are then those of the gradient of LOQA's objective for the opponent
    (Aghajohari et al. 2024, 'LOQA: Learning with opponent Q-learning awareness'), so that it takes no second
    derivatives::

        L = E sum_t G_t log q_t(b_t)      q_t(b_t) = exp Q'_t / (exp Q'_t + sum_(b != b_t) exp Q'(o'_t, b))

    in which the return Q'_t of the opponent after b_t depends on the agent's policy by loaded DiCE. The factor is 0.75
    for an opponent of four actions that is indifferent: LOQA is close to Advantage Alignment with a smaller beta.

    It learns from whole episodes: in an experiment, `collect` is the horizon, or a multiple of it. Of an episode that
    is cut by the ends of a trajectory, what is in it counts, and values stand for what comes later. Nothing is read of
    the opponent but what it observes, does and is paid: neither its critic nor its policy.

    A subclass defines `values`, `follow` and `fit`, and makes `actor`.

    Args:
        beta: weight of the alignment, not negative; number or schedule over updates.
        weight: `alignment` or `loqa`.
        discount: gamma in [0, 1).
        trace_decay: lambda in [0, 1].
        past_trace_decay: the lambda of G_t, in [0, 1]; number or schedule over updates.
        entropy: weight of the policy's entropy in every state, not negative; number or schedule over updates.

    Attributes:
        actor: the policy, once bound.
    """

    by_replicate = frozenset({"beta", "discount", "trace_decay", "past_trace_decay", "entropy"})

    beta: NotNegative | Schedule = 0.6
    weight: Literal["alignment", "loqa"] = "alignment"
    discount: BelowOne | ByReplicate = 0.96
    trace_decay: Probability | ByReplicate = 0.95
    past_trace_decay: Probability | Schedule = 0.0
    entropy: NotNegative | Schedule = 0.02
    actor: CategoricalPolicy = field(init=False)

    def setup(self) -> None:
        """Check the seat.

        Raises:
            IncompatibleError: if there are not two agents with finitely many actions.
        """
        seat, name = self.seat, type(self).__name__
        if len(seat.opponents) != 1:
            raise IncompatibleError(f"{name} got {len(seat.action_spaces)} agents, expected 2")
        for space in seat.action_spaces:
            if not isinstance(space, Discrete):
                raise IncompatibleError(f"{name} got actions {space}, expected Discrete")

    @abstractmethod
    def values(self, newest: Trajectory) -> Values:
        """What the critic says of a trajectory."""

    @abstractmethod
    def follow(self, newest: Trajectory, weights: Tensor) -> None:
        """Take a step of the policy up the gradient, given w_k, `time x replicates x environments`, and the entropy."""

    @abstractmethod
    def fit(self, newest: Trajectory, said: Values, own: Tensor, other: Tensor) -> None:
        """Move the critic towards returns, `time x replicates x environments`.

        Args:
            newest: where they were seen.
            said: what the critic says of it.
            own: the agent's lambda-returns.
            other: the opponent's.
        """

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The policy's."""
        return self.actor.initial_memory(replicates, environments)

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        """The softmax of the logits."""
        found: tuple[dist.Categorical, Memory] = self.actor(obs, memory)
        return found

    @torch.no_grad()
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """A draw from the policy; its most probable action without `explore`."""
        logits, memory = self.actor.logits(obs, memory)
        return Decision(draw(logits.softmax(-1)) if explore else logits.argmax(-1), memory)

    def snapshot(self) -> Functional:
        """The policy as a function of its current parameters."""
        return Functional.of(self.actor, self.seat, initial_memory=self.actor.initial_memory)

    def store(self, newest: Trajectory) -> None:
        """Refuse games in which agents may be out (`IncompatibleError`)."""
        newest.check_all_act(type(self).__name__)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """One step of the policy and of the critic; `peers` is not read.

        Raises:
            NonFiniteError: if a reward is not finite, or in networks a gradient.
        """
        played, said = newest.stacked, self.values(newest)
        by_replicate = played.rewards.transpose(0, 1)
        rewards = finite("reward", by_replicate.flatten(1)).view_as(by_replicate).transpose(0, 1)
        discount, within = current(self.discount, 0), (~played.ended).to(rewards.dtype)
        onward, decay = discount * (~played.terminated).to(rewards.dtype), discount * current(self.trace_decay, 0)
        i = self.seat.index
        with torch.no_grad():
            own_error = rewards[..., i] + onward * said.own_next - said.own
            other_error = rewards[..., 1 - i] + onward * said.other_next - said.other
            own, other = (discounted(error, decay * within) for error in (own_error, other_error))
            gains = discounted(own_error, discount * current(self.past_trace_decay, self.updates) * within)
            if said.other_actions is not None:
                chosen = played.actions[1 - i].unsqueeze(-1)
                gains = gains * (1 - said.other_actions.softmax(-1).gather(-1, chosen).squeeze(-1))
            beta = current(self.beta, self.updates)
            weights = own + beta * discount * other * gathered(gains, decay, within)
        self.follow(newest, weights)
        self.fit(newest, said, own + said.own.detach(), other + said.other.detach())
        self.updates += 1
        return {}


def gathered(values: Tensor, decay: Number, within: Tensor) -> Tensor:
    """Sums over the past of an episode, `S_k = sum_(t<k) decay^(k-t-1) values_t`.

    Args:
        values: `time x ...`.
        decay: a number, or one that broadcasts with a step.
        within: 0 where an episode is over with a step, else 1, of the same shape as `values`.
    """
    total, found = torch.zeros_like(values[0]), []
    for value, same in zip(values, within, strict=True):
        found.append(total)
        total = same * (value + decay * total)
    return torch.stack(found)
