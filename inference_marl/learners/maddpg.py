"""MADDPG: decentralised actors with centralised critics (Lowe et al., NeurIPS 2017)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax

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
from inference_marl.inference.failures import NonFiniteError, heeded
from inference_marl.inference.networks import MLP, track_each
from inference_marl.inference.noise import ActionNoise, NormalNoise
from inference_marl.inference.objectives import td_target
from inference_marl.inference.optimise import Optimiser, frozen
from inference_marl.inference.replay import Replay
from inference_marl.play import Functional
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Actor, Counting, Decision, Member, Memory, Metric, Seat, Team, Trajectory, Transition

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
class Maddpg(Counting, Team):
    """Every agent has an actor that sees its own observation and a critic that sees everything::

        y_i = r_i + gamma Q_i'(x', a_1', ..., a_N'),         a_j' = mu_j'(o_j')                             (Eq. 6)
        grad J_i = E[grad mu_i(o_i) grad_{a_i} Q_i(x, a_1, ..., a_N)],   a_i = mu_i(o_i), others from replay (Eq. 5)

    with `x` all observations, and targets `'` that follow slowly. Discrete actions are drawn by Gumbel-softmax, one-hot
    with straight-through gradients, where the authors' code passes soft ones on; their policies are categorical.
    Policies over boxes are deterministic and explore by `noise`. Agents with equal spaces are one batch of
    matrices, `(replicates agents) x in x out`.

    Seats that are not the team's are seen by its critics; in targets they do again what they did. An agent that is out
    is nowhere: critics see zeros in place of what it observes and does, its own targets are terminated where it leaves,
    and its losses are means over the transitions before which it was in. If a minibatch has none, its gradient is 0 and
    Adam's momentum carries on. Actions that are not legal are neither taken nor bootstrapped from.

    Args:
        hidden: widths of the hidden layers of actors and critics.
        learning_rate: Adam's step size for both.
        discount: gamma in [0, 1).
        target_rate: fraction by which targets follow after every update, in (0, 1].
        replay: joint transitions kept per replicate.
        batch_size: transitions drawn from replay per update.
        warmup: updates during which actions are uniformly random and nothing is fitted.
        noise: exploration in boxes, as functions of the updates made.
        regularisation: weight of the actors' mean squared outputs (logits, or what is squashed), as in the authors'
            code.
        max_gradient_norm: clip the gradient of each replicate's each network; `None` for no clipping.
        shared: whether agents with equal spaces have one actor in common; critics are their own.
        seats: see `Team`.
    """

    metrics = (CRITIC_LOSS, ACTION_VALUE)
    heeds_masks = True

    hidden: Sequence[Count] = (64, 64)
    learning_rate: Positive = 3e-3
    discount: BelowOne = 0.95
    target_rate: Rate = 0.01
    replay: Count = 100_000
    batch_size: Count = 256
    warmup: Whole = 50
    noise: ActionNoise = NormalNoise()
    regularisation: NotNegative = 1e-3
    max_gradient_norm: Clip = 0.5
    shared: bool = False
    groups: Sequence[_Group] = field(init=False)
    critics: _Stack = field(init=False)
    slow_critics: _Stack = field(init=False)
    transitions: Replay = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)

    def setup(self) -> None:
        """Create actors, critics, their targets, and the replay.

        Raises:
            IncompatibleError: if an agent of the team has unbounded actions.
        """
        seat = self.seat
        for each in self.team:
            if isinstance(each.action, Box) and not each.action.bounded:
                raise IncompatibleError(f"Maddpg got actions {each.action} in seat {each.index}, expected finite edges")
        self.spaces = (*seat.observations, *seat.action_spaces)
        kinds: dict[tuple[Space, Space], list[int]] = {}
        for number, each in enumerate(self.team):
            kinds.setdefault((each.observation, each.action), []).append(number)
        rate, norm = self.learning_rate, self.max_gradient_norm
        groups = [_Group(self.team, its, self.hidden, self.shared, rate, norm) for its in kinds.values()]
        self.groups = cast(Sequence[_Group], nn.ModuleList(groups))
        features = sum(space.features for space in self.spaces)
        self.critics = _Stack(seat, len(self.team), features, 1, self.hidden)
        self.slow_critics = copy.deepcopy(self.critics)
        self.critic_optimiser = Optimiser("critics", self.critics.parameters(), rate, norm)
        self.transitions = Replay(seat, self.replay, team=[each.index for each in self.team])

    def member_initial_memory(self, member: Member, replicates: int, environments: int) -> Memory:
        """That of the noise, in boxes."""
        boxes = isinstance(member.seat.action, Box)
        return self.noise.initial_memory(member.seat, replicates, environments) if boxes else {}

    @property
    def _warming_up(self) -> bool:
        return self.updates < self.warmup

    def member_policy(
        self, member: Member, obs: Tensor, memory: Memory, mask: Tensor | None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        """A categorical, or a point in the box; uniform during warm-up."""
        seat = member.seat
        if self._warming_up:
            uniform = seat.action.uniform(seat.dtype, seat.device).expand(obs.shape[:2])
            return uniform if mask is None else dist.Categorical(logits=_legal(uniform.logits, mask)), memory
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
        if isinstance(space, Box) and not self._warming_up:
            action, memory = self.noise(action, space, memory, self.updates)
        return Decision(action, memory)

    def member_snapshot(self, member: Member) -> Functional:
        """The actor at its current weights, with its target."""
        group = self._group(member)
        now, slow = group.policy(member), group.policy(member, slow=True)
        parameters = {name: value.detach().clone() for name, value in now.parameters_by_name.items()}
        target = {name: value.detach().clone() for name, value in slow.parameters_by_name.items()}
        return Functional(now.module, now.seat, parameters, target)

    def _group(self, member: Member) -> _Group:
        (its,) = [group for group in self.groups if member.number in group.numbers]
        return its

    def store(self, newest: Trajectory) -> None:
        """Fill the replay."""
        self.transitions.add(newest.flat)

    def learn_all(self, newest: Trajectory, peers: Sequence[Actor]) -> list[Mapping[str, Tensor]]:
        """One step for all critics, then one for all actors; `peers` is not read."""
        if self._warming_up:
            self.updates += 1
            return [{} for _ in self.team]
        data = self.transitions.draw(self.batch_size)
        joint = self._encoded(data.obs, data.actions, data.alive)
        values = self.critics(torch.cat(joint, -1).unsqueeze(1)).squeeze(-1)
        loss = self._mean((values - self._targets(data)).square(), self.team, data.alive)
        self._step(self.critic_optimiser, loss)
        worth: dict[int, Tensor] = {}
        for group in self.groups:
            worth |= zip(group.numbers, self._improve(group, data, joint).unbind(1), strict=True)
        for slow, fast in ((self.slow_critics, self.critics), *((it.slow_actors, it.actors) for it in self.groups)):
            track_each(slow.every, fast.every, self.target_rate)
        self.updates += 1
        losses = loss.detach().unbind(1)
        return [
            {CRITIC_LOSS.name: losses[number], ACTION_VALUE.name: worth[number]} for number in range(len(self.team))
        ]

    def _improve(self, group: _Group, data: Transition, joint: Sequence[Tensor]) -> Tensor:
        """A step of the deterministic policy gradient; returns values of the actors' own actions before it.

        Args:
            group: whose.
            data: a minibatch.
            joint: its observations and actions, encoded.
        """
        outputs = group.outputs(group.actors, joint)
        own = group.seats[0].action.encode(group.actions(outputs, data.masks), self.seat.dtype)
        if data.alive is not None:
            own = own.masked_fill(~_of(group.seats, data.alive).unsqueeze(-1), 0.0)
        size = own.shape[:3]
        x = torch.cat(list(joint), -1).unsqueeze(1).repeat(1, size[1], 1, 1)
        x = x.scatter_(-1, group.columns.unsqueeze(1).expand(*size, -1), own)
        with frozen(self.critics.every):
            values: Tensor = self.critics(x, group.numbers).squeeze(-1)
            loss = self._mean(self.regularisation * outputs.square().mean(-1) - values, group.seats, data.alive)
            self._step(group.optimiser, loss.mean(1, keepdim=True) if self.shared else loss)
        return self._mean(values.detach(), group.seats, data.alive)

    @staticmethod
    def _mean(values: Tensor, seats: Sequence[Seat], alive: Tensor | None) -> Tensor:
        """Means of values, `replicates x seats x batch`, over the transitions before which the agent was in, or 0."""
        if alive is None:
            return values.mean(-1)
        there = _of(seats, alive)
        return (values * there).sum(-1) / there.sum(-1).clamp_min(1)

    @torch.no_grad()
    def _targets(self, data: Transition) -> Tensor:
        """TD targets of every critic, `replicates x agents x batch`."""
        seen = [self._feature(value, place, data.next_alive) for place, value in enumerate(data.next_obs)]
        following = list(data.actions)
        for group in self.groups:
            actions = group.actions(group.outputs(group.slow_actors, seen), data.next_masks)
            for seat, action in zip(group.seats, actions.unbind(1), strict=True):
                following[seat.index] = action
        seen += [self._feature(value, place, data.next_alive) for place, value in enumerate(following, len(seen))]
        value: Tensor = self.slow_critics(torch.cat(seen, -1).unsqueeze(1)).squeeze(-1)
        terminated = data.terminated.unsqueeze(1)
        if data.next_alive is not None:
            terminated = terminated | ~_of(self.team, data.next_alive)
        return td_target(_of(self.team, data.rewards), self.discount, terminated, value)

    def _encoded(self, obs: Sequence[Tensor], actions: Sequence[Tensor], alive: Tensor | None) -> list[Tensor]:
        """What critics see, side by side: features of everybody's observation, then of everybody's action."""
        return [self._feature(value, place, alive) for place, value in enumerate((*obs, *actions))]

    def _feature(self, value: Tensor, place: int, alive: Tensor | None) -> Tensor:
        """Features of one of `spaces`, `replicates x batch x features`, with zeros where its agent is out."""
        seen = self.spaces[place].encode(value, self.seat.dtype)
        return seen if alive is None else seen.masked_fill(~alive[..., place % alive.shape[-1], None], 0.0)

    def _step(self, optimiser: Optimiser, loss: Tensor) -> None:
        """Step down a loss, `replicates x networks`."""
        try:
            optimiser.step(loss.flatten())
        except NonFiniteError as error:
            if heeded() is not None:  # they are replicates already
                raise
            replicates = sorted({row // loss.shape[1] for row in error.replicates})
            raise NonFiniteError(error.what, replicates) from error


def _of(seats: Sequence[Seat], values: Tensor) -> Tensor:
    """The values of some agents, of `replicates x batch x agents`, as `replicates x seats x batch`."""
    every = values.unbind(-1)
    return torch.stack([every[seat.index] for seat in seats], 1)


class _Stack(nn.Module):
    """Networks of equal shape for several agents, one batch of matrices: `(replicates agents) x in x out`.

    Attributes:
        every: all parameters.
    """

    def __init__(self, seat: Seat, agents: int, inputs: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.agents = agents
        self.network = MLP(replace(seat, replicates=seat.replicates * agents), inputs, outputs, hidden)
        self.every = tuple(self.network.parameters())

    def forward(self, x: Tensor, numbers: Sequence[int] | None = None) -> Tensor:
        """`replicates x agents x batch x in` (or x 1 x, for all alike) to `... x out`; of the numbered agents only."""
        if numbers is None or list(numbers) == list(range(self.agents)):
            out: Tensor = self.network(x.expand(-1, self.agents, -1, -1).flatten(0, 1))
            return out.view(-1, self.agents, *out.shape[1:])
        weights = {name: value.flatten(0, 1) for name, value in self.weights(list(numbers)).items()}
        some = self.for_agents(len(numbers))
        found: Tensor = torch.func.functional_call(some, weights, (x.flatten(0, 1),)).unflatten(0, (-1, len(numbers)))
        return found

    def weights(self, numbers: int | list[int]) -> dict[str, Tensor]:
        """Those of one agent, or of some, `replicates x agents x ...`, by their names in `for_agents`."""
        named = self.network.named_parameters()
        return {name: value.unflatten(0, (-1, self.agents))[:, numbers] for name, value in named}

    def for_agents(self, agents: int) -> MLP:
        """A network for so many agents, whose own weights do not matter."""
        made = copy.copy(self.network)
        made.replicates = self.network.replicates // self.agents * agents
        return made


class _Policy(nn.Module):
    """The policy that an actor's outputs stand for, as a module that `Functional` evaluates."""

    heeds_masks = True

    def __init__(self, network: MLP, seat: Seat) -> None:
        super().__init__()
        self.network, self.seat = network, seat

    def forward(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """A categorical, or a point in the box."""
        outputs = self.network(self.seat.observation.encode(obs, self.seat.dtype))
        if isinstance(self.seat.action, Discrete):
            return dist.Categorical(logits=_legal(outputs, mask)), memory
        return dist.Delta(_squashed(outputs, self.seat.action)).to_event(1), memory


class _Group(nn.Module):
    """The members with equal spaces: their actors in one stack, its target, and its optimiser.

    Attributes:
        numbers: which members.
        columns: where their own actions are among the features that critics see, `members x features`.
    """

    columns: Tensor

    def __init__(
        self,
        team: Sequence[Seat],
        numbers: Sequence[int],
        hidden: Sequence[int],
        shared: bool,
        learning_rate: float,
        max_gradient_norm: float | None,
    ) -> None:
        super().__init__()
        self.seats, self.numbers, self.shared = [team[number] for number in numbers], list(numbers), shared
        first = self.seats[0]
        networks = 1 if shared else len(numbers)
        self.actors = _Stack(first, networks, first.observation.features, first.action.features, hidden)
        self.slow_actors = copy.deepcopy(self.actors)
        self.optimiser = Optimiser("actors", self.actors.parameters(), learning_rate, max_gradient_norm)
        widths = torch.tensor([space.features for space in (*first.observations, *first.action_spaces)])
        starts = widths.cumsum(0) - widths
        own = starts[[len(first.observations) + seat.index for seat in self.seats]].unsqueeze(-1)
        columns = (own + torch.arange(first.action.features)).to(first.device)
        self.register_buffer("columns", columns, persistent=False)

    def outputs(self, actors: _Stack, features: Sequence[Tensor]) -> Tensor:
        """Outputs of actors or target, `replicates x members x batch x outputs`.

        Args:
            actors: which.
            features: of everybody's observation first, `replicates x batch x features`.
        """
        x = torch.stack([features[seat.index] for seat in self.seats], 1)
        if not self.shared:
            out: Tensor = actors(x)
            return out
        together: Tensor = actors(x.flatten(1, 2).unsqueeze(1)).squeeze(1).unflatten(1, x.shape[1:3])
        return together

    def actions(self, outputs: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """Differentiable actions, `replicates x members x batch x event`.

        Gumbel-softmax draws, one-hot and legal, or points in the box.
        """
        space = self.seats[0].action
        if masks is not None:
            pairs = zip(outputs.unbind(1), self.seats, strict=True)
            outputs = torch.stack([_legal(logits, masks[seat.index]) for logits, seat in pairs], 1)
        return gumbel_softmax(outputs, hard=True) if isinstance(space, Discrete) else _squashed(outputs, space)

    def policy(self, member: Member, slow: bool = False) -> Functional:
        """A member's policy, or its target."""
        place, actors = self.numbers.index(member.number), self.slow_actors if slow else self.actors
        weights = actors.weights(0 if self.shared else place)
        parameters = {f"network.{name}": value for name, value in weights.items()}
        return Functional(_Policy(actors.for_agents(1), member.seat), member.seat, parameters)


def _legal(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Logits of which only legal ones count; all alike where none is legal, as an agent's that is out may be."""
    return logits if mask is None else logits.masked_fill(~mask, torch.finfo(logits.dtype).min)


def _squashed(outputs: Tensor, space: Space) -> Tensor:
    assert isinstance(space, Box)
    centre, half_width = space.scale(outputs.dtype, outputs.device)
    point: Tensor = centre + half_width * torch.tanh(outputs).unflatten(-1, space.shape)
    return point
