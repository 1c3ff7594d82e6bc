"""PR2-Q: probabilistic recursive reasoning, how the opponents would answer each of the own actions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from inference_marl.inference.schedules import Schedule
from inference_marl.learners.tabular.base import JointValueLearner
from inference_marl.learners.tabular.exploration import Boltzmann, Exploration
from inference_marl.models import EmpiricalFrequency
from inference_marl.spaces import Discrete
from inference_marl.types import Experience


class PR2Q(JointValueLearner):
    """PR2-Q (Wen et al. 2019, Section 4): Q-learning over joint actions that reasons how opponents answer an action::

        EV(s, a) = sum_b rho(b | s, a) Q(s, a, b)

    where the opponent model is conditioned on the own action, one of

    * `counts`: how often `b` was played together with `a` in `s`; uniform until `a` was played there;
    * `soft`: what would be best for this agent, `rho(b | s, a) = exp(Q(s, a, b) / alpha) / sum_b' exp(Q(s, a, b') /
      alpha)`, the paper's optimal opponent model (its `exp(Q(s, a, b) - Q(s, a))`, normalised, with alpha = 1);
    * `counts_over_pairs`: the counts as the public code of the ROMMEO comparison has them, where they sum to about 1
      over all pairs `(a, b)` that were played and not for each `a`:
      `rho = f / (sum_ab f + 0.1)` with `f = count(a, b) / (count(a) + 0.1)`. So expected values shrink to `1 / |A|`,
      which is to explore at `|A|` times the temperature, and an action that was never played has the value 0.

    The public code's own soft model, linear in `Q(s, a, b) - Q(s, a)`, is no distribution and is not offered.

    Args:
        exploration: from expected values to probabilities; the paper's is `Boltzmann(1.0)`.
        opponent_model: `counts`, `soft` or `counts_over_pairs`.
        opponent_temperature: alpha of the soft model, positive, in units of reward; number or schedule over updates.
            1 if none is given.
        rate: learning rate in (0, 1]; number or schedule over updates.
        discount: gamma in [0, 1).
        initial: initial values: a number, or `[low, high]` for uniform draws.

    Raises:
        ValueError: if a number is out of its range, or a temperature is given for a model that counts.
    """

    def __init__(
        self,
        exploration: Exploration,
        opponent_model: Literal["counts", "soft", "counts_over_pairs"] = "counts",
        opponent_temperature: float | Schedule | None = None,
        rate: float | Schedule = 0.1,
        discount: float = 0.95,
        initial: float | tuple[float, float] = 0.0,
    ) -> None:
        super().__init__(exploration, rate, discount, initial)
        models = ("counts", "soft", "counts_over_pairs")
        if opponent_model not in models:
            raise ValueError(f"opponent_model: got {opponent_model!r}, expected one of {', '.join(models)}")
        if opponent_temperature is not None and opponent_model != "soft":
            raise ValueError(
                f"opponent_temperature: got one with opponent_model = {opponent_model}, expected none: counts have no "
                "temperature; leave it out, or choose soft"
            )
        self.kind = opponent_model
        self.soft_answers = Boltzmann(1.0 if opponent_temperature is None else opponent_temperature)
        self.frequencies = EmpiricalFrequency(initial="uniform")

    def setup(self) -> None:
        """Check the seat, draw the table and start counting answers to every own action in every state."""
        super().setup()
        situations = Discrete(self.states * self.actions)
        self.frequencies = self.frequencies.bind(self.seat, self.seat.opponent_action, [situations])

    def answers(self, obs: Tensor) -> Tensor:
        """`rho(b | s, a)`, a distribution for every own action, `replicates x batch x actions x opponent_actions`."""
        if self.kind == "soft":
            return self.soft_answers(self.joint_values(obs), self.updates)
        probabilities: Tensor = self.frequencies(self._situations(obs)).probs
        return probabilities.view(*obs.shape, self.actions, self.opponent_actions)

    def replies(self, obs: Tensor) -> Tensor:
        """What values are weighed with: `answers`, or the frequencies over pairs."""
        if self.kind != "counts_over_pairs":
            return self.answers(obs)
        counts = self.frequencies.counts_at(self._situations(obs)).view(*obs.shape, self.actions, self.opponent_actions)
        answered = counts / (counts.sum(-1, keepdim=True) + 0.1)
        return answered / (answered.sum((-2, -1), keepdim=True) + 0.1)

    def opponent_model(self, obs: Tensor) -> Tensor:
        """`sum_a pi(a | s) rho(b | s, a)`, `replicates x batch x opponent_actions`."""
        policy: Tensor = self(obs)
        return (policy.unsqueeze(-1) * self.answers(obs)).sum(-2)

    def learn(self, seen: Experience) -> None:
        """Count how the opponents answered, then move the values."""
        self.frequencies.observe(seen.obs * self.actions + seen.action, seen.opponent_action)
        super().learn(seen)

    def _situations(self, obs: Tensor) -> Tensor:
        """The index of every own action at `obs` among all states' actions, `replicates x (batch actions)`."""
        own = torch.arange(self.actions, device=obs.device)
        return (obs.unsqueeze(-1) * self.actions + own).flatten(1)
