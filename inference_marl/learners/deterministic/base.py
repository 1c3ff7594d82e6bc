"""Base of actor-critics whose policies follow the gradient of their critics with respect to the action."""

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
    meaning="Mean over a minibatch of Q(x, a) with the agent's own action from its policy, drawn or relaxed as the "
    "actor's newest update had it; it may overestimate.",
)


@hyperparameters
class DeterministicActorCritic(DeterministicPolicies):
    """Base: every agent has an actor that sees its own observation, and a critic; a subclass says what critics see::

        y_i = r_i + gamma Q_i'(x', a'),   a_j' = mu_j'(o_j')
        grad J_i = E[grad mu_i(o_i) grad_{a_i} Q_i(x, a)],   a_i = mu_i(o_i), others from replay

    with targets `'` that follow slowly. Policies over boxes are deterministic and explore by `noise`; policies over
    discrete actions are categorical, with gradients by `estimator`. Agents with equal spaces are one batch of matrices,
    `(replicates agents) x in x out`.

    Seats that are not the team's are seen by its critics, where these see others; in targets they do again what they
    did. Agents that have left are masked: critics see zeros in place of what they observe and do, their own targets are
    terminated where they leave, and their losses are means over the transitions before which they were in. If a
    minibatch has none, the gradient is 0 and Adam's momentum carries on. Illegal actions are neither taken nor
    bootstrapped from.

    Args:
        hidden: widths of the hidden layers of actors and critics.
        learning_rate: Adam's step size for both.
        discount: gamma in [0, 1).
        target_rate: fraction by which targets follow after every update, in (0, 1].
        replay: joint transitions kept per replicate.
        batch_size: transitions drawn from replay per update.
        warmup: updates during which nothing is fitted.
        warmup_actions: what is played meanwhile: `uniform` actions, or what the `policy` explores.
        noise: exploration in boxes, as functions of the updates made.
        estimator: of the gradient with respect to discrete policies.
        regularisation: weight of the actors' mean squared outputs (logits, or what is squashed), as in the authors'
            code.
        max_gradient_norm: clip the gradient of each network of each replicate (of twin critics, both together); `None`
            for no clipping.
        shared: whether agents with equal spaces have one actor in common.
        shared_critic: whether they have one critic in common, which is fitted to the mean of their losses. If it sees
            the same for all of them, it learns what they earn on average, and does not tell them apart.
        sub_policies: a policy ensemble of so many (Lowe et al. 2017, Section 4.3): every agent draws one for each
            episode, and has a replay for each; its critic is one. In targets an agent goes on with the sub-policy that
            it played, and the others' are drawn uniformly, each of them as often in a minibatch. `replay` and
            `batch_size` are of each sub-policy.
        twin_critics: whether targets are the smaller ones of two critics (Fujimoto et al. 2018, TD3).
        target_noise: standard deviation of noise on the actions of targets in boxes, in units of half the box's width,
            clipped at 2.5 times that (TD3's target policy smoothing has 0.2).
        actor_interval: updates of the critics per update of actors and targets (TD3's delayed actor has 2).
        seats: see `Team`.

    Attributes:
        groups: the actors, by spaces and what their critics see.
        critics: the critics, by what they see.
        replays: of the team, or with sub-policies of each member.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (CRITIC_LOSS, ACTION_VALUE)

    worth: Tensor = field(init=False)

    def setup(self) -> None:
        """Also remember what the actors' last update was worth; see `DeterministicPolicies`."""
        super().setup()
        shape = (self.seat.replicates, len(self.team))
        self.register_buffer("worth", torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device))

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """One step for all critics, then one for all actors, unless delayed; `peers` is not read."""
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
        """A step of every critic towards its targets; notes their losses before it."""
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
        """What critics see where actors are improved, but for the own actions: the minibatch, encoded as `joint`."""
        return joint

    def _all_at_once(self, data: Transition) -> bool:
        """Whether a group's actors are improved by one value of what they all do together."""
        return False

    def _improve(self, group: Actors, data: Transition, joint: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """A step of the policy gradient; returns values of the actors' own actions before it, `replicates x members`.

        Args:
            group: whose.
            data: a minibatch.
            joint: its observations and actions, encoded.
            others: what critics see around the own actions, encoded.
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
        """Let all targets follow."""
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
        """Means of values, `replicates x members x batch`, over the transitions before which the agent was in, or 0.

        In so many `parts` of the batch, of equal size: `replicates x (members parts)`.
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
        """Values of the slow critics, `replicates x members x batch`, at features of observations, and actions."""
        features = [*seen, *(self._feature(each, place, alive) for place, each in enumerate(following, len(seen)))]
        values = [critics.slow_values(critics.inputs(features)) for critics in self.critics]
        if len(values) == 1:  # which spares copies
            return values[0]
        order = [number for critics in self.critics for number in critics.numbers]
        return torch.cat(values, 1)[:, [order.index(number) for number in range(len(order))]]

    def _following(self, data: Transition, seen: Sequence[Tensor]) -> list[Tensor]:
        """What everybody does next, by agent, `replicates x batch x event`, or `replicates x team x batch x event`.

        Args:
            data: a minibatch.
            seen: features of everybody's next observation.
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
        """Let the others expect any of the sub-policies: `following` becomes `replicates x team x batch x event`."""
        for row, outputs in enumerate(group.outputs_of_any(group.slow_actors, seen).unbind(1)):
            agent, number = group.seats[row].index, group.numbers[row]
            mask = None if data.next_masks is None else data.next_masks[agent]
            expected = self._drawn(group.action, legal(outputs, mask))
            expected[:, number] = following[agent]
            following[agent] = expected

    def _drawn(self, space: Space, outputs: Tensor) -> Tensor:
        """Actions of targets from outputs, `... x outputs`: one-hot draws, or points with `target_noise`."""
        if isinstance(space, Discrete):
            return one_hot_draw(outputs)
        action = squashed(outputs, space)
        if self.target_noise:
            _, half_width = space.scale(action.dtype, action.device)
            noise = self.target_noise * torch.randn_like(action).clamp(-2.5, 2.5)
            action = (action + half_width * noise).clamp(*space.edges(action.dtype, action.device))
        return action

    def _encoded(self, obs: Sequence[Tensor], actions: Sequence[Tensor], alive: Tensor | None) -> list[Tensor]:
        """What critics may see: features of everybody's observation, then of everybody's action."""
        return [self._feature(value, place, alive) for place, value in enumerate((*obs, *actions))]

    def _feature(self, value: Tensor, place: int, alive: Tensor | None) -> Tensor:
        """Features of one of `spaces`, `replicates x [team x] batch x features`, with zeros where its agent is out."""
        seen = self.spaces[place].encode(value, self.seat.dtype)
        if alive is None:
            return seen
        gone = ~alive[..., place % alive.shape[-1], None]
        return seen.masked_fill(gone if seen.dim() == gone.dim() else gone.unsqueeze(1), 0.0)
