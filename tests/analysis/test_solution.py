"""What a run learned against the exact solution of its game."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference_marl.analysis.posterior import read
from inference_marl.analysis.report.findings import solved
from inference_marl.analysis.solution import Distance, _total_variation, distances
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
from inference_marl.runs.run import Experiment
from inference_marl.types import Game, Learner


def run(folder: Path, game: Game, arms: dict[str, Any], **settings: Any) -> dict[tuple[str, int], Distance]:
    experiment = Experiment(game, arms, replicates=3, dtype="float64", **settings)
    found = distances(read(experiment.run(folder, progress=False)))
    return {(each.learner, each.agent): each for each in found}


def rommeo(opponent_model: Any = Optimal, rate: float = 1.0, **more: Any) -> Rommeo:
    guide = OpponentFirst(opponent_model(), Optimal())
    return Rommeo(Uniform(), guide, TabularCritic(initial=0.0, rate=rate), discount=0.5, **more)


def test_a_known_table_is_solved_exactly(tmp_path: Path) -> None:
    """A one-shot game with high temperature: every cell is seen, so the closed form is the exact solution."""
    first = PolicyFirst(Optimal(), Optimal())
    arms = {
        "full": rommeo(temperature=50.0),
        "empirical": rommeo(Empirical, temperature=50.0),
        "policy_first": Rommeo(Uniform(), first, TabularCritic(), temperature=50.0),
    }
    found = run(tmp_path, MatrixGame("climbing"), arms, steps=150, record_every=150)
    assert set(found) == {("full", 0), ("full", 1)}  # the others aim at something else
    for agent in (0, 1):
        assert found["full", agent].opponent_model == pytest.approx(0, abs=1e-6)
        assert found["full", agent].policy == pytest.approx(0, abs=1e-6)
    section = solved(read(next(tmp_path.iterdir())))
    assert section is not None
    assert [row[0] for row in section.rows] == ["full"]
    assert section.rows[0][1].startswith("0.000")


def test_states_and_discount(tmp_path: Path) -> None:
    """A repeated game with memory: more play comes nearer to the fixed point of Eq. 9-13."""
    game = MatrixGame("stag_hunt", memory=1, horizon=20)
    ends = [
        run(tmp_path / str(steps), game, {"it": rommeo(temperature=5.0)}, steps=steps, record_every=steps)["it", 0]
        for steps in (5, 400)
    ]
    assert float(ends[1].policy.mean()) < 0.2 * float(ends[0].policy.mean())
    assert ends[1].opponent_model == pytest.approx(0, abs=1e-2)


def test_planners_are_compared_with_the_plan_they_aim_at(tmp_path: Path) -> None:
    def planner(guide: Any, **more: Any) -> Learner:
        return Planner(Fixed([1, 1]), KnownReward(), guide, KnownTransition(), 3, temperature=0.5, **more)

    arms = {
        "kept": planner(ExactTrajectory("kept")),
        "inferred": planner(ExactTrajectory("inferred")),
        "fitted": planner(TrajectoryGuide(Tabular(), Tabular()), guide_steps=0),
        "script": Stationary(),
    }
    found = run(tmp_path, RiskyBridge(), arms, steps=2, record_every=2)
    for arm in ("kept", "inferred"):
        assert found[arm, 1].policy == pytest.approx(0, abs=1e-6)
    assert (found["fitted", 1].policy > 0.05).all()
    assert ("script", 0) not in found


def test_nothing_to_say_without_tables(tmp_path: Path) -> None:
    net = TanhNormalNetwork((4,))
    learner = Rommeo(Uniform(), OpponentFirst(net, net), NetworkCritic((4,)), replay=10, batch_size=4)
    assert not run(tmp_path, MaxOfTwoQuadratics(), {"it": learner}, steps=2, record_every=2)
    assert solved(read(next(tmp_path.iterdir()))) is None


def test_a_run_that_cannot_be_built_here_is_passed_over(tmp_path: Path) -> None:
    run(tmp_path, MatrixGame("climbing"), {"it": rommeo()}, steps=2, record_every=2)
    folder = next(tmp_path.iterdir())
    spec = folder / "spec.yaml"
    spec.write_text(spec.read_text().replace("inference_marl.games.matrix.MatrixGame", "somebody.elses.Game"))
    assert distances(read(folder)) == []


def test_total_variation_by_hand() -> None:
    p, q = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]), torch.tensor([[[0.25, 0.75], [0.0, 1.0]]])
    np.testing.assert_allclose(_total_variation(p, q), [(0.25 + 1) / 2])
