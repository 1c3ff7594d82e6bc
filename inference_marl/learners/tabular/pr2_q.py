"""PR2-Q: probabilistic recursive reasoning about the opponents' responses to each own action."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from inference_marl.described import Positive, hyperparameters
from inference_marl.inference.schedules import Schedule
from inference_marl.learners.tabular.base import JointValueLearner
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.models import EmpiricalFrequency
from inference_marl.spaces import Discrete
from inference_marl.types import Trajectory


@hyperparameters
class PR2Q(JointValueLearner):
    """PR2-Q: Q-learning over joint actions with a model of responses to own actions (Wen et al. 2019, Section 4)::

        EV(s, a) = sum_b rho(b | s, a) Q(s, a, b)

    where the opponent model conditions on the agent's own action and is one of

    * `counts`: the frequency of `b` when `a` was played in `s`; uniform until `a` was played there;
    * `soft`: the agent's own preference, `rho(b | s, a) = exp(Q(s, a, b) / alpha) / sum_b' exp(Q(s, a, b') / alpha)`,
      the paper's optimal opponent model (its `exp(Q(s, a, b) - Q(s, a))`, normalised, with alpha = 1);
    * `counts_over_pairs`: the counts as in the public code of the ROMMEO comparison, which sum to about 1 over all
      played pairs `(a, b)` and not for each `a`: `rho = f / (sum_ab f + 0.1)` with `f = count(a, b) / (count(a) +
      0.1)`. So expected values shrink to `1 / |A|`, equivalent to exploring at `|A|` times the temperature, and an
      unplayed action has the value 0.

    The public code's own soft model, linear in `Q(s, a, b) - Q(s, a)`, is not a distribution and is not offered.

    Args:
        exploration: see `ValueLearner`; the paper's is `Boltzmann(1.0)`.
        opponent_model: `counts`, `soft` or `counts_over_pairs`.
        opponent_temperature: alpha of the soft model, positive, in units of reward; a number or a schedule over
            updates. 1 by default.
        rate, discount, initial: see `ValueLearner`.

    Raises:
        ValueError: if a number is out of range, or a temperature is given with a model of counts.
    """

    by_replicate = JointValueLearner.by_replicate | {"opponent_temperature"}

    opponent_model: Literal["counts", "soft", "counts_over_pairs"] = "counts"
    opponent_temperature: Positive | Schedule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.opponent_temperature is not None and self.opponent_model != "soft":
            raise ValueError(
                f"opponent_temperature: got one with opponent_model = {self.opponent_model}, expected none: counts "
                "have no temperature; leave it out, or choose soft"
            )
        self.soft_answers = Boltzmann(1.0 if self.opponent_temperature is None else self.opponent_temperature)
        self.frequencies = EmpiricalFrequency(initial="uniform")

    def setup(self) -> None:
        """Check the seat, draw the table and create the counts of responses to every own action in every state."""
        super().setup()
        situations = Discrete(self.states * self.actions)
        self.frequencies = self.frequencies.bind(self.seat, self.seat.opponent_action, [situations])

    def answers(self, obs: Tensor) -> Tensor:
        """`rho(b | s, a)`, a distribution for every own action, `replicates x batch x actions x opponent_actions`."""
        if self.opponent_model == "soft":
            return self.soft_answers(self.joint_values(obs), self.updates)
        probabilities: Tensor = self.frequencies(self._situations(obs)).probs
        return probabilities.view(*obs.shape, self.actions, self.opponent_actions)

    def replies(self, obs: Tensor) -> Tensor:
        """The weights of the values: `answers`, or the frequencies over pairs."""
        if self.opponent_model != "counts_over_pairs":
            return self.answers(obs)
        counts = self.frequencies.counts_at(self._situations(obs)).view(*obs.shape, self.actions, self.opponent_actions)
        answered = counts / (counts.sum(-1, keepdim=True) + 0.1)
        return answered / (answered.sum((-2, -1), keepdim=True) + 0.1)

    def belief(self, obs: Tensor) -> Tensor:
        """`sum_a pi(a | s) rho(b | s, a)`, `replicates x batch x opponent_actions`."""
        policy: Tensor = self(obs)
        return (policy.unsqueeze(-1) * self.answers(obs)).sum(-2)

    def store(self, newest: Trajectory) -> None:
        """Count the opponents' responses."""
        super().store(newest)
        for seen in newest.seen_by(self.seat):
            self.frequencies.observe(seen.obs * self.actions + seen.action, seen.opponent_action)

    def _situations(self, obs: Tensor) -> Tensor:
        """Indices of all own actions at `obs` among all state-action pairs, `replicates x (batch actions)`."""
        own = torch.arange(self.actions, device=obs.device)
        return (obs.unsqueeze(-1) * self.actions + own).flatten(1)
