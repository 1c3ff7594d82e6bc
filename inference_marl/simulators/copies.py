"""Several copies of an environment, played together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from inference_marl.simulators.environment import Array, Environment, Layout, Played, Seen
from inference_marl.simulators.recipe import RAISED, FaultError, Recipe


class Copies:
    """Several copies of an environment in one process.

    Args:
        recipe: how to make them.
        names: their names in messages.
        masked: see `Environment`.
    """

    def __init__(self, recipe: Recipe, names: Sequence[str], masked: Sequence[bool] | None = None) -> None:
        self.all = [Environment(recipe, name, masked) for name in names]
        self._seen: list[Seen | None] = [None] * len(self.all)

    def layout(self) -> Layout:
        """The layout of the first copy, see `Environment.layout`."""
        return self.all[0].layout()

    def begin(self, seeds: Mapping[int, int]) -> Seen:
        """Begin episodes with these seeds, by index of the copy, and return the observations of all copies."""
        for number, seed in seeds.items():
            self._seen[number] = self.all[number].begin(seed)
        return self._batch()

    def step(self, actions: Sequence[Array]) -> Played:
        """Play a step in all copies, with one array of actions per agent, `copies x event`."""
        played = [env.step([action[number] for action in actions]) for number, env in enumerate(self.all)]
        self._seen = [each.seen for each in played]
        _, rewards, terminated, ended = zip(*played, strict=True)
        return Played(self._batch(), np.stack(rewards), np.array(terminated), np.array(ended))

    def again(self, seeds: Sequence[int], steps: Sequence[int], actions: Sequence[Array]) -> tuple[Seen, Array]:
        """Replay episodes up to their current step.

        Args:
            seeds: seeds of the episodes, `copies`.
            steps: number of steps of each episode, `copies`.
            actions: one array per agent, `time x copies x event`; the last `steps` entries belong to the episode.

        Returns:
            The observations, and whether each copy could be restored, `copies`.
        """
        done = np.ones(len(self.all), dtype=bool)
        for number, (env, seed, count) in enumerate(zip(self.all, seeds, steps, strict=True)):
            seen = env.begin(seed)
            try:
                for time in range(len(actions[0]) - count, len(actions[0])):
                    seen = env.step([action[time, number] for action in actions]).seen
            except FaultError:  # the replay has led to another episode
                done[number] = False
            self._seen[number] = seen
        return self._batch(), done

    def close(self) -> None:
        """Close all copies."""
        for env in self.all:
            with suppress(*RAISED):  # the error that matters has been raised, or is being raised
                env.close()

    def _batch(self) -> Seen:
        return combined(np.stack, [seen for seen in self._seen if seen is not None])


def combined(combine: Callable[[Sequence[Array]], Array], several: Sequence[Seen]) -> Seen:
    """Combine observations of several environments, or of several groups, by `np.stack` or `np.concatenate`."""
    obs, alive, masks = zip(*several, strict=True)
    return Seen(
        [combine(values) for values in zip(*obs, strict=True)],
        combine(alive),
        [None if any(mask is None for mask in values) else combine(values) for values in zip(*masks, strict=True)],
    )
