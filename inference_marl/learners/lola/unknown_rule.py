"""LOLA against an opponent whose learning rule is unknown."""

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
    meaning="Probability that an agent gives to its opponent's having a rule that learns.",
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
    """LOLA with a posterior over the opponent's learning rule, inferred from what it plays, which gates the shaping::

        f^i = grad_i V^i + eta g grad_i [grad_j V^j . stop(grad_j V^i)]        g = P(the opponent learns | play)

    It never reads the opponent's parameters. Both terms are exact derivatives at the posterior mean of the opponent's
    logits (`models.LearningRuleFilter`), and so are the rules' predictions, each at the logits that it believes in
    itself. So it ascends its own value against opponents that do not learn, and is LOLA against those that do. Which
    these are, its rules say: an opponent slower than all of them is exploited as if it stood still, and so driven to
    defection, from where a policy that has become deterministic does not shape it any more.

    Between two updates the opponent's policy does not change; let `collect` cover whole episodes, or states that are
    not visited stay unknown.

    Args:
        rules: what the opponent may do at an update; all equally probable at first.
        opponent_step_size: eta, the strength of the shaping. Not the opponent's: shaping several times as hard pays.
        gate: g: `learning`, as above; `step_size`, the posterior mean of the rules' step sizes; or `open`, 1 whatever
            is believed.
        max_change: largest size of a component of f; larger ones are clamped.
        opponent_scale: standard deviation of the opponent's first logits.
        process_noise, switching: see `LearningRuleFilter`.
        order, look_ahead, step_size, init_scale, update_every, gradients: see `Lola`; it has an opponent model of
            its own.

    Attributes:
        believed: the posterior over the opponent's rule and logits, as they are predicted to be after its update.
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
        """Check the seat, draw the logits, and believe in every rule.

        Raises:
            IncompatibleError: as for `Lola`.
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
        """The rules."""
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
        """Condition on what the opponent played, step the policy, and predict the opponent's step; `peers` is not read.

        Raises:
            NonFiniteError: if the gradient is not finite.
        """
        own = self.logits.detach().clone()
        super().learn(newest, peers)
        self.believed.predict(lambda logits: self.changes(own, logits))
        weights = self.believed.weights
        return {"learning_probability": self.learning_probability, "rule_entropy": torch.special.entr(weights).sum(1)}

    def changes(self, own: Tensor, logits: Tensor) -> Tensor:
        """What every rule adds to the opponent's logits, `replicates x rules x states x (opponent_actions - 1)`.

        Args:
            own: the agent's logits, `replicates x states x (actions - 1)`.
            logits: the opponent's under every rule, in the shape of the result.
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
        """See `OpponentShapingLearner`; here as far as the gate is open."""
        if self.gate == "learning":
            change = self.learning_probability.view(-1, 1, 1) * change
        elif self.gate == "step_size":
            change = self.expected([rule.step_size for rule in self.rules]).view(-1, 1, 1) * change
        return super().ahead(change)

    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy, the opponent's believed policy, and its rule as `opponent_type`."""
        rule = self.believed.weights.unsqueeze(1).expand(-1, obs.shape[1], -1)
        return {**super().beliefs(obs, memory, draws), "opponent_type": rule}
