"""Models of the other agents' policies: a network for every pair of agents, fitted to recent actions."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import partial
from typing import ClassVar, Literal, Self, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from inference_marl.described import (
    Clip,
    Count,
    IncompatibleError,
    NotNegative,
    Positive,
    Rate,
    hyperparameters,
    within,
)
from inference_marl.guides import CategoricalNetwork, TanhNormalNetwork
from inference_marl.inference.action_gradients import one_hot_draw
from inference_marl.inference.conditional import Conditional, local_parameters, need_density
from inference_marl.inference.networks import MLP, rows, track
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.replay import Ring, entries_of
from inference_marl.learners.deterministic.stacks import alike, for_rows, legal, squashed, step_down
from inference_marl.spaces import Discrete, Space
from inference_marl.types import Part, Seat, Transition

Pair = tuple[int, int]
"""The number of a member of the team, and the index of another agent."""


@hyperparameters
class OpponentModule(Part):
    """Base: models of each of the other agents' policies for every member of a team.

    The networks of pairs with equal spaces are one batch of matrices, `(replicates pairs) x in x out`. Minibatches are
    drawn from the newest `window` transitions: a model fitted to the whole replay buffer would estimate the mixture of
    all past policies, and targets would ignore the others' current policies.

    Args:
        window: transitions remembered per replicate.
        batch_size: transitions drawn from the window per step.
        steps: gradient steps per update.
        learning_rate: Adam's step size.
        target_rate: fraction by which target models move towards the online ones after every update, in (0, 1].
        max_gradient_norm: clip the gradient of each network of each replicate; `None` for no clipping.

    Attributes:
        reads: the observation that a model takes: the modelled agent's (`theirs`), or its owner's (`own`).
        kinds: the pairs, grouped by spaces.
    """

    reads: ClassVar[Literal["theirs", "own"]]
    team: tuple[Seat, ...] = field(init=False)

    window: Count = 6400
    batch_size: Count = 256
    steps: Count = 1
    learning_rate: Positive = 3e-3
    target_rate: Rate = 0.01
    max_gradient_norm: Clip = 0.5

    def bind_all(self, team: Sequence[Seat]) -> Self:
        """Return a working copy for the members of a team."""
        return self._bound(seat=team[0], team=tuple(team))

    def setup(self) -> None:
        """Create the networks, their targets and optimisers, and the window of transitions."""
        seat = self.seat
        pairs = [(number, other) for number, each in enumerate(self.team) for other in each.opponents]
        self.kinds = [[pairs[place] for place in its] for its in alike([self._spaces(pair) for pair in pairs])]
        networks = []
        for its in self.kinds:
            with rows(len(its)):
                networks.append(self.network(for_rows(seat, len(its)), *self._spaces(its[0])))
        self.networks, self.slow = nn.ModuleList(networks), nn.ModuleList(copy.deepcopy(networks))
        optimisers = [
            Optimiser("opponent model", each.parameters(), self.learning_rate, self.max_gradient_norm)
            for each in networks
        ]
        self.optimisers = cast(Sequence[Optimiser], nn.ModuleList(optimisers))
        spaces = {f"obs_{agent}": space for agent, space in enumerate(seat.observations)}
        spaces |= {f"action_{agent}": space for agent, space in enumerate(seat.action_spaces)}
        entries = entries_of(spaces, seat.dtype) | {"alive": ((len(seat.action_spaces),), torch.bool)}
        self.observed = Ring(seat, self.window, entries)

    def _spaces(self, pair: Pair) -> tuple[Space, Space]:
        """The spaces of a model's input and of the modelled action."""
        return self.seat.observations[self._reader(pair)], self.seat.action_spaces[pair[1]]

    def _reader(self, pair: Pair) -> int:
        """The agent whose observation a model takes."""
        return pair[1] if self.reads == "theirs" else self.team[pair[0]].index

    @abstractmethod
    def network(self, seat: Seat, observation: Space, action: Space) -> nn.Module:
        """Create networks, one for each of the rows that are the seat's replicates."""

    @abstractmethod
    def losses(self, network: nn.Module, action: Space, obs: Tensor, actions: Tensor) -> Tensor:
        """The losses of actions given observations, `rows x batch x event`, as `rows x batch`."""

    @abstractmethod
    def forecast(self, network: nn.Module, action: Space, obs: Tensor, draws: int) -> Tensor:
        """Predict logits, `rows x batch x actions`, or draws from a box, `rows x batch x draws x dim`."""

    def draw(self, network: nn.Module, action: Space, obs: Tensor, mask: Tensor | None) -> Tensor:
        """Draw actions as features, `rows x batch x event`: one-hot draws, or points of the box."""
        forecast = self.forecast(network, action, obs, 1)
        return one_hot_draw(legal(forecast, mask)) if isinstance(action, Discrete) else forecast.squeeze(2)

    def believed(self, network: nn.Module, action: Space, obs: Tensor, mask: Tensor | None, draws: int) -> Tensor:
        """Probabilities of legal actions, `rows x batch x actions`, or draws, `rows x batch x draws x dim`."""
        forecast = self.forecast(network, action, obs, draws)
        return legal(forecast, mask).softmax(-1) if isinstance(action, Discrete) else forecast

    def observe(self, batch: Transition) -> None:
        """Add transitions, `replicates x n`, to the window."""
        entries = {f"obs_{agent}": value for agent, value in enumerate(batch.obs)}
        entries |= {f"action_{agent}": value for agent, value in enumerate(batch.actions)}
        everybody = torch.ones_like(batch.rewards, dtype=torch.bool)
        self.observed.push(entries | {"alive": everybody if batch.alive is None else batch.alive})

    @local_parameters()
    def fit(self) -> None:
        """Take gradient steps on the window, on transitions that begin before the modelled agent has left.

        The pairs of a replicate share a minibatch.

        Raises:
            NonFiniteError: if a loss is not finite.
        """
        for _ in range(self.steps):
            batch = self.observed.sample(self.batch_size)
            obs = [batch[f"obs_{agent}"] for agent in range(len(self.seat.observations))]
            for its, network, optimiser in zip(self.kinds, self.networks, self.optimisers, strict=True):
                action = self._spaces(its[0])[1]
                actions = self._rows([batch[f"action_{other}"] for _, other in its])
                with rows(len(its)):
                    losses = self.losses(network, action, self._seen(its, obs), actions).unflatten(0, (-1, len(its)))
                there = torch.stack([batch["alive"][..., other] for _, other in its], 1)
                step_down(optimiser, (losses * there).sum(-1) / there.sum(-1).clamp_min(1))
        for slow, network in zip(self.slow, self.networks, strict=True):
            track(slow, network, self.target_rate)

    def _seen(self, pairs: Sequence[Pair], obs: Sequence[Tensor]) -> Tensor:
        return self._rows([obs[self._reader(pair)] for pair in pairs])

    @staticmethod
    def _rows(values: Sequence[Tensor]) -> Tensor:
        """Combine a tensor per pair, `replicates x batch x event`, into `(replicates pairs) x batch x event`."""
        return torch.stack(list(values), 1).flatten(0, 1)

    def _masks(self, pairs: Sequence[Pair], masks: Sequence[Tensor | None] | None) -> Tensor | None:
        """Legal actions of the modelled agents; all actions of agents without a mask."""
        given = [None if masks is None else masks[other] for _, other in pairs]
        known = [mask for mask in given if mask is not None]
        return self._rows([torch.ones_like(known[0]) if mask is None else mask for mask in given]) if known else None

    @local_parameters()
    @torch.no_grad()
    def predict(self, obs: Sequence[Tensor], masks: Sequence[Tensor | None] | None = None) -> dict[Pair, Tensor]:
        """Draw every other agent's action from the target models, `replicates x batch x event`; see `draw`.

        Args:
            obs: all agents' observations, `replicates x batch x event`.
            masks: all agents' legal actions, `replicates x batch x actions`.
        """
        return self._asked(self.slow, self.draw, obs, masks)

    def opponent_model(self, number: int, obs: Tensor, draws: int) -> list[Tensor] | None:
        """A member's beliefs about every other agent's action, as in `Actor.beliefs`.

        `None` if they depend on the others' observations, unless all agents observe the same.

        Args:
            number: number of the member.
            obs: the member's own observation, `replicates x batch x event`.
            draws: number of draws, in boxes.
        """
        seat = self.team[number]
        same = self.reads == "own" or (seat.game is not None and seat.game.shared_observation)
        if not same:
            return None
        believed = self.beliefs(number, [obs] * len(seat.observations), draws)
        return [believed[other] for other in seat.opponents]

    @local_parameters()
    @torch.no_grad()
    def beliefs(
        self,
        number: int,
        obs: Sequence[Tensor],
        draws: int = 1,
        masks: Sequence[Tensor | None] | None = None,
        slow: bool = False,
    ) -> dict[int, Tensor]:
        """A member's beliefs about the other agents' actions, by agent; see `believed`.

        Args:
            number: number of the member.
            obs: all agents' observations, `replicates x batch x event`.
            draws: number of draws, in boxes.
            masks: all agents' legal actions, `replicates x batch x actions`.
            slow: whether to use the target models.
        """
        networks = self.slow if slow else self.networks
        found = self._asked(networks, partial(self.believed, draws=draws), obs, masks, number)
        return {other: believed for (owner, other), believed in found.items() if owner == number}

    def _asked(
        self,
        networks: nn.ModuleList,
        ask: Callable[[nn.Module, Space, Tensor, Tensor | None], Tensor],
        obs: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None,
        number: int | None = None,
    ) -> dict[Pair, Tensor]:
        """Evaluate `ask` for every pair; with a member's `number`, only for networks that contain pairs of it."""
        found: dict[Pair, Tensor] = {}
        for its, network in zip(self.kinds, networks, strict=True):
            if number is None or any(owner == number for owner, _ in its):
                with rows(len(its)):
                    said = ask(network, self._spaces(its[0])[1], self._seen(its, obs), self._masks(its, masks))
                found |= zip(its, said.unflatten(0, (-1, len(its))).unbind(1), strict=True)
        return found


@hyperparameters
class InferredPolicies(OpponentModule):
    """Models of the others' policies, fitted by maximum likelihood with an entropy bonus (Lowe et al. 2017, Eq. 7)::

        L(phi_i^j) = -E[log mu_i^j(a_j | o_j) + entropy H(mu_i^j(. | o_j))]

    A model takes the observation of the agent it models, as in the paper: only its policy is unknown.

    Args:
        conditional: the family of distributions; `None` for a `CategoricalNetwork` or `TanhNormalNetwork` with two
            layers of 64, depending on the actions.
        entropy: weight of the entropy (.001 in the paper).
        window, batch_size, steps, learning_rate, target_rate, max_gradient_norm: see `OpponentModule`.
    """

    reads = "theirs"

    conditional: Conditional | None = None
    entropy: NotNegative = 1e-3

    def network(self, seat: Seat, observation: Space, action: Space) -> nn.Module:
        """Create the conditional."""
        default = CategoricalNetwork((64, 64)) if isinstance(action, Discrete) else TanhNormalNetwork((64, 64))
        with within("conditional"):
            chosen = self.conditional or default
            need_density(chosen)
            bound = chosen.bind(seat, action, [observation])
            if bound.learns_from_play or not list(bound.parameters()):
                raise IncompatibleError(
                    f"got {type(chosen).__name__}, which has no parameters to fit, or learns by itself, expected a "
                    "conditional such as TanhNormalNetwork, CategoricalNetwork or Tabular"
                )
        return bound

    def losses(self, network: nn.Module, action: Space, obs: Tensor, actions: Tensor) -> Tensor:
        """See `OpponentModule`; the entropy of densities is estimated from one draw."""
        distribution: dist.TorchDistribution = network(obs)
        loss: Tensor = -distribution.log_prob(actions)
        if self.entropy == 0:
            return loss
        if isinstance(action, Discrete):
            return loss - self.entropy * distribution.entropy()
        return loss + self.entropy * distribution.log_prob(distribution.rsample())

    def forecast(self, network: nn.Module, action: Space, obs: Tensor, draws: int) -> Tensor:
        """See `OpponentModule`."""
        distribution: dist.TorchDistribution = network(obs)
        found: Tensor = (
            distribution.logits if isinstance(action, Discrete) else distribution.sample((draws,)).movedim(0, 2)
        )
        return found


@hyperparameters
class PredictedActions(OpponentModule):
    """Predictions of the others' actions from the own observation, by least squares in boxes and else cross-entropy.

    The opponent module of DDPG-OM in the public code of the ROMMEO paper; it predicts a point if actions are
    continuous. There it is fitted to the newest batch, equivalent to a `window` of the batch size, and has no target.

    Args:
        hidden: widths of the hidden layers.
        window, batch_size, steps, learning_rate, target_rate, max_gradient_norm: see `OpponentModule`.
    """

    reads = "own"

    hidden: Sequence[Count] = (64, 64)
    window: Count = 512
    target_rate: Rate = 1.0

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)

    def network(self, seat: Seat, observation: Space, action: Space) -> nn.Module:
        """Create a network whose outputs are logits, or are squashed into the box."""
        return _Predictor(seat, observation, action, self.hidden)

    def losses(self, network: nn.Module, action: Space, obs: Tensor, actions: Tensor) -> Tensor:
        """See `OpponentModule`; squared errors are those of coordinates scaled to [-1, 1]."""
        outputs: Tensor = network(obs)
        if isinstance(action, Discrete):
            return cross_entropy(outputs.flatten(0, 1), actions.flatten(), reduction="none").view(actions.shape)
        return (torch.tanh(outputs) - action.encode(actions, self.seat.dtype)).square().mean(-1)

    def forecast(self, network: nn.Module, action: Space, obs: Tensor, draws: int) -> Tensor:
        """See `OpponentModule`; all draws are the predicted point."""
        outputs: Tensor = network(obs)
        if isinstance(action, Discrete):
            return outputs
        return squashed(outputs, action).unsqueeze(2).expand(-1, -1, draws, *[-1] * len(action.event_shape))


class _Predictor(nn.Module):
    """A network per row over features of observations, from `rows x batch x event` to `rows x batch x outputs`."""

    def __init__(self, seat: Seat, observation: Space, action: Space, hidden: Sequence[int]) -> None:
        super().__init__()
        self.observation, self.dtype = observation, seat.dtype
        self.network = MLP(seat, observation.features, action.features, hidden)

    def forward(self, obs: Tensor) -> Tensor:
        """Outputs at `obs`."""
        out: Tensor = self.network(self.observation.encode(obs, self.dtype))
        return out
