"""A custom factor of a guide: a policy that ignores the opponent model.

Run with `python examples/own_guide.py`; in an experiment file it is named `own_guide.Deaf`.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Tabular
from inference_marl.inference.conditional import Conditional
from inference_marl.learners import Rommeo
from inference_marl.models import DirichletMultinomial, TabularCritic
from inference_marl.spaces import Discrete


class Deaf(Conditional):
    """`pi(a | s, b) = pi(a | s)`: a mean-field guide, which cannot match the posterior of Eq. 10 of Tian et al. (2019).

    A conditional maps its parents' values to a Pyro distribution over its target. Its parents depend on its position in
    the guide, in this order: the observation, then the site that was sampled before.
    """

    targets = (Discrete,)
    conditions = (Discrete,)

    def setup(self) -> None:
        """Create `logits`, `replicates x states x actions`; SVI fits all parameters of a guide."""
        shape = (self.seat.replicates, self.parents[0].features, self.target.features)
        self.logits = nn.Parameter(torch.zeros(shape, dtype=self.seat.dtype, device=self.seat.device))

    def forward(self, obs: Tensor, *others: Tensor) -> dist.TorchDistribution:
        """The distribution `pi(a | s)`, whose batch shape broadcasts with those of the other parents."""
        return dist.Categorical(logits=self.logits[self.seat.rows, obs])


def experiment(replicates: int = 100, steps: int = 200) -> Experiment:
    """The climbing game with this policy and with one that reads the opponent's action; compare their ELBO gaps."""

    def learner(policy: Conditional) -> Rommeo:
        return Rommeo(
            opponent_prior=DirichletMultinomial(),
            guide=OpponentFirst(opponent_model=Tabular(), policy=policy),
            critic=TabularCritic(initial=20.0),
            guide_learning_rate=0.1,
        )

    arms = {"listens": learner(Tabular()), "deaf": learner(Deaf())}
    return Experiment(MatrixGame("climbing"), arms, replicates=replicates, steps=steps)


if __name__ == "__main__":
    import own_guide  # the run's spec.yaml then says own_guide, not __main__

    folder = run(own_guide.experiment(), name="own_guide")
    gap = read(folder).metrics["elbo_gap"].isel(step=-1).mean(["replicate", "agent"])
    listens, deaf = (float(gap.sel(learner=arm)) for arm in ("listens", "deaf"))
    print(f"At the end the ELBO is {listens:.2f} below the evidence, {deaf:.2f} if the policy ignores the opponent.")
    print(f"Everything else is in {folder}.")
