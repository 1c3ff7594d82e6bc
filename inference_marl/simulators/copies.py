"""Several environments, played together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np

from inference_marl.simulators.environment import Array, Environment, Layout, Played, Seen
from inference_marl.simulators.recipe import RAISED, FaultError, Recipe


class Copies:
    """Several environments made alike: what a process plays.

    Args:
        recipe: how they are made.
        names: which ones they are, for messages.
        masked: see `Environment`.
    """

    def __init__(self, recipe: Recipe, names: Sequence[str], masked: Sequence[bool] | None = None) -> None:
        self.all = [Environment(recipe, name, masked) for name in names]
        self._seen: list[Seen | None] = [None] * len(self.all)

    def layout(self) -> Layout:
        """See `Environment.layout`, of the first."""
        return self.all[0].layout()

    def begin(self, seeds: Mapping[int, int]) -> Seen:
        """Begin episodes with these seeds, by number of the environment; what is seen in all."""
        for number, seed in seeds.items():
            self._seen[number] = self.all[number].begin(seed)
        return self._batch()

    def step(self, actions: Sequence[Array]) -> Played:
        """Play a step in all, with one array of actions per agent, `copies x event`."""
        played = [env.step([action[number] for action in actions]) for number, env in enumerate(self.all)]
        self._seen = [each.seen for each in played]
        _, rewards, terminated, ended = zip(*played, strict=True)
        return Played(self._batch(), np.stack(rewards), np.array(terminated), np.array(ended))

    def again(self, seeds: Sequence[int], steps: Sequence[int], actions: Sequence[Array]) -> tuple[Seen, Array]:
        """Play episodes again up to where they were.

        Args:
            seeds: those of the episodes, `copies`.
            steps: how many steps each has had, `copies`.
            actions: one array per agent, `time x copies x event`, of which each episode has had the last ones.

        Returns:
            What is seen then, and where that could be done, `copies`.
        """
        done = np.ones(len(self.all), dtype=bool)
        for number, (env, seed, count) in enumerate(zip(self.all, seeds, steps, strict=True)):
            seen = env.begin(seed)
            try:
                for time in range(len(actions[0]) - count, len(actions[0])):
                    seen = env.step([action[time, number] for action in actions]).seen
            except FaultError:  # since it is another episode
                done[number] = False
            self._seen[number] = seen
        return self._batch(), done

    def close(self) -> None:
        """Give back what they hold."""
        for env in self.all:
            with suppress(*RAISED):  # what matters has been said, or is on its way
                env.close()

    def _batch(self) -> Seen:
        return combined(np.stack, [seen for seen in self._seen if seen is not None])


def combined(combine: Callable[[Sequence[Array]], Array], several: Sequence[Seen]) -> Seen:
    """What is seen in several environments, or in several times several, by `np.stack` or `np.concatenate`."""
    obs, alive, masks = zip(*several, strict=True)
    return Seen(
        [combine(values) for values in zip(*obs, strict=True)],
        combine(alive),
        [None if any(mask is None for mask in values) else combine(values) for values in zip(*masks, strict=True)],
    )
