"""A replicate whose numbers are not finite fails alone: it is named, its records are not numbers, the others go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference_marl.analysis.arviz import summary
from inference_marl.analysis.report.page import report
from inference_marl.analysis.report.text import inspect_run
from inference_marl.cli import main
from inference_marl.config.factors import ablation
from inference_marl.config.files import dump
from inference_marl.experiment import Experiment, Suite
from inference_marl.games import MatrixGame, Rendezvous, Spread
from inference_marl.guides import SamplerNetwork
from inference_marl.inference.action_gradients import ScoreFunction
from inference_marl.inference.stein import Stein
from inference_marl.learners import DdpgOm, Maddpg, Masql, Pr2Ac, Stationary
from inference_marl.learners.deterministic import InferredPolicies
from inference_marl.learners.lola import LolaDice
from inference_marl.learners.tabular import EpsilonGreedy, IndependentQ
from inference_marl.models import NetworkCritic
from inference_marl.play import Evaluation
from inference_marl.runs import run as verbs
from inference_marl.runs.arm import Arm
from inference_marl.runs.errors import ArmError
from inference_marl.runs.suite import failed_replicates
from inference_marl.types import Actor, Decision, Game, Memory, Observed, State, Step
from tests.runs.small_runs import assert_same, complete, cut_after, dataset, rommeo_ac, rommeo_q, run

STEPS, FROM, BAD = 8, 4, 1


class BrokenMatrix(MatrixGame):
    """Rewards of replicate `bad` are not numbers from a step on."""

    def __init__(self, bad: list[int] | None = None, discount: float | None = None) -> None:
        super().__init__("stag_hunt", horizon=None, memory=1, discount=discount)
        self.bad = [BAD] if bad is None else bad

    def reset(self, *shape: Any, **options: Any) -> State:
        state = super().reset(*shape, **options)
        return state | {"made": torch.zeros_like(state["obs"])}

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        return broken(super().step(state, actions), state, self.bad)


class BrokenRendezvous(Rendezvous):
    """Likewise, in boxes."""

    def __init__(self, bad: list[int] | None = None) -> None:
        super().__init__(horizon=None)
        self.bad = [BAD] if bad is None else bad

    def reset(self, *shape: Any, **options: Any) -> State:
        state = super().reset(*shape, **options)
        return state | {"made": torch.zeros(shape[:2], dtype=torch.int64)}

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        return broken(super().step(state, actions), state, self.bad)


class BrokenSpread(Spread):
    """Discrete actions, and observations that are not numbers, either."""

    def __init__(self, bad: list[int] | None = None) -> None:
        super().__init__(2, horizon=3)
        self.bad = [BAD] if bad is None else bad

    def reset(self, *shape: Any, **options: Any) -> State:
        state = super().reset(*shape, **options)
        return state | {"made": torch.zeros(shape[:2], dtype=torch.int64)}

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        made = state["made"] + 1
        step = broken(
            super().step({name: value for name, value in state.items() if name != "made"}, actions), state, self.bad
        )
        return step._replace(state=step.state | {"made": made})

    def observe(self, state: State) -> Observed:
        seen = super().observe({name: value for name, value in state.items() if name != "made"})
        if not self.bad or len(state["made"]) <= BAD or int(state["made"].max()) < FROM % 3:
            return seen
        obs = tuple(each.clone() for each in seen.obs)
        for each in obs:
            each[BAD] = torch.nan
        return seen._replace(obs=obs)


def broken(step: Step, state: State, bad: list[int]) -> Step:
    made, rewards = state["made"] + 1, step.rewards.clone()
    present = [replicate for replicate in bad if replicate < len(rewards)]
    if int(made.max()) >= FROM:
        rewards[present] = torch.nan
    return step._replace(state=step.state | {"made": made}, rewards=rewards)


SAMPLING: dict[str, Any] = {
    "sampler": SamplerNetwork((4,)),
    "critic": NetworkCritic((4,)),
    "stein": Stein(3, 3),
    "replay": 20,
    "batch_size": 4,
    "warmup": 1,
}
LEARNERS: dict[str, tuple[type[Game], Any]] = {
    "rommeo_q": (BrokenMatrix, rommeo_q()),
    "independent_q": (BrokenMatrix, IndependentQ(exploration=EpsilonGreedy(0.3))),
    "rommeo_ac": (BrokenRendezvous, rommeo_ac(warmup=1)),
    "maddpg": (BrokenRendezvous, Maddpg(hidden=(4,), replay=20, batch_size=4, warmup=1)),
    "ddpg_om": (BrokenRendezvous, DdpgOm(hidden=(4,), replay=20, batch_size=4, warmup=1, twin_critics=True)),
    "maddpg_inferred": (
        BrokenRendezvous,
        Maddpg(hidden=(4,), replay=20, batch_size=4, warmup=1, inferred=InferredPolicies(window=8, batch_size=4)),
    ),
    "maddpg_ensemble": (BrokenRendezvous, Maddpg(hidden=(4,), replay=20, batch_size=4, warmup=0, sub_policies=2)),
    "masql": (BrokenRendezvous, Masql(**SAMPLING)),
    "pr2_ac": (BrokenRendezvous, Pr2Ac(hidden=(4,), **SAMPLING)),
}


def experiment(make_game: Any, arm: Any, bad: list[int] | None = None, **settings: Any) -> Experiment:
    given: dict[str, Any] = {"replicates": 3, "environments": 2, "steps": STEPS, "draws": 2} | settings
    return Experiment(make_game(bad), {"a": arm}, **given)


@pytest.mark.parametrize(
    "name", [name if name == "rommeo_q" else pytest.param(name, marks=pytest.mark.slow) for name in LEARNERS]
)
def test_the_others_go_on_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    make_game, arm = LEARNERS[name]
    one = run(experiment(make_game, arm), tmp_path, "one")
    none = run(experiment(make_game, arm, bad=[]), tmp_path, "none")
    others = [replicate for replicate in range(3) if replicate != BAD]
    for file in ("metrics.nc", "posterior.nc"):
        mine, theirs = dataset(one, file), dataset(none, file)
        for variable in mine.data_vars:
            if "replicate" in mine[variable].dims:
                found, expected = (each[variable].isel(replicate=others).values for each in (mine, theirs))
                np.testing.assert_array_equal(found, expected, err_msg=str(variable))
    reward = dataset(one, "metrics.nc")["reward"].isel(replicate=BAD, learner=0)
    assert reward.sel(step=slice(0, FROM - 1)).notnull().all()
    assert reward.sel(step=slice(FROM, None)).isnull().all()
    assert json.loads((one / "summary.json").read_text())["failed_replicates"] == {
        "a": {str(BAD): f"step {FROM}: reward is not finite"}
    }
    assert "failed_replicates" not in json.loads((none / "summary.json").read_text())


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "score function": {"estimator": ScoreFunction()},
    "inferred": {"inferred": InferredPolicies(window=8, batch_size=4)},
    "ensemble": {"sub_policies": 2, "warmup": 0},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_observations_that_are_not_numbers_are_the_failure_of_their_replicate_alone(name: str) -> None:
    learner = Maddpg(**{"hidden": (4,), "replay": 20, "batch_size": 4, "warmup": 1} | VARIANTS[name])
    playing = []
    with pyro.validation_enabled(False):  # as in runs
        for bad in (None, []):
            playing.append(Arm.start(experiment(BrokenSpread, learner, bad), "a"))
            while playing[-1].step < STEPS:
                playing[-1].advance()
    assert list(playing[0].failures.why) == [BAD]
    mine, theirs = (dict(one.actors[0].named_parameters()) for one in playing)
    moved = False
    for key, value in mine.items():
        rows = value.unflatten(0, (3, -1))
        assert value.isfinite().all(), key
        assert torch.equal(rows[[0, 2]], theirs[key].unflatten(0, (3, -1))[[0, 2]]), key
        moved |= not torch.equal(rows[BAD], theirs[key].unflatten(0, (3, -1))[BAD])
    assert moved


@pytest.mark.parametrize(
    "name", ["rommeo_q", "rommeo_ac", "maddpg", "ddpg_om", "maddpg_inferred", "maddpg_ensemble", "masql", "pr2_ac"]
)
def test_what_is_learned_stays_finite(name: str) -> None:
    playing = Arm.start(experiment(*LEARNERS[name]), "a")
    while playing.step < STEPS:
        playing.advance()
    for actor in playing.actors:
        for key, value in actor.named_parameters():
            assert value.isfinite().all(), key


class NanPolicy(Actor):
    """Probabilities of replicate 1 are not numbers from a step on."""

    def setup(self) -> None:
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        probabilities = torch.full((*obs.shape[:2], self.seat.action.features), 0.5)
        if int(self.made) >= FROM and len(probabilities) > BAD:
            probabilities[BAD] = torch.nan
        return dist.Categorical(probs=probabilities), memory

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        self.made += 1
        return super().act(obs, memory, explore, mask)


def test_a_policy_that_is_not_a_number_is_named_with_its_agent(tmp_path: Path) -> None:
    folder = run(experiment(BrokenMatrix, [Stationary(), NanPolicy()], bad=[]), tmp_path)
    why = json.loads((folder / "summary.json").read_text())["failed_replicates"]["a"]
    assert why == {str(BAD): f"step {FROM}, agent 1: policy is not finite"}
    policy = dataset(folder, "posterior.nc")["policy"].isel(replicate=BAD)
    assert policy.sel(step=slice(FROM, None)).isnull().all()
    assert dataset(folder, "posterior.nc")["policy"].isel(replicate=0).notnull().all()


@pytest.mark.parametrize("collect", [1, 2])
def test_an_evaluation_does_not_stop_the_others(collect: int, tmp_path: Path) -> None:
    """Nor does it hide at which of the steps that are collected at once a replicate has failed."""
    watched: dict[str, Any] = {
        "evaluation": Evaluation(every=2, steps=2, environments=2, explore=True),
        "collect": collect,
    }
    policies = run(experiment(BrokenMatrix, [Stationary(), NanPolicy()], bad=[], **watched), tmp_path, "policy")
    found = dataset(policies, "metrics.nc")["evaluation_reward"].isel(step=-1, learner=0)
    assert found.isel(replicate=BAD).isnull().all()
    assert found.isel(replicate=[0, 2]).notnull().all()
    rewards = run(experiment(BrokenMatrix, rommeo_q(), **watched), tmp_path, "reward")
    why = json.loads((rewards / "summary.json").read_text())["failed_replicates"]
    assert why == {"a": {str(BAD): f"step {FROM}: reward is not finite"}}


def test_a_suite_speaks_of_the_runs_that_it_has(tmp_path: Path) -> None:
    """Not of those that it had under other settings."""
    broken, sound = (experiment(BrokenMatrix, Stationary(), bad) for bad in ([BAD], []))
    both = Suite({"broken": broken, "sound": sound})
    folder = verbs.run(both, tmp_path, "suite", progress=False)
    (line,) = failed_replicates(folder)
    assert line.startswith(f"{folder / 'broken'}: 1 of 3 replicates of a failed")
    mended = Suite({"broken": sound, "sound": sound})
    assert failed_replicates(verbs.run(mended, tmp_path, "suite", progress=False)) == []


def test_an_arm_of_which_all_have_failed_fails(tmp_path: Path) -> None:
    with pytest.raises(ArmError, match=rf"^arms.a, .*step {FROM}: reward is not finite in replicate 0, 1, 2"):
        run(experiment(BrokenMatrix, rommeo_q(), bad=[0, 1, 2]), tmp_path)


@pytest.mark.slow
def test_what_it_recorded_before_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(dump(Experiment(BrokenMatrix([0, 1, 2]), {"a": rommeo_q()}, replicates=3, steps=STEPS)))
    assert main(["run", str(spec), "--quiet", "--out", str(tmp_path)]) == 1
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "small")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"at step {FROM - 1}")
    assert lines[1] == "a failed, and is shown as far as it came"
    metrics = dataset(tmp_path / "small", "metrics.nc")
    assert metrics["reward"].sizes["step"] == FROM - 1
    assert metrics["reward"].notnull().all()


@pytest.mark.slow
def test_it_is_the_same_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = experiment(BrokenMatrix, rommeo_q(), checkpoint_every=1)
    expected = run(whole, tmp_path / "whole")
    for steps in (FROM - 1, FROM + 1):
        cut_after(steps, monkeypatch, whole, tmp_path / str(steps) / "test")
        complete(whole, tmp_path / str(steps) / "test")
        assert_same(tmp_path / str(steps) / "test", expected)


def test_arms_that_are_played_as_one_fail_by_themselves(tmp_path: Path) -> None:
    """Of two arms with three replicates each, replicate 4 of the six is the second's replicate 1."""
    both = ablation(experiment(BrokenMatrix, rommeo_q(), bad=[4]), {"temperature": [0.5, 1.0]})
    folder = run(both, tmp_path)
    first, second = both.arms
    assert json.loads((folder / "summary.json").read_text())["failed_replicates"] == {
        second: {"1": f"step {FROM}: reward is not finite"}
    }
    reward = dataset(folder, "metrics.nc")["reward"].isel(step=-1)
    assert reward.sel(learner=first).notnull().all()
    assert reward.sel(learner=second).isnull().all("agent").values.tolist() == [False, True, False]


@pytest.mark.slow
def test_the_command_says_so_first_and_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(dump(experiment(BrokenMatrix, rommeo_q())))
    assert main(["run", str(spec), "--out", str(tmp_path), "--quiet"]) == 3
    said = capsys.readouterr()
    line = f"1 of 3 replicates of a failed, the first: replicate {BAD}, step {FROM}: reward is not finite"
    assert said.out.splitlines()[1] == line
    assert "No estimate (-) where a replicate has failed" in " ".join(said.out.split())
    assert said.err == f"inference-marl: {tmp_path / 'spec'}: {line}\n"
    assert main(["inspect", str(tmp_path / "spec")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == line


def test_a_sum_that_overflows_is_no_failure() -> None:
    """Of finite numbers."""
    from inference_marl.inference.failures import Failures

    failures = Failures(2)
    failures.look("reward", torch.full((2, 40), 1e37))
    assert failures.why == {}


@pytest.mark.slow
def test_lola_by_rollouts(tmp_path: Path) -> None:
    game = BrokenMatrix(discount=0.9)
    folder = run(Experiment(game, {"a": LolaDice()}, replicates=3, steps=STEPS), tmp_path)
    assert list(json.loads((folder / "summary.json").read_text())["failed_replicates"]) == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rommeo_q", "rommeo_ac"])
def test_a_run_with_one_can_be_looked_at(name: str, tmp_path: Path) -> None:
    """Every table and figure, without a warning; beliefs are those of who has not failed."""
    folder = run(experiment(*LEARNERS[name], steps=10), tmp_path)
    said: list[str] = []
    inspect_run(folder, full=True, print=said.append)
    text = "\n".join(said)
    assert "nan" not in text
    assert report([folder]).is_file()
    kept = run(experiment(*LEARNERS[name], bad=[], steps=10), tmp_path, "kept")
    found, expected = summary(folder), summary(kept)
    assert found.index.equals(expected.index)
    assert found["mean"].notnull().all()
