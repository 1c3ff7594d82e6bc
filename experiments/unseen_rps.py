"""Results of `unseen_rps.yaml`: values of the learned policies, and width and coverage of their beliefs.

    inference-marl run unseen_rps
    python experiments/unseen_rps.py runs/unseen_rps/unseen_rps

Learned policies are evaluated against `--opponents` held-out opponents in each replicate. Values are expected rewards
of the greedy action given the opponent's strategy, so only the choice of opponents and their earlier actions are
random. `below Bayes` has hardly any of that noise, since the best response to the exact posterior is given the same
rounds. The exact value is the expected value of that best response over all opponents.

Beliefs about an opponent's strategy p are samples of P(b | z), z ~ q(z | c). Their standard deviation is divided by
that of the exact posterior, Dirichlet(1 + counts), after averaging both; an interval from the 6th to the 94th
percentile of each probability should cover the true one in 88 % of cases. `best response` is the value of the best
response to their mean, and `off` is the root mean square distance of this mean from the exact one, in exact standard
deviations.

± is half of a 95 % interval over seeds (Student's).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl import Experiment, load
from inference_marl.games import BayesianMatrixGame
from inference_marl.learners.scripts import PlaysItsType
from inference_marl.play import Collector, GameSimulator, Tasks
from inference_marl.runs.frozen import Frozen
from inference_marl.statistics.intervals import mean_interval
from inference_marl.types import Actor, Memory

AFTER = (0, 1, 5, 15, 75)
"""Numbers of earlier rounds against the same opponent."""
DRAWS = 200
LEVEL = 0.88

Found = Mapping[int, Mapping[str, Tensor]]
"""Measures by number of rounds and name, `replicates` each."""


def exact(rounds: int) -> float:
    """Value of best responses to the exact posterior after `rounds` rounds; all counts have equal probability."""
    counts = [(one, two, rounds - one - two) for one, two in itertools.product(range(rounds + 1), repeat=2)]
    worths = [max(c - b, a - c, b - a) / (rounds + 3) for a, b, c in counts if c >= 0]
    return sum(worths) / len(worths)


def measured(experiment: Experiment, folder: Path, arm: str, opponents: int, seed: int = 0) -> Found:
    """Evaluate the policies of an arm against held-out opponents.

    Args:
        experiment: the experiment of the run.
        folder: the folder of the run.
        arm: name of the arm.
        opponents: number of opponents per replicate.
        seed: random seed of their actions.
    """
    tasks = Tasks(population="held_out", episodes=AFTER[-1] + 1, order="in_turn")
    seated: list[Actor] = [Frozen(str(folder), arm, agent=0), PlaysItsType()]
    changed = {"arms": {arm: seated}, "environments": opponents, "tasks": tasks, "evaluation": None}
    playing: Experiment = experiment.replace(**changed)
    game, actors = playing.game, playing.bind(arm)
    assert isinstance(game, BayesianMatrixGame)
    payoff = game.expected_payoff[0].float()
    torch.manual_seed(seed)
    simulator = GameSimulator(game, playing.replicates, opponents)
    collector = Collector(simulator, actors, explore=False, tasks=playing.tasks)
    found, counts = {}, torch.zeros(playing.replicates, opponents, len(payoff[0]))
    for number in range(AFTER[-1] + 1):
        obs, strategy = collector.observe().obs
        values, memory = strategy @ payoff.T, collector.memories[0]
        step = collector.collect(1).stacked
        if number in AFTER:
            value = _of(values, step.actions[0][0])
            best = _of(values, ((counts + 1) @ payoff.T).argmax(-1))
            found[number] = {"value": value, "below Bayes": best - value}
            believed = _drawn(actors[0], obs, memory)
            if believed is not None:
                response = _of(values, (believed.mean(0) @ payoff.T).argmax(-1))
                found[number] |= {"best response": response, "best response below Bayes": best - response}
                found[number] |= compared(believed, strategy, counts + 1)
        counts += one_hot(step.actions[1][0], len(payoff[0]))
    return found


def compared(believed: Tensor, strategy: Tensor, concentration: Tensor) -> dict[str, Tensor]:
    """Compare beliefs about strategies with the exact posterior; measures are `replicates`.

    Args:
        believed: samples, `draws x replicates x opponents x actions`.
        strategy: the true strategies.
        concentration: the concentration of the exact posterior, a Dirichlet distribution.
    """
    total = concentration.sum(-1, keepdim=True)
    mean = concentration / total
    sd = (mean * (1 - mean) / (total + 1)).sqrt()
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = torch.stack([believed[:, each].quantile(ends, 0) for each in range(len(strategy))], 1)
    off = (believed.mean(0) - mean).square().mean((1, 2)) / sd.square().mean((1, 2))
    return {
        "width": believed.std(0).mean((1, 2)) / sd.mean((1, 2)),
        "coverage": ((strategy >= low) & (strategy <= high)).float().mean((1, 2)),
        "off": off.sqrt(),
    }


def _of(values: Tensor, action: Tensor) -> Tensor:
    """Mean over opponents of the values, `... x actions`, of the actions taken."""
    return values.gather(-1, action.unsqueeze(-1)).squeeze(-1).mean(1)


def _drawn(learned: Actor, obs: Tensor, memory: Memory) -> Tensor | None:
    """Samples of strategies, `draws x replicates x opponents x actions`; `None` without such a belief."""
    draws = []
    for _ in range(DRAWS):
        found = learned.beliefs(obs, memory, 1) if memory else {}
        if "opponent_model" not in found:
            return None
        draws.append(found["opponent_model"])
    return torch.stack(draws)


def table(found: Mapping[str, Found], measure: str) -> pd.DataFrame:
    """A measure by arm and number of rounds."""
    rows = {}
    for arm, of in found.items():
        if measure in of[AFTER[0]]:
            ends = {number: mean_interval(of[number][measure].numpy()) for number in AFTER}
            rows[arm] = {number: f"{each.mean:.3f} ± {each.high - each.mean:.3f}" for number, each in ends.items()}
    return pd.DataFrame(rows).T


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--opponents", type=int, default=6000)
    given = parser.parse_args()
    experiment = load(given.folder / "spec.yaml")
    found = {arm: measured(experiment, given.folder, arm, given.opponents) for arm in experiment.arms}
    print("By rounds that the opponent was seen in; exact: " + ", ".join(f"{exact(each):.3f}" for each in AFTER))
    measures = dict.fromkeys(measure for of in found.values() for measure in of[AFTER[0]])
    for measure in measures:
        print(f"\n{measure}\n{table(found, measure).to_string()}")


if __name__ == "__main__":
    main()
