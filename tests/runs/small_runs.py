"""Small experiments, and the runs of them that tests compare."""

import json
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import Tensor

from inference_marl.config.files import dump
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal, TanhNormalNetwork
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import (
    Amortised,
    BernoulliOptimality,
    EmpiricalFrequency,
    NetworkCritic,
    TabularCritic,
    Uniform,
)
from inference_marl.runs import completion
from inference_marl.runs import run as verbs
from inference_marl.runs.arm import Arm
from inference_marl.types import Actor, Decision, Experience, Memory

ROOT = Path(__file__).resolve().parents[2]


RESULTS = ("metrics.nc", "posterior.nc", "actions.nc")


def rommeo_q(**changes: Any) -> Rommeo:
    arguments: dict[str, Any] = {
        "opponent_prior": EmpiricalFrequency(window=5),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(),
        "temperature": 1.0,
        "discount": 0.9,
    }
    return Rommeo(**arguments | changes)


def rommeo_ac(**changes: Any) -> Rommeo:
    def network() -> TanhNormalNetwork:
        return TanhNormalNetwork([4])

    arguments: dict[str, Any] = {
        "opponent_prior": Amortised(network(), window=12, batch_size=4),
        "guide": OpponentFirst(network(), network()),
        "critic": NetworkCritic([4], max_gradient_norm=10.0),
        "temperature": 0.5,
        "replay": 9,
        "batch_size": 4,
        "warmup": 3,
    }
    return Rommeo(**arguments | changes)


def climbing(**settings: Any) -> Experiment:
    """Two small arms on the climbing game."""
    arms = {"a": rommeo_q(), "b": [rommeo_q(opponent_prior=Uniform()), Stationary(probabilities=[1, 2, 3])]}
    defaults: dict[str, Any] = {"game": MatrixGame("climbing"), "arms": arms, "replicates": 3, "steps": 6}
    return Experiment(**defaults | settings)


def run(experiment: Experiment, out: Path, name: str = "test") -> Path:
    return verbs.run(experiment, out, name, progress=False)


def complete(experiment: Experiment, folder: Path) -> None:
    """Play what is missing of a run, given the experiment instead of its `spec.yaml`."""
    for error in completion.complete({folder: experiment}, progress=False).values():
        raise error


def dataset(folder: Path, name: str) -> xr.Dataset:
    return xr.load_dataset(folder / name, engine="h5netcdf")


def results(folder: Path) -> tuple[xr.Dataset, xr.Dataset, Any]:
    """Metrics, beliefs and summary, without the folder's name and how they were made."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["made"], summary["experiment"]
    metrics, posterior = dataset(folder, "metrics.nc"), dataset(folder, "posterior.nc")
    del metrics.attrs["experiment"]
    return metrics, posterior, summary


def assert_same(one: Path, other: Path) -> None:
    """Byte by byte; only number by number where the folders' names, which the metrics have, differ."""
    for name in RESULTS:
        if one.name == other.name or name != "metrics.nc":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    for mine, theirs in zip(results(one), results(other), strict=True):
        if isinstance(mine, xr.Dataset):
            xr.testing.assert_identical(mine, theirs)
        else:
            assert mine == theirs


def without_partial_files(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if ".partial" in path.name]


class CutError(BaseException):
    """Stands for a kill: no handler of the library may catch it."""


def cut_after(steps: int, monkeypatch: pytest.MonkeyPatch, experiment: Experiment, folder: Path) -> None:
    """Run until `steps` joint actions have been played, then stop dead."""
    advance, played = Arm.advance, [0]

    def counting(arm: Arm) -> None:
        if played[0] == steps:
            raise CutError
        played[0] += 1
        advance(arm)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(dump(experiment))
    with monkeypatch.context() as patch:
        patch.setattr(Arm, "advance", counting)
        with pytest.raises(CutError):
            complete(experiment, folder)


REFUSING = BernoulliOptimality(upper=5.0)
"""Refuses the reward of 11 as soon as it is seen."""


class Breaking(Stationary):
    """Fails as torch does: with a RuntimeError of several lines."""

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        if self.seat.replicates > 1:  # not in the check before the run
            raise RuntimeError("shapes cannot be multiplied\nshapes: 2 x 3")
        return super().act(obs, memory, explore, mask)


class Alternating(Actor):
    """Plays its actions in turn, most of the time: remembers how many steps it has made in this episode."""

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        return {"made": torch.zeros(replicates, environments, dtype=torch.int64)}

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        actions = self.seat.action.features
        turn = torch.nn.functional.one_hot(memory["made"] % actions, actions)
        return dist.Categorical(probs=(0.1 + turn).to(self.seat.dtype)), memory

    def remember(self, memory: Memory, step: Experience) -> Memory:
        return {"made": memory["made"] + 1}


class Drawing(Actor):
    """Plays uniformly, and does not say so: it can only draw."""

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[None, Memory]:
        return None, memory

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        return Decision(self.seat.action.uniform(self.seat.dtype, self.seat.device).sample(obs.shape[:2]), memory)
