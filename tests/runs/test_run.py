"""Runs: what a folder holds, what makes two runs the same, and what is left of one that was cut off."""

import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from torch import Tensor

from inference_marl.config.files import dump, load, load_any, override
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, StochasticGame
from inference_marl.guides import CategoricalNetwork, Empirical, OpponentFirst, Optimal, Tabular, TanhNormalNetwork
from inference_marl.inference.returns import expected_return, nash_conv
from inference_marl.learners import Rommeo, Stationary
from inference_marl.models import (
    Amortised,
    BernoulliOptimality,
    DirichletMultinomial,
    EmpiricalFrequency,
    NetworkCritic,
    TabularCritic,
    Uniform,
)
from inference_marl.runs.arm import Arm, _Worker
from inference_marl.runs.recorder import _one_shot
from inference_marl.runs.results import write_atomically
from inference_marl.runs.run import ArmError, Experiment, RunError, begin, begun, complete, resume, start_or_go_on
from inference_marl.runs.suite import Suite
from inference_marl.spaces import Discrete
from inference_marl.types import Game, Learner, Posterior, State, Transition

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ("metrics.nc", "posterior.nc")


def rommeo_q(**changes: Any) -> Rommeo:
    arguments: dict[str, Any] = {
        "opponent_prior": EmpiricalFrequency(window=5),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(),
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
    arms = {"a": rommeo_q(), "b": [rommeo_q(opponent_prior=Uniform()), Stationary([1, 2, 3])]}
    return Experiment(MatrixGame("climbing"), **{"arms": arms, "replicates": 3, "steps": 6} | settings)


def run(experiment: Experiment, out: Path, name: str = "test") -> Path:
    return experiment.run(out, name, progress=False)


def dataset(folder: Path, name: str) -> xr.Dataset:
    with xr.open_dataset(folder / name, engine="h5netcdf") as opened:
        return opened.load()


def results(folder: Path) -> tuple[xr.Dataset, xr.Dataset, Any]:
    """All results but the time taken and the folder's name."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"], summary["experiment"]
    read = [dataset(folder, name) for name in RESULTS]
    for each in read:
        each.attrs.pop("experiment", None)
    return read[0], read[1], summary


def assert_same(one: Path, other: Path) -> None:
    """Bitwise, NaN where NaN."""
    mine, theirs = results(one), results(other)
    xr.testing.assert_identical(mine[0], theirs[0])
    xr.testing.assert_identical(mine[1], theirs[1])
    assert mine[2] == theirs[2]


def without_partial_files(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if ".partial" in path.name]


# --------------------------------------------------------------------------------------------------- what a run leaves


def test_a_run_is_a_folder_with_everything_in_it(tmp_path: Path) -> None:
    experiment = climbing()
    folder = run(experiment, tmp_path / "new" / "runs")
    assert folder == tmp_path / "new" / "runs" / "test"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {"spec.yaml", *RESULTS, "summary.json", "checkpoints/a.pt", "checkpoints/b.pt"}
    assert load(folder / "spec.yaml").describe() == experiment.describe()


def test_metrics_have_named_dimensions(tmp_path: Path) -> None:
    metrics = dataset(run(climbing(), tmp_path), "metrics.nc")
    assert dict(metrics.sizes) == {"learner": 2, "replicate": 3, "step": 6, "agent": 2}
    assert metrics["learner"].values.tolist() == ["a", "b"]
    assert metrics["step"].values.tolist() == [1, 2, 3, 4, 5, 6]
    for name in ("reward", "elbo", "elbo_reward", "elbo_entropy", "elbo_kl"):
        assert metrics[name].dims == ("learner", "replicate", "step", "agent"), name
    for name in ("joint_optimum_probability", "success", "nash_conv"):
        assert metrics[name].dims == ("learner", "replicate", "step"), name
    parts = metrics["elbo_reward"] + metrics["elbo_entropy"] - metrics["elbo_kl"]
    np.testing.assert_allclose(metrics["elbo"], parts, rtol=1e-4, atol=1e-4)
    assert metrics["elbo"].sel(learner="a").notnull().all()
    assert metrics["elbo"].sel(learner="b", agent=0).notnull().all()
    assert metrics["elbo"].sel(learner="b", agent=1).isnull().all()  # a scripted player has none


def test_beliefs_have_named_dimensions(tmp_path: Path) -> None:
    posterior = dataset(run(climbing(), tmp_path), "posterior.nc")
    assert posterior["policy"].dims == ("learner", "replicate", "step", "agent", "state", "action")
    for name in ("opponent_model", "opponent_prior", "opponent_policy"):
        assert posterior[name].dims == ("learner", "replicate", "step", "agent", "state", "opponent_action")
        known = posterior[name].dropna("agent", how="all")
        np.testing.assert_allclose(known.sum("opponent_action", skipna=False).sel(learner="a"), 1, rtol=1e-5)
    assert posterior["opponent_action"].values.tolist() == ["A", "B", "C"]
    assert posterior["opponent_model"].sel(learner="b", agent=1).isnull().all()
    # What the opponent of one agent does is what the other agent does.
    np.testing.assert_array_equal(posterior["opponent_policy"].sel(agent=0), posterior["policy"].sel(agent=1))
    assert posterior["optimal_opponent_action"].sel(agent=0).values.tolist() == [1, 0, 0]


def test_beliefs_of_continuous_actions_are_draws(tmp_path: Path) -> None:
    experiment = Experiment(MaxOfTwoQuadratics(), {"a": rommeo_ac()}, replicates=2, steps=4, draws=5)
    folder = run(experiment, tmp_path)
    posterior = dataset(folder, "posterior.nc")
    assert posterior["policy"].dims == ("learner", "replicate", "step", "agent", "state", "draw", "action_dim")
    assert posterior["opponent_model"].dims[-2:] == ("draw", "opponent_dim")
    assert posterior.sizes["draw"] == 5
    assert ((posterior["policy"] >= -10) & (posterior["policy"] <= 10)).all()
    surface = dataset(folder, "surface.nc")["payoff"]
    assert surface.dims == ("agent", "action_0", "action_1")
    assert surface.sel(action_0=5, action_1=5, method="nearest").values == pytest.approx([10, 10])


def test_the_summary_holds_intervals(tmp_path: Path) -> None:
    summary = json.loads((run(climbing(replicates=8), tmp_path) / "summary.json").read_text())
    assert {"experiment", "game", "replicates", "steps", "seconds", "results"} <= set(summary)
    rows = summary["results"]
    assert {"reward", "joint_optimum_probability", "success_rate", "elbo"} <= {row["metric"] for row in rows}
    assert {row["learner"] for row in rows} == {"a", "b"}
    for row in rows:
        assert {"learner", "metric", "step", "mean", "low", "high", "replicates"} <= set(row)
        if row["metric"] in ("reward", "joint_optimum_probability", "success_rate", "elbo"):
            assert row["low"] <= row["mean"] <= row["high"], row
            assert row["replicates"] == 8


def test_metrics_by_hand(tmp_path: Path) -> None:
    """Scripted players: always (A, A), and always (B, B), of the climbing game."""
    always = {name: Stationary(row) for name, row in [("best", [1, 0, 0]), ("second", [0, 1, 0])]}
    metrics = dataset(run(climbing(arms=always), tmp_path), "metrics.nc")
    for name, reward, optimum in [("best", 11, 1), ("second", 7, 0)]:
        ours = metrics.sel(learner=name)
        assert (ours["reward"] == reward).all()
        assert (ours["joint_optimum_probability"] == optimum).all()
        assert (ours["success"] == optimum).all()


def test_worth_of_a_one_shot_game_by_hand(tmp_path: Path) -> None:
    """Agent 0 plays (A, B) half and half, agent 1 (B, C): of the climbing game's rows, A pays -15 and B 6.5."""
    arms = {"a": [Stationary([1, 1, 0]), Stationary([0, 1, 1])]}
    metrics = dataset(run(climbing(arms=arms), tmp_path), "metrics.nc").sel(learner="a")
    assert metrics["return"].dims == ("replicate", "step", "agent")
    assert metrics["nash_conv"].dims == ("replicate", "step")
    np.testing.assert_allclose(metrics["return"], (-15 + 6.5) / 2, rtol=1e-6)
    # Best replies: B, which pays 6.5, to (B, C); C, which pays (0 + 6) / 2, to (A, B).
    np.testing.assert_allclose(metrics["nash_conv"], (6.5 + 4.25) + (3 + 4.25), rtol=1e-6)


def test_worth_of_a_game_that_ends_at_once_is_that_of_any_game() -> None:
    """Three agents with different numbers of actions."""
    rules = MatrixGame(torch.randn(3, 2, 3, 4).tolist(), common=False).dynamics()
    policies = [torch.rand(5, 1, actions).softmax(-1) for actions in (2, 3, 4)]
    returns, gains = _one_shot(rules.reward, policies)
    torch.testing.assert_close(returns, expected_return(rules, policies, None))
    torch.testing.assert_close(gains, nash_conv(rules, policies, None))


def test_worth_of_a_game_that_ends_at_once_in_any_of_its_states(tmp_path: Path) -> None:
    # Paid are both action 0 in the first state, and, twice as much, both action 1 in the second, thrice as likely.
    rewards = [[[1.0, 0], [0, 0]], [[0, 0], [0, 2.0]]]
    game = StochasticGame([0.25, 0.75], torch.zeros(2, 2, 2, 2).tolist(), rewards)
    experiment = Experiment(game, {"a": Stationary([1, 1])}, replicates=2, steps=2)
    metrics = dataset(run(experiment, tmp_path), "metrics.nc")
    np.testing.assert_allclose(metrics["return"], (0.25 + 0.75 * 2) / 4, rtol=1e-6)
    np.testing.assert_allclose(metrics["nash_conv"], 2 * (0.25 + 0.75 * 2) / 4, rtol=1e-6)


def test_worth_of_a_game_of_one_state_that_may_end(tmp_path: Path) -> None:
    """Each step pays 1/4 + 1/4 of 3 on average and is the last one half of the times: (1 - gamma) / (1 - gamma / 2)."""
    game = StochasticGame([1.0], torch.full((1, 2, 2, 1), 0.5).tolist(), [[[1.0, 0], [0, 3.0]]], discount=0.8)
    metrics = dataset(run(Experiment(game, {"a": Stationary([1, 1])}, replicates=2, steps=2), tmp_path), "metrics.nc")
    np.testing.assert_allclose(metrics["return"], 1.0 * 0.2 / 0.6, rtol=1e-6)
    np.testing.assert_allclose(metrics["nash_conv"], 2 * (1.5 - 1.0) * 0.2 / 0.6, rtol=1e-6)  # the second action's 3/2


def test_worth_of_a_repeated_game_by_hand(tmp_path: Path) -> None:
    """Two who always cooperate earn -1 a step; each could defect for ever, the first step included, for 0."""
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.9)
    arms = {"kind": Stationary([1, 0]), "fair": Stationary([1, 1])}
    folder = run(Experiment(game, arms, replicates=2, steps=4, record_every=2), tmp_path)
    metrics = dataset(folder, "metrics.nc")
    ours, theirs = metrics.sel(learner="kind"), metrics.sel(learner="fair")
    assert (ours["return"] == -1).all()
    np.testing.assert_allclose(ours["nash_conv"], 2, rtol=1e-6)
    np.testing.assert_allclose(theirs["return"], -1.5, rtol=1e-6)
    np.testing.assert_allclose(theirs["nash_conv"], 2 * 0.5, rtol=1e-6)  # defecting pays -1 against one half
    assert metrics["tit_for_tat"].dims == ("learner", "replicate", "step")
    np.testing.assert_allclose(ours["tit_for_tat"], 2 / 5, rtol=1e-6)  # at the start and after both cooperated
    assert (theirs["near_uniform"] == 1).all()
    summary = json.loads((folder / "summary.json").read_text())
    last = {(row["learner"], row["metric"]): row["mean"] for row in summary["results"] if row["step"] == 4}
    assert last["fair", "near_uniform"] == 1
    assert last["kind", "return_deviation"] == 0
    agents = {(row["learner"], row["metric"], row["agent"]): row["mean"] for row in summary["agents"]}
    assert agents["kind", "return", 1] == -1
    assert agents["kind", "reward", 0] == -1


@pytest.mark.parametrize(
    "game",
    [
        MatrixGame("prisoners_dilemma", horizon=None, memory=1),  # no discount, no end
        MatrixGame(torch.zeros(12, 12).tolist(), horizon=None, memory=1, discount=0.9),  # 145 states
    ],
)
def test_no_worth_where_it_is_not_defined_or_states_are_too_many(game: MatrixGame, tmp_path: Path) -> None:
    players = Stationary([1.0] * game.action_spaces[0].features)
    metrics = dataset(run(Experiment(game, {"a": players}, steps=2), tmp_path), "metrics.nc")
    assert not {"return", "nash_conv"} & set(metrics)
    assert ("tit_for_tat" in metrics) == (game.discount is None)  # shares of states need no discount


def test_success_is_judged_by_reward_over_a_window(tmp_path: Path) -> None:
    class _Fixed(Stationary):
        def act(self, obs: Tensor, explore: bool = True) -> Tensor:
            self.played = getattr(self, "played", -1) + 1
            return torch.full((*obs.shape[:2], 1), 5.0 if self.played % 3 else -5.0)

    experiment = Experiment(MaxOfTwoQuadratics(), {"a": _Fixed()}, steps=9, record_every=3, success_window=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "check", lambda self: None)
        metrics = dataset(run(experiment, tmp_path), "metrics.nc")
    assert metrics["reward"].squeeze().values == pytest.approx(np.full((3, 2), 20 / 3))
    assert metrics["success"].values.tolist() == [[[0, 0, 0]]]
    assert metrics.attrs["success_window"] == 2
    assert metrics.attrs["success_reward"] == 9


def test_runs_of_one_name_stand_side_by_side(tmp_path: Path) -> None:
    names = [run(climbing(steps=1), tmp_path).name for _ in range(3)]
    assert names == ["test", "test-2", "test-3"]


# ----------------------------------------------------------------------------------------------------- reproducibility


def test_the_same_seed_gives_the_same_result_and_another_does_not(tmp_path: Path) -> None:
    first = run(climbing(), tmp_path)
    torch.manual_seed(99)  # what was drawn before does not matter
    assert_same(first, run(climbing(), tmp_path))
    other = run(climbing(seed=1), tmp_path)
    for name in RESULTS:
        assert not dataset(first, name).equals(dataset(other, name))


def test_arms_do_not_depend_on_each_other(tmp_path: Path) -> None:
    arms = climbing().arms
    both = results(run(climbing(), tmp_path))
    swapped = results(run(climbing(arms=dict(reversed(arms.items()))), tmp_path))
    for name in arms:
        alone = results(run(climbing(arms={name: arms[name]}), tmp_path))
        for which in (0, 1):
            mine = both[which].sel(learner=name)
            for theirs in (alone[which], swapped[which]):
                xr.testing.assert_identical(mine, theirs.sel(learner=name))


def test_equal_arms_have_equal_results(tmp_path: Path) -> None:
    metrics, posterior, _ = results(run(climbing(arms={"a": rommeo_q(), "b": rommeo_q()}), tmp_path))
    for data in (metrics, posterior):
        xr.testing.assert_identical(data.sel(learner="a", drop=True), data.sel(learner="b", drop=True))


def test_arms_that_differ_in_one_part_start_alike_in_the_others() -> None:
    """Parts that draw more, less or nothing do not shift what the parts after them draw."""

    def network(width: int) -> CategoricalNetwork:
        return CategoricalNetwork([width])

    changes: dict[str, dict[str, Any]] = {
        "base": {},
        "drawless_prior": {"opponent_prior": Uniform()},
        "drawless_guide": {"guide": OpponentFirst(Empirical(), Optimal())},
        "small": {"opponent_prior": Uniform(), "guide": OpponentFirst(network(3), network(3))},
        "large": {"opponent_prior": Amortised(network(7)), "guide": OpponentFirst(network(7), network(3))},
    }
    experiment = climbing(arms={name: rommeo_q(**change) for name, change in changes.items()})
    made: dict[str, list[dict[str, Tensor]]] = {
        name: [learner.state_dict() for learner in Arm.start(experiment, name).learners] for name in changes
    }
    for name, seats in made.items():
        for mine, base in zip(seats, made["base"], strict=True):
            assert torch.equal(mine["critic.values"], base["critic.values"]), name
        assert not torch.equal(seats[0]["critic.values"], seats[1]["critic.values"]), "seats draw their own"
    small, large = made["small"][0], made["large"][0]
    policies = [key for key in small if key.startswith("guide.policy.")]
    assert policies
    assert all(torch.equal(small[key], large[key]) for key in policies)
    weights = [key for key in large if key.startswith("opponent_prior.conditional.") and large[key].any()]
    assert weights
    for key in weights:
        twin = key.replace("opponent_prior.conditional", "guide.opponent_model")
        assert not torch.equal(large[key], large[twin]), "parts of one class draw their own"


def test_arms_play_on_from_the_same_random_numbers() -> None:
    """Whatever was drawn for its parts, what an arm draws first in play is what every other draws."""
    experiment = climbing(arms={"a": rommeo_q(), "b": rommeo_q(opponent_prior=Uniform()), "c": Stationary()})
    first = []
    for name in experiment.arms:
        Arm.start(experiment, name)
        first.append(torch.rand(5))
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])


def test_running_leaves_the_description_as_it_was(tmp_path: Path) -> None:
    experiment = climbing()
    assert_same(run(experiment, tmp_path), run(experiment, tmp_path))
    assert not list(rommeo_q().critic.buffers())
    assert not hasattr(experiment.arms["a"], "seat")


# ------------------------------------------------------------------------------------------------------ what is played


def test_record_every_averages_what_lies_between(tmp_path: Path) -> None:
    every = dataset(run(climbing(steps=7), tmp_path), "metrics.nc")
    third = dataset(run(climbing(steps=7, record_every=3), tmp_path), "metrics.nc")
    assert third["step"].values.tolist() == [3, 6]
    means = every["reward"].isel(step=slice(6)).coarsen(step=3).mean()
    np.testing.assert_allclose(third["reward"], means, rtol=1e-5)
    # Recording draws no random numbers for discrete actions, so beliefs are the same where both have them.
    np.testing.assert_array_equal(third["elbo"], every["elbo"].sel(step=[3, 6]))


def test_environments_are_played_side_by_side(tmp_path: Path) -> None:
    experiment = climbing(environments=64, replicates=2, steps=2, arms={"a": Stationary([1, 1, 1])})
    metrics = dataset(run(experiment, tmp_path), "metrics.nc")
    rewards = metrics["reward"].values.ravel()
    assert len(set(np.round(rewards, 4))) > 2
    # A mean of 64 of the nine payoffs, of standard deviation 14: within 5 standard errors of their mean.
    assert np.abs(rewards + 31 / 9).max() < 5 * 14 / 8
    experiment = climbing(
        environments=4, arms={"a": rommeo_q(), "b": rommeo_q(guide=OpponentFirst(Empirical(), Optimal()))}
    )
    assert dict(dataset(run(experiment, tmp_path), "metrics.nc").sizes)["replicate"] == 3


def test_three_agents_of_different_sizes(tmp_path: Path) -> None:
    payoff = torch.arange(2 * 3 * 2, dtype=torch.float32).reshape(2, 3, 2).tolist()
    experiment = Experiment(
        MatrixGame(payoff, common=True),
        {"a": rommeo_q(), "b": [rommeo_q(), Stationary(), Stationary([1, 0])]},
        replicates=2,
        steps=3,
    )
    posterior = dataset(run(experiment, tmp_path), "posterior.nc")
    assert posterior.sizes["agent"] == 3
    assert posterior.sizes["action"] == 3
    assert posterior.sizes["opponent_action"] == 6
    policy, model = posterior["policy"].sel(learner="a"), posterior["opponent_model"].sel(learner="a")
    for agent, own, others in [(0, 2, 6), (1, 3, 4), (2, 2, 6)]:
        for value, size in [(policy.sel(agent=agent), own), (model.sel(agent=agent), others)]:
            known = value.isel({value.dims[-1]: slice(size)})
            np.testing.assert_allclose(known.sum(value.dims[-1], skipna=False), 1, rtol=1e-5)
            assert value.isel({value.dims[-1]: slice(size, None)}).isnull().all()
    joint = posterior["opponent_policy"].sel(learner="b", agent=0).isel(state=0).values
    np.testing.assert_allclose(joint, np.broadcast_to([1 / 3, 0, 1 / 3, 0, 1 / 3, 0], joint.shape), atol=1e-6)


def test_a_game_with_memory_is_played_in_episodes(tmp_path: Path) -> None:
    """Beliefs are recorded in every state, and agents that copy each other show that episodes start afresh."""
    learners = {"a": rommeo_q(opponent_prior=DirichletMultinomial(), temperature=0.5)}
    experiment = Experiment(MatrixGame("prisoners_dilemma", horizon=4, memory=1), learners, replicates=2, steps=10)
    folder = run(experiment, tmp_path)
    posterior, metrics = dataset(folder, "posterior.nc"), dataset(folder, "metrics.nc")
    assert posterior.sizes["state"] == 5
    assert "joint_optimum_probability" not in metrics
    assert metrics.attrs["steps_per_episode"] == 4
    # Nothing is learned of the state after the first step but in the state it was taken in.
    first = posterior["opponent_prior"].isel(step=0, learner=0, agent=0)
    np.testing.assert_allclose(first.isel(state=slice(1, None)), 0.5)
    assert (first.isel(state=0) != 0.5).all()


class _Clock(Game):
    """The state is the time since the start; environment `e` terminates after `e + 2` steps, the limit is 4."""

    horizon = 4

    def __init__(self) -> None:
        self.observations, self.action_spaces = (Discrete(9),) * 2, (Discrete(2),) * 2

    def reset(self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype) -> State:
        return {
            "time": torch.zeros(replicates, environments, dtype=torch.int64),
            "deep": torch.zeros(replicates, environments, 2),
        }

    def observe(self, state: State) -> tuple[Tensor, ...]:
        return (state["time"], state["time"])

    def step(self, state: State, actions: Sequence[Tensor]) -> tuple[State, Tensor, Tensor]:
        later = state["time"] + 1
        terminated = later == torch.arange(later.shape[1]) + 2
        rewards = torch.stack([later, -later], -1).float()
        return {"time": later, "deep": state["deep"] + 1}, rewards, terminated


class _Witness(Stationary):
    """Keeps what it is shown, all copies together."""

    seen: list[Transition]

    def __init__(self) -> None:
        super().__init__()
        type(self).seen = []

    def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
        if self.seat.index == 0:
            self.seen.append(batch)


def test_episodes_end_at_termination_and_at_the_time_limit(tmp_path: Path) -> None:
    experiment = Experiment(_Clock(), {"a": _Witness()}, replicates=2, environments=5, steps=13)
    arm = Arm.start(experiment, "a")
    for _ in range(13):
        arm.advance()
    for environment in range(5):
        length = min(environment + 2, 4)
        seen = [batch.obs[0][:, environment].tolist() for batch in _Witness.seen]
        assert seen == [[step % length] * 2 for step in range(13)]
        # The transition itself is not cut: the last observation of an episode is what followed the action.
        after = [batch.next_obs[0][0, environment].item() for batch in _Witness.seen]
        assert after == [step % length + 1 for step in range(13)]
        # A time limit is not termination.
        over = [batch.terminated[0, environment].item() for batch in _Witness.seen]
        assert over == [environment + 2 <= 4 and step % length == length - 1 for step in range(13)]
    assert torch.equal(arm.state["deep"][..., 0], arm.state["time"].float())
    assert torch.equal(arm.clock, arm.state["time"])


def test_peers_are_as_they_were_before_the_step() -> None:
    """Nobody sees a peer that has already learned from this step, so seats are treated alike."""
    shown: list[list[float]] = []

    class _Counting(Stationary):
        reads_peers = True

        def setup(self) -> None:
            super().setup()
            self.register_buffer("count", torch.zeros(()))

        def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
            shown.append([float(peer.get_buffer("count")) for peer in peers])
            self.count += 1

    arm = Arm.start(Experiment(_Clock(), {"a": _Counting()}), "a")
    arm.advance()
    arm.advance()
    assert shown == [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]


def test_episodes_end_by_time_or_termination() -> None:
    ends: list[list[bool]] = []

    class _Watching(Stationary):
        def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
            assert not peers, "peers are copied only for those that read them"
            assert batch.ended is not None
            ends.append([bool(batch.ended.all()), bool(batch.terminated.all())])

    game = MatrixGame("prisoners_dilemma", horizon=3, memory=1)
    arm = Arm.start(Experiment(game, {"a": [_Watching(), Stationary()]}), "a")
    for _ in range(6):
        arm.advance()
    assert ends == [[step % 3 == 2, False] for step in range(6)]


class _Apart(Game):
    """Agents that observe different things, with different numbers of actions."""

    observations = (Discrete(4), Discrete(2), Discrete(3))
    action_spaces = (Discrete(2), Discrete(3), Discrete(2))

    def reset(self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype) -> State:
        return {"time": torch.zeros(replicates, environments, dtype=torch.int64)}

    def observe(self, state: State) -> tuple[torch.Tensor, ...]:
        return tuple(state["time"] % space.n for space in (Discrete(4), Discrete(2), Discrete(3)))

    def step(self, state: State, actions: Sequence[torch.Tensor]) -> tuple[State, torch.Tensor, torch.Tensor]:
        rewards = torch.stack([actions[0].float()] * 3, -1)
        return {"time": state["time"] + 1}, rewards, torch.zeros_like(state["time"], dtype=torch.bool)


def test_agents_that_observe_different_things(tmp_path: Path) -> None:
    """Beliefs are kept where the agents are, so that model and truth speak of the same moment."""
    learner = rommeo_q(opponent_prior=DirichletMultinomial())
    experiment = Experiment(_Apart(), {"a": learner}, replicates=2, steps=6, environments=5)
    posterior = dataset(run(experiment, tmp_path), "posterior.nc")
    assert posterior.sizes["state"] == 5
    truth = posterior["opponent_policy"].isel(learner=0, agent=0)  # of agents 1 and 2: 3 x 2 joint actions
    one, two = (posterior["policy"].isel(learner=0, agent=agent) for agent in (1, 2))
    expected = (one.rename(action="x") * two.isel(action=slice(2)).rename(action="y")).stack(joint=("x", "y"))
    np.testing.assert_allclose(truth.transpose(..., "opponent_action"), expected.transpose(..., "joint"), rtol=1e-5)
    assert posterior["opponent_action"].to_numpy().tolist() == list("012345")  # no letters mean the same for all


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_recorded_policy_is_the_one_that_is_played(tmp_path: Path, warmup: int) -> None:
    experiment = climbing(arms={"a": rommeo_q(warmup=warmup, temperature=0.01)}, steps=5, record_every=1)
    policy = dataset(run(experiment, tmp_path), "posterior.nc")["policy"].isel(learner=0)
    uniform = (abs(policy - 1 / 3) < 1e-6).all(["replicate", "agent", "state", "action"]).to_numpy().tolist()
    assert uniform == [step < warmup for step in range(1, 6)]


def test_tabular_and_network_learners_meet(tmp_path: Path) -> None:
    network = Rommeo(
        Amortised(CategoricalNetwork([4]), window=10, batch_size=4),
        OpponentFirst(CategoricalNetwork([4]), CategoricalNetwork([4])),
        NetworkCritic([4]),
        replay=10,
        batch_size=4,
    )
    fitted = rommeo_q(opponent_prior=DirichletMultinomial(), guide=OpponentFirst(Tabular(), Tabular()))
    experiment = climbing(arms={"mixed": [rommeo_q(), network], "svi": [fitted, Stationary()]}, dtype="float64")
    posterior = dataset(run(experiment, tmp_path), "posterior.nc")
    assert posterior["policy"].notnull().all()
    np.testing.assert_allclose(posterior["policy"].sum("action"), 1, rtol=1e-5)


def test_arms_without_beliefs_stand_beside_arms_with_them(tmp_path: Path) -> None:
    experiment = climbing(arms={"scripted": Stationary(), "modelling": rommeo_q()})
    posterior = dataset(run(experiment, tmp_path), "posterior.nc")
    assert posterior["opponent_model"].sel(learner="scripted").isnull().all()
    assert posterior["opponent_model"].sel(learner="modelling").notnull().all()
    folder = run(climbing(arms={"scripted": Stationary()}), tmp_path)
    assert "opponent_model" not in dataset(folder, "posterior.nc")


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_file_runs_a_few_steps(file: Path, tmp_path: Path) -> None:
    settings = {"replicates": 2, "steps": 2, "record_every": 1, "draws": 2}
    found = load_any(file, list(settings.items()))  # which plays a step of every arm of every run
    known: set[str] = set()
    for experiment in found.runs.values() if isinstance(found, Suite) else [found]:
        if known >= set(experiment.arms):  # the same arms on another game
            continue
        known |= set(experiment.arms)
        metrics = dataset(run(experiment, tmp_path, file.stem), "metrics.nc")
        assert metrics["learner"].values.tolist() == list(experiment.arms)
        assert np.isfinite(metrics["reward"]).all()
        elbo = metrics["elbo"] if "elbo" in metrics else metrics["reward"]
        assert not np.isinf(elbo).any()
        missing = elbo.isnull().mean(["replicate", "step", "agent"])
        assert set(missing.values.tolist()) <= ({0.0, 1.0} if isinstance(found, Suite) else {0.0}), "all or nothing"


def test_settings_out_of_range_are_refused() -> None:
    for name in ("replicates", "steps", "environments", "record_every", "draws", "success_window", "checkpoint_every"):
        with pytest.raises(ValueError, match=rf"^{name}: got 0, expected a positive integer"):
            climbing(**{name: 0})
    with pytest.raises(ValueError, match=r"^arms: got none, expected at least one"):
        climbing(arms={}).check()


# --------------------------------------------------------------------------------------- cut off, resumed, broken


class _CutError(BaseException):
    """Stands for a kill: no handler of the library may catch it."""


def cut_after(steps: int, monkeypatch: pytest.MonkeyPatch, experiment: Experiment, folder: Path) -> None:
    """Run until `steps` joint actions have been played, then stop dead."""
    advance, played = Arm.advance, [0]

    def counting(arm: Arm) -> None:
        if played[0] == steps:
            raise _CutError
        played[0] += 1
        advance(arm)

    folder.mkdir(exist_ok=True)
    (folder / "spec.yaml").write_text(dump(experiment))
    loaded = load(folder / "spec.yaml")  # which plays a step of every arm
    with monkeypatch.context() as patch:
        patch.setattr(Arm, "advance", counting)
        with pytest.raises(_CutError):
            complete(loaded, folder, progress=False)


RESUMABLE: dict[str, Callable[[], Experiment]] = {
    "rommeo_q": lambda: climbing(checkpoint_every=2),
    "svi": lambda: climbing(
        arms={"a": rommeo_q(opponent_prior=EmpiricalFrequency(3, 0.1), guide=OpponentFirst(Tabular(), Tabular()))},
        steps=12,
        checkpoint_every=3,
    ),
    "memory": lambda: Experiment(
        MatrixGame("stag_hunt", horizon=5, memory=1),
        {"a": rommeo_q(critic=TabularCritic(target_rate=0.3)), "b": Stationary()},
        replicates=2,
        environments=3,
        steps=8,
        record_every=2,
        checkpoint_every=3,
    ),
    "rommeo_ac": lambda: Experiment(
        MaxOfTwoQuadratics(horizon=4),
        {"a": rommeo_ac()},
        replicates=2,
        steps=12,
        record_every=2,
        draws=2,
        checkpoint_every=5,
    ),
}


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_run_cut_anywhere_and_resumed_is_the_unbroken_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(RESUMABLE[name](), tmp_path, "whole")
    for steps in (4, 11):
        folder = tmp_path / f"cut-{steps}"
        cut_after(steps, monkeypatch, RESUMABLE[name](), folder)
        assert not (folder / "summary.json").exists()
        assert resume(folder, progress=False) == folder
        assert_same(folder, whole)


def test_a_run_may_be_cut_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, whole = tmp_path / "cut", run(climbing(checkpoint_every=1), tmp_path, "whole")
    for _ in range(4):
        cut_after(2, monkeypatch, climbing(checkpoint_every=1), folder)
    resume(folder, progress=False)
    assert_same(folder, whole)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    folder = run(climbing(), tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert resume(folder, progress=False) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_results_missing_though_every_arm_is_done_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, folder = run(climbing(), tmp_path, "whole"), tmp_path / "cut"
    folder.mkdir()
    (folder / "spec.yaml").write_text(dump(climbing()))

    def no_room(*args: object, **options: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_netcdf", no_room)
        with pytest.raises(OSError, match="no space left"):
            complete(climbing(), folder, progress=False)
    assert {path.name for path in folder.iterdir()} == {"spec.yaml", "checkpoints"}
    resume(folder, progress=False)
    assert_same(folder, whole)


REFUSING = BernoulliOptimality(upper=5.0)
"""Refuses the reward of 11 as soon as it is seen."""


class _Leaving(Stationary):
    """Ends its process, unless that is the one the tests run in."""

    def update(self, batch: Transition, peers: Sequence[Learner]) -> None:
        if multiprocessing.parent_process() is not None:
            os._exit(3)


def test_a_failed_arm_does_not_lose_the_others_and_is_tried_again(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"replicates": 20, "checkpoint_every": 2}
    arms = {"bad": rommeo_q(optimality=REFUSING), "good": rommeo_q(), "worse": rommeo_q(optimality=REFUSING)}
    tries = [
        lambda: run(climbing(arms=arms, **settings), tmp_path),
        lambda: resume(tmp_path / "test", progress=False),
    ]
    for attempt in tries:
        with pytest.raises(ArmError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith("arms.bad, step ")
        assert message.endswith("; 1 more failed: worse")
        assert "\n" not in message
        assert caught.value.folder == tmp_path / "test"
        metrics, _, summary = results(tmp_path / "test")
        assert metrics["learner"].values.tolist() == ["good"]
        assert set(summary["failed"]) == {"bad", "worse"}
        assert summary["failed"]["bad"].startswith("arms.bad, step ")
        assert {row["learner"] for row in summary["results"]} == {"good"}
        kept = torch.load(tmp_path / "test" / "checkpoints" / "good.pt", weights_only=True)
        assert "recorder" in kept, "what a later table needs is not thrown away"
    # What made them fail is mended, and the arm that was done is not played again.
    spec = tmp_path / "test" / "spec.yaml"
    mended = yaml.safe_load(spec.read_text())
    for name in ("bad", "worse"):
        override(mended, f"arms.{name}.optimality.upper", 50.0)
        (tmp_path / "test" / "checkpoints" / f"{name}.pt").unlink(missing_ok=True)
    spec.write_text(yaml.safe_dump(mended, sort_keys=False))
    resume(tmp_path / "test", progress=False)
    assert_same(tmp_path / "test", run(load(spec), tmp_path, "whole"))
    assert json.loads((tmp_path / "test" / "summary.json").read_text())["failed"] == {}


def test_if_every_arm_fails_there_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(ArmError) as caught:
        run(climbing(arms={"bad": rommeo_q(optimality=REFUSING)}, replicates=20), tmp_path)
    assert caught.value.folder is None
    assert {path.name for path in (tmp_path / "test").iterdir()} <= {"spec.yaml", "checkpoints"}


class _Breaking(Stationary):
    """Fails as torch does: with a RuntimeError of several lines."""

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        if self.seat.replicates > 1:  # not in the check before the run
            raise RuntimeError("shapes cannot be multiplied\nshapes: 2 x 3")
        return super().act(obs, explore)


def test_arms_in_processes_end_as_they_do_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the other processes: one arm fails, and one takes its process with it."""
    monkeypatch.syspath_prepend(ROOT)  # where a process finds the classes of this file
    good = {"a": rommeo_q(), "b": rommeo_q(opponent_prior=Uniform())}
    arms = {"fails": rommeo_q(optimality=REFUSING), "leaves": _Leaving(), "breaks": _Breaking(), **good}
    with pytest.raises(ArmError) as caught:
        climbing(arms=arms, replicates=20).run(tmp_path, "processes", progress=False, jobs=2)
    assert str(caught.value).endswith("; 2 more failed: leaves, breaks")
    assert not multiprocessing.active_children()
    whole = run(climbing(arms=good, replicates=20), tmp_path, "turn")
    broken = tmp_path / "processes"
    for mine, theirs in zip(results(broken)[:2], results(whole)[:2], strict=True):
        xr.testing.assert_identical(mine, theirs)
    failed = json.loads((broken / "summary.json").read_text())["failed"]
    assert failed["leaves"].startswith("arms.leaves: got a process that ended by itself (exit status 3), expected one")
    assert failed["breaks"] == "arms.breaks, step 1: RuntimeError: shapes cannot be multiplied"


def test_whatever_a_part_raises_is_the_failure_of_its_arm_alone(tmp_path: Path) -> None:
    experiment = climbing(arms={"breaks": _Breaking(), "a": rommeo_q()}, steps=2)
    with pytest.raises(ArmError, match=r"^arms.breaks, step 1: RuntimeError: shapes cannot be multiplied$"):
        run(experiment, tmp_path)
    metrics, _, summary = results(tmp_path / "test")
    assert metrics["learner"].values.tolist() == ["a"]
    assert list(summary["failed"]) == ["breaks"]


@pytest.mark.parametrize(("status", "short"), [(-9, True), (1, False)])
def test_memory_is_suspected_only_where_a_process_was_ended_from_outside(status: int, short: bool) -> None:
    here, there = multiprocessing.Pipe()
    there.close()
    process: Any = SimpleNamespace(exitcode=status, join=lambda: None)
    heard = str(_Worker(process, here, "a").hear())
    assert heard.startswith(f"arms.a: got a process that ended by itself (exit status {status}), expected one")
    assert ("memory" in heard) == short
    here.close()


def test_an_interrupt_ends_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inference_marl.runs.arm.wait", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"test$"):
        climbing().run(tmp_path, "test", progress=False, jobs=2)
    assert not multiprocessing.active_children()


def test_an_interrupt_of_the_group_is_left_to_whoever_started_the_processes(tmp_path: Path) -> None:
    experiment = climbing()
    folder = begin(experiment, tmp_path, "test")
    worker = _Worker.start({folder: experiment})
    try:
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGINT)  # while it still imports
        worker.give(folder, next(iter(experiment.arms)))
        while isinstance(heard := worker.hear(), tuple):
            os.kill(worker.process.pid, signal.SIGINT)
        assert heard is None
    finally:
        worker.end()


def test_jobs_are_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^jobs: got 0, expected a positive integer"):
        climbing().run(tmp_path, jobs=0)
    assert not list(tmp_path.iterdir())


def test_the_same_experiment_goes_on_in_its_folder_and_another_gets_a_new_one(tmp_path: Path) -> None:
    def start(experiment: Experiment) -> tuple[str, bool]:
        folder, before = start_or_go_on(experiment, tmp_path, "test", progress=False)
        return folder.name, before

    (tmp_path / "test-of-another").mkdir()
    assert start(climbing(steps=2)) == ("test", False)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert start(climbing(steps=2)) == ("test", True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert start(climbing(steps=3)) == ("test-2", False)
    assert start(climbing(steps=2)) == ("test", True)
    assert run(climbing(steps=2), tmp_path).name == "test-3"
    assert start(climbing(steps=2)) == ("test-3", True)


def test_the_newest_folder_is_that_with_the_largest_number(tmp_path: Path) -> None:
    experiment = climbing(steps=2)
    for name in ("test", "test-2", "test-9", "test-10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.yaml").write_text(dump(experiment))
    assert begun(experiment, tmp_path, "test") == tmp_path / "test-10"
    assert begun(climbing(steps=3), tmp_path, "test") is None


def test_starting_again_after_a_cut_plays_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = {"kl_weight": [1.0, 0.5, 0.1]}
    experiment = climbing(arms={"a": rommeo_q()}, checkpoint_every=2).ablation(factors)
    whole = run(experiment, tmp_path, "whole")
    cut_after(9, monkeypatch, experiment, tmp_path / "test")  # in the middle of the second of three arms of 6 steps
    advance, played = Arm.advance, []

    def counting(arm: Arm) -> None:
        played.append((arm.name, arm.step + 1))
        advance(arm)

    monkeypatch.setattr(Arm, "advance", counting)
    assert start_or_go_on(experiment, tmp_path, "test", progress=False) == (tmp_path / "test", False)
    assert played == [("kl_weight_0p5", step) for step in range(3, 7)] + [
        ("kl_weight_0p1", step) for step in range(1, 7)
    ]
    assert_same(tmp_path / "test", whole)


def test_two_processes_do_not_work_on_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, folder = run(climbing(), tmp_path, "whole"), tmp_path / "cut"
    cut_after(3, monkeypatch, climbing(), folder)
    assert not (folder / ".lock").exists()
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            for content in (str(other.pid), ""):  # empty for a moment
                (folder / ".lock").write_text(content)
                with pytest.raises(RunError, match=r"cut: got a run that another process is at work on") as caught:
                    resume(folder, progress=False)
                assert str(folder / ".lock") in str(caught.value)
                assert (folder / ".lock").read_text() == content
        finally:
            other.kill()
    (folder / ".lock").write_text(str(other.pid))  # which is gone now
    resume(folder, progress=False)
    assert_same(folder, whole)
    assert not (folder / ".lock").exists()


def test_a_run_is_locked_while_it_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def advance(arm: Arm) -> None:
        if (tmp_path / "test").exists():
            seen.append((tmp_path / "test" / ".lock").read_text())
        played(arm)

    played = Arm.advance
    monkeypatch.setattr(Arm, "advance", advance)
    run(climbing(steps=2), tmp_path)
    assert set(seen) == {str(os.getpid())}
    assert not (tmp_path / "test" / ".lock").exists()


def test_a_finished_run_without_its_summary_is_not_played_again(tmp_path: Path) -> None:
    folder = run(climbing(), tmp_path)
    (folder / "summary.json").unlink()
    with pytest.raises(RunError, match=r"a\.pt: got the checkpoint of a finished run, whose records were moved to its"):
        resume(folder, progress=False)


def test_a_run_says_with_what_it_was_made(tmp_path: Path) -> None:
    found = results(run(climbing(steps=1), tmp_path))[2]["versions"]
    assert set(found) == {"python", "inference_marl", "torch", "pyro", "numpy"}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (found["torch"], found["numpy"]) == (torch.__version__, np.__version__)


def test_only_folders_of_runs_can_be_resumed(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError, match=r"got no spec\.yaml there, expected the folder of a run"):
            resume(folder)


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"

    def half(content: str) -> Callable[[Path], None]:
        def write(to: Path) -> None:
            to.write_text(content)
            raise OSError("no space left on device")

        return write

    with pytest.raises(OSError, match="no space"):
        write_atomically(path, half("ha"))
    assert list(path.parent.iterdir()) == []
    write_atomically(path, lambda to: to.write_text("whole"))
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, half("ha"))
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_never_seen_half_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def watched(to: Path) -> None:
        for content in ("n", "ne", "new"):
            to.write_text(content)
            assert path.read_text() == "old"

    with path.open() as held:
        write_atomically(path, watched)
        assert held.read() == "old"  # whoever reads at that moment reads on in the old file
    assert path.read_text() == "new"


def test_what_a_kill_left_beside_a_checkpoint_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, folder = run(climbing(checkpoint_every=2), tmp_path, "whole"), tmp_path / "cut"
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    (folder / "checkpoints" / ".a.pt.partial").write_bytes(b"half a che")
    (folder / ".metrics.nc.partial").write_bytes(b"half")
    resume(folder, progress=False)
    assert_same(folder, whole)
    assert without_partial_files(folder)


def damaged(checkpoint: Path, how: str) -> None:
    content = checkpoint.read_bytes()
    if how == "truncated":
        checkpoint.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        checkpoint.write_bytes(b"")
    elif how == "not a checkpoint":
        checkpoint.write_text("game: MatrixGame\n")
    elif how == "of something else":
        torch.save({"weights": torch.zeros(3)}, checkpoint)
    elif how == "of another size":
        saved = torch.load(checkpoint, weights_only=True)
        saved["learners"][0]["critic.values"] = saved["learners"][0]["critic.values"][:1]
        torch.save(saved, checkpoint)


@pytest.mark.parametrize("how", ["truncated", "empty", "not a checkpoint", "of something else", "of another size"])
def test_a_damaged_checkpoint_is_named_and_deleting_it_starts_the_arm_anew(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    checkpoint = folder / "checkpoints" / "a.pt"
    damaged(checkpoint, how)
    with pytest.raises(RunError) as caught:
        resume(folder, progress=False)
    message = str(caught.value)
    assert message.startswith(f"{checkpoint}: got a file that is not a checkpoint of this experiment (")
    assert message.endswith("delete it to start the arm anew")
    assert "\n" not in message
    if how == "empty":
        checkpoint.unlink()
        resume(folder, progress=False)
        assert_same(folder, run(climbing(), tmp_path, "whole"))


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_loading_a_checkpoint_executes_no_code(
    write: Callable[..., None], finished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = tmp_path / "cut", tmp_path / "mark"
    if finished:
        run(climbing(), tmp_path, "cut")
    else:
        cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    with (folder / "checkpoints" / "a.pt").open("wb") as file:
        write({"step": 2, "learners": _Payload(mark)}, file)
    with pytest.raises(RunError, match=r"a\.pt: got a file that is not a checkpoint"):
        resume(folder, progress=False)
    assert not mark.exists()


class _Poisoned(MatrixGame):
    """The climbing game, whose replicate 1 pays NaN from step `last` on."""

    def __init__(self, last: int) -> None:
        super().__init__("climbing", horizon=None)
        self.last = last

    def reset(self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype) -> State:
        state = super().reset(replicates, environments, device, dtype)
        return state | {"time": torch.zeros(replicates, environments, dtype=torch.int64)}

    def step(self, state: State, actions: Sequence[Tensor]) -> tuple[State, Tensor, Tensor]:
        later, rewards, terminated = super().step(state, actions)
        time_now = state["time"] + 1
        if int(time_now.max()) >= self.last and rewards.shape[0] > 1:
            rewards = rewards.clone()
            rewards[1] = torch.nan
        return later | {"time": time_now}, rewards, terminated


@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize(
    ("learner", "what"),
    [
        (rommeo_q, "critic"),
        (lambda: rommeo_q(critic=NetworkCritic([4]), replay=3, batch_size=64), "critic"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    learner: Callable[[], Rommeo], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(
        _Poisoned(last=6), {"a": [Stationary(), learner()]}, replicates=3, steps=10, checkpoint_every=2
    )
    folder = tmp_path / "poisoned"
    with pytest.raises(RunError) as caught:
        run(experiment, tmp_path, "poisoned")
    message = rf"arms.a, agent 1, step 6: {what}: the loss or its gradient is not finite in replicate 1."
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    checkpoint = folder / "checkpoints" / "a.pt"
    assert torch.load(checkpoint, weights_only=True)["step"] == 4
    kept = checkpoint.read_bytes()
    with pytest.raises(RunError, match="step 6"):
        complete(experiment, folder, progress=False)
    assert checkpoint.read_bytes() == kept
    # Loadable, and sound: without the poison the run goes on from it.
    healthy = Experiment(
        _Poisoned(last=99), {"a": [Stationary(), learner()]}, replicates=3, steps=10, checkpoint_every=2
    )
    complete(healthy, folder, progress=False)
    assert_same(folder, run(healthy, tmp_path, "healthy"))


def test_a_part_that_refuses_what_the_game_led_to_stops_the_run_in_one_line(tmp_path: Path) -> None:
    learner = rommeo_q(optimality=BernoulliOptimality(upper=5.0))
    with pytest.raises(RunError) as caught:
        run(climbing(arms={"a": learner}, record_every=6, replicates=20), tmp_path)
    assert str(caught.value).startswith("arms.a, step 6: optimality.upper: got 5.0, but Q reaches")
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(RunError, match=r"got no folder to write to \(Not a directory\), expected one for runs"):
            run(climbing(steps=1), out)


# ------------------------------------------------------------------------------------------------------ a real kill

KILLED = {
    "rommeo_q": """
game: {class_path: MatrixGame, init_args: {payoff: climbing, horizon: null, memory: 1}}
replicates: 4
steps: 450
record_every: 3
checkpoint_every: 20
arms:
  a:
    class_path: Rommeo
    init_args:
      opponent_prior: {class_path: EmpiricalFrequency, init_args: {window: 50}}
      guide: {class_path: OpponentFirst, init_args: {opponent_model: Optimal, policy: Optimal}}
      critic: {class_path: TabularCritic, init_args: {rate: 0.2}}
""",
    "rommeo_ac": """
game: {class_path: MaxOfTwoQuadratics, init_args: {horizon: 7}}
replicates: 2
steps: 80
record_every: 10
checkpoint_every: 4
draws: 4
arms:
  a:
    class_path: Rommeo
    init_args:
      opponent_prior:
        class_path: Amortised
        init_args: {conditional: {class_path: TanhNormalNetwork, init_args: {hidden: [8]}}, window: 30, batch_size: 8}
      guide:
        class_path: OpponentFirst
        init_args:
          opponent_model: {class_path: TanhNormalNetwork, init_args: {hidden: [8]}}
          policy: {class_path: TanhNormalNetwork, init_args: {hidden: [8]}}
      critic: {class_path: NetworkCritic, init_args: {hidden: [8]}}
      replay: 40
      batch_size: 8
      warmup: 10
""",
}


def kill_after_the_next_checkpoint(command: list[str], folder: Path, moment: float) -> None:
    """Start the command line, wait until it writes a checkpoint, and kill it `moment` seconds later."""
    checkpoint = folder / "checkpoints" / "a.pt"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "inference_marl.cli", *command, "--quiet"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moment)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed: make it longer"


@pytest.mark.parametrize(("name", "kills"), [("rommeo_q", 2), ("rommeo_ac", 1)])
def test_a_killed_process_resumes_to_the_unbroken_result(name: str, kills: int, tmp_path: Path) -> None:
    spec, folder = tmp_path / f"{name}.yaml", tmp_path / "runs" / name
    spec.write_text(KILLED[name])
    moments, reached = random.Random(name), 0
    for kill in range(kills):
        command = ["resume", str(folder)] if kill else ["run", str(spec), "--out", str(tmp_path / "runs")]
        kill_after_the_next_checkpoint(command, folder, moments.uniform(0, 0.15))
        assert not (folder / "summary.json").exists()
        before, reached = reached, torch.load(folder / "checkpoints" / "a.pt", weights_only=True)["step"]
        assert before < reached < yaml.safe_load(KILLED[name])["steps"]
    resume(folder, progress=False)
    assert_same(folder, run(load(spec), tmp_path / "unbroken", name))
    assert without_partial_files(folder)


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_ablation_leaves_no_process_and_goes_on_in_its_folder(tmp_path: Path) -> None:
    config = yaml.safe_load(KILLED["rommeo_q"])
    config |= {"steps": 150, "checkpoint_every": 10, "factors": {"kl_weight": [1.0, 0.1]}}
    spec, folder = tmp_path / "killed.yaml", tmp_path / "runs" / "killed"
    spec.write_text(yaml.safe_dump(config))
    command = ["ablate", str(spec), "--out", str(tmp_path / "runs"), "--jobs", "2", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "inference_marl.cli", *command],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/*.pt")):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    workers = children(process.pid)
    process.kill()
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.communicate()[1] == b""
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "summary.json").exists(), "the run ended before it could be killed: make it longer"
    experiment = load(spec)
    assert start_or_go_on(experiment, tmp_path / "runs", "killed", progress=False) == (folder, False)
    assert_same(folder, run(experiment, tmp_path, "whole"))
    assert without_partial_files(folder)


def test_dumped_specs_hold_what_overrides_said(tmp_path: Path) -> None:
    config = yaml.safe_load(KILLED["rommeo_q"])
    override(config, "arms.a.critic.rate", 0.5)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(config))
    experiment = load(tmp_path / "spec.yaml", [("steps", 3), ("replicates", 1)])
    folder = run(experiment, tmp_path / "runs")
    written = yaml.safe_load((folder / "spec.yaml").read_text())
    assert written["arms"]["a"]["init_args"]["critic"]["init_args"]["rate"] == 0.5
    assert (written["steps"], written["replicates"], written["seed"]) == (3, 1, 0)


def test_posteriors_are_not_asked_of_learners_that_have_none() -> None:
    assert Posterior(policy=torch.ones(1, 1, 2)).elbo is None
