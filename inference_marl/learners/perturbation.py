"""Search without gradients: weights of a policy that are perturbed, and kept if they earn more."""

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
    """A deterministic policy whose weights are perturbed at every update, and kept where they earned more::

        w' = w + noise epsilon,  epsilon ~ N(0, I);   w <- w' if the trajectory at w' paid more than any before

    A (1 + 1) evolution strategy with a step size that stays (Rechenberg 1973), each replicate on its own. What a
    trajectory pays is a noisy number, and a lucky one is never played again; let `collect` cover many episodes. A
    baseline without values, gradients or beliefs. While it learns it plays the weights that it tries; greedily, the
    best that it has found. With several updates per trajectory only the first one counts.

    Args:
        noise: standard deviation of a weight's change.
        hidden: widths of the hidden layers.

    Attributes:
        best, tried: the policies.
        score: what the best one earned per step, `replicates`.
    """

    noise: Positive = 0.1
    hidden: Sequence[Count] = (64, 64)
    best: MLP = field(init=False)
    tried: MLP = field(init=False)
    score: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)

    def setup(self) -> None:
        """Create the policy, of which nothing is known yet.

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
        """All on the action of the weights that are tried."""
        action, chosen = self.seat.action, self._chosen(self.tried, obs)
        if isinstance(action, Discrete):
            return dist.Categorical(probs=one_hot(chosen, action.n).to(self.seat.dtype)), memory
        return dist.Delta(chosen, event_dim=len(action.event_shape)), memory

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """The action of the weights that are tried, or, without `explore`, of the best."""
        return Decision(self._chosen(self.tried if explore else self.best, obs), memory)

    def _chosen(self, network: MLP, obs: Tensor) -> Tensor:
        action = self.seat.action
        outputs = network(self.seat.observation.encode(obs, self.seat.dtype))
        return outputs.argmax(-1) if isinstance(action, Discrete) else action.decode(outputs.tanh())

    def store(self, newest: Trajectory) -> None:
        """Store nothing.

        Raises:
            IncompatibleError: if agents may be out.
        """
        newest.check_all_act(type(self).__name__)

    @torch.no_grad()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Keep the weights where they earned more than the best, and perturb the best; `peers` is not read."""
        earned = torch.stack([step.seen_by(self.seat).reward.mean(1) for step in newest.steps]).mean(0)
        better = earned > self.score
        self.score = torch.where(better, earned, self.score)
        for best, tried in zip(self.best.parameters(), self.tried.parameters(), strict=True):
            best.copy_(torch.where(better.view(-1, *[1] * (best.dim() - 1)), tried, best))
            tried.copy_(best + self.noise * torch.randn_like(best))
        return {}
