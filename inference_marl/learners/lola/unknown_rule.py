"""LOLA against an opponent with an unknown learning rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inference_marl.described import BelowOne, Clip, NotNegative, Positive, Probability, brief, hyperparameters
from inference_marl.inference.schedules import ByReplicate
from inference_marl.learners.lola.derivatives import PolicyMap, free_logits
from inference_marl.learners.lola.gradient import Pair
from inference_marl.learners.lola.rules import LearningRule, LolaRule, NaiveRule, StaticRule
from inference_marl.learners.lola.shaping import Lola
from inference_marl.models import LearningRuleFilter
from inference_marl.types import POSITIVE, PROBABILITY, Actor, Memory, Metric, Trajectory

LEARNING = Metric(
    "learning_probability",
    "P(learning)",
    bounds=PROBABILITY,
    over="last",
    meaning="An agent's posterior probability that its opponent learns.",
)
RULE_ENTROPY = Metric(
    "rule_entropy",
    "entropy of the rule",
    "nats",
    bounds=POSITIVE,
    over="last",
    meaning="Entropy of an agent's posterior over its opponent's learning rule.",
)
RULES = (StaticRule(), *(NaiveRule(step_size=eta) for eta in (0.1, 0.3, 1.0, 3.0)), LolaRule())


@hyperparameters
class LolaUnknownRule(Lola):
    """LOLA gated by a posterior over the opponent's learning rule, inferred from its actions::

        f^i = grad_i V^i + eta g grad_i [grad_j V^j . stop(grad_j V^i)]        g = P(the opponent learns | play)

    The opponent's parameters are never read. Both terms are exact derivatives at the posterior mean of the opponent's
    logits (`models.LearningRuleFilter`); each rule's predictions are exact at that rule's own mean. So the learner
    ascends its own value against opponents that do not learn, and is LOLA against those that do. The distinction is
    relative to the rules: an opponent that learns more slowly than all of them is exploited as if it were static, and
    so driven to defection, where a policy that has become deterministic no longer shapes it.

    The opponent's policy is assumed to be fixed between two updates. Let `collect` cover whole episodes, since the
    logits of unvisited states stay unknown.

    Args:
        rules: the opponent's possible learning rules, all equally probable at first.
        opponent_step_size: eta, the strength of the shaping. It need not be the opponent's: stronger shaping by several
            times pays off.
        gate: g: `learning`, as above; `step_size`, the posterior mean of the rules' step sizes; or `open`, always 1.
        max_change: bound to which components of f are clamped.
        opponent_scale: standard deviation of the opponent's initial logits.
        process_noise, switching: see `LearningRuleFilter`.
        order, look_ahead, step_size, init_scale, update_every, gradients: see `Lola`; the opponent model is the filter.

    Attributes:
        believed: the posterior over the opponent's rule and logits, predicted to after its update.
    """

    reads_peers: ClassVar[bool] = False
    metrics = (LEARNING, RULE_ENTROPY)

    rules: Sequence[LearningRule] = RULES
    opponent_step_size: NotNegative | ByReplicate = 10.0
    gate: Literal["learning", "step_size", "open"] = "learning"
    max_change: Clip = 1.0
    opponent_scale: Positive = 1.0
    process_noise: Positive = 0.15
    switching: Probability = 0.01
    forget: BelowOne = field(default=0.0, init=False)
    believed: LearningRuleFilter = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.opponent_model is not None:
            got = type(self.opponent_model).__name__
            raise ValueError(f"opponent_model: got {got}, expected none: it is a filter over these rules")
        for number, rule in enumerate(self.rules):
            if not isinstance(rule, LearningRule):
                raise ValueError(f"rules[{number}]: got {rule!r}, expected a learning rule, such as NaiveRule()")
        if not self.rules:
            raise ValueError("rules: got none, expected at least one learning rule, such as StaticRule or NaiveRule")

    def setup(self) -> None:
        """Check the seat, draw the logits and start from the prior over rules.

        Raises:
            IncompatibleError: like `Lola`.
        """
        self.opponent_model = LearningRuleFilter(
            rules=len(self.rules),
            init_scale=self.opponent_scale,
            process_noise=self.process_noise,
            switching=self.switching,
        )
        super().setup()

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the types: the rules."""
        return tuple(map(brief, self.rules))

    @property
    def learning_probability(self) -> Tensor:
        """P(the opponent learns), `replicates`."""
        return self.expected([float(rule.learns) for rule in self.rules])

    def expected(self, of_rules: Sequence[float]) -> Tensor:
        """The posterior mean of a number that depends on the rule, `replicates`."""
        weights = self.believed.weights
        return weights @ weights.new_tensor(of_rules)

    @torch.no_grad()
    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Condition on the opponent's actions, update the policy, predict the opponent's update; `peers` is not used.

        Raises:
            NonFiniteError: if the gradient is not finite.
        """
        own = self.logits.detach().clone()
        super().learn(newest, peers)
        self.believed.predict(lambda logits: self.changes(own, logits))
        weights = self.believed.weights
        return {"learning_probability": self.learning_probability, "rule_entropy": torch.special.entr(weights).sum(1)}

    def changes(self, own: Tensor, logits: Tensor) -> Tensor:
        """The change of the opponent's logits under every rule, `replicates x rules x states x (opponent_actions - 1)`.

        Args:
            own: the agent's logits, `replicates x states x (actions - 1)`.
            logits: the opponent's logits under every rule, in the shape of the result.
        """
        i = self.seat.index
        pairs = [(own, other) if i == 0 else (other, own) for other in logits.unbind(1)]
        each = zip(self.rules, pairs, strict=True)
        return torch.stack([rule.change(self.at(pair, (free_logits,) * 2), 1 - i) for rule, pair in each], 1)

    def ascent(self, parameters: Pair, policies: tuple[PolicyMap, PolicyMap]) -> Tensor:
        """The gated direction, clamped."""
        direction = super().ascent(parameters, policies)
        return direction if self.max_change is None else direction.clamp(-self.max_change, self.max_change)

    def ahead(self, change: Tensor) -> Tensor:
        """See `OpponentShapingLearner`; also scaled by the gate."""
        if self.gate == "learning":
            change = self.learning_probability.view(-1, 1, 1) * change
        elif self.gate == "step_size":
            change = self.expected([rule.step_size for rule in self.rules]).view(-1, 1, 1) * change
        return super().ahead(change)

    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy, the opponent's believed policy, and the posterior over its rule as `opponent_type`."""
        rule = self.believed.weights.unsqueeze(1).expand(-1, obs.shape[1], -1)
        return {**super().beliefs(obs, memory, draws), "opponent_type": rule}
