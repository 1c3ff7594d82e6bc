"""What a run learned against the exact solution of its game."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from inference_marl.analysis.recorded import read
from inference_marl.analysis.report import findings
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, RiskyBridge
from inference_marl.guides import (
    Empirical,
    ExactTrajectory,
    OpponentFirst,
    Optimal,
    PolicyFirst,
    Tabular,
    TanhNormalNetwork,
    TrajectoryGuide,
)
from inference_marl.learners import Planner, Rommeo, Stationary
from inference_marl.models import Fixed, KnownReward, KnownTransition, NetworkCritic, TabularCritic, Uniform
from inference_marl.runs import checksums
from inference_marl.runs.run import Experiment
from inference_marl.runs.run import run as run_experiment
from inference_marl.runs.solution import _total_variation
from inference_marl.types import Game, Learner
from tests import run_folder


def run(folder: Path, game: Game, arms: dict[str, Any], **settings: Any) -> dict[tuple[str, int], xr.Dataset]:
    """Distances of a run, by arm and agent that have any."""
    experiment = Experiment(game, arms, replicates=3, dtype="float64", **settings)
    found = read(run_experiment(experiment, folder, progress=False)).solution
    if found is None:
        return {}
    each = {
        (name, agent): found.sel(learner=name, agent=agent)
        for name in found["learner"].to_numpy().tolist()
        for agent in found["agent"].to_numpy().tolist()
    }
    return {key: distance for key, distance in each.items() if not distance["policy"].isnull().any()}


def rommeo(opponent_model: Any = Optimal, rate: float = 1.0, **more: Any) -> Rommeo:
    guide = OpponentFirst(opponent_model(), Optimal())
    return Rommeo(
        opponent_prior=Uniform(), guide=guide, critic=TabularCritic(initial=0.0, rate=rate), discount=0.5, **more
    )


def test_a_known_table_is_solved_exactly(tmp_path: Path) -> None:
    """A one-shot game with high temperature: every cell is seen, so the closed form is the exact solution."""
    first = PolicyFirst(Optimal(), Optimal())
    arms = {
        "full": rommeo(temperature=50.0),
        "empirical": rommeo(Empirical, temperature=50.0),
        "policy_first": Rommeo(opponent_prior=Uniform(), guide=first, critic=TabularCritic(), temperature=50.0),
    }
    found = run(tmp_path, MatrixGame("climbing"), arms, steps=10, record_every=10, environments=16)
    assert set(found) == {("full", 0), ("full", 1)}  # the others aim at something else
    for agent in (0, 1):
        assert found["full", agent]["opponent_model"].to_numpy() == pytest.approx(0, abs=1e-6)
        assert found["full", agent]["policy"].to_numpy() == pytest.approx(0, abs=1e-6)


def test_the_table_of_distances(tmp_path: Path) -> None:
    """Averaged over agents, and over the replicates that the solution was found for."""
    distance = xr.DataArray([[[0.2, 0.2], [0.3, 0.3]]], dims=("learner", "agent", "replicate"))
    solution = xr.Dataset({"opponent_model": distance, "policy": 0 * distance + 0.5}, {"learner": ["full"]})
    metrics = run_folder.discrete(3, 2)["metrics"]
    section = findings.solved(run_folder.recorded(tmp_path, metrics=metrics, solution=solution))
    assert section is not None
    assert section.table is not None
    assert section.table.T.to_dict() == {"full": {"opponent model": "0.250", "policy": "0.500"}}
    assert section.note == "over the first 2 of 3 replicates"


@pytest.mark.slow
def test_states_and_discount(tmp_path: Path) -> None:
    """A repeated game with memory: more play comes nearer to the fixed point of Eq. 9-13."""
    game, learner = MatrixGame("stag_hunt", memory=1, horizon=20), rommeo(temperature=5.0)
    ends = [
        run(tmp_path / str(steps), game, {"it": learner}, steps=steps, record_every=steps, environments=16)["it", 0]
        for steps in (2, 60)
    ]
    assert float(ends[1]["policy"].mean()) < 0.2 * float(ends[0]["policy"].mean())
    assert ends[1]["opponent_model"].to_numpy() == pytest.approx(0, abs=1e-2)


def test_planners_are_compared_with_the_plan_they_aim_at(tmp_path: Path) -> None:
    def planner(guide: Any, **more: Any) -> Learner:
        return Planner(
            opponent_prior=Fixed([1, 1]),
            reward=KnownReward(),
            guide=guide,
            transition=KnownTransition(),
            horizon=3,
            temperature=0.5,
            **more,
        )

    arms = {
        "kept": planner(ExactTrajectory("kept")),
        "inferred": planner(ExactTrajectory("inferred")),
        "fitted": planner(TrajectoryGuide(Tabular(), Tabular()), guide_steps=0),
        "script": Stationary(),
    }
    found = run(tmp_path, RiskyBridge(), arms, steps=2, record_every=2)
    for arm in ("kept", "inferred"):
        assert found[arm, 1]["policy"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert (found["fitted", 1].policy > 0.05).all()
    assert ("script", 0) not in found


def test_nothing_to_say_without_tables(tmp_path: Path) -> None:
    net = TanhNormalNetwork((4,))
    learner = Rommeo(
        opponent_prior=Uniform(), guide=OpponentFirst(net, net), critic=NetworkCritic((4,)), replay=10, batch_size=4
    )
    assert not run(tmp_path, MaxOfTwoQuadratics(), {"it": learner}, steps=2, record_every=2)
    assert findings.solved(read(next(tmp_path.iterdir()))) is None


def test_who_reads_it_builds_nothing(tmp_path: Path) -> None:
    run(tmp_path, MatrixGame("climbing"), {"it": rommeo()}, steps=2, record_every=2)
    folder = next(tmp_path.iterdir())
    spec = folder / "spec.yaml"
    with checksums.listing(folder, ["spec.yaml"]):
        spec.write_text(spec.read_text().replace("inference_marl.games.MatrixGame", "somebody.elses.Game"))
    section = findings.solved(read(folder))
    assert section is not None
    assert section.table is not None
    assert list(section.table.index) == ["it"]


def test_total_variation_by_hand() -> None:
    p, q = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]), torch.tensor([[[0.25, 0.75], [0.0, 1.0]]])
    np.testing.assert_allclose(_total_variation(p, q), [(0.25 + 1) / 2])
