"""The base of actor-critics whose actors follow the critic's gradient with respect to the action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import ClassVar

import torch
from torch import Tensor

from inference_marl.described import hyperparameters
from inference_marl.inference.action_gradients import one_hot_draw
from inference_marl.inference.networks import track_each
from inference_marl.inference.objectives import td_target
from inference_marl.inference.optimise import frozen
from inference_marl.inference.schedules import current, over_events
from inference_marl.learners.deterministic.acting import DeterministicPolicies
from inference_marl.learners.deterministic.stacks import Actors, Critics, legal, squashed, step_down
from inference_marl.spaces import Discrete, Space
from inference_marl.types import POSITIVE, Actor, Metric, Trajectory, Transition

CRITIC_LOSS = Metric(
    "critic_loss",
    "critic loss",
    bounds=POSITIVE,
    higher_is_better=False,
    meaning="Mean squared error of the critic's TD targets, in squared units of reward.",
)
ACTION_VALUE = Metric(
    "action_value",
    "critic's value of its own policy",
    meaning="Mean over a minibatch of Q(x, a) with the agent's own action from its policy, drawn or relaxed as in the "
    "actor's last update; it may overestimate.",
)


@hyperparameters
class DeterministicActorCritic(DeterministicPolicies):
    """Base: a decentralised actor and a critic for every agent; a subclass defines the critics' inputs::

        y_i = r_i + gamma Q_i'(x', a'),   a_j' = mu_j'(o_j')
        grad J_i = E[grad mu_i(o_i) grad_{a_i} Q_i(x, a)],   a_i = mu_i(o_i), others from replay

    with slowly updated targets `'`. Actors take the agent's own observation. Policies over boxes are deterministic and
    explore by `noise`; policies over discrete actions are categorical, with gradients by `estimator`. The networks of
    agents with equal spaces are one batch of matrices, `(replicates agents) x in x out`.

    Critics that take other agents' observations and actions also take those of agents outside the team, which in
    targets repeat their actions. Agents that have left an episode are masked: critics get zeros for their observations
    and actions, an agent's own targets terminate when it leaves, and its losses are means over transitions that begin
    before it leaves. If a minibatch has none, the gradient is 0 and Adam's momentum continues. Illegal actions are
    neither taken nor used in bootstrapped values.

    Args:
        hidden: widths of the hidden layers of actors and critics.
        learning_rate: Adam's step size for both.
        discount: gamma in [0, 1).
        target_rate: fraction by which target networks move towards the online ones after every update, in (0, 1].
        replay: joint transitions kept per replicate.
        batch_size: transitions drawn from the replay buffer per update.
        warmup: initial updates in which nothing is fitted.
        warmup_actions: actions during warm-up: `uniform`, or those of the exploring `policy`.
        noise: exploration noise in boxes, which may depend on the number of updates.
        estimator: estimator of the gradient of discrete policies.
        regularisation: weight of the actors' mean squared outputs (logits, or values before squashing), as in the
            authors' code of MADDPG.
        max_gradient_norm: clip the gradient of each network of each replicate (of twin critics, both together); `None`
            for no clipping.
        shared: whether agents with equal spaces share an actor.
        shared_critic: whether they share a critic, which is fitted to the mean of their losses. If its inputs are the
            same for all of them, it estimates their mean return and does not distinguish them.
        sub_policies: size of the policy ensemble (Lowe et al. 2017, Section 4.3): every agent draws a sub-policy for
            each episode, and has a replay buffer for each but a single critic. In targets, an agent continues with the
            sub-policy that it played, and those of other agents are drawn uniformly, each equally often in a minibatch.
            `replay` and `batch_size` are per sub-policy.
        twin_critics: whether targets are the minimum of two critics (Fujimoto et al. 2018, TD3).
        target_noise: standard deviation of noise on target actions in boxes, in units of half the box's width, clipped
            at 2.5 times that (TD3's target policy smoothing has 0.2).
        actor_interval: critic updates per update of actors and target networks (TD3's delayed policy updates have 2).
        seats: see `Team`.

    Attributes:
        groups: the actors, grouped by spaces and by the inputs of their critics.
        critics: the critics, grouped by their inputs.
        replays: the team's replay buffer or, with sub-policies, those of each member.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (CRITIC_LOSS, ACTION_VALUE)

    worth: Tensor = field(init=False)

    def setup(self) -> None:
        """See `DeterministicPolicies`; also creates `worth`, the actors' values at their last update."""
        super().setup()
        shape = (self.seat.replicates, len(self.team))
        self.register_buffer("worth", torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device))

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """Take a step of all critics, then one of all actors unless these are delayed; `peers` is not used."""
        said: list[dict[str, Tensor]] = [{} for _ in self.team]
        if not self._warming_up:
            data = self.draw()
            joint = self._encoded(data.obs, data.actions, data.alive)
            self._evaluate(data, joint, said)
            if (self.updates - self.warmup) % self.actor_interval == 0:
                others = self._others(data, joint)
                for group in self.groups:
                    worth = self._improve(group, data, joint, others)
                    for number, value in zip(group.numbers, worth.unbind(1), strict=True):
                        self.worth[:, number] = value
                self._track()
            for number, value in enumerate(self.worth.clone().unbind(1)):
                said[number][ACTION_VALUE.name] = value
        self.updates += 1
        return list(said)

    def _evaluate(self, data: Transition, joint: Sequence[Tensor], said: Sequence[dict[str, Tensor]]) -> None:
        """Take a step of every critic towards its targets; reports their losses before it."""
        inputs = [critics.inputs(joint) for critics in self.critics]
        values = [
            [stack(x).squeeze(-1) for stack in critics.stacks] for critics, x in zip(self.critics, inputs, strict=True)
        ]
        targets = self._targets(data)
        for critics, its in zip(self.critics, values, strict=True):
            wanted = targets if len(self.critics) == 1 else targets[:, critics.numbers]
            losses = [self._mean((value - wanted).square(), critics.numbers, data.alive) for value in its]
            loss = sum(losses[1:], losses[0])
            step_down(critics.optimiser, loss.mean(1, keepdim=True) if critics.shared else loss)
            for number, loss in zip(critics.numbers, losses[0].detach().unbind(1), strict=True):
                said[number][CRITIC_LOSS.name] = loss

    def _others(self, data: Transition, joint: Sequence[Tensor]) -> Sequence[Tensor]:
        """The critics' inputs in the actors' update, before own actions are replaced: the minibatch as `joint`."""
        return joint

    def _all_at_once(self, data: Transition) -> bool:
        """Whether a group's actors are updated by a single value of their joint action."""
        return False

    def _improve(self, group: Actors, data: Transition, joint: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Take a policy gradient step; returns the values of the actors' actions before it, `replicates x members`.

        Args:
            group: the actors.
            data: a minibatch.
            joint: its observations and actions as features.
            others: features of the critics' inputs, see `_others`.
        """
        critics = self._critics_of(group)
        inputs = critics.inputs(others)
        gone = None if data.alive is None else ~self._of(group.numbers, data.alive).unsqueeze(-1)

        def values(own: Tensor) -> Tensor:
            own = own if gone is None else own.masked_fill(gone, 0.0)
            if self._all_at_once(data):
                return critics.values_together(inputs, own)
            return critics.values(critics.with_own(inputs, group.numbers, own), group.numbers)

        outputs = group.outputs(group.actors, joint)
        with frozen(critics.every):
            if isinstance(group.action, Discrete):
                surrogate, worth = self.estimator(group.legal(outputs, data.masks), values)
            else:
                surrogate = values(group.action.encode(squashed(outputs, group.action), self.seat.dtype))
                worth = surrogate.detach()
            penalty = self.regularisation * outputs.square().mean(-1)
            loss = self._mean(penalty - surrogate, group.numbers, data.alive, self.sub_policies)
            step_down(group.optimiser, loss.mean(1, keepdim=True) if self.shared else loss)
        return self._mean(worth, group.numbers, data.alive)

    def _track(self) -> None:
        """Move all target networks towards the online ones."""
        for critics in self.critics:
            track_each(critics.slow_every, critics.every, self.target_rate)
        for group in self.groups:
            track_each(group.slow_actors.every, group.actors.every, self.target_rate)

    def _critics_of(self, group: Actors) -> Critics:
        (its,) = [critics for critics in self.critics if set(group.numbers) <= set(critics.numbers)]
        return its

    def _of(self, numbers: Sequence[int], values: Tensor) -> Tensor:
        """The values of some members, `replicates x members x batch`, of `replicates x [team x] batch x agents`."""
        apart = values.dim() == 4
        every = values.unbind(-1)
        own = [(number, every[self.team[number].index]) for number in numbers]
        return torch.stack([value[:, number] if apart else value for number, value in own], 1)

    def _mean(self, values: Tensor, numbers: Sequence[int], alive: Tensor | None, parts: int = 1) -> Tensor:
        """Means of values, `replicates x members x batch`, over transitions that the agent was alive at, or 0.

        They are taken in `parts` of the batch of equal size: `replicates x (members parts)`.
        """
        values = torch.flatten(values.unflatten(-1, (parts, -1)), 1, 2)
        if alive is None:
            return values.mean(-1)
        there: Tensor = self._of(numbers, alive).unflatten(-1, (parts, -1)).flatten(1, 2)
        return (values * there).sum(-1) / there.sum(-1).clamp_min(1)

    @torch.no_grad()
    def _targets(self, data: Transition) -> Tensor:
        """TD targets of every critic, `replicates x members x batch`."""
        seen = [self._feature(value, place, data.next_alive) for place, value in enumerate(data.next_obs)]
        following = self._following(data, seen)
        value = self._slow_values(seen, following, data.next_alive)
        everybody = range(len(self.team))
        terminated = data.terminated if data.terminated.dim() == 3 else data.terminated.unsqueeze(1)
        if data.next_alive is not None:
            terminated = terminated | ~self._of(everybody, data.next_alive)
        discount = over_events(current(self.discount, self.updates), 1)
        return td_target(self._of(everybody, data.rewards), discount, terminated, value)

    def _slow_values(self, seen: Sequence[Tensor], following: Sequence[Tensor], alive: Tensor | None) -> Tensor:
        """Values of the target critics, `replicates x members x batch`, at features of observations and actions."""
        features = [*seen, *(self._feature(each, place, alive) for place, each in enumerate(following, len(seen)))]
        values = [critics.slow_values(critics.inputs(features)) for critics in self.critics]
        if len(values) == 1:  # avoids copies
            return values[0]
        order = [number for critics in self.critics for number in critics.numbers]
        return torch.cat(values, 1)[:, [order.index(number) for number in range(len(order))]]

    def _following(self, data: Transition, seen: Sequence[Tensor]) -> list[Tensor]:
        """All agents' next actions, `replicates x batch x event` each, or `replicates x team x batch x event`.

        Args:
            data: a minibatch.
            seen: features of all agents' next observations.
        """
        following = list(data.actions)
        for group in self.groups:
            outputs = group.legal(group.outputs(group.slow_actors, seen), data.next_masks)
            actions = self._drawn(group.action, outputs)
            for seat, action in zip(group.seats, actions.unbind(1), strict=True):
                following[seat.index] = action
            if self.sub_policies > 1 and self.knows_others:
                self._as_others_expect(group, data, seen, following)
        return following

    def _as_others_expect(
        self, group: Actors, data: Transition, seen: Sequence[Tensor], following: list[Tensor]
    ) -> None:
        """Draw a sub-policy of the others for every datum: `following` becomes `replicates x team x batch x event`."""
        for row, outputs in enumerate(group.outputs_of_any(group.slow_actors, seen).unbind(1)):
            agent, number = group.seats[row].index, group.numbers[row]
            mask = None if data.next_masks is None else data.next_masks[agent]
            expected = self._drawn(group.action, legal(outputs, mask))
            expected[:, number] = following[agent]
            following[agent] = expected

    def _drawn(self, space: Space, outputs: Tensor) -> Tensor:
        """Target actions from actors' outputs, `... x outputs`: one-hot draws, or points with `target_noise`."""
        if isinstance(space, Discrete):
            return one_hot_draw(outputs)
        action = squashed(outputs, space)
        if self.target_noise:
            _, half_width = space.scale(action.dtype, action.device)
            noise = self.target_noise * torch.randn_like(action).clamp(-2.5, 2.5)
            action = (action + half_width * noise).clamp(*space.edges(action.dtype, action.device))
        return action

    def _encoded(self, obs: Sequence[Tensor], actions: Sequence[Tensor], alive: Tensor | None) -> list[Tensor]:
        """All possible inputs of critics: features of all agents' observations, then of their actions."""
        return [self._feature(value, place, alive) for place, value in enumerate((*obs, *actions))]

    def _feature(self, value: Tensor, place: int, alive: Tensor | None) -> Tensor:
        """Features of one of `spaces`, `replicates x [team x] batch x features`; zeros after its agent has left."""
        seen = self.spaces[place].encode(value, self.seat.dtype)
        if alive is None:
            return seen
        gone = ~alive[..., place % alive.shape[-1], None]
        return seen.masked_fill(gone if seen.dim() == gone.dim() else gone.unsqueeze(1), 0.0)
