"""A custom evaluation: how often both agents hunt the stag, with partners from training and with a new one.

Run with `python examples/own_evaluation.py`; in an experiment file it is named `own_evaluation.Together`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.analysis.recorded import read
from inference_marl.described import Whole, hyperparameters
from inference_marl.games import MatrixGame
from inference_marl.learners import Stationary
from inference_marl.learners.tabular import Boltzmann, IndependentQ
from inference_marl.play import Evaluation, Population
from inference_marl.types import PROBABILITY, Metric, Trajectory

STAG = 0
TOGETHER = Metric("together", "both hunt the stag", bounds=PROBABILITY, dims=(), over="last", higher_is_better=True)


@hyperparameters  # its annotated fields are added to those of its base
class Together(Evaluation):
    """Measures, besides the reward, the share of steps at which all agents take a given action.

    Args:
        action: the action.
    """

    metrics = (*Evaluation.metrics, TOGETHER)

    action: Whole = STAG

    def measure(self, played: Trajectory) -> Mapping[str, Tensor]:
        """Return metrics by name, `replicates` each; stacked steps are `time x replicates x environments`."""
        first, second = played.stacked.actions
        both = (first == self.action) & (second == self.action)
        return {**super().measure(played), TOGETHER.name: both.float().mean((0, 2))}


def experiment(replicates: int = 200, steps: int = 1000) -> Experiment:
    """Q-learning with a population of two partners, evaluated with the same population and with a new partner."""
    loyal, unsteady = Stationary(probabilities=[0.95, 0.05]), Stationary(probabilities=[0.6, 0.4])
    game = MatrixGame("stag_hunt", horizon=5, memory=1)
    arm = [IndependentQ(exploration=Boltzmann(0.5)), Population(members=[loyal, unsteady])]
    every = max(steps // 10, 1)
    return Experiment(
        game,
        {"q": arm},
        replicates=replicates,
        steps=steps,
        record_every=every,
        evaluation={
            "known": Together(every=every),  # by the same population, drawn anew
            "stranger": Together(every=every, seats={1: Stationary(probabilities=[0.2, 0.8])}),
        },
    )


if __name__ == "__main__":
    import own_evaluation  # the run's spec.yaml then says own_evaluation, not __main__

    folder = run(own_evaluation.experiment(), name="own_evaluation")
    metrics = read(folder).metrics.isel(step=-1).mean("replicate")
    known, stranger = (float(metrics[f"together_{name}"].item()) for name in ("known", "stranger"))
    print(f"At the end both hunt the stag in {known:.0%} of rounds with known partners, {stranger:.0%} with a new one.")
    print(f"Everything else is in {folder}.")
