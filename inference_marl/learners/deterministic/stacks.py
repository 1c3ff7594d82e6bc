"""Networks of several agents as one batch of matrices, `(replicates agents) x in x out`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference_marl.inference.failures import NonFiniteError, heeded
from inference_marl.inference.networks import MLP, rows
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.schedules import ByReplicate
from inference_marl.play import Functional
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Member, Memory, Seat, select

Rate = float | ByReplicate

SUB_POLICY = "sub_policy"
"""The key in a member's memory of the sub-policy that it plays, int64, `replicates x environments`."""


class Stack(nn.Module):
    """Networks of equal shape for several agents.

    Attributes:
        every: all parameters.
    """

    def __init__(self, seat: Seat, agents: int, inputs: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.agents = agents
        with rows(agents):
            self.network = MLP(for_rows(seat, agents), inputs, outputs, hidden)
        self.every = tuple(self.network.parameters())

    def forward(self, x: Tensor, numbers: Sequence[int] | None = None) -> Tensor:
        """Map `replicates x agents x batch x in` (or x 1 x, the same for all) to `... x out`, for `numbers` only.

        A single network serves any number of agents.
        """
        if self.agents == 1 and x.shape[1] > 1:
            together: Tensor = self(x.flatten(1, 2).unsqueeze(1)).squeeze(1).unflatten(1, x.shape[1:3])
            return together
        if numbers is None or list(numbers) == list(range(self.agents)):
            out: Tensor = self.network(x.expand(-1, self.agents, -1, -1).flatten(0, 1))
            return out.view(-1, self.agents, *out.shape[1:])
        weights = {name: value.flatten(0, 1) for name, value in self.weights(list(numbers)).items()}
        some = self.for_agents(len(numbers))
        found: Tensor = torch.func.functional_call(some, weights, (x.flatten(0, 1),)).unflatten(0, (-1, len(numbers)))
        return found

    def weights(self, numbers: int | list[int]) -> dict[str, Tensor]:
        """Weights of one agent or of several, `replicates x agents x ...`, by their names in `for_agents`."""
        named = self.network.named_parameters()
        return {name: value.unflatten(0, (-1, self.agents))[:, numbers] for name, value in named}

    def for_agents(self, agents: int) -> MLP:
        """A network for the given number of agents, whose weights are to be replaced."""
        made = copy.copy(self.network)
        made.replicates = self.network.replicates // self.agents * agents
        return made


class ActorPolicy(nn.Module):
    """The policy of an actor or, if there are several, of the sub-policy in its memory."""

    heeds_masks = True

    def __init__(self, network: MLP, seat: Seat, sub_policies: int = 1) -> None:
        super().__init__()
        self.network, self.seat, self.sub_policies = network, seat, sub_policies

    def forward(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """A categorical, or a point mass in the box."""
        outputs = self._outputs(self.seat.observation.encode(obs, self.seat.dtype), memory)
        if isinstance(self.seat.action, Discrete):
            return dist.Categorical(logits=legal(outputs, mask)), memory
        return dist.Delta(squashed(outputs, self.seat.action)).to_event(1), memory

    def _outputs(self, x: Tensor, memory: Memory) -> Tensor:
        if self.sub_policies == 1:
            out: Tensor = self.network(x)
            return out
        every = self.network(x.repeat_interleave(self.sub_policies, 0)).unflatten(0, (-1, self.sub_policies))
        return select(memory[SUB_POLICY], every.unbind(1))


class Actors(nn.Module):
    """The actors of members with equal spaces, their targets and their optimiser.

    Networks are ordered by member, and by sub-policy within a member.

    Args:
        team: the seats of all members.
        numbers: numbers of the members.
        hidden: widths of the hidden layers.
        shared: whether they share an actor.
        sub_policies: actors per member, if not shared.
        learning_rate: Adam's step size.
        max_gradient_norm: see `Optimiser`.
    """

    def __init__(
        self,
        team: Sequence[Seat],
        numbers: Sequence[int],
        hidden: Sequence[int],
        shared: bool,
        sub_policies: int,
        learning_rate: Rate,
        max_gradient_norm: float | None,
    ) -> None:
        super().__init__()
        self.seats, self.numbers, self.shared = [team[number] for number in numbers], list(numbers), shared
        first = self.seats[0]
        self.sub_policies = sub_policies
        networks = 1 if shared else len(numbers) * sub_policies
        self.actors = Stack(first, networks, first.observation.features, first.action.features, hidden)
        self.slow_actors = copy.deepcopy(self.actors)
        rate = over_rows(learning_rate, networks)
        self.optimiser = Optimiser("actors", self.actors.parameters(), rate, max_gradient_norm)

    @property
    def action(self) -> Space:
        """The members' action space."""
        return self.seats[0].action

    def outputs(self, actors: Stack, features: Sequence[Tensor]) -> Tensor:
        """Outputs of actors or target, `replicates x members x batch x outputs`.

        Args:
            actors: the actors or their targets.
            features: features of all agents' observations and possibly more, `replicates x batch x features`; or with
                another dimension `team` before `batch`, for each member's own minibatch, with one part of the batch per
                sub-policy.
        """
        own = [(number, features[seat.index]) for number, seat in zip(self.numbers, self.seats, strict=True)]
        x = torch.stack([each if each.dim() == 3 else each[:, number] for number, each in own], 1)
        if not self.shared:
            parts = x.unflatten(2, (self.sub_policies, -1)).flatten(1, 2)
            apart: Tensor = actors(parts).unflatten(1, (-1, self.sub_policies))
            return apart.flatten(2, 3)
        together: Tensor = actors(x)
        return together

    def outputs_of_any(self, actors: Stack, features: Sequence[Tensor]) -> Tensor:
        """Outputs of randomly drawn sub-policies, each equally often, on every team member's minibatch.

        `replicates x members x team x batch x outputs`; arguments as for `outputs`.
        """
        x = torch.stack([features[seat.index] for seat in self.seats], 1)
        order = torch.rand(x.shape[:-1], dtype=x.dtype, device=x.device).argsort(-1)
        mixed = x.gather(3, order.unsqueeze(-1).expand_as(x)).unflatten(3, (self.sub_policies, -1))
        parts = mixed.movedim(3, 2)  # replicates x members x sub-policies x team x part x features
        out: Tensor = actors(parts.flatten(1, 2).flatten(2, 3))
        apart: Tensor = out.unflatten(1, (-1, self.sub_policies)).unflatten(3, parts.shape[3:5])
        together = apart.movedim(2, 3).flatten(3, 4)
        return together.gather(3, order.argsort(-1).unsqueeze(-1).expand_as(together))

    def legal(self, outputs: Tensor, masks: Sequence[Tensor | None] | None) -> Tensor:
        """The outputs with illegal actions masked."""
        if masks is None:
            return outputs
        found = []
        for number, seat, logits in zip(self.numbers, self.seats, outputs.unbind(1), strict=True):
            mask = masks[seat.index]
            found.append(legal(logits, mask if mask is None or mask.dim() == 3 else mask[:, number]))
        return torch.stack(found, 1)

    def policy(self, member: Member, slow: bool = False) -> Functional:
        """A member's policy, or its target policy."""
        place, actors = self.numbers.index(member.number), self.slow_actors if slow else self.actors
        several = self.sub_policies
        weights = actors.weights(0 if self.shared else list(range(place * several, (place + 1) * several)))
        parameters = {
            f"network.{name}": value if self.shared else value.flatten(0, 1) for name, value in weights.items()
        }
        return Functional(ActorPolicy(actors.for_agents(several), member.seat, several), member.seat, parameters)


class Critics(nn.Module):
    """The critics of members whose inputs have equal sizes, their targets and their optimiser.

    Args:
        team: the seats of all members.
        numbers: numbers of the members.
        places: inputs of each critic, as indices into all agents' observations followed by all agents' actions.
        hidden: widths of the hidden layers.
        shared: whether they share a critic.
        copies: critics per member, whose targets' minimum is used.
        learning_rate: Adam's step size.
        max_gradient_norm: see `Optimiser`.

    Attributes:
        stacks, slow: the critics and their targets, one for each copy.
        starts: index of the first feature of each member's own action in its inputs.
    """

    starts: Tensor

    def __init__(
        self,
        team: Sequence[Seat],
        numbers: Sequence[int],
        places: Sequence[Sequence[int]],
        hidden: Sequence[int],
        shared: bool,
        copies: int,
        learning_rate: Rate,
        max_gradient_norm: float | None,
    ) -> None:
        super().__init__()
        first = team[numbers[0]]
        spaces = (*first.observations, *first.action_spaces)
        self.numbers, self.places, self.shared = list(numbers), [list(each) for each in places], shared
        widths = [[spaces[place].features for place in each] for each in self.places]
        own = [len(first.observations) + team[number].index for number in numbers]
        starts = [sum(its[: seen.index(place)]) for its, seen, place in zip(widths, self.places, own, strict=True)]
        self.register_buffer("starts", torch.tensor(starts, device=first.device), persistent=False)
        networks = 1 if shared else len(numbers)
        stacks = [Stack(first, networks, sum(widths[0]), 1, hidden) for _ in range(copies)]
        self.stacks = cast(Sequence[Stack], nn.ModuleList(stacks))
        self.slow = copy.deepcopy(self.stacks)
        rate = over_rows(learning_rate, networks)
        self.optimiser = Optimiser("critics", [*self.every], rate, max_gradient_norm)

    @property
    def every(self) -> list[nn.Parameter]:
        """The parameters of all critics."""
        return [parameter for stack in self.stacks for parameter in stack.every]

    @property
    def slow_every(self) -> list[nn.Parameter]:
        """The parameters of all targets, in the same order."""
        return [parameter for stack in self.slow for parameter in stack.every]

    def inputs(self, features: Sequence[Tensor]) -> Tensor:
        """The critics' inputs, `replicates x members x batch x in`; x 1 x if they are the same for all.

        Args:
            features: features of all agents' observations and actions, `replicates x batch x features`, or `replicates
                x team x batch x features` if members' beliefs about them differ.
        """
        if all(each == self.places[0] for each in self.places) and all(each.dim() == 3 for each in features):
            return torch.cat([features[place] for place in self.places[0]], -1).unsqueeze(1)
        rows = [
            [each if (each := features[place]).dim() == 3 else each[:, number] for place in places]
            for number, places in zip(self.numbers, self.places, strict=True)
        ]
        return torch.stack([torch.cat(row, -1) for row in rows], 1)

    def with_own(self, inputs: Tensor, numbers: Sequence[int], own: Tensor) -> Tensor:
        """The inputs of members' critics with their own actions replaced, `replicates x members x batch x in`.

        Args:
            inputs: see `inputs`.
            numbers: numbers of the members.
            own: features of the new actions, `replicates x members x batch x features`.
        """
        at = [self.numbers.index(number) for number in numbers]
        some = inputs if inputs.shape[1] == 1 else inputs[:, at]
        columns = self.starts[at].unsqueeze(-1) + torch.arange(own.shape[-1], device=own.device)
        size = own.shape[:3]
        x = some.repeat(1, size[1], 1, 1) if some.shape[1] == 1 else some.clone()
        return x.scatter_(-1, columns.view(1, len(at), 1, -1).expand(*size, -1), own)

    def values(self, x: Tensor, numbers: Sequence[int] | None = None) -> Tensor:
        """Values of the first copy, `replicates x members x batch`, for the members `numbers` of the team only."""
        at = None if numbers is None or self.shared else [self.numbers.index(number) for number in numbers]
        found: Tensor = self.stacks[0](x, at).squeeze(-1)
        return found

    def values_together(self, inputs: Tensor, own: Tensor) -> Tensor:
        """Values of all members' new actions together, by a shared critic with the same inputs for all.

        The gradient of their sum is that of the single value.

        Args:
            inputs: `replicates x 1 x batch x in`.
            own: features of all members' actions, `replicates x members x batch x features`.
        """
        columns = (self.starts.unsqueeze(-1) + torch.arange(own.shape[-1], device=own.device)).flatten()
        actions = own.movedim(1, 2).flatten(2).unsqueeze(1)
        value: Tensor = self.stacks[0](inputs.index_copy(-1, columns, actions)).squeeze(-1)
        share = value / own.shape[1]
        return (share + (value - share).detach()).expand(-1, own.shape[1], -1)

    def slow_values(self, x: Tensor) -> Tensor:
        """The minimum of the target critics' values over copies, `replicates x members x batch`."""
        smallest: Tensor = self.slow[0](x).squeeze(-1)
        for slow in self.slow[1:]:
            smallest = torch.minimum(smallest, slow(x).squeeze(-1))
        return smallest.expand(-1, len(self.numbers), -1)


def alike(kinds: Sequence[object]) -> list[list[int]]:
    """Group the indices of equal elements, in order of first appearance."""
    found: dict[object, list[int]] = {}
    for place, kind in enumerate(kinds):
        found.setdefault(kind, []).append(place)
    return list(found.values())


def for_rows(seat: Seat, each: int) -> Seat:
    """A seat with `each` rows per replicate as its replicates, `(replicates each)`."""
    return replace(seat, replicates=seat.replicates * each)


def step_down(optimiser: Optimiser, loss: Tensor) -> None:
    """Take one descent step on a loss, `replicates x rows each`.

    Raises:
        NonFiniteError: see `Optimiser.step`; it names replicates.
    """
    try:
        optimiser.step(loss.flatten())
    except NonFiniteError as error:
        if heeded() is not None:  # it names replicates already
            raise
        replicates = sorted({row // loss.shape[1] for row in error.replicates})
        raise NonFiniteError(error.what, replicates) from error


def over_rows(rate: Rate, each: int) -> float | Tensor:
    """Expand a step size to `each` rows per replicate."""
    if not isinstance(rate, ByReplicate):
        return rate
    numbers = rate(0)
    assert isinstance(numbers, Tensor)
    return numbers.flatten().repeat_interleave(each)


def legal(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Mask the logits of illegal actions; all are equal if none is legal, as may be after an agent has left."""
    return logits if mask is None else logits.masked_fill(~mask, torch.finfo(logits.dtype).min)


def squashed(outputs: Tensor, space: Space) -> Tensor:
    """Squash a network's outputs, `... x features`, to points of a box, `... x shape`."""
    assert isinstance(space, Box)
    return space.decode(torch.tanh(outputs))
