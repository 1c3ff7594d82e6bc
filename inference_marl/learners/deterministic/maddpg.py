"""MADDPG: decentralised actors with centralised critics (Lowe et al., NeurIPS 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError, hyperparameters
from inference_marl.inference.action_gradients import one_hot_draw
from inference_marl.learners.deterministic.modelling import ModellingOthers
from inference_marl.learners.deterministic.opponents import InferredPolicies
from inference_marl.learners.deterministic.stacks import squashed
from inference_marl.spaces import Discrete
from inference_marl.types import Seat, Transition


@hyperparameters
class Maddpg(ModellingOthers):
    """MADDPG: decentralised actors, with critics that take all agents' observations and actions::

        y_i = r_i + gamma Q_i'(x', a_1', ..., a_N'),         a_j' = mu_j'(o_j')                             (Eq. 6)
        grad J_i = E[grad mu_i(o_i) grad_{a_i} Q_i(x, a_1, ..., a_N)],   a_i = mu_i(o_i), others from replay (Eq. 5)

    with `x` all observations. Policies over discrete actions are categorical, with one-hot Gumbel-softmax draws and
    straight-through gradients; the authors' code gives critics the relaxed draws (`GumbelSoftmax(hard=False)`).
    `ScoreFunction()` is the paper's gradient for stochastic policies (Eq. 4), and `sub_policies` are its policy
    ensembles (Section 4.3).

    Args:
        inferred: models of the others' policies, which targets use in place of the actors (Eq. 7 and 8); `None` uses
            the actors.
        others: the others' actions in the actors' gradient: those in `replay` (Eq. 5), or those of their current
            `policies`, the centralised gradient of FACMAC (Peng et al. 2021), which needs their policies.
        hidden, learning_rate, discount, target_rate, replay, batch_size, warmup, warmup_actions, noise, estimator,
            regularisation, max_gradient_norm, shared, shared_critic, sub_policies, twin_critics, target_noise,
            actor_interval: see `DeterministicActorCritic`.
        seats: see `Team`.
    """

    described_by = "inferred"

    inferred: InferredPolicies | None = None
    others: Literal["replay", "policies"] = "replay"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.others == "policies" and self.inferred is not None:
            raise ValueError("others: got policies with inferred, expected replay, or no inferred policies")
        if self.others == "policies" and self.sub_policies > 1:
            raise ValueError(
                f"others: got policies with sub_policies: {self.sub_policies}, expected replay, or one sub-policy"
            )

    def setup(self) -> None:
        """Check the seats and create all networks.

        Raises:
            IncompatibleError: like the base, or if `others` is `policies` and agents outside the team play.
        """
        if self.others == "policies" and len(self.team) < len(self.seat.action_spaces):
            raise IncompatibleError(
                f"got policies in a team of {len(self.team)} of {len(self.seat.action_spaces)} agents, "
                "expected replay, or a team of all agents",
                key="others",
            )
        super().setup()

    def sees(self, seat: Seat) -> list[int]:
        """All agents' observations and actions."""
        return list(range(2 * len(seat.observations)))

    def _all_at_once(self, data: Transition) -> bool:
        """See the base: if `others` is `policies`, all members share one critic, and no agent has left."""
        return self.others == "policies" and self.shared_critic and data.alive is None

    @torch.no_grad()
    def _others(self, data: Transition, joint: Sequence[Tensor]) -> Sequence[Tensor]:
        """The minibatch, with all actions from the current policies if `others` is `policies`."""
        if self.others == "replay":
            return joint
        found = list(joint)
        for group in self.groups:
            if len(self.groups) > 1 or not self._all_at_once(data):
                outputs = group.legal(group.outputs(group.actors, joint), data.masks)
                discrete = isinstance(group.action, Discrete)
                actions = one_hot_draw(outputs) if discrete else squashed(outputs, group.action)
                for seat, action in zip(group.seats, actions.unbind(1), strict=True):
                    place = len(data.obs) + seat.index
                    found[place] = self._feature(action, place, data.alive)
        return found
