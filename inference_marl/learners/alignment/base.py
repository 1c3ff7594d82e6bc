"""The base of Advantage Alignment and LOQA, which computes the weight of each action's log-probability."""

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
    """A critic's values along a trajectory; tensors begin with `time x replicates x environments`.

    Attributes:
        own, own_next: values of the agent's rewards at its observations before and after each step.
        other, other_next: values of the opponent's rewards, likewise.
        other_actions: values of the opponent's rewards for each of its actions, `... x opponent_actions`; `None` if not
            needed.
    """

    own: Tensor
    own_next: Tensor
    other: Tensor
    other_next: Tensor
    other_actions: Tensor | None = None


class CategoricalPolicy(nn.Module):
    """Base: a policy over discrete actions with a memory; `replicates` is the first dimension of all parameters."""

    @abstractmethod
    def logits(self, obs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Unnormalised log-probabilities, `replicates x environments x actions`, and the next memory."""

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """See `Actor.initial_memory`."""
        return {}

    def forward(self, obs: Tensor, memory: Memory) -> tuple[dist.Categorical, Memory]:
        """See `Actor.policy`."""
        logits, memory = self.logits(obs, memory)
        return dist.Categorical(logits=logits), memory


@hyperparameters
class AdvantageAlignment(Counting, Learner):
    """Base: reciprocating learners that follow a first-order policy gradient::

        gradient  E sum_k w_k grad log pi(a_k | o_k)
        w_k = A_k + beta gamma A'_k sum_(t<k) (gamma lambda)^(k-t-1) G_t

    with the generalised advantages A of the agent's own rewards and A' of the opponent's (Schulman et al. 2016). The
    second term is the opponent's advantage from the action times the agent's own past advantages in the episode: after
    gains, actions that are good for the opponent become more probable, after losses less probable. With `beta` = 0 this
    is an actor-critic.

    G_t is A_t with `past_trace_decay` for lambda. In Advantage Alignment (Duque et al. 2024, 'Advantage alignment
    algorithms') and in LOQA it is the same estimate of A_t as in the policy gradient, with lambda near 1. Such an A_t
    includes rewards after a_k, so that w_k contains A_k A'_k: independently of the past, it also prefers actions that
    are good, or bad, for both to those that are good for one only. With 0, the default, G_t is the TD error, the part
    of A_t that is known after step t, so that only reciprocity is left. Other departures are that the weights of the
    past decay by gamma lambda, not gamma, and that no surrogate is clipped.

    `weight="loqa"` multiplies each G_t by 1 - q(b_t), where q is the softmax of the opponent's action values, estimated
    from its rewards. The weights are then those of the gradient of LOQA's objective for the opponent (Aghajohari et al.
    2024, 'LOQA: Learning with opponent Q-learning awareness'), without second derivatives::

        L = E sum_t G_t log q_t(b_t)      q_t(b_t) = exp Q'_t / (exp Q'_t + sum_(b != b_t) exp Q'(o'_t, b))

    where the opponent's return Q'_t after b_t depends on the agent's policy through loaded DiCE. The factor is 0.75 for
    an opponent that is indifferent between four actions: LOQA is close to Advantage Alignment with a smaller beta.

    Learning is from whole episodes: in an experiment, set `collect` to the horizon or a multiple of it. Episodes that a
    trajectory cuts are learned from as far as they are in it, with bootstrapped values at its end. The learner reads
    the opponent's observations, actions and rewards, but neither its critic nor its policy.

    A subclass defines `values`, `follow` and `fit`, and creates `actor`.

    Args:
        beta: weight of the alignment, not negative; a number or a schedule over updates.
        weight: `alignment` or `loqa`.
        discount: gamma in [0, 1).
        trace_decay: lambda in [0, 1].
        past_trace_decay: the lambda of G_t, in [0, 1]; a number or a schedule over updates.
        entropy: weight of the policy's entropy in every state, not negative; a number or a schedule over updates.

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
        """The critic's values along a trajectory."""

    @abstractmethod
    def follow(self, newest: Trajectory, weights: Tensor) -> None:
        """Take a policy gradient step, given w_k, `time x replicates x environments`, with the entropy."""

    @abstractmethod
    def fit(self, newest: Trajectory, said: Values, own: Tensor, other: Tensor) -> None:
        """Move the critic towards returns, `time x replicates x environments`.

        Args:
            newest: the trajectory.
            said: the critic's values along it.
            own: the agent's lambda-returns.
            other: the opponent's lambda-returns.
        """

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The policy's initial memory."""
        return self.actor.initial_memory(replicates, environments)

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        """The softmax of the logits."""
        found: tuple[dist.Categorical, Memory] = self.actor(obs, memory)
        return found

    @torch.no_grad()
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Draw from the policy, or take its most probable action without `explore`."""
        logits, memory = self.actor.logits(obs, memory)
        return Decision(draw(logits.softmax(-1)) if explore else logits.argmax(-1), memory)

    def snapshot(self) -> Functional:
        """The policy as a function of its current parameters."""
        return Functional.of(self.actor, self.seat, initial_memory=self.actor.initial_memory)

    def store(self, newest: Trajectory) -> None:
        """Store nothing; raises `IncompatibleError` if agents may leave an episode."""
        newest.check_all_act(type(self).__name__)

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Take a step of the policy and of the critic; `peers` is not used.

        Raises:
            NonFiniteError: if a reward, or a network's gradient, is not finite.
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
    """Discounted sums over the past of an episode, `S_k = sum_(t<k) decay^(k-t-1) values_t`.

    Args:
        values: `time x ...`.
        decay: a number, or a tensor that broadcasts with one time step.
        within: 0 at the last step of an episode and 1 otherwise, in the shape of `values`.
    """
    total, found = torch.zeros_like(values[0]), []
    for value, same in zip(values, within, strict=True):
        found.append(total)
        total = same * (value + decay * total)
    return torch.stack(found)
