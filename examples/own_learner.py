"""A custom learner: Exp3, which weights actions exponentially by their rewards.

Run with `python examples/own_learner.py`; in an experiment file it is named `own_learner.Exp3`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.described import IncompatibleError, Positive, Rate, hyperparameters
from inference_marl.games import MatrixGame
from inference_marl.spaces import Discrete
from inference_marl.types import Actor, Learner, Memory, Trajectory


@hyperparameters  # its annotated fields become keyword arguments, in Python and in files
class Exp3(Learner):
    """Exponential weights for exploration and exploitation (Auer et al. 2002), without a state::

        pi(a) = (1 - mix) softmax(score)(a) + mix / |A|        score(a) <- score(a) + rate r / pi(a) for the a played

    Args:
        rate: step size of the scores, positive.
        mix: probability of a uniformly random action, in (0, 1].
    """

    rate: Positive = 0.01  # a range, which is checked; a plain float need only be finite
    mix: Rate = 0.1

    def setup(self) -> None:
        """Create the learned scores, `replicates x actions`, now that the seat is known."""
        if not isinstance(self.seat.action, Discrete):
            raise IncompatibleError(f"Exp3 got actions {self.seat.action}, expected Discrete")
        shape = (self.seat.replicates, self.seat.action.n)
        self.register_buffer("score", torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device))

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        """The same distribution at all observations, `replicates x environments`, and the unchanged memory."""
        mixed = (1 - self.mix) * self.score.softmax(-1) + self.mix / self.score.shape[-1]
        return dist.Categorical(probs=mixed.unsqueeze(1).expand(*obs.shape[:2], -1)), memory

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        """Update the scores from the newest steps, averaged over environments."""
        for step in newest.steps:
            seen, log_prob = step.seen_by(self.seat), step.log_probs[self.seat.index]
            assert log_prob is not None  # the policy has a density
            gain = self.rate * seen.reward / log_prob.exp() / seen.reward.shape[1]
            self.score.scatter_add_(1, seen.action, gain.to(self.score.dtype))
        return {}


def experiment(replicates: int = 200, steps: int = 1000) -> Experiment:
    """Self-play in the stag hunt."""
    return Experiment(MatrixGame("stag_hunt"), {"exp3": Exp3()}, replicates=replicates, steps=steps, record_every=10)


if __name__ == "__main__":
    import own_learner  # the run's spec.yaml then says own_learner, not __main__

    folder = run(own_learner.experiment(), name="own_learner")
    stag = read(folder).metrics["joint_optimum_probability"].isel(step=-1).mean()
    print(f"At the end both hunt the stag with probability {stag:.2f}.")
    print(f"Everything else is in {folder}.")
