"""Pure games, their rules as tables, and stateful simulators."""

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
"""The complete state of a game: named tensors that lead with `replicates x environments`."""


class Observed(NamedTuple):
    """The current observations of all agents.

    Attributes:
        obs: one tensor per agent, `replicates x environments x event`.
        alive: bool, `replicates x environments x agents`; false for an agent that is out, whose action is ignored.
            `None` if all are in.
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
        truncated: bool, the same shape; true where a limit of the game cuts the episode off. `None` if its horizon is
            the only limit.
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
        judged: what `Game.judge` says of the episodes, if all end with this step; else `None`.
    """

    rewards: Tensor
    terminated: Tensor
    ended: Tensor
    judged: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Dynamics:
    """The rules of a tabular game whose state all agents observe; float64, on the CPU.

    Attributes:
        initial: probabilities of the initial state, `states`.
        transition: probabilities of the next state, `states x actions_1 x ... x actions_n x states`. The probability
            missing from a row is that of termination.
        reward: mean rewards, `agents x states x actions_1 x ... x actions_n`.
    """

    initial: Tensor
    transition: Tensor
    reward: Tensor

    def to(self, device: torch.device) -> Dynamics:
        """The same on another device."""
        return Dynamics(self.initial.to(device), self.transition.to(device), self.reward.to(device))

    def seen_by(self, agent: int) -> tuple[Tensor, Tensor]:
        """One agent's view, with its opponents' joint action as one index (the last opponent's varies fastest).

        Returns:
            Transition, `states x actions x opponent_actions x states`, and the agent's reward, `states x actions x
            opponent_actions`.
        """
        transition = self.transition.movedim(1 + agent, 1).flatten(2, -2)
        return transition, self.reward[agent].movedim(1 + agent, 1).flatten(2)


class Game(Described, ABC):
    """A stochastic game, batched over replicates and environments.

    A game is a pure description: `reset` creates a state and `step` maps a state to the next. Nothing is stored, so a
    checkpoint is a dictionary of tensors and a learner may look ahead. Randomness comes from torch's global generator.

    Attributes:
        observations, action_spaces: one space per agent.
        horizon: steps per episode, `None` if unlimited. A time limit, not termination.
        terminates: whether an episode may end before the horizon. If not, all episodes run in lockstep and need not be
            checked for their end.
        success_reward: mean reward per step and agent from which a replicate counts as successful; if `None`, success
            is judged by the joint policy's probability of the optimum.
        shared_observation: whether all agents always observe the same, so that their beliefs can be compared in every
            state and not only where they are.
        state_names: names of the values of a `Discrete` observation shared by all agents; `None` for numbers.
        action_names: names of the actions in games where all agents have the same ones; `None` for letters.
        discount: gamma in [0, 1) for exact values of the game: the recorded returns, and the objective of learners that
            know the rules. If `None`, such values exist only for games that always terminate. Learners from experience
            have their own discounts.
        symmetric: whether exchanging any two seats changes nothing but the names of states. `False` also where this is
            unknown.
        metrics: what `scores` returns.
        episode_metrics: what `judge` returns. Runs record it of training and, as `evaluation_<name>`, of evaluations;
            records during which no episode has ended lack it.
        tasks: how many variants `reset` knows, the tasks `0, 1, ...`; `None` for games without variants.
        populations: which of the tasks belong together, by name, such as a training and a held-out set.
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

        `task`, for games with several variants, is the one each environment plays, `replicates x environments`. It is
        part of the state, never of an observation; other games ignore it.
        """

    def observe(self, state: State) -> Observed:
        """What each agent observes in a state: its entry `obs`, in games with `shared_observation`."""
        if not self.shared_observation:
            raise NotImplementedError(f"{type(self).__name__}.observe is not defined")
        return Observed((state["obs"],) * self.agents)

    @abstractmethod
    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Play one joint action: one tensor per agent, `replicates x environments x event`.

        Raises:
            ValueError: if the number or the shapes of the actions do not fit.
            IndexError: in tabular games, if actions are not integers or (on the CPU) too large.
        """

    def is_optimal(self, actions: Sequence[Tensor]) -> Tensor | None:
        """Which joint actions are best for every agent at once, bool `...`; `None` if none are, or this is unknown.

        Args:
            actions: one tensor per agent, `... x event`; leading shapes broadcast.
        """
        return None

    def expected_reward(self, obs: Tensor, actions: Sequence[Tensor]) -> Tensor | None:
        """Mean rewards, `... x agents`, differentiable where the game is; `None` if unknown.

        Args:
            obs: what all agents observe, `... x event`.
            actions: one tensor per agent, `... x event`; leading shapes broadcast.
        """
        return None

    def dynamics(self) -> Dynamics | None:
        """The rules as tables, for exact solutions and known dynamics; `None` if unavailable.

        Only for games in which every agent observes the `Discrete` state itself. Excludes the time limit `horizon`.
        """
        return None

    def scores(self, policies: Sequence[Tensor]) -> dict[str, Tensor]:
        """Numbers by which the game's literature judges joint policies, as `metrics` declares; none by default.

        Only for games in which every agent observes the `Discrete` state itself and has `Discrete` actions.

        Args:
            policies: one per agent, in every state, `replicates x states x actions`.

        Returns:
            One number per replicate, `replicates`, by the name of its metric.
        """
        return {}

    def hidden_type(self, task: Tensor) -> Tensor | None:
        """What a task stands for, where that is a point, such as the private type of an opponent; `None` by default.

        For analysis, and for oracles: learners that set `reads_task`.

        Args:
            task: int64, `replicates x environments`.

        Returns:
            float64, `replicates x environments x features`.
        """
        return None

    def judge(self, state: State) -> Mapping[str, Tensor]:
        """Numbers by which the game's literature judges episodes, as `episode_metrics` declares; none by default.

        Asked when all episodes end at once, as they do in games with `terminates = False`.

        Args:
            state: the last one of an episode, so what counts all of it, such as collisions, is part of the state.

        Returns:
            `replicates x environments`, of a metric of agents followed by `agents`, by the name of its metric. Not a
            number where the episode does not say.
        """
        return {}


class Simulator(ABC):
    """The stateful environments of all replicates, in which a collector plays.

    `play.GameSimulator` plays pure games, and a `ForeignGame` has a simulator of its own; `play.simulate` makes either.

    Attributes:
        observations, action_spaces: one space per agent.
        shape: replicates and environments.
        device: where tensors live.
        checks_itself: whether it refuses observations that cannot be used, so that a collector need not. Those outside
            of a box can be: a box of somebody else's may say what is usual rather than what is possible.
    """

    checks_itself: bool = False

    observations: tuple[Space, ...]
    action_spaces: tuple[Space, ...]
    shape: tuple[int, int]
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def reset(self, where: Tensor | None = None, task: Tensor | None = None) -> None:
        """Begin episodes where `where`, bool `replicates x environments`, holds, or everywhere; see `Game.reset`."""

    @abstractmethod
    def observe(self) -> Observed:
        """The current observation of each agent."""

    @abstractmethod
    def step(self, actions: Sequence[Tensor]) -> Outcome:
        """Play one joint action, as `Game.step`; environments whose episode ends keep their state until `reset`."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The complete state, as tensors and plain containers."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> Tensor | None:
        """Restore from `state_dict`.

        Returns:
            Where episodes could not be restored, bool `replicates x environments`, so that the next ones begin there;
            `None` if all could.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Give back what it holds, such as processes; it is not used after that. Nothing by default."""


class ForeignGame(Game):
    """A game whose rules are somebody else's program, which can be played but not asked.

    Learners find nothing in their `Seat.game`, so those that know the rules, or imagine play, refuse it by name. Its
    spaces are known once it is made.

    Attributes:
        resumable: whether a run goes on to the bit after it was stopped. If not, the next episodes begin then.
        modules: names of the modules that define it, which a run keeps if they are a user's own.
        aside: arguments on which nothing depends that happens in it, so that they may be others when a run is resumed.
    """

    alone = True  # each environment has a seed that its replicate's number is part of
    resumable: bool = True
    modules: tuple[str, ...] = ()
    aside: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def simulator(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, seed: int
    ) -> Simulator:
        """Its environments, of which none has begun an episode.

        Args:
            replicates: how many.
            environments: how many for each of them.
            device: where tensors live.
            dtype: their floating type.
            seed: random seed, from which all that is random in them follows.
        """

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Not defined: there is no state that could be handed around (`IncompatibleError`)."""
        raise self._unknown()

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Not defined, as `reset`."""
        raise self._unknown()

    def _unknown(self) -> IncompatibleError:
        return IncompatibleError(
            f"got {type(self).__name__}, whose rules are not this package's, expected a pure game such as MatrixGame"
        )
