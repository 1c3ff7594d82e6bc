"""Games as pure functions, their rules as tables, and stateful simulators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from inference_marl.described import Described, IncompatibleError
from inference_marl.spaces import Space
from inference_marl.types.metric import Metric

State = dict[str, Tensor]
"""The complete state of a game: named tensors `replicates x environments x ...`."""


class Observed(NamedTuple):
    """The current observations of all agents.

    Attributes:
        obs: one tensor per agent, `replicates x environments x event`.
        alive: bool, `replicates x environments x agents`; false for an agent that has left the episode, whose action is
            ignored. `None` if all take part.
        masks: legal actions of each agent, bool, `replicates x environments x actions`, or `None` if all are legal.
    """

    obs: tuple[Tensor, ...]
    alive: Tensor | None = None
    masks: tuple[Tensor | None, ...] | None = None


class Step(NamedTuple):
    """The result of a step of a pure game.

    Attributes:
        state: the next state, before any reset.
        rewards: `replicates x environments x agents`.
        terminated: bool, `replicates x environments`; true in terminal states.
        truncated: bool, the same shape; true where the game itself truncates the episode. `None` if the horizon is the
            only limit.
    """

    state: State
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor | None = None


class Outcome(NamedTuple):
    """The result of a step of a simulator.

    Attributes:
        rewards: `replicates x environments x agents`.
        terminated: bool, `replicates x environments`; true in terminal states, where values are not bootstrapped.
        ended: bool, the same shape; true where the episode is over, terminated or truncated.
        judged: the result of `Game.judge`, if all episodes end with this step; else `None`.
    """

    rewards: Tensor
    terminated: Tensor
    ended: Tensor
    judged: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Dynamics:
    """The rules of a tabular game with fully observed state; float64, on the CPU.

    Attributes:
        initial: probabilities of the initial state, `states`.
        transition: probabilities of the next state, `states x actions_1 x ... x actions_n x states`. If a row sums to
            less than 1, the rest is the probability of termination.
        reward: mean rewards, `agents x states x actions_1 x ... x actions_n`.
    """

    initial: Tensor
    transition: Tensor
    reward: Tensor

    def to(self, device: torch.device) -> Dynamics:
        """Copy the tables to a device."""
        return Dynamics(self.initial.to(device), self.transition.to(device), self.reward.to(device))

    def seen_by(self, agent: int) -> tuple[Tensor, Tensor]:
        """The tables for one agent, with its opponents' joint action as one index (the last opponent's varies fastest).

        Returns:
            Transition probabilities, `states x actions x opponent_actions x states`, and the agent's mean rewards,
            `states x actions x opponent_actions`.
        """
        transition = self.transition.movedim(1 + agent, 1).flatten(2, -2)
        return transition, self.reward[agent].movedim(1 + agent, 1).flatten(2)


class Game(Described, ABC):
    """A stochastic game, batched over replicates and environments.

    A game is stateless: `reset` creates a state and `step` maps a state to the next one. So a checkpoint is a
    dictionary of tensors, and a learner may look ahead. Random numbers come from torch's global generator.

    Attributes:
        observations, action_spaces: one space per agent.
        horizon: steps per episode, `None` if unlimited. It is a time limit, not termination.
        terminates: whether an episode may end before the horizon. If not, all episodes run in lockstep and need not be
            checked for their end.
        success_reward: mean reward per step and agent from which a replicate counts as successful; if `None`, success
            is judged by the joint policy's probability of the optimum.
        shared_observation: whether all agents always have the same observation, so that their beliefs can be recorded
            in every state, and not only in those that occur.
        state_names: names of the values of a `Discrete` observation shared by all agents; `None` for numbers.
        action_names: names of the actions in games where all agents have the same ones; `None` for letters.
        discount: discount factor in [0, 1) for exact values of the game: the recorded returns, and the objective of
            learners that know the rules. If `None`, such values exist only for games that always terminate. Learners
            from experience have their own discount factors.
        symmetric: whether exchanging any two seats changes nothing but the names of states. `False` also where this is
            unknown.
        metrics: the metrics that `scores` returns.
        episode_metrics: the metrics that `judge` returns. Runs record them in training and, as `evaluation_<name>`, in
            evaluations; they are missing from records during which no episode has ended.
        tasks: number of variants that `reset` accepts as tasks `0, 1, ...`; `None` for games without variants.
        populations: sets of tasks by name, such as a training and a held-out set.
    """

    observations: tuple[Space, ...]
    action_spaces: tuple[Space, ...]
    horizon: int | None = None
    terminates: bool = True
    success_reward: float | None = None
    shared_observation: bool = False
    state_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None
    discount: float | None = None
    symmetric: bool = False
    metrics: tuple[Metric, ...] = ()
    episode_metrics: tuple[Metric, ...] = ()
    tasks: int | None = None
    populations: Mapping[str, range] = {}

    @property
    def agents(self) -> int:
        """Number of agents."""
        return len(self.action_spaces)

    @abstractmethod
    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """The initial state of an episode in each of `replicates x environments` copies of the game.

        `task` is the variant that each environment plays, `replicates x environments`. It is part of the state, never
        of an observation; games without variants ignore it.
        """

    def observe(self, state: State) -> Observed:
        """The observations of all agents in a state; by default the entry `obs`, with `shared_observation`."""
        if not self.shared_observation:
            raise NotImplementedError(f"{type(self).__name__}.observe is not defined")
        return Observed((state["obs"],) * self.agents)

    @abstractmethod
    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Play a joint action: one tensor per agent, `replicates x environments x event`.

        Raises:
            ValueError: if the number or the shapes of the actions do not fit.
            IndexError: in tabular games, if actions are not integers or (on the CPU) too large.
        """

    def is_optimal(self, actions: Sequence[Tensor]) -> Tensor | None:
        """Whether joint actions are best for every agent at once, bool `...`; `None` if none is, or this is unknown.

        Args:
            actions: one tensor per agent, `... x event`; leading shapes broadcast.
        """
        return None

    def expected_reward(self, obs: Tensor, actions: Sequence[Tensor]) -> Tensor | None:
        """Mean rewards, `... x agents`, differentiable where the game is; `None` if unknown.

        Args:
            obs: the shared observation of all agents, `... x event`.
            actions: one tensor per agent, `... x event`; leading shapes broadcast.
        """
        return None

    def dynamics(self) -> Dynamics | None:
        """The rules as tables, for exact solutions and known dynamics; `None` if unavailable.

        Only for games in which every agent observes the `Discrete` state itself. The time limit `horizon` is excluded.
        """
        return None

    def scores(self, policies: Sequence[Tensor]) -> dict[str, Tensor]:
        """Scores of joint policies that the game's literature reports, declared in `metrics`; none by default.

        Only for games in which every agent observes the `Discrete` state itself and has `Discrete` actions.

        Args:
            policies: one per agent, `replicates x states x actions`.

        Returns:
            Values by name of the metric, `replicates`.
        """
        return {}

    def hidden_type(self, task: Tensor) -> Tensor | None:
        """The type that a task stands for, as a vector, such as the private type of an opponent; `None` by default.

        It is for analysis, and for oracles: learners that set `reads_task`.

        Args:
            task: int64, `replicates x environments`.

        Returns:
            float64, `replicates x environments x features`.
        """
        return None

    def judge(self, state: State) -> Mapping[str, Tensor]:
        """Scores of episodes that the game's literature reports, declared in `episode_metrics`; none by default.

        Called when all episodes end at once, as they do in games with `terminates = False`.

        Args:
            state: the final state of the episodes; totals over an episode, such as collisions, have to be part of it.

        Returns:
            Values by name of the metric, `replicates x environments`, followed by `agents` for metrics of agents. NaN
            where the metric is undefined.
        """
        return {}


class Simulator(ABC):
    """The stateful environments of all replicates, in which a collector plays.

    `play.GameSimulator` plays pure games, and a `ForeignGame` has its own simulator; `play.simulate` returns either.

    Attributes:
        observations, action_spaces: one space per agent.
        shape: numbers of replicates and environments.
        device: where tensors live.
        checks_itself: whether it rejects invalid observations itself, so that the collector need not. Observations
            outside a box count as valid: the box of a third-party environment may give typical bounds only.
    """

    checks_itself: bool = False

    observations: tuple[Space, ...]
    action_spaces: tuple[Space, ...]
    shape: tuple[int, int]
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def reset(self, where: Tensor | None = None, task: Tensor | None = None) -> None:
        """Begin episodes where `where`, bool `replicates x environments`, is true, or everywhere; see `Game.reset`."""

    @abstractmethod
    def observe(self) -> Observed:
        """The current observation of each agent."""

    @abstractmethod
    def step(self, actions: Sequence[Tensor]) -> Outcome:
        """Play a joint action, as `Game.step`; environments whose episode ends keep their state until `reset`."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The complete state, as tensors and plain containers."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> Tensor | None:
        """Restore from `state_dict`.

        Returns:
            Environments whose episode could not be restored and in which a new one has to begin, bool `replicates x
            environments`; `None` if there are none.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Release its resources, such as processes; it must not be used afterwards. Does nothing by default."""


class ForeignGame(Game):
    """A game implemented by a third-party environment, which can be played but does not give its rules.

    `Seat.game` is `None`, so learners that need the rules, or roll out imagined play, refuse the game. Its spaces are
    known once it is constructed.

    Attributes:
        resumable: whether a resumed run continues bit by bit. If not, new episodes begin on resuming.
        modules: names of the modules that define it; a run keeps copies of those that are a user's own.
        aside: arguments that do not affect play, so that they may change when a run is resumed.
    """

    alone = True  # the seed of each environment depends on its replicate's number
    resumable: bool = True
    modules: tuple[str, ...] = ()
    aside: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def simulator(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, seed: int
    ) -> Simulator:
        """Create its environments; no episode has begun yet.

        Args:
            replicates: number of replicates.
            environments: number of environments per replicate.
            device: where tensors live.
            dtype: their floating-point type.
            seed: random seed, which determines all randomness of the environments.
        """

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Raise `IncompatibleError`: the game has no state that could be passed around."""
        raise self._unknown()

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Raise `IncompatibleError`, as `reset`."""
        raise self._unknown()

    def _unknown(self) -> IncompatibleError:
        return IncompatibleError(
            f"got {type(self).__name__}, whose rules are not this package's, expected a pure game such as MatrixGame"
        )
