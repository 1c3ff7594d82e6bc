"""CPU time of a gradient step of ROMMEO-AC's guide with several opponents, by estimator of the ELBO.

One to four opponents with five actions, 8 replicates, minibatches of 256, two layers of 100 units, float32, one torch
thread; critic and prior are constants. The cost of enumeration is the product of the opponents' numbers of actions,
that of `Local` is their sum. CPU time is that of one thread; compared functions are timed in turn.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial

import torch
from timing import quick, seconds

from inference_marl.guides import CategoricalNetwork, OpponentFirst
from inference_marl.inference.estimators import ElboEstimator, Enumerate, Local, Relax, Sample
from inference_marl.learners import Rommeo
from inference_marl.models import Amortised, NetworkCritic
from inference_marl.spaces import Discrete
from inference_marl.types import Seat

STATES, ACTIONS, REPLICATES, BATCH, HIDDEN = 4, 5, 8, 256, (100, 100)
CASES: list[tuple[str, ElboEstimator, str]] = [
    ("Enumerate", Enumerate(), "value"),
    ("Enumerate, Q of all own actions", Enumerate(), "actions"),
    ("Local", Local(), "value"),
    ("Local, Q of all own actions", Local(), "actions"),
    ("Sample", Sample(), "value"),
    ("Relax", Relax(), "value"),
]


def step_with(opponents: int, estimator: ElboEstimator, outputs: str) -> Callable[[], None]:
    """A function that makes a gradient step of the guide."""
    network = CategoricalNetwork(HIDDEN)
    learner = Rommeo(
        opponent_prior=Amortised(network),
        guide=OpponentFirst(network, network),
        critic=NetworkCritic(HIDDEN, outputs=outputs),  # type: ignore[arg-type]
        temperature=0.7,
        estimator=estimator,
    )
    agents = opponents + 1
    seat = Seat(0, (Discrete(STATES),) * agents, (Discrete(ACTIONS),) * agents, REPLICATES)
    obs = torch.randint(STATES, (REPLICATES, BATCH))
    return partial(learner.bind(seat).fit_guide, obs)


def main() -> None:
    """Print the table."""
    rounds, at_least = (2, 0.05) if quick(__doc__) else (5, 0.5)

    print("A step of the guide in ms; in brackets, times that with one opponent")
    print(f"{'estimator':<32}" + "".join(f"{f'{n} opponents' if n > 1 else '1 opponent':>18}" for n in range(1, 5)))
    for name, estimator, outputs in CASES:
        counts = [1, 2] if isinstance(estimator, Enumerate) else [1, 2, 3, 4]
        times = seconds([step_with(n, estimator, outputs) for n in counts], rounds, at_least)
        cells = [f"{1e3 * time:.1f} ({time / times[0]:.1f})" for time in times]
        print(f"{name:<32}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    print(f"Peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
