"""Several games as one, of which agents do not see which they play."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import expect
from inference_marl.types import Game, Observed, State, Step, select

TASK = "task"
"""The name in the state of the variant that is played, int64, `replicates x environments`."""


class Variants(Game):
    """One of several games with the same spaces, as the task says, which nobody observes.

    Payoffs that are not known, other dynamics, or places of landmarks on which to learn and others on which to be
    tested. The task is drawn by the collector, see `play.Tasks`; without tasks every episode is one of the games, all
    alike. Each environment computes all of them, so the cost is that of all.

    Args:
        games: two or more with equal spaces, and the same time limit.

    Raises:
        ValueError: if there are fewer, or spaces, horizons or rewards for success differ.
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
        """An initial state of every game, and which of them counts."""
        if task is None:
            task = torch.randint(len(self.games), (replicates, environments), device=device)
        state = {TASK: task}
        for number, game in enumerate(self.games):
            its = game.reset(replicates, environments, device, dtype)
            state |= {f"{number}.{name}": value for name, value in its.items()}
        return state

    def observe(self, state: State) -> Observed:
        """What is observed in the game that is played."""
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
        """Play the joint action in every game; the one that is played says what came of it."""
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
        """What the game that is played says, if all judge by the same metrics."""
        every = [game.judge(its) for game, its in zip(self.games, self._apart(state), strict=True)]
        names = [metric.name for metric in self.episode_metrics]
        return {name: select(state[TASK], [each[name] for each in every]) for name in names}

    def _apart(self, state: State) -> list[State]:
        """Each game's state."""
        return [
            {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{number}.")}
            for number in range(len(self.games))
        ]


def _known(which: Tensor, values: Sequence[Tensor | None], otherwise: bool) -> Tensor | None:
    """As `select`, where some games do not say and mean `otherwise` everywhere; `None` if no game says."""
    said = next((value for value in values if value is not None), None)
    if said is None:
        return None
    return select(which, [torch.full_like(said, otherwise) if value is None else value for value in values])
