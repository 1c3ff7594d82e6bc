"""The part of PEARL that does not learn: networks, replay buffer, and acting on the belief."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Literal

import pyro.distributions as dist
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn

from inference_marl.described import (
    BelowOne,
    Clip,
    Count,
    In,
    IncompatibleError,
    Positive,
    Rate,
    hyperparameters,
    within,
)
from inference_marl.guides import CategoricalNetwork, TanhNormalNetwork
from inference_marl.inference.conditional import Conditional, local_parameters
from inference_marl.inference.optimise import Optimiser
from inference_marl.inference.reward_range import RewardRange
from inference_marl.inference.schedules import ByReplicate, Schedule
from inference_marl.learners.latent.contexts import Context, Posterior, nothing
from inference_marl.learners.latent.encoders import GaussianFactors
from inference_marl.learners.latent.model import ActorReads, CriticReads, reading
from inference_marl.learners.latent.networks import (
    OF_TASKS,
    OpponentActions,
    Outcomes,
    StateValue,
    Twins,
    joined,
    outlook_features,
)
from inference_marl.learners.latent.rows import Rows
from inference_marl.learners.latent.trials import Trials
from inference_marl.spaces import Box, Discrete
from inference_marl.types import (
    LATENT_MEAN,
    LATENT_SD,
    POSITIVE,
    Counting,
    Decision,
    Experience,
    Learner,
    Memory,
    Metric,
    Start,
    Trajectory,
    about_each,
    choose,
)

INITIAL_TEMPERATURE = 0.1
"""The initial temperature, if it is learned."""

BELIEF_SD = Metric(
    "belief_sd",
    "width of the belief where the agents are",
    bounds=POSITIVE,
    meaning="Mean standard deviation of the coordinates of the belief about the opponents, in the state of play "
    "when a record is made; right after a trial it is that of the prior.",
    tabulated=False,
)


@hyperparameters
class LatentPolicy(Counting, Learner):
    """Base of `Pearl`, which documents the arguments: everything except the updates."""

    by_replicate = frozenset({"temperature", "kl_weight", "discount", "learning_rate"})

    context: Context | None = GaussianFactors()
    trained_by: Literal["critic", "opponents", "both", "transitions"] = "critic"
    actor_reads: ActorReads = "draw"
    critic_reads: CriticReads = "draw"
    forecasts: Count = 8
    renewed: Literal["episode", "step"] = "episode"
    temperature: Annotated[float | None, In("a positive number", ", or null to learn it")] | Schedule = None
    target_entropy: float | None = None
    kl_weight: Positive | Schedule = 0.01
    reward_scale: Positive = 1.0
    opponent_sd: Annotated[float | None, In("a positive number", ", or null to learn it")] = None
    discount: BelowOne | ByReplicate = 0.95
    bootstrap: Literal["critics", "value"] = "critics"
    target_rate: Rate = 0.01
    tasks_per_update: Count = 8
    batch: Count = 16
    hidden: Sequence[Count] = (64, 64)
    learning_rate: Positive | ByReplicate = 2e-3
    max_gradient_norm: Clip = None
    replay: Count = 100_000
    actor: Conditional = field(init=False)
    critics: Twins = field(init=False)
    value: StateValue | None = field(init=False)
    target: Twins | StateValue = field(init=False)
    opponents: OpponentActions | None = field(init=False)
    outcomes: Outcomes | None = field(init=False)
    rewards: RewardRange | None = field(init=False)
    optimiser: Optimiser = field(init=False)
    actor_optimiser: Optimiser = field(init=False)
    value_optimiser: Optimiser | None = field(init=False)
    temperature_optimiser: Optimiser | None = field(init=False)
    trials: Trials = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = tuple(self.hidden)
        self.__dict__["reads_task"] = self.context is not None and self.context.is_told
        if self.actor_reads == "forecasts" and self.trained_by == "critic":
            raise ValueError(
                "actor_reads: got forecasts with trained_by critic, which does not train an opponent model, expected "
                "another trained_by, or a draw or moments"
            )
        if self.critic_reads == "actions" and self.trained_by in ("critic", "both"):
            raise ValueError(
                f"critic_reads: got actions with trained_by {self.trained_by}, expected trained_by opponents or "
                "transitions: a critic of actions takes no z that it could train"
            )
        if self.critic_reads == "actions" and self.bootstrap == "value":
            raise ValueError(
                "bootstrap: got value with critic_reads actions, expected critics: a state value takes no actions"
            )

    def setup(self) -> None:
        """Bind the context and create networks, optimisers and the replay buffer.

        Raises:
            IncompatibleError: if there is no policy for the action space, there are no opponents to predict, or the
                context does not fit.
        """
        seat = self.seat
        self._check_seat()
        with within("context"):
            self.context = (self.context or nothing()).bind(seat)
        self.layout, action = Rows(seat), seat.action
        features = seat.observation.features + self._width(self.actor_reads)
        network = CategoricalNetwork if isinstance(action, Discrete) else TanhNormalNetwork
        self.actor = network(self.hidden).bind(seat, action, [Box(shape=features)])
        self.critics = Twins(seat, self._width(self.critic_reads), self.hidden)
        self.value = None
        if self.bootstrap == "value":
            self.value = StateValue(seat, self._width(self.critic_reads), self.hidden)
        self.target = copy.deepcopy(self.value or self.critics).requires_grad_(False)
        # Collected once, since iterating over small modules takes longer than moving them.
        networks = (self.critics, self.value or self.critics, self.target)
        self._of_critics, self._fast, self._slow = (tuple(network.parameters()) for network in networks)
        self.opponents = None
        if self.trained_by != "critic":
            self.opponents = OpponentActions(seat, self.belief.features, self.hidden, self.opponent_sd)
        self.outcomes, self.rewards = None, None
        if self.trained_by == "transitions":
            self.outcomes, self.rewards = Outcomes(seat, self.belief.features, self.hidden), RewardRange(seat)
        self._prepare_to_learn()

    def _prepare_to_learn(self) -> None:
        """Create the optimisers, the parameter of a learned temperature, and the replay buffer."""
        seat = self.seat
        all_there = (self.critics, self.belief, self.opponents, self.outcomes)
        learnt = [module for module in all_there if module is not None]
        fitted = [parameter for module in learnt for parameter in module.parameters()]
        self.optimiser = self._optimiser("critics", fitted)
        self.actor_optimiser = self._optimiser("actor", list(self.actor.parameters()))
        self.value_optimiser = None
        if self.value is not None:
            self.value_optimiser = self._optimiser("value", list(self.value.parameters()))
        self.temperature_optimiser = None
        if self.temperature is None:
            start = torch.full((seat.replicates,), math.log(INITIAL_TEMPERATURE), dtype=seat.dtype, device=seat.device)
            self.log_temperature = nn.Parameter(start)
            self.temperature_optimiser = self._optimiser("temperature", [self.log_temperature])
        self.elbo = TraceMeanField_ELBO(max_plate_nesting=len(OF_TASKS))
        self.trials = Trials(seat, self.replay, self.belief.from_their_beginning)

    def _check_seat(self) -> None:
        who, action, observation = type(self).__name__, self.seat.action, self.seat.observation
        if self.trained_by == "transitions" and isinstance(observation, Box) and not observation.bounded:
            raise IncompatibleError(
                f"got transitions with observations {observation}, expected Discrete or a Box with finite edges, whose "
                "size is the unit of errors; or another trained_by",
                key="trained_by",
            )
        if isinstance(action, Box) and (not action.bounded or len(action.shape) != 1):
            raise IncompatibleError(
                f"{who} got actions {action}, expected Discrete, or vectors in a Box with finite edges"
            )
        if self.trained_by != "critic" and not self.seat.opponents:
            raise IncompatibleError(
                f"got {self.trained_by} in a game of one agent, expected opponents to predict, or critic",
                key="trained_by",
            )

    @property
    def belief(self) -> Context:
        """The context, once bound."""
        assert self.context is not None
        return self.context

    def _optimiser(self, what: str, parameters: Sequence[nn.Parameter]) -> Optimiser:
        return Optimiser(what, parameters, self.learning_rate, self.max_gradient_norm)

    def _width(self, how: ActorReads | CriticReads) -> int:
        if how == "forecasts":
            return outlook_features(self.seat.opponent_actions, self.forecasts)
        if how == "actions":
            return sum(space.features for space in self.seat.opponent_actions)
        return self.belief.features * (1 if how == "draw" or self.belief.is_point else 2)

    def _beside(self, how: ActorReads | CriticReads, obs: Tensor, believed: Posterior, z: Tensor) -> Tensor:
        """The inputs of policy or critics in addition to `obs`, `replicates x tasks x (steps or 1) x features`.

        For `actions` these are `forecasts` draws for each step, see `Twins.least`.
        """
        if self.opponents is not None and how == "forecasts":
            return self.opponents.outlook(obs, believed, self.forecasts)
        if self.opponents is not None and how == "actions":
            return self.opponents.actions(obs, believed, self.forecasts)
        return reading(how, believed, z)

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        """The evidence at the start of a trial, and the policy's input from the belief given it.

        `mean` and `sd` are those of the posterior in use, and `draw` is a draw from it, if the policy takes one.
        """
        return self._with_belief(self.belief.initial_evidence(replicates, environments))

    @local_parameters()
    @torch.no_grad()
    def _with_belief(self, evidence: Memory) -> Memory:
        if not evidence:
            return evidence
        believed = self.belief.read(evidence)
        used = {"mean": believed.mean}
        if believed.sd is not None:
            used |= {"sd": believed.sd} | ({"draw": believed.draw()} if self.actor_reads == "draw" else {})
        return evidence | used

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        """Reset the evidence where a task begins, and update the posterior in use where an episode does."""
        fresh = self._with_belief(self.belief.begin(start))
        if memory is None or not fresh:
            return fresh
        known = choose(start.new_task, fresh, memory)
        evidence = {name: known[name] for name in self.belief.initial_evidence(1, 1)}
        return choose(start.episode, self._with_belief(evidence), known)

    @local_parameters()
    @torch.no_grad()
    def remember(self, memory: Memory, step: Experience) -> Memory:
        """Add a step to the evidence; parameters do not change."""
        gathered = self.belief.gather(memory, self.layout.of(step))
        return memory | (self._with_belief(gathered) if self.renewed == "step" else gathered)

    def _shown(self, obs: Tensor, memory: Memory) -> Tensor:
        """The policy's inputs, `replicates x batch x features`."""
        seen = self.seat.observation.encode(obs, self.seat.dtype).unsqueeze(2)
        mean = memory["mean"] if memory else self.belief.zeros(*obs.shape[:2], 0)
        z = memory.get("draw", mean).unsqueeze(2)
        believed = Posterior(mean, memory.get("sd")).unsqueeze(2)
        return joined(seen, self._beside(self.actor_reads, seen, believed, z)).squeeze(2)

    @local_parameters()
    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.TorchDistribution, Memory]:
        """pi(a | s, z), given the belief about z in the memory."""
        found: dist.TorchDistribution = self.actor(self._shown(obs, memory))
        return found, memory

    @local_parameters()
    @torch.no_grad()
    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        """Draw from the policy; without `explore` take its most probable action, in boxes before squashing.

        If the policy takes forecasts, which are drawn, this is random, too.
        """
        given = self._shown(obs, memory)
        if explore:
            return Decision(self.actor(given).sample(), memory)
        outputs = self.actor.outputs([given])
        if isinstance(self.seat.action, Discrete):
            return Decision(outputs.argmax(-1), memory)
        return Decision(self.seat.action.decode(outputs.chunk(2, -1)[0].tanh()), memory)

    @local_parameters()
    @torch.no_grad()
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        """The policy, the belief, its width and, if it is learned, the model of the opponents' actions.

        The belief is the posterior given all evidence, even if the policy uses an older one; the opponents' actions are
        predicted with `draws` draws of z.
        """
        found = dict(super().beliefs(obs, memory, draws))
        believed = self.belief.read(memory) if memory else Posterior(self.belief.zeros(*obs.shape[:2], 0))
        if memory:
            found[LATENT_MEAN] = believed.mean
        if believed.sd is not None:
            found |= {LATENT_SD: believed.sd, BELIEF_SD.name: believed.sd.mean(-1)}
        if self.opponents is None:
            return found
        seen = self.seat.observation.encode(obs, self.seat.dtype).unsqueeze(2)
        acts = self.opponents.expected(seen, believed.unsqueeze(2), draws)
        expected = []
        for space, act in zip(self.seat.opponent_actions, acts, strict=True):
            if isinstance(space, Discrete):
                expected.append(act.probs.mean(2))
            else:
                low, high = space.edges(seen.dtype, seen.device)
                expected.append(space.decode(act.sample()).clamp(low, high))
        return found | about_each("opponent_model", expected)

    def store(self, newest: Trajectory) -> None:
        """Add to the replay buffer.

        Raises:
            IncompatibleError: if agents may leave an episode, or the context needs tasks and there are none.
        """
        newest.check_all_act(type(self).__name__)
        if newest.steps[0].task is None and self.belief.needs_tasks:
            raise IncompatibleError(
                f"{type(self).__name__} got no tasks, expected the experiment's key tasks, which says for how many "
                "episodes opponents stay the same, or context: null"
            )
        self.trials.add(newest, self.seat)
        if self.rewards is not None:
            self.rewards.observe(newest.flat.seen_by(self.seat).reward)
