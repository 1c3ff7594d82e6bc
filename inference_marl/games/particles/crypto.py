"""Covert communication."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import Horizon, Several
from inference_marl.games.particles import metrics
from inference_marl.games.particles.physics import Rules
from inference_marl.games.particles.world import Actions, Agent, ParticleWorld
from inference_marl.types import State

EVE, BOB, ALICE = range(3)


class Crypto(ParticleWorld):
    """Covert communication: Alice sends Bob a secret, encrypted by a key that both know, while Eve listens.

    From Lowe et al. (2017), `simple_crypto` of MPE; see `ParticleWorld`. Agents do not move; all three send messages of
    `words` numbers. Secret and key are one-hot, each drawn uniformly from the first `secrets` values. With Eve's and
    Bob's messages e and b, and the secret m::

        r = -|e - m|^2                 Eve
        r = |e - m|^2 - |b - m|^2      Bob and Alice, whose own message is not rewarded

    where terms with an all-zero message are 0. Eve, agent 0, observes Alice's last message; Bob, agent 1, the key and
    the message; Alice, agent 2, the secret and the key.

    Args:
        secrets: number of secrets, and of keys.
        words: length of a message, at least `secrets`.
        actions: see `ParticleWorld`.
        rules: see `ParticleWorld`; both are the same here.
        horizon: steps per episode; `None` for no limit.

    Raises:
        ValueError: if there are more secrets than words.
    """

    episode_metrics = (metrics.BOB_CORRECT, metrics.EVE_CORRECT)

    def __init__(
        self,
        secrets: Several = 2,
        words: Several = 4,
        *,
        actions: Actions = "discrete",
        rules: Rules = "mpe2",
        horizon: Horizon = 25,
    ) -> None:
        if secrets > words:
            raise ValueError(f"secrets: got {secrets}, expected at most words = {words}")
        drawn = {"secret": (secrets,), "key": (secrets,)}
        super().__init__([Agent(None, words)] * 3, (), actions, rules, horizon, draws=drawn)

    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """The observations of the class docstring."""
        said, key = seen["message"][ALICE], self._in_words(seen["key"])
        return {EVE: [said], BOB: [key, said], ALICE: [self._in_words(seen["secret"]), key]}[agent]

    def pays(self, state: State) -> tuple[Tensor, State]:
        """Rewards of Eve, and of Bob and Alice."""
        said = state["message"][:ALICE]
        wrong = (said - self._in_words(state["secret"])).square().sum(1) * (said != 0).any(1)
        eve, bob = wrong
        good = eve - bob
        return torch.stack([-eve, good, good]), {}

    def results(self, state: State) -> State:
        """Whether Bob and Eve say the secret."""
        correct = (state["message"].argmax(1) == state["secret"].argmax(0)).to(state["secret"].dtype)
        return {"bob_correct": correct[BOB], "eve_correct": correct[EVE]}

    def _in_words(self, drawn: Tensor) -> Tensor:
        """A one-hot draw, padded to the length of a message."""
        words: int = self._shapes["message"][1]
        return torch.cat([drawn, drawn.new_zeros(words - len(drawn), *drawn.shape[1:])])
