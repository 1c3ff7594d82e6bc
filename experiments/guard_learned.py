"""How those whom `guard.yaml` has trained get on with raiders who have learned, and not with scripts.

    inference-marl run guard
    python experiments/guard_learned.py runs/guard/guard

Raiders of average abilities are trained against the policies of the arm `nobody`, with as many steps and updates as
that one had. Then every arm meets them, by how many episodes it has met them before, and so does a specialist that is
trained against these raiders alone. ± is half of a 95 % interval over seeds (Student's).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from scipy import stats

from inference_marl import Frozen, load, read, run
from inference_marl.games import Guard, ListedTypes
from inference_marl.learners import Pearl
from inference_marl.play import Tasks, TrialEvaluation

AFTER = (0, 1, 2, 5)


def experiments(folder: Path, results: Path) -> tuple[Path, Path]:
    """Train raiders, and let everybody meet them; returns the folders of both runs.

    Args:
        folder: a run of `guard.yaml`.
        results: where folders of runs are.
    """
    trained = load(folder / "spec.yaml")
    game = trained.game
    if not isinstance(game, Guard) or "nobody" not in trained.arms:
        raise SystemExit(
            f"{folder}: got a run of {type(game).__name__}, expected one of guard.yaml, with its arm nobody"
        )
    average = [0.0] * len(game.feature_names)
    plain = trained.replace(
        game=Guard({"average": ListedTypes([average])}, game.size, horizon=game.horizon, rewards=game.rewards),
        tasks=Tasks(population="average", episodes=4),
        evaluation=None,
    )
    learner = Pearl(context=None, discount=0.9)
    arms = {"raiders": [Frozen(str(folder), arm="nobody"), learner]}
    raiders = run(plain.replace(arms=arms), results, f"{folder.name}_raiders")
    learned = Frozen(str(raiders), agent=1)
    arms = {name: [Frozen(str(folder), arm=name), learned] for name in trained.arms if name != "told"}
    arms["specialist"] = [learner, learned]
    met = TrialEvaluation(
        every=trained.steps, environments=60, after=AFTER, tasks=Tasks(population="average", episodes=max(AFTER) + 1)
    )
    return raiders, run(plain.replace(arms=arms, evaluation=met), results, f"{folder.name}_learned")


def main() -> None:
    """Train, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run of guard.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where runs are kept")
    given = parser.parse_args()
    raiders, learned = experiments(given.folder, given.out)
    metrics = read(learned).metrics
    rows = {}
    for arm in metrics["learner"].to_numpy().tolist():
        row = rows[arm] = {}
        for number in AFTER:
            values = metrics[f"return_after_{number}"].sel(learner=arm).isel(step=-1).to_numpy()
            half = stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / values.size**0.5
            row[f"after {number}"] = f"{values.mean():.2f} ± {half:.2f}"
    print(f"Returns of an episode against learned raiders\n{pd.DataFrame(rows).T.to_string()}")
    print(f"\nThe raiders are in {raiders}, their games in {learned}")


if __name__ == "__main__":
    main()
