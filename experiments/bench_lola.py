"""CPU time per update of LOLA learners, exact and from imagined rollouts; both agents make a step.

Iterated prisoner's dilemma with memory one, float64, one torch thread. The two forms of gradients are compared with a
plain NumPy loop of the same equations for one seed; first all three are checked to make the same steps. CPU time is
that of one thread, so that other work on the machine has little effect; on an idle machine it is the elapsed time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import quick, seconds

from inference_marl import Experiment, run
from inference_marl.games import MatrixGame
from inference_marl.learners.lola import (
    ExactGradientLearner,
    GradientLearner,
    Lola,
    LolaDice,
    NaiveGradient,
    StableOpponentShaping,
)
from inference_marl.play.learning import update
from inference_marl.types import Seat, Trajectory, Transition

GAMMA, DELTA, ETA = 0.96, 1.0, 1.0
GAME = MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=GAMMA)
RULES: dict[str, Callable[..., ExactGradientLearner]] = {
    "naive": NaiveGradient,
    "LOLA": Lola,
    "LOLA, full": lambda **options: Lola(look_ahead=True, **options),
    "SOS": StableOpponentShaping,
    "LOLA, order 2": lambda **options: Lola(order=2, **options),
}
Array = np.ndarray[Any, Any]


class Loop:
    """One seed of two naive or LOLA learners (Foerster et al. 2018, shaping only), written for this game only."""

    def __init__(self, first: Array, second: Array, shaping: bool) -> None:
        self.theta, self.shaping = [first, second], shaping
        self.reward = np.array([[-1.0, -3.0, 0.0, -2.0], [-1.0, 0.0, -3.0, -2.0]])

    def update(self) -> None:
        """Make a simultaneous step of both."""
        p, q = (1 / (1 + np.exp(-theta)) for theta in self.theta)
        joint = np.stack([p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q)], axis=1)
        slopes = [p * (1 - p), q * (1 - q)]
        moves = [np.stack([q, 1 - q, -q, q - 1], axis=1), np.stack([p, -p, 1 - p, p - 1], axis=1)]
        chain = np.zeros((5, 5))
        chain[:, 1:] = joint
        inverse = np.linalg.inv(np.eye(5) - GAMMA * chain)
        visits = inverse[0]
        worth = [reward + GAMMA * (inverse @ (joint @ reward))[1:] for reward in self.reward]
        gradients = [[visits * (moves[i] @ worth[k]) * slopes[i] for i in (0, 1)] for k in (0, 1)]
        steps = [gradients[0][0], gradients[1][1]]
        if self.shaping:
            for i, j in [(0, 1), (1, 0)]:
                along = slopes[j] * gradients[i][j]
                moved = moves[j] * along[:, None]
                visits_change = GAMMA * (visits @ moved) @ inverse[1:]
                worth_change = GAMMA * (inverse @ (moved @ worth[j]))[1:]
                both = along * (worth[j] @ np.array([1.0, -1.0, -1.0, 1.0]))
                change = visits_change * (moves[i] @ worth[j]) + visits * (both + moves[i] @ worth_change)
                steps[i] = steps[i] + ETA * change * slopes[i]
        for i in (0, 1):
            self.theta[i] = self.theta[i] + DELTA * steps[i]


class Pair:
    """Two learners of one class, and a trajectory, whose content they do not use."""

    def __init__(self, make: Callable[..., GradientLearner], seeds: int, **options: Any) -> None:
        seats = [
            Seat(i, GAME.observations, GAME.action_spaces, seeds, dtype=torch.float64, game=GAME)
            for i in range(GAME.agents)
        ]
        self.learners = [make(**options).bind(seat) for seat in seats]
        zeros = torch.zeros(seeds, 1, dtype=torch.int64)
        rewards = torch.zeros(seeds, 1, 2, dtype=torch.float64)
        step = Transition((zeros,) * 2, (zeros,) * 2, rewards, (zeros,) * 2, zeros.bool(), zeros.bool())
        self.newest = Trajectory([step])

    def update(self) -> None:
        """Make a simultaneous step of both, through the interface of learners."""
        update(self.learners, self.newest)


def check() -> None:
    """Check that the loop and the learners make the same steps.

    Raises:
        RuntimeError: if they differ.
    """
    for name in ("naive", "LOLA"):
        for gradients in ("closed", "autograd"):
            pair = Pair(RULES[name], 3, gradients=gradients)
            starts = [learner.logits[..., 0].detach().numpy().copy() for learner in pair.learners]
            loops = [Loop(starts[0][seed], starts[1][seed], name == "LOLA") for seed in range(3)]
            for _ in range(5):
                pair.update()
            for seed, loop in enumerate(loops):
                for _ in range(5):
                    loop.update()
                for learner, theta in zip(pair.learners, loop.theta, strict=True):
                    if not np.allclose(learner.logits[seed, :, 0].detach().numpy(), theta, rtol=1e-8, atol=1e-8):
                        raise RuntimeError(f"{name}, {gradients}: the loop and the learner differ")


def whole_run(seeds: int, steps: int) -> float:
    """CPU seconds per seed-update of LOLA through `run`, everything included."""
    experiment = Experiment(GAME, {"lola": Lola()}, seeds, steps, record_every=50, dtype="float64", device="cpu")
    with tempfile.TemporaryDirectory() as out:
        start = time.process_time()
        run(experiment, Path(out), progress=False)
        return (time.process_time() - start) / (seeds * steps)


def imagined(at_least: float) -> None:
    """Print the CPU time of LOLA-DiCE for several numbers of seeds: 64 rollouts of 50 steps, one inner step."""
    sizes = [2, 16, 64]
    times = seconds([Pair(LolaDice, size).update for size in sizes], 5, at_least)
    print("LOLA-DiCE, CPU milliseconds per update of all seeds, and how many times that of two")
    for size, each in zip(sizes, times, strict=True):
        print(f"{f'{size} seeds':<14}{1e3 * each:>10.1f}{each / times[0]:>10.2f}")


def main() -> None:
    """Print the table."""
    at_least = 0.1 if quick(__doc__) else 0.5
    check()

    sizes = [1, 64, 1024, 8192]
    print("CPU microseconds per seed-update (both agents), one thread, float64")
    print(f"{'rule':<14} {'gradients':<10}" + "".join(f"{f'{size:,} seeds':>14}" for size in sizes))
    for name, make in RULES.items():
        for gradients in ("autograd", "closed"):
            pairs = [Pair(make, size, gradients=gradients) for size in sizes]
            times = [seconds([pair.update], 3, at_least)[0] / size for pair, size in zip(pairs, sizes, strict=True)]
            print(f"{name:<14} {gradients:<10}" + "".join(f"{1e6 * each:>14.2f}" for each in times), flush=True)
        if name in ("naive", "LOLA"):
            first, second = np.random.default_rng(0).normal(size=(2, 5))
            loop = Loop(first, second, name == "LOLA")
            (alone,) = seconds([loop.update], 3, at_least)
            print(f"{name:<14} {'numpy loop':<10}{1e6 * alone:>14.2f}")
    imagined(at_least)
    print(f"LOLA through a run of 4,096 seeds, all included: {1e6 * whole_run(4096, 200):.2f}")


if __name__ == "__main__":
    main()
