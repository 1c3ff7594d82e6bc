"""What evaluations keep of beliefs, in the folder of a run: its dimensions, and the same after every interruption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from inference_marl.analysis.recorded import read
from inference_marl.config.check import check
from inference_marl.described import IncompatibleError, InspectError
from inference_marl.experiment import Experiment
from inference_marl.games import Guard, ShellTypes, Types, UniformTypes
from inference_marl.learners.latent import Pearl
from inference_marl.learners.scripts import Raiders
from inference_marl.play import Tasks, TrialEvaluation
from inference_marl.runs import checksums
from inference_marl.runs.run import resume
from inference_marl.statistics.latents import at_the_end, believing
from inference_marl.types import Game, Trajectory
from tests.learners.latent.matching import CONTEXTS, SMALL, Homebody, Matching, pearl
from tests.runs.small_runs import assert_same, complete, cut_after, dataset, run

FILES = ("latent_known.nc", "latent_new.nc")
KNOWN = {"step": [6, 12], "episodes": [0, 1], "ability": ["type 1"]}
NEW = {"step": [12], "episodes": [2], "ability": ["type 1"]}


def experiment(posteriors: bool = True, **changes: Any) -> Experiment:
    """Three arms, of which one believes nothing, watched after every trial, and in another way after two."""
    settings: dict[str, Any] = {"environments": 5, "posteriors": posteriors}
    known = TrialEvaluation(every=6, tasks=Tasks([0, 1], episodes=2, order="in_turn"), after=(0, 1), **settings)
    new = TrialEvaluation(every=12, tasks=Tasks([1], episodes=3), after=(2,), **settings)
    arms = {name: [pearl(name), Homebody()] for name in ("none", "factors", "recurrent", "told")}
    given: dict[str, Any] = {
        "replicates": 2,
        "environments": 2,
        "collect": 6,
        "record_every": 6,
        "beliefs_every": 0,
        "steps": 12,
        "tasks": Tasks([0, 1], episodes=2),
        "evaluation": {"known": known, "new": new},
        "checkpoint_every": 6,
    }
    return Experiment(**{"game": Matching(), "arms": arms} | given | changes)


def test_files_have_named_dimensions_and_every_record(tmp_path: Path) -> None:
    found = read(run(experiment(), tmp_path)).latents
    assert list(found) == ["known", "new"]
    known, new = found.values()
    sizes = {"learner": 4, "replicate": 2, "step": 2, "opponent": 5, "episodes": 2, "latent": 4, "ability": 1}
    assert dict(known.sizes) == sizes
    assert known["mean"].dims == ("learner", "replicate", "step", "opponent", "episodes", "latent")
    assert {name: known[name].to_numpy().tolist() for name in KNOWN} == KNOWN
    assert {name: new[name].to_numpy().tolist() for name in NEW} == NEW
    assert believing(known) == ["factors", "recurrent", "told"]
    each = {name: at_the_end(known, name) for name in believing(known)}
    shapes = {name: (here.sizes["latent"], "sd" in here) for name, here in each.items()}
    assert shapes == {"factors": (2, True), "recurrent": (4, False), "told": (1, False)}
    told = each["told"]
    assert told["type"][..., 0].to_numpy().tolist() == [[-1.0, 1, -1, 1, -1]] * 2
    assert (told["mean"][..., 0] == told["type"][..., 0]).all()
    assert (known["sd"].sel(learner="factors", episodes=0, latent=[0, 1]) == 1).all()
    first, last = (known["mean"].sel(learner="factors").isel(step=number).to_numpy() for number in (0, 1))
    assert not np.array_equal(first, last, equal_nan=True)


def test_abilities_have_the_games_names_and_places(tmp_path: Path) -> None:
    """Who is told has a coordinate for each, in the order of its names."""
    game = Guard({"all": UniformTypes(-0.7, 0.7, 5)}, horizon=2)
    tasks = Tasks(population="all", episodes=2, order="in_turn")
    evaluation = TrialEvaluation(every=4, environments=5, after=(0, 1), posteriors=True, tasks=tasks)
    arms = {"told": [Pearl(context=CONTEXTS["told"], **SMALL), Raiders()]}
    sizes: dict[str, Any] = {"replicates": 2, "environments": 2, "collect": 4, "steps": 4, "record_every": 4}
    made = Experiment(game, arms, tasks=tasks, evaluation=evaluation, beliefs_every=0, **sizes)
    found = read(run(made, tmp_path)).latents[""]
    assert found["ability"].to_numpy().tolist() == list(game.feature_names)
    here = at_the_end(found, "told").transpose("replicate", "opponent", "episodes", "latent", "ability")
    np.testing.assert_array_equal(here["mean"].isel(episodes=1), here["type"])
    assert len(np.unique(here["type"].to_numpy().reshape(10, -1), axis=0)) == 10


class Renamed(Guard):
    """Numbers of a type have other names."""

    def __init__(self, populations: Mapping[str, Types], horizon: int = 2) -> None:
        super().__init__(populations, horizon=horizon)
        self.feature_names = tuple(name.upper() for name in self.feature_names)


def test_in_another_game_types_and_names_are_those_of_that_game(tmp_path: Path) -> None:
    """Which has more opponents, so that some are none of the game that is learned."""
    game, other = Guard({"all": UniformTypes(-0.7, 0.7, 3)}, horizon=2), Renamed({"all": ShellTypes(0.8, 1.0, 5)})
    tasks = Tasks(population="all", episodes=2, order="in_turn")
    evaluation = TrialEvaluation(every=4, environments=5, after=(0, 1), posteriors=True, tasks=tasks, game=other)
    sizes: dict[str, Any] = {"replicates": 2, "environments": 2, "collect": 4, "steps": 4, "record_every": 4}
    arms = {"it": [pearl("factors"), Raiders()]}
    made = Experiment(game, arms, tasks=tasks, evaluation=evaluation, beliefs_every=0, **sizes)
    found = read(run(made, tmp_path)).latents[""]
    assert found["ability"].to_numpy().tolist() == [name.upper() for name in game.feature_names]
    types = other.hidden_type(torch.arange(5).expand(2, -1))
    np.testing.assert_allclose(at_the_end(found, "it")["type"], types, rtol=1e-6)


def test_after_an_interruption_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment(arms={"factors": [pearl("factors"), Homebody()]}, record_actions=False)
    whole = run(made, tmp_path, "whole")
    cut_after(1, monkeypatch, made, tmp_path / "test" / "whole")
    complete(made, tmp_path / "test" / "whole")
    for name in FILES:
        assert (tmp_path / "test" / "whole" / name).read_bytes() == (whole / name).read_bytes()
    listed = (whole / checksums.LIST).read_text()
    assert all(name in listed for name in FILES)


@pytest.mark.slow
def test_a_finished_run_that_goes_on_keeps_what_there_was(tmp_path: Path) -> None:
    arms: dict[str, Any] = {name: [pearl(name), Homebody()] for name in ("none", "factors")}
    whole = run(experiment(arms=arms, steps=24), tmp_path, "whole")
    folder = run(experiment(arms=arms), tmp_path, "short")
    before = dataset(folder, "latent_known.nc")
    resume(folder, progress=False, overrides=[("steps", 24)])
    for name in FILES:
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    xr.testing.assert_identical(dataset(folder, "latent_known.nc").isel(step=slice(2)), before)


def test_nothing_else_of_a_run_changes_by_it(tmp_path: Path) -> None:
    arms: dict[str, Any] = {"factors": [pearl("factors"), Homebody()]}
    settings: dict[str, Any] = {"arms": arms, "beliefs_every": 6}
    plain = run(experiment(posteriors=False, **settings), tmp_path / "plain", "test")
    folder = run(experiment(**settings), tmp_path / "kept", "test")
    assert_same(folder, plain)
    assert not [path for path in plain.iterdir() if path.name.startswith("latent")]
    assert read(plain).latents == {}


class Wide(TrialEvaluation):
    """It keeps what there is no room for."""

    def kept(self, game: Game, played: Trajectory) -> Mapping[str, Tensor]:
        return {**super().kept(game, played), "width": played.stacked.rewards[0]}


def test_what_would_not_be_written_is_refused_before_a_run() -> None:
    wide = Wide(every=6, tasks=Tasks([0, 1], episodes=2), after=(0, 1), posteriors=True)
    message = r"^arms\.none\.evaluation\.wide\.kept: got width, expected one of mean, sd, type; return other numbers"
    with pytest.raises(IncompatibleError, match=message):
        check(experiment(evaluation={"wide": wide}))


def test_damage_is_noticed(tmp_path: Path) -> None:
    folder = run(experiment(arms={"told": [pearl("told"), Homebody()]}), tmp_path)
    path = folder / FILES[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InspectError, match=r"latent_new\.nc: got another content"):
        assert read(folder).latents
