"""Several games as one, where agents do not observe which one they play."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import expect
from inference_marl.types import Game, Observed, State, Step, select

TASK = "task"
"""The key in the state of the game that is played, int64, `replicates x environments`."""


class Variants(Game):
    """One of several games with the same spaces, selected by the task, which agents do not observe.

    The games may differ in payoffs, in dynamics, or in positions of landmarks for training and for evaluation. The
    collector draws the task, see `play.Tasks`; without tasks every episode is a uniformly drawn game. Each environment
    simulates all games, so the costs add up.

    Args:
        games: two or more games with equal spaces and the same time limit.

    Raises:
        ValueError: if there are fewer than two, or spaces, horizons or rewards for success differ.
    """

    def __init__(self, games: Sequence[Game]) -> None:
        expect("an integer of at least 2", games=len(games))
        first = games[0]
        for number, game in enumerate(games):
            for name in ("observations", "action_spaces", "horizon", "success_reward"):
                if (got := getattr(game, name)) != (expected := getattr(first, name)):
                    raise ValueError(f"games[{number}]: got {name} {got}, expected {expected} as of games[0]")
        self.games = list(games)
        self.observations, self.action_spaces, self.horizon = first.observations, first.action_spaces, first.horizon
        self.success_reward, self.action_names = first.success_reward, first.action_names
        self.tasks = len(games)
        self.terminates = any(game.terminates for game in games)
        self.shared_observation = all(game.shared_observation for game in games)
        self.symmetric = all(game.symmetric for game in games)
        alike = all(game.episode_metrics == first.episode_metrics for game in games)
        self.episode_metrics = first.episode_metrics if alike else ()

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """An initial state of every game, and the index of the one that is played."""
        if task is None:
            task = torch.randint(len(self.games), (replicates, environments), device=device)
        state = {TASK: task}
        for number, game in enumerate(self.games):
            its = game.reset(replicates, environments, device, dtype)
            state |= {f"{number}.{name}": value for name, value in its.items()}
        return state

    def observe(self, state: State) -> Observed:
        """The observations in the game that is played."""
        every = [game.observe(its) for game, its in zip(self.games, self._apart(state), strict=True)]
        which, agents = state[TASK], range(self.agents)
        obs = tuple(select(which, [seen.obs[agent] for seen in every]) for agent in agents)
        masks = tuple(
            _known(which, [None if seen.masks is None else seen.masks[agent] for seen in every], True)
            for agent in agents
        )
        alive = _known(which, [seen.alive for seen in every], True)
        return Observed(obs, alive, masks if any(mask is not None for mask in masks) else None)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Play the joint action in every game; rewards and ends are those of the game that is played."""
        after: State = {TASK: state[TASK]}
        made = [game.step(its, actions) for game, its in zip(self.games, self._apart(state), strict=True)]
        for number, step in enumerate(made):
            after |= {f"{number}.{name}": value for name, value in step.state.items()}
        return Step(
            after,
            select(state[TASK], [step.rewards for step in made]),
            select(state[TASK], [step.terminated for step in made]),
            _known(state[TASK], [step.truncated for step in made], False),
        )

    def judge(self, state: State) -> dict[str, Tensor]:
        """The metrics of the game that is played, if all games have the same ones."""
        every = [game.judge(its) for game, its in zip(self.games, self._apart(state), strict=True)]
        names = [metric.name for metric in self.episode_metrics]
        return {name: select(state[TASK], [each[name] for each in every]) for name in names}

    def _apart(self, state: State) -> list[State]:
        """Split the state into each game's."""
        return [
            {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{number}.")}
            for number in range(len(self.games))
        ]


def _known(which: Tensor, values: Sequence[Tensor | None], otherwise: bool) -> Tensor | None:
    """As `select`, with `otherwise` for games whose value is `None`; `None` if all are."""
    said = next((value for value in values if value is not None), None)
    if said is None:
        return None
    return select(which, [torch.full_like(said, otherwise) if value is None else value for value in values])
