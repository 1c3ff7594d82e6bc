"""Base of actor-critics whose policies follow the gradient of their critics with respect to the action."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import ClassVar, Literal, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference_marl.described import (
    BelowOne,
    Clip,
    Count,
    IncompatibleError,
    NotNegative,
    Positive,
    Rate,
    Whole,
    hyperparameters,
)
from inference_marl.inference.action_gradients import ActionGradient, GumbelSoftmax
from inference_marl.inference.networks import track_each
from inference_marl.inference.noise import ActionNoise, NormalNoise
from inference_marl.inference.objectives import td_target
from inference_marl.inference.optimise import frozen
from inference_marl.inference.replay import Replay
from inference_marl.inference.schedules import ByReplicate, current, over_events
from inference_marl.learners.deterministic.stacks import Actors, Critics, legal, squashed, step_down
from inference_marl.play import Functional
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import (
    Actor,
    Counting,
    Decision,
    Member,
    Memory,
    Metric,
    Seat,
    Team,
    Trajectory,
    Transition,
)

CRITIC_LOSS = Metric(
    "critic_loss",
    "critic loss",
    bounds=(0.0, float("inf")),
    higher_is_better=False,
    meaning="Mean squared error of the critic's TD targets, in squared units of reward.",
)
ACTION_VALUE = Metric(
    "action_value",
    "critic's value of its own policy",
    meaning="Mean over a minibatch of Q(x, a) with the agent's own action from its policy, which may overestimate.",
)


@hyperparameters
class DeterministicActorCritic(Counting, Team):
    """Base: every agent has an actor that sees its own observation, and a critic; a subclass says what critics see::

        y_i = r_i + gamma Q_i'(x', a'),   a_j' = mu_j'(o_j')
        grad J_i = E[grad mu_i(o_i) grad_{a_i} Q_i(x, a)],   a_i = mu_i(o_i), others from replay

    with targets `'` that follow slowly. Policies over boxes are deterministic and explore by `noise`; policies over
    discrete actions are categorical, with gradients by `estimator`. Agents with equal spaces are one batch of matrices,
    `(replicates agents) x in x out`.

    Seats that are not the team's are seen by its critics, where these see others; in targets they do again what they
    did. An agent that is out is nowhere: critics see zeros in place of what it observes and does, its own targets are
    terminated where it leaves, and its losses are means over the transitions before which it was in. If a minibatch has
    none, its gradient is 0 and Adam's momentum carries on. Actions that are not legal are neither taken nor
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
        max_gradient_norm: clip the gradient of each replicate's each network; `None` for no clipping.
        shared: whether agents with equal spaces have one actor in common; critics are their own.
        twin_critics: whether targets are the smaller ones of two critics (Fujimoto et al. 2018, TD3).
        target_noise: standard deviation of noise on the actions of targets in boxes, in units of half the box's width,
            clipped at 2.5 times that (TD3's target policy smoothing has 0.2).
        actor_interval: updates of the critics per update of actors and targets (TD3's delayed actor has 2).
        seats: see `Team`.

    Attributes:
        groups: the actors, by spaces.
        critics: the critics, by what they see.
        transitions: the replay.
    """

    by_replicate = frozenset({"learning_rate", "discount"})
    metrics: ClassVar[tuple[Metric, ...]] = (CRITIC_LOSS, ACTION_VALUE)
    heeds_masks = True

    hidden: Sequence[Count] = (64, 64)
    learning_rate: Positive | ByReplicate = 3e-3
    discount: BelowOne | ByReplicate = 0.95
    target_rate: Rate = 0.01
    replay: Count = 100_000
    batch_size: Count = 256
    warmup: Whole = 50
    warmup_actions: Literal["uniform", "policy"] = "uniform"
    noise: ActionNoise = NormalNoise()
    estimator: ActionGradient = GumbelSoftmax()
    regularisation: NotNegative = 1e-3
    max_gradient_norm: Clip = 0.5
    shared: bool = False
    twin_critics: bool = False
    target_noise: NotNegative = 0.0
    actor_interval: Count = 1
    groups: Sequence[Actors] = field(init=False)
    critics: Sequence[Critics] = field(init=False)
    transitions: Replay = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)

    @abstractmethod
    def sees(self, seat: Seat) -> list[int]:
        """What the critic of a seat sees: places among the observations of all agents, followed by their actions."""

    def setup(self) -> None:
        """Create actors, critics, their targets, and the replay.

        Raises:
            IncompatibleError: if an agent of the team has unbounded actions.
        """
        seat, team = self.seat, self.team
        for each in team:
            if isinstance(each.action, Box) and not each.action.bounded:
                raise IncompatibleError(
                    f"{type(self).__name__} got actions {each.action} in seat {each.index}, expected finite edges"
                )
        self.spaces = (*seat.observations, *seat.action_spaces)
        rate, norm = self.learning_rate, self.max_gradient_norm
        kinds = _alike([(each.observation, each.action) for each in team])
        groups = [Actors(team, its, self.hidden, self.shared, rate, norm) for its in kinds]
        self.groups = cast(Sequence[Actors], nn.ModuleList(groups))
        places = [self.sees(each) for each in team]
        critics = [
            Critics(team, its, [places[i] for i in its], self.hidden, 1 + self.twin_critics, rate, norm)
            for its in _alike([tuple(self.spaces[place] for place in each) for each in places])
        ]
        self.critics = cast(Sequence[Critics], nn.ModuleList(critics))
        self.transitions = Replay(seat, self.replay, team=[each.index for each in team])

    def member_initial_memory(self, member: Member, replicates: int, environments: int) -> Memory:
        """That of the noise, in boxes."""
        boxes = isinstance(member.seat.action, Box)
        return self.noise.initial_memory(member.seat, replicates, environments) if boxes else {}

    @property
    def _warming_up(self) -> bool:
        return self.updates < self.warmup

    @property
    def _uniform(self) -> bool:
        """Whether actions are."""
        return self._warming_up and self.warmup_actions == "uniform"

    def member_policy(
        self, member: Member, obs: Tensor, memory: Memory, mask: Tensor | None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """A categorical, or a point in the box; uniform during warm-up."""
        seat = member.seat
        if self._uniform:
            uniform = seat.action.uniform(seat.dtype, seat.device).expand(obs.shape[:2])
            return uniform if mask is None else dist.Categorical(logits=legal(uniform.logits, mask)), memory
        return self._group(member).policy(member).policy(obs, memory, mask)

    @torch.no_grad()
    def member_act(self, member: Member, obs: Tensor, memory: Memory, explore: bool, mask: Tensor | None) -> Decision:
        """A draw from the policy, with noise in boxes; without `explore`, the actor's mode, also during warm-up."""
        if not explore:
            return self._group(member).policy(member).act(obs, memory, explore, mask)
        distribution, _ = self.member_policy(member, obs, memory, mask)
        assert distribution is not None  # here every policy has a density
        action: Tensor = distribution.sample()
        space = member.seat.action
        if isinstance(space, Box) and not self._uniform:
            action, memory = self.noise(action, space, memory, self.updates)
        return Decision(action, memory)

    def member_snapshot(self, member: Member) -> Functional:
        """The actor at its current weights, with its target."""
        group = self._group(member)
        now, slow = group.policy(member), group.policy(member, slow=True)
        parameters = {name: value.detach().clone() for name, value in now.parameters_by_name.items()}
        target = {name: value.detach().clone() for name, value in slow.parameters_by_name.items()}
        return Functional(now.module, now.seat, parameters, target)

    def _group(self, member: Member) -> Actors:
        (its,) = [group for group in self.groups if member.number in group.numbers]
        return its

    def store(self, newest: Trajectory) -> None:
        """Fill the replay."""
        self.transitions.add(newest.flat)

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """One step for all critics, then one for all actors, unless delayed; `peers` is not read."""
        said: list[dict[str, Tensor]] = [{} for _ in self.team]
        if not self._warming_up:
            data = self.transitions.draw(self.batch_size)
            joint = self._encoded(data.obs, data.actions, data.alive)
            self._evaluate(data, joint, said)
            if (self.updates - self.warmup) % self.actor_interval == 0:
                for group in self.groups:
                    worth = self._improve(group, data, joint)
                    for number, value in zip(group.numbers, worth.unbind(1), strict=True):
                        said[number][ACTION_VALUE.name] = value
                self._track()
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
            wanted = targets[:, critics.numbers]
            losses = [self._mean((value - wanted).square(), critics.numbers, data.alive) for value in its]
            step_down(critics.optimiser, sum(losses[1:], losses[0]))
            for number, loss in zip(critics.numbers, losses[0].detach().unbind(1), strict=True):
                said[number][CRITIC_LOSS.name] = loss

    def _improve(self, group: Actors, data: Transition, joint: Sequence[Tensor]) -> Tensor:
        """A step of the policy gradient; returns values of the actors' own actions before it, `replicates x members`.

        Args:
            group: whose.
            data: a minibatch.
            joint: its observations and actions, encoded.
        """
        critics = self._critics_of(group)
        inputs, place = critics.inputs(joint), [len(self.team[0].observations) + seat.index for seat in group.seats]
        gone = None if data.alive is None else ~self._of(group.numbers, data.alive).unsqueeze(-1)

        def values(own: Tensor) -> Tensor:
            own = own if gone is None else own.masked_fill(gone, 0.0)
            return critics.values(critics.with_own(inputs, group.numbers, place, own), group.numbers)

        outputs = group.outputs(group.actors, joint)
        with frozen(critics.every):
            if isinstance(group.action, Discrete):
                surrogate, worth = self.estimator(group.legal(outputs, data.masks), values)
            else:
                surrogate = values(group.action.encode(squashed(outputs, group.action), self.seat.dtype))
                worth = surrogate.detach()
            penalty = self.regularisation * outputs.square().mean(-1)
            loss = self._mean(penalty - surrogate, group.numbers, data.alive)
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
        """The values of some members, of `replicates x batch x agents`, as `replicates x members x batch`."""
        every = values.unbind(-1)
        return torch.stack([every[self.team[number].index] for number in numbers], 1)

    def _mean(self, values: Tensor, numbers: Sequence[int], alive: Tensor | None) -> Tensor:
        """Means of values, `replicates x members x batch`, over the transitions before which the agent was in, or 0."""
        if alive is None:
            return values.mean(-1)
        there = self._of(numbers, alive)
        return (values * there).sum(-1) / there.sum(-1).clamp_min(1)

    @torch.no_grad()
    def _targets(self, data: Transition) -> Tensor:
        """TD targets of every critic, `replicates x members x batch`."""
        seen = [self._feature(value, place, data.next_alive) for place, value in enumerate(data.next_obs)]
        following = self._following(data, seen)
        value = self._slow_values(seen, following, data.next_alive)
        terminated, everybody = data.terminated.unsqueeze(1), range(len(self.team))
        if data.next_alive is not None:
            terminated = terminated | ~self._of(everybody, data.next_alive)
        discount = over_events(current(self.discount, self.updates), 1)
        return td_target(self._of(everybody, data.rewards), discount, terminated, value)

    def _slow_values(self, seen: Sequence[Tensor], following: Sequence[Tensor], alive: Tensor | None) -> Tensor:
        """Values of the slow critics, `replicates x members x batch`, at features of observations, and actions."""
        features = [*seen, *(self._feature(each, place, alive) for place, each in enumerate(following, len(seen)))]
        value = features[0].new_empty(features[0].shape[0], len(self.team), features[0].shape[1])
        for critics in self.critics:
            value[:, critics.numbers] = critics.slow_values(critics.inputs(features))
        return value

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
        return following

    def _drawn(self, space: Space, outputs: Tensor) -> Tensor:
        """Actions of targets from outputs, `... x outputs`: one-hot draws, or points with `target_noise`."""
        if isinstance(space, Discrete):
            return nn.functional.gumbel_softmax(outputs, hard=True)
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
        return seen.masked_fill(gone if seen.dim() == 3 else gone.unsqueeze(1), 0.0)


def _alike(kinds: Sequence[object]) -> list[list[int]]:
    """Numbers of the members that are of one kind, by kind."""
    found: dict[object, list[int]] = {}
    for number, kind in enumerate(kinds):
        found.setdefault(kind, []).append(number)
    return list(found.values())
