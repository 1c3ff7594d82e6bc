"""Runs on other people's environments: resumed to the bit, from files of a user's own, and looked at without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import yaml

import inference_marl
from inference_marl.cli import main
from inference_marl.config.files import build, dump, load
from inference_marl.config.together import together
from inference_marl.experiment import Experiment
from inference_marl.learners import Maddpg, Stationary
from inference_marl.learners.tabular import IndependentQ
from inference_marl.learners.tabular.exploration import Boltzmann
from inference_marl.play import Evaluation
from inference_marl.simulators import PettingZoo
from inference_marl.types import Game
from tests.runs.small_runs import assert_same, complete, cut_after, dataset, rommeo_ac, run
from tests.simulators import small
from tests.simulators.test_pettingzoo import game

ROOT = Path(__file__).resolve().parents[2]


def walking(played: Game, **more: Any) -> Experiment:
    arms = {"maddpg": Maddpg(batch_size=4, warmup=2), "rommeo": rommeo_ac()}
    settings: dict[str, Any] = {"replicates": 2, "environments": 2, "steps": 10, "checkpoint_every": 3} | more
    return Experiment(played, arms, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "processes"),  # of both arms, of 10 steps each: in the middle of episodes
    [(16, 0), pytest.param(16, 1, marks=pytest.mark.slow), pytest.param(7, 0, marks=pytest.mark.slow)],
)
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(
    steps: int, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = walking(game("Walk", {"length": 4}, processes=processes))
    whole = run(experiment, tmp_path / "whole")
    cut_after(steps, monkeypatch, experiment, tmp_path / "cut" / "test")
    complete(experiment, tmp_path / "cut" / "test")
    assert_same(whole, tmp_path / "cut" / "test")


@pytest.mark.slow
def test_where_the_seed_does_not_say_all_a_run_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = walking(game("Walk", {"length": 4, "seeded": False}))
    with pytest.warns(
        UserWarning, match="^game: got PettingZoo with environments whose seed does not say all .* resumed"
    ):
        run(experiment, tmp_path)
    cut_after(5, monkeypatch, experiment, tmp_path / "cut")
    complete(experiment, tmp_path / "cut")
    # After the checkpoint at 3, in the middle of an episode of 4, the next one begins.
    ended = xr.load_dataset(tmp_path / "cut" / "actions.nc", engine="h5netcdf")["ended"].sel(learner="maddpg")
    assert ended.isel(replicate=0, environment=0).to_numpy().nonzero()[0].tolist() == [6]


def test_it_can_be_evaluated_in_and_is_not_known_to_who_plays_it() -> None:
    played = game("Walk", {"length": 3}, horizon=3)
    experiment = walking(played, evaluation=Evaluation(every=5, environments=2), steps=5)
    assert all(seat.game is None for seat in experiment.seats())
    inner = Evaluation(every=5, environments=2, steps=2, game=game("Walk", {"length": 4}))
    actors = [actor.bind(seat) for actor, seat in zip([Stationary()] * 2, experiment.seats(), strict=True)]
    found = [evaluation.play(played, evaluation.seated(actors)).stacked for evaluation in (inner, inner)]
    assert found[0].rewards.shape == (2, 2, 2, 2)
    assert (found[0].rewards == found[1].rewards).all()


def test_without_a_horizon_an_evaluation_asks_for_steps() -> None:
    with pytest.raises(ValueError, match="steps: got null for a game without horizon, expected a positive integer"):
        walking(game(), evaluation=Evaluation(every=5))


def test_arms_that_differ_in_numbers_are_played_one_by_one() -> None:
    content = {
        "game": game("Walk").describe(),
        "steps": 2,
        "arms": {"a": {"class_path": "Maddpg", "init_args": {"batch_size": 4}}},
        "factors": {"discount": [0.5, 0.9]},
    }
    assert [each.arms for each in together(build(content))] == [("discount_0p5",), ("discount_0p9",)]


def test_a_file_says_it_as_python_does() -> None:
    experiment = walking(game("Walk", {"length": 3}, horizon=2, agents_leave=False))
    again = build(yaml.safe_load(dump(experiment)))
    assert again.describe() == experiment.describe()
    assert experiment.game.describe() == {
        "class_path": "inference_marl.simulators.PettingZoo",
        "init_args": {
            "env": f"{small.HERE}.Walk",
            "arguments": {"length": 3},
            "horizon": 2,
            "agents_leave": False,
            "processes": 0,
            "timeout": 60.0,
            "success_reward": None,
        },
    }


OWN = '''
"""Somebody's own environment."""

import pathlib

import numpy as np
from gymnasium import spaces
from my_numbers import WIDTH
from pettingzoo import ParallelEnv

pathlib.Path(MARK).touch()


class Rope(ParallelEnv):
    """Both pull; the middle should stay where it is."""

    metadata = {"name": "rope"}

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength
        self.possible_agents = ["left", "right"]
        self.agents = []

    def observation_space(self, agent):
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def action_space(self, agent):
        return spaces.Box(np.float32(0.0), np.float32(WIDTH), (1,), np.float32)

    def _see(self):
        return {agent: np.array([self.place, self.steps], dtype=np.float32) for agent in self.possible_agents}

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.place, self.steps = np.random.default_rng(seed).normal(), 0
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.steps += 1
        self.place += self.strength * float(actions["right"][0] - actions["left"][0])
        over = self.steps == 5
        rewards = dict.fromkeys(self.agents, -abs(self.place))
        ended, cut = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, over)
        infos = {agent: {} for agent in self.agents}
        self.agents = [] if over else self.agents
        return self._see(), rewards, ended, cut, infos
'''

FILE = """
game: {class_path: PettingZoo, init_args: {env: my_rope.Rope, arguments: {strength: 0.5}, processes: %d}}
replicates: 2
environments: 2
steps: 8
checkpoint_every: 2
arms:
  maddpg: {class_path: Maddpg, init_args: {batch_size: 4, warmup: 2}}
  rommeo:
    class_path: Rommeo
    init_args:
      opponent_prior:
        class_path: Amortised
        init_args: {conditional: {class_path: TanhNormalNetwork, init_args: {hidden: [4]}}, window: 12, batch_size: 4}
      guide:
        class_path: OpponentFirst
        init_args:
          opponent_model: {class_path: TanhNormalNetwork, init_args: {hidden: [4]}}
          policy: {class_path: TanhNormalNetwork, init_args: {hidden: [4]}}
      critic: {class_path: NetworkCritic, init_args: {hidden: [4]}}
      temperature: 0.5
      replay: 20
      batch_size: 4
      warmup: 2
"""


def forget() -> None:
    for name in ("my_rope", "my_numbers"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_a_run_goes_on_in_other_processes(tmp_path: Path) -> None:
    experiment = walking(game("Walk", {"length": 4}), steps=5).replace(arms={"maddpg": Maddpg(batch_size=4, warmup=2)})
    folder = run(experiment, tmp_path)
    inference_marl.resume(folder, progress=False, overrides={"steps": 7, "game.processes": 1})
    whole = run(experiment.replace(steps=7), tmp_path, "whole")
    for name in ("actions.nc", "posterior.nc"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder `exp` with an experiment file and an environment of a user's own beside it, and another, empty one."""
    for name in ("exp", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "exp" / "my_rope.py").write_text(OWN.replace("MARK", repr(str(tmp_path / "mark"))))
    (tmp_path / "exp" / "my_numbers.py").write_text("WIDTH = 2.0\n")
    (tmp_path / "exp" / "rope.yaml").write_text(FILE % 0)
    yield tmp_path
    forget()


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in the empty folder, in a process that knows nothing but the package."""
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-m", "inference_marl", *words, "--quiet"],
        cwd=home / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("processes", "jobs"), [pytest.param(0, 1, marks=pytest.mark.slow), pytest.param(1, 2, marks=pytest.mark.slow)]
)
def test_a_users_own_environment_beside_the_file(home: Path, processes: int, jobs: int) -> None:
    (home / "exp" / "rope.yaml").write_text(FILE % processes)
    done = command(home, "run", "../exp/rope.yaml", "--jobs", str(jobs))
    assert (done.returncode, done.stderr) == (0, "")
    folder = home / "elsewhere" / "runs" / "rope"
    assert {path.name for path in (folder / "sources").rglob("*.py")} == {"my_rope.py", "my_numbers.py"}
    shutil.rmtree(home / "exp")
    done = command(home, "resume", "runs/rope", "--steps", "11", "--jobs", str(jobs))
    assert (done.returncode, done.stderr) == (0, "")
    assert dataset(folder, "actions.nc").sizes["step"] == 11


def test_looking_at_a_run_imports_nothing_of_an_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = home / "mark"
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = run(load(home / "exp" / "rope.yaml", [("arms.rommeo", None)]), home)
    assert mark.exists()
    mark.unlink()
    forget()
    assert main(["inspect", str(folder)]) == 0
    inference_marl.read(folder).frame()
    inference_marl.to_arviz(folder, "maddpg")
    assert not mark.exists()
    assert "my_rope" not in sys.modules
    # It would have been noticed.
    load(folder / "spec.yaml")
    assert mark.exists()


def test_an_edited_environment_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference_marl.runs import sources
    from inference_marl.runs.errors import RunError

    monkeypatch.setattr(sys, "path", [*sys.path])
    experiment = load(home / "exp" / "rope.yaml", [("arms.rommeo", None)])
    folder = run(experiment, home)
    sources.check(experiment, folder)
    with (home / "exp" / "my_numbers.py").open("a") as file:
        file.write("# edited since\n")
    with pytest.raises(RunError, match=r"my_numbers\.py: got another content than when the run"):
        sources.check(experiment, folder)


def test_messages_begin_with_the_key() -> None:
    content = {"game": {"class_path": "PettingZoo", "init_args": {"env": "nowhere.Env"}}, "arms": {"a": "Stationary"}}
    with pytest.raises(ValueError, match=r"^game.env: got nowhere.Env, which cannot be imported"):
        build(content)
    content["game"] = {"class_path": "PettingZoo", "init_args": {"env": "nowhere.Env", "argumets": {}}}
    with pytest.raises(ValueError, match=r"^game.argumets: got an unknown key, expected one of env, arguments"):
        build(content)


def test_whoever_needs_the_rules_refuses_by_name() -> None:
    from inference_marl.config.check import check
    from inference_marl.games import Scaled
    from inference_marl.learners.lola import LolaDice

    played = PettingZoo(f"{small.HERE}.exported", {"name": "MatrixGame", "payoff": "prisoners_dilemma"})
    with pytest.raises(ValueError, match=r"^arms.a: LolaDice got no game, expected a pure game"):
        check(Experiment(played, {"a": LolaDice()}))
    with pytest.raises(ValueError, match="got PettingZoo, whose rules are not this package's, expected a pure game"):
        check(Experiment(Scaled(played, 2.0), {"a": Stationary()}))


def test_our_games_out_and_in_again_are_learned_in_to_the_bit(tmp_path: Path) -> None:
    """Games without chance whose numbers single precision holds: the learners' random numbers are the only ones."""
    arguments = {"payoff": "prisoners_dilemma", "horizon": 4, "memory": 1}
    out_and_in = PettingZoo(f"{small.HERE}.exported", {"name": "MatrixGame", **arguments})
    from inference_marl.games import MatrixGame

    arms = {"q": IndependentQ(exploration=Boltzmann()), "maddpg": Maddpg(batch_size=4, warmup=2)}
    found = []
    for played in (MatrixGame(**arguments), out_and_in):  # type: ignore[arg-type]
        experiment = Experiment(played, arms, replicates=2, environments=3, steps=24)
        folder = run(experiment, tmp_path / type(played).__name__)
        found.append((dataset(folder, "actions.nc"), dataset(folder, "metrics.nc")))
    (actions, metrics), (same_actions, same_metrics) = found
    assert actions["actions"].equals(same_actions["actions"])
    assert actions["ended"].equals(same_actions["ended"])
    assert int(actions["ended"].sum()) == 2 * 2 * 3 * 6
    for name in same_metrics.data_vars:
        assert metrics[name].equals(same_metrics[name]), name


def test_our_boxes_out_and_in_again_pay_the_same(tmp_path: Path) -> None:
    """But for single precision, in which PettingZoo takes actions and observations."""
    out_and_in = PettingZoo(f"{small.HERE}.exported", {"name": "MaxOfTwoQuadratics"})
    from inference_marl.games import MaxOfTwoQuadratics

    found = []
    for played in (MaxOfTwoQuadratics(), out_and_in):
        assert played.action_spaces == out_and_in.action_spaces
        experiment = Experiment(played, {"a": Stationary()}, replicates=2, environments=3, steps=8)
        folder = run(experiment, tmp_path / type(played).__name__)
        found.append((dataset(folder, "actions.nc")["actions"], dataset(folder, "metrics.nc")["reward"]))
    assert found[0][0].equals(found[1][0])
    xr.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-6)
