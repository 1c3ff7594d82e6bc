"""Plain NumPy implementations of the tabular learners, for one seed of a stateless game.

`experiments/bench.py` compares the speed of the batched learners with them, and tests/test_loops.py checks that both
implement the same rule. Each has `policy()`, the probabilities of the own actions, and `learn(a, b, r)`, given own
action, opponent's action and reward.
"""

# ruff: noqa: D102

from __future__ import annotations

import math
from typing import Any

import numpy as np

ACTIONS = 3
Array = np.ndarray[Any, Any]


def softmax(values: Array) -> Array:
    """Probabilities proportional to `exp(values)`."""
    weights = np.exp(values - values.max())
    return weights / weights.sum()


class IndependentQ:
    """Q-learning; `step` is the change of an action's value for an error."""

    def __init__(self, temperature: float = 1.0, rate: float = 0.1) -> None:
        self.q, self.t, self.temperature, self.rate = np.zeros(ACTIONS), 0, temperature, rate

    def policy(self) -> Array:
        return softmax(self.q / self.temperature)

    def learn(self, a: int, b: int, r: float) -> None:
        self.q[a] += self.step(a, r - self.q[a]) * (r - self.q[a])
        self.t += 1

    def step(self, a: int, error: float) -> float:
        return self.rate


class HystereticQ(IndependentQ):
    """Q-learning with a tenth of the rate for negative errors."""

    def step(self, a: int, error: float) -> float:
        return self.rate if error >= 0 else 0.01


class DistributedQ(IndependentQ):
    """Values only increase; the choice is the action that last increased the maximum, played with probability .9."""

    def __init__(self, choice: int) -> None:
        super().__init__()
        self.choice = choice

    def policy(self) -> Array:
        policy = np.full(ACTIONS, 0.1 / ACTIONS)
        policy[self.choice] += 0.9
        return policy

    def learn(self, a: int, b: int, r: float) -> None:
        best = self.q.max()
        self.q[a] = max(self.q[a], r)
        if self.q.max() > best:
            self.choice = a


class FMQ(IndependentQ):
    """Values plus the frequency of the maximum reward times that reward."""

    def __init__(self) -> None:
        super().__init__(rate=0.9)
        self.maximum = np.full(ACTIONS, -math.inf)
        self.count, self.plays = np.zeros(ACTIONS), np.zeros(ACTIONS)

    def policy(self) -> Array:
        known = self.plays > 0
        bonus = np.zeros(ACTIONS)
        bonus[known] = 10 * self.count[known] / self.plays[known] * self.maximum[known]
        return softmax(self.q + bonus)

    def learn(self, a: int, b: int, r: float) -> None:
        super().learn(a, b, r)
        if r > self.maximum[a]:
            self.maximum[a], self.count[a] = r, 0
        self.count[a] += r == self.maximum[a]
        self.plays[a] += 1


class RecursiveFMQ:
    """Interpolates between mean and maximum by the recent frequency of the maximum; keeps a choice while it is best."""

    def __init__(self, choice: int) -> None:
        self.q, self.maximum, self.frequency = np.zeros(ACTIONS), np.zeros(ACTIONS), np.ones(ACTIONS)
        self.choice, self.rng = choice, np.random.default_rng(0)

    def policy(self) -> Array:
        policy = np.full(ACTIONS, 0.05 / ACTIONS)
        policy[self.choice] += 0.95
        return policy

    def learn(self, a: int, b: int, r: float) -> None:
        self.q[a] += 0.1 * (r - self.q[a])
        if r > self.maximum[a]:
            self.maximum[a], self.frequency[a] = r, 1.0
        else:
            self.frequency[a] += 0.01 * ((r == self.maximum[a]) - self.frequency[a])
        value = self.q + self.frequency * (self.maximum - self.q)
        if value[self.choice] < value.max():
            self.choice = int(self.rng.choice(np.flatnonzero(value == value.max())))


class LenientQ:
    """Ignores negative errors while the temperature of an action is high."""

    def __init__(self) -> None:
        self.q, self.temperature, self.rng = np.zeros(ACTIONS), np.full(ACTIONS, 50.0), np.random.default_rng(0)

    def policy(self) -> Array:
        mean = self.temperature.mean()
        if mean >= 2:
            return softmax(self.q / mean)
        best = self.q == self.q.max()
        return best / best.sum()

    def learn(self, a: int, b: int, r: float) -> None:
        if r >= self.q[a] or self.rng.random() < 1 - math.exp(-1 / self.temperature[a]):
            self.q[a] += 0.1 * (r - self.q[a])
        self.temperature[a] *= 0.995


class PHC(IndependentQ):
    """A policy that climbs towards the best action."""

    def __init__(self) -> None:
        super().__init__()
        self.pi = np.full(ACTIONS, 1 / ACTIONS)

    def policy(self) -> Array:
        return self.pi

    def delta(self) -> float:
        return 0.01

    def learn(self, a: int, b: int, r: float) -> None:
        super().learn(a, b, r)
        best = self.q == self.q.max()
        loss = np.where(best, 0.0, np.minimum(self.pi, self.delta() / (ACTIONS - 1)))
        self.pi = self.pi - loss + best * loss.sum() / best.sum()


class WoLFPHC(PHC):
    """PHC with small steps while it wins, and large ones while it loses."""

    def __init__(self) -> None:
        super().__init__()
        self.average = np.zeros(ACTIONS)

    def delta(self) -> float:
        self.average += (self.pi - self.average) / self.t
        return 0.0025 if (self.pi - self.average) @ self.q > 0 else 0.005


class JointActionLearner:
    """Values of joint actions, averaged over the opponent's empirical frequencies."""

    def __init__(self) -> None:
        self.q, self.counts = np.zeros((ACTIONS, ACTIONS)), np.zeros(ACTIONS)

    def frequencies(self) -> Array:
        total = self.counts.sum()
        return self.counts / total if total else np.full(ACTIONS, 1 / ACTIONS)

    def policy(self) -> Array:
        return softmax(self.q @ self.frequencies())

    def learn(self, a: int, b: int, r: float) -> None:
        self.counts[b] += 1
        self.q[a, b] += 0.1 * (r - self.q[a, b])


class PR2Q(JointActionLearner):
    """As `JointActionLearner`, with frequencies of the opponent's responses to each own action."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = np.zeros((ACTIONS, ACTIONS))

    def policy(self) -> Array:
        total = self.answers.sum(1, keepdims=True)
        rho = np.where(total > 0, self.answers / np.maximum(total, 1), 1 / ACTIONS)
        return softmax((self.q * rho).sum(1))

    def learn(self, a: int, b: int, r: float) -> None:
        self.answers[a, b] += 1
        super().learn(a, b, r)


class FictitiousPlay(JointActionLearner):
    """As `JointActionLearner`, with known payoffs and best responses."""

    def __init__(self, payoff: Array) -> None:
        super().__init__()
        self.q = payoff

    def policy(self) -> Array:
        values = self.q @ self.frequencies()
        best = values == values.max()
        return best / best.sum()

    def learn(self, a: int, b: int, r: float) -> None:
        self.counts[b] += 1


class RommeoQ:
    """ROMMEO-Q in closed form: the prior counts the last 50 actions; rate and temperature as in the paper's figure."""

    def __init__(self, q: Array, prior: Array) -> None:
        self.q, self.initial, self.recent, self.t = q.copy(), prior, [], 0

    def prior(self) -> Array:
        if not self.recent:
            return self.initial
        return np.bincount(self.recent, minlength=ACTIONS) / len(self.recent)

    def policy(self) -> Array:
        temperature = 500 * math.exp(-0.1 * self.t) + 0.1
        scaled = self.q / temperature
        top = scaled.max(0)
        value = temperature * (top + np.log(np.exp(scaled - top).sum(0)))
        rho = self.prior() * np.exp(value - value.max())
        conditional = np.exp(scaled - top)
        return conditional / conditional.sum(0) @ (rho / rho.sum())

    def learn(self, a: int, b: int, r: float) -> None:
        self.recent = [*self.recent, b][-50:]
        self.q[a, b] += 1e4 / (1e4 + self.t) * (r - self.q[a, b])
        self.t += 1


def play(agents: list[Any], payoff: Array, steps: int, rng: np.random.Generator) -> float:
    """Play two learners with a common payoff, and return the mean reward."""
    total = 0.0
    for _ in range(steps):
        a, b = (min(int(np.searchsorted(agent.policy().cumsum(), rng.random())), ACTIONS - 1) for agent in agents)
        r = float(payoff[a, b])
        agents[0].learn(a, b, r)
        agents[1].learn(b, a, r)
        total += r
    return total / steps
