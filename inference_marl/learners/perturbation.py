"""Gradient-free policy search by random perturbations of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import field

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.described import Count, IncompatibleError, Positive, hyperparameters
from inference_marl.inference.networks import MLP
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Actor, Decision, Learner, Memory, Trajectory


@hyperparameters
class Perturbation(Learner):
    """A (1 + 1) evolution strategy: random perturbations of a policy's weights are kept if they earn more::

        w' = w + noise epsilon,  epsilon ~ N(0, I);   w <- w' if the trajectory at w' earned more than any before

    A baseline without values, gradients or beliefs, with a fixed step size (Rechenberg 1973) and independent
    replicates. Returns are noisy, and a lucky one is never evaluated again, so let `collect` cover many episodes. The
    agent plays the perturbed weights while learning, and the best ones found if greedy. With several updates per
    trajectory only the first one has an effect.

    Args:
        noise: standard deviation of a weight's perturbation.
        hidden: widths of the hidden layers.

    Attributes:
        best, tried: the best policy and the perturbed one.
        score: mean reward per step of the best policy, `replicates`.
    """

    noise: Positive = 0.1
    hidden: Sequence[Count] = (64, 64)
    best: MLP = field(init=False)
    tried: MLP = field(init=False)
    score: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)

    def setup(self) -> None:
        """Create the policies, with a score of minus infinity.

        Raises:
            IncompatibleError: if actions are neither discrete nor in a box with finite edges.
        """
        seat, action = self.seat, self.seat.action
        if isinstance(action, Box) and not action.bounded:
            raise IncompatibleError(f"Perturbation got actions {action}, expected Discrete, or a Box with finite edges")
        outputs = action.n if isinstance(action, Discrete) else action.features
        self.tried = MLP(seat, seat.observation.features, outputs, self.hidden).requires_grad_(False)
        self.best = copy.deepcopy(self.tried)
        score = torch.full((seat.replicates,), -math.inf, dtype=seat.dtype, device=seat.device)
        self.register_buffer("score", score)

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """A point mass on the action of the perturbed policy."""
        action, chosen = self.seat.action, self._chosen(self.tried, obs)
        if isinstance(action, Discrete):
            return dist.Categorical(probs=one_hot(chosen, action.n).to(self.seat.dtype)), memory
        return dist.Delta(chosen, event_dim=len(action.event_shape)), memory

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """The action of the perturbed policy or, without `explore`, of the best one."""
        return Decision(self._chosen(self.tried if explore else self.best, obs), memory)

    def _chosen(self, network: MLP, obs: Tensor) -> Tensor:
        action = self.seat.action
        outputs = network(self.seat.observation.encode(obs, self.seat.dtype))
        return outputs.argmax(-1) if isinstance(action, Discrete) else action.decode(outputs.tanh())

    def store(self, newest: Trajectory) -> None:
        """Store nothing.

        Raises:
            IncompatibleError: if agents may leave an episode.
        """
        newest.check_all_act(type(self).__name__)

    @torch.no_grad()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Keep perturbed weights that earned more than the best, then perturb the best; `peers` is not used."""
        earned = torch.stack([step.seen_by(self.seat).reward.mean(1) for step in newest.steps]).mean(0)
        better = earned > self.score
        self.score = torch.where(better, earned, self.score)
        for best, tried in zip(self.best.parameters(), self.tried.parameters(), strict=True):
            best.copy_(torch.where(better.view(-1, *[1] * (best.dim() - 1)), tried, best))
            tried.copy_(best + self.noise * torch.randn_like(best))
        return {}
