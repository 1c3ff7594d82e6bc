"""What a run leaves: the files of its folder, and the metrics and beliefs in them."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from inference_marl.config.files import load
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, Spread, StochasticGame
from inference_marl.inference.returns import expected_return, nash_conv
from inference_marl.learners import Stationary
from inference_marl.models import (
    DirichletMultinomial,
)
from inference_marl.runs import netcdf
from inference_marl.runs.measures import _one_shot
from inference_marl.spaces import Discrete
from inference_marl.types import Decision, Game, Memory, Metric, Observed, State, Step
from tests.runs.small_runs import (
    RESULTS,
    Alternating,
    Drawing,
    climbing,
    dataset,
    results,
    rommeo_ac,
    rommeo_q,
    run,
)


def test_a_run_is_a_folder_with_everything_in_it(tmp_path: Path) -> None:
    experiment = climbing()
    folder = run(experiment, tmp_path / "new" / "runs")
    assert folder == tmp_path / "new" / "runs" / "test"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == {
        "SHA256SUMS",
        "spec.yaml",
        *RESULTS,
        "solution.nc",
        "summary.json",
        "checkpoints/a.pt",
        "checkpoints/b.pt",
    }
    assert load(folder / "spec.yaml").describe() == experiment.describe()


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(climbing(), id="discrete"),
        pytest.param(
            Experiment(MaxOfTwoQuadratics(), {"ac": rommeo_ac()}, 2, 6), id="continuous", marks=pytest.mark.slow
        ),
    ],
)
def test_what_does_not_fit_into_memory_is_written_and_summarised_likewise(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = results(run(experiment, tmp_path, "whole"))
    monkeypatch.setattr(netcdf, "IN_MEMORY", 0)
    monkeypatch.setattr(netcdf, "BLOCK", 100)
    for one, other in zip(whole, results(run(experiment, tmp_path, "in_blocks")), strict=True):
        assert one.identical(other) if isinstance(one, xr.Dataset) else one == other


def test_metrics_have_named_dimensions(whole: Path) -> None:
    metrics = dataset(whole, "metrics.nc")
    assert dict(metrics.sizes) == {"learner": 2, "replicate": 3, "step": 6, "agent": 2}
    assert metrics["learner"].values.tolist() == ["a", "b"]
    assert metrics["step"].values.tolist() == [1, 2, 3, 4, 5, 6]
    for name in ("reward", "elbo", "elbo_reward", "elbo_entropy", "elbo_kl"):
        assert metrics[name].dims == ("learner", "replicate", "step", "agent"), name
    for name in ("joint_optimum_probability", "success_rate", "nash_conv"):
        assert metrics[name].dims == ("learner", "replicate", "step"), name
    parts = metrics["elbo_reward"] + metrics["elbo_entropy"] - metrics["elbo_kl"]
    np.testing.assert_allclose(metrics["elbo"], parts, rtol=1e-4, atol=1e-4)
    assert metrics["elbo"].sel(learner="a").notnull().all()
    assert metrics["elbo"].sel(learner="b", agent=0).notnull().all()
    assert metrics["elbo"].sel(learner="b", agent=1).isnull().all()  # a scripted player has none


def test_metrics_carry_their_declarations(whole: Path) -> None:
    metrics = dataset(whole, "metrics.nc")
    for name, values in metrics.items():
        assert Metric.from_attributes(values.attrs) == climbing().metrics[str(name)]
        assert set(Metric.from_attributes(values.attrs).dims) == set(values.dims) - {"learner", "replicate", "step"}


def test_beliefs_have_named_dimensions(whole: Path) -> None:
    posterior = dataset(whole, "posterior.nc")
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
    assert {"experiment", "game", "replicates", "steps", "made", "results"} <= set(summary)
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
    always = {name: Stationary(probabilities=row) for name, row in [("best", [1, 0, 0]), ("second", [0, 1, 0])]}
    metrics = dataset(run(climbing(arms=always), tmp_path), "metrics.nc")
    for name, reward, optimum in [("best", 11, 1), ("second", 7, 0)]:
        ours = metrics.sel(learner=name)
        assert (ours["reward"] == reward).all()
        assert (ours["joint_optimum_probability"] == optimum).all()
        assert (ours["success_rate"] == optimum).all()


def test_worth_of_a_one_shot_game_by_hand(tmp_path: Path) -> None:
    """Agent 0 plays (A, B) half and half, agent 1 (B, C): of the climbing game's rows, A pays -15 and B 6.5."""
    arms = {"a": [Stationary(probabilities=[1, 1, 0]), Stationary(probabilities=[0, 1, 1])]}
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
    experiment = Experiment(game, {"a": Stationary(probabilities=[1, 1])}, replicates=2, steps=2)
    metrics = dataset(run(experiment, tmp_path), "metrics.nc")
    np.testing.assert_allclose(metrics["return"], (0.25 + 0.75 * 2) / 4, rtol=1e-6)
    np.testing.assert_allclose(metrics["nash_conv"], 2 * (0.25 + 0.75 * 2) / 4, rtol=1e-6)


def test_worth_of_a_game_of_one_state_that_may_end(tmp_path: Path) -> None:
    """Each step pays 1/4 + 1/4 of 3 on average and is the last one half of the times: (1 - gamma) / (1 - gamma / 2)."""
    game = StochasticGame([1.0], torch.full((1, 2, 2, 1), 0.5).tolist(), [[[1.0, 0], [0, 3.0]]], discount=0.8)
    metrics = dataset(
        run(Experiment(game, {"a": Stationary(probabilities=[1, 1])}, replicates=2, steps=2), tmp_path), "metrics.nc"
    )
    np.testing.assert_allclose(metrics["return"], 1.0 * 0.2 / 0.6, rtol=1e-6)
    np.testing.assert_allclose(metrics["nash_conv"], 2 * (1.5 - 1.0) * 0.2 / 0.6, rtol=1e-6)  # the second action's 3/2


def test_worth_of_a_repeated_game_by_hand(tmp_path: Path) -> None:
    """Two who always cooperate earn -1 a step; each could defect for ever, the first step included, for 0."""
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1, discount=0.9)
    arms = {"kind": Stationary(probabilities=[1, 0]), "fair": Stationary(probabilities=[1, 1])}
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
    players = Stationary(probabilities=[1.0] * game.action_spaces[0].features)
    metrics = dataset(run(Experiment(game, {"a": players}, steps=2), tmp_path), "metrics.nc")
    assert not {"return", "nash_conv"} & set(metrics)
    assert ("tit_for_tat" in metrics) == (game.discount is None)  # shares of states need no discount


def test_success_is_judged_by_reward_over_a_window(tmp_path: Path) -> None:
    class _Fixed(Stationary):
        def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
            self.played = getattr(self, "played", -1) + 1
            return Decision(torch.full((*obs.shape[:2], 1), 5.0 if self.played % 3 else -5.0), memory)

    experiment = Experiment(MaxOfTwoQuadratics(), {"a": _Fixed()}, steps=9, record_every=3, success_window=2)
    metrics = dataset(run(experiment, tmp_path), "metrics.nc")
    assert metrics["reward"].squeeze().values == pytest.approx(np.full((3, 2), 20 / 3))
    assert metrics["success_rate"].values.tolist() == [[[0, 0, 0]]]
    assert metrics.attrs["success_window"] == 2
    assert metrics.attrs["success_reward"] == 9


def test_record_every_averages_what_lies_between(whole: Path, tmp_path: Path) -> None:
    every = dataset(whole, "metrics.nc")
    third = dataset(run(climbing(steps=7, record_every=3), tmp_path), "metrics.nc")
    assert third["step"].values.tolist() == [3, 6]
    means = every["reward"].isel(step=slice(6)).coarsen(step=3).mean()
    np.testing.assert_allclose(third["reward"], means, rtol=1e-5)
    # Recording draws no random numbers for discrete actions, so beliefs are the same where both have them.
    np.testing.assert_array_equal(third["elbo"], every["elbo"].sel(step=[3, 6]))


def test_three_agents_of_different_sizes(tmp_path: Path) -> None:
    payoff = torch.arange(2 * 3 * 2, dtype=torch.float32).reshape(2, 3, 2).tolist()
    experiment = Experiment(
        MatrixGame(payoff, common=True),
        {"a": rommeo_q(), "b": [rommeo_q(), Stationary(), Stationary(probabilities=[1, 0])]},
        replicates=2,
        steps=3,
    )
    posterior = dataset(run(experiment, tmp_path), "posterior.nc")
    assert posterior.sizes["agent"] == 3
    assert posterior.sizes["action"] == 3
    assert posterior["opponent_action"].to_numpy().tolist() == ["A", "B", "C"]
    assert posterior["joint_opponent_action"].to_numpy().tolist() == list("012345")  # no letters mean the same for all
    policy, model = posterior["policy"].sel(learner="a"), posterior["opponent_model"].sel(learner="a")
    joint = posterior["joint_opponent_model"].sel(learner="a")
    sizes = {0: 2, 1: 3, 2: 2}
    for agent, own in sizes.items():
        others = [other for other in sizes if other != agent]
        values = [(policy.sel(agent=agent), own), (joint.sel(agent=agent), 12 // own)]
        values += [(model.sel(agent=agent, other=other), sizes[other]) for other in others]
        for value, size in values:
            known = value.isel({value.dims[-1]: slice(size)})
            np.testing.assert_allclose(known.sum(value.dims[-1], skipna=False), 1, rtol=1e-5)
            assert value.isel({value.dims[-1]: slice(size, None)}).isnull().all()
        table = joint.sel(agent=agent).isel(joint_opponent_action=slice(12 // own)).to_numpy()
        table = table.reshape(*table.shape[:-1], *(sizes[other] for other in others))
        for place, other in enumerate(others):
            one = model.sel(agent=agent, other=other).isel(opponent_action=slice(sizes[other]))
            np.testing.assert_allclose(one, table.sum(-1 - place), rtol=1e-5)
        assert model.sel(agent=agent, other=agent).isnull().all()
    truth = posterior["opponent_policy"].sel(learner="b", agent=0).isel(state=0)
    np.testing.assert_allclose(truth.sel(other=1), np.full((2, 3, 3), 1 / 3), atol=1e-6)
    np.testing.assert_allclose(truth.sel(other=2)[..., :2], np.broadcast_to([1, 0], (2, 3, 2)), atol=1e-6)


class _Apart(Game):
    """Agents that observe different things, with different numbers of actions."""

    observations = (Discrete(4), Discrete(2), Discrete(3))
    action_spaces = (Discrete(2), Discrete(3), Discrete(2))

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        return {"time": torch.zeros(replicates, environments, dtype=torch.int64)}

    def observe(self, state: State) -> Observed:
        return Observed(tuple(state["time"] % space.n for space in (Discrete(4), Discrete(2), Discrete(3))))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        rewards = torch.stack([actions[0].float()] * 3, -1)
        return Step({"time": state["time"] + 1}, rewards, torch.zeros_like(state["time"], dtype=torch.bool))


def test_agents_that_observe_different_things(tmp_path: Path) -> None:
    """Beliefs are kept where the agents are, so that model and truth speak of the same moment."""
    learner = rommeo_q(opponent_prior=DirichletMultinomial())
    experiment = Experiment(_Apart(), {"a": learner}, replicates=2, steps=6, environments=5)
    posterior = dataset(run(experiment, tmp_path), "posterior.nc")
    assert posterior.sizes["state"] == 5
    truth = posterior["opponent_policy"].isel(learner=0, agent=0)
    for other in (1, 2):
        policy = posterior["policy"].isel(learner=0, agent=other)
        np.testing.assert_array_equal(truth.sel(other=other).to_numpy(), policy.to_numpy())


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_recorded_policy_is_the_one_that_is_played(tmp_path: Path, warmup: int) -> None:
    experiment = climbing(arms={"a": rommeo_q(warmup=warmup, temperature=0.01)}, steps=5, record_every=1)
    policy = dataset(run(experiment, tmp_path), "posterior.nc")["policy"].isel(learner=0)
    uniform = (abs(policy - 1 / 3) < 1e-6).all(["replicate", "agent", "state", "action"]).to_numpy().tolist()
    assert uniform == [step < warmup for step in range(1, 6)]


def test_arms_without_beliefs_stand_beside_arms_with_them(tmp_path: Path) -> None:
    experiment = climbing(arms={"scripted": Stationary(), "modelling": rommeo_q()})
    posterior = dataset(run(experiment, tmp_path), "posterior.nc")
    assert posterior["opponent_model"].sel(learner="scripted").isnull().all()
    assert posterior["opponent_model"].sel(learner="modelling").notnull().all()
    folder = run(climbing(arms={"scripted": Stationary()}), tmp_path)
    assert "opponent_model" not in dataset(folder, "posterior.nc")


@pytest.mark.slow
def test_actors_with_a_memory_are_recorded_where_they_are(tmp_path: Path) -> None:
    """Four environments beside the five states in which the other arm is recorded; episodes of three steps."""
    game = MatrixGame("prisoners_dilemma", horizon=3, memory=1, discount=0.9)
    arms = {"turns": [Alternating(), rommeo_q(opponent_prior=DirichletMultinomial())], "plain": Stationary()}
    folder = run(Experiment(game, arms, replicates=2, environments=4, steps=7), tmp_path)
    posterior, metrics = dataset(folder, "posterior.nc"), dataset(folder, "metrics.nc")
    assert posterior.sizes["state"] == 5
    assert "state" not in posterior.coords, "these are not states in both"
    assert posterior.attrs["state_counts"] == "states or environments"
    here = posterior.sel(learner="turns").isel(state=slice(4))
    for step in range(1, 8):
        row = (0.1 + np.eye(2)[step % 3 % 2]) / 1.2
        np.testing.assert_allclose(here["policy"].sel(agent=0, step=step), np.broadcast_to(row, (2, 4, 2)), rtol=1e-6)
    np.testing.assert_array_equal(here["opponent_policy"].sel(agent=1), here["policy"].sel(agent=0))
    assert here["opponent_model"].sel(agent=1).notnull().all()
    assert posterior["policy"].sel(learner="turns").isel(state=4).isnull().all()
    assert posterior["policy"].sel(learner="plain").notnull().all()
    assert metrics["return"].sel(learner="turns").isnull().all(), "it is no function of the state"
    assert metrics["return"].sel(learner="plain").notnull().all()
    plain = dataset(run(Experiment(game, {"plain": Stationary()}), tmp_path), "posterior.nc")
    assert "state" in plain.coords
    assert plain.attrs["state_counts"] == "states"
    spread = dataset(run(Experiment(Spread(2), {"plain": Stationary()}, environments=3), tmp_path), "posterior.nc")
    assert (spread.attrs["state_counts"], spread.sizes["state"]) == ("environments", 3)


@pytest.mark.parametrize("game", [MatrixGame("climbing"), MaxOfTwoQuadratics()], ids=["discrete", "continuous"])
def test_actors_that_can_only_draw_have_no_policy_to_record(game: Game, tmp_path: Path) -> None:
    experiment = Experiment(game, {"one": [Drawing(), Stationary()], "both": Drawing(), "none": Stationary()}, steps=3)
    folder = run(experiment, tmp_path)
    posterior, metrics = dataset(folder, "posterior.nc"), dataset(folder, "metrics.nc")
    for name, missing in [("policy", 0), ("opponent_policy", 1)]:
        known = posterior[name].notnull().all([dim for dim in posterior[name].dims if dim not in ("learner", "agent")])
        assert known.sel(learner="one").values.tolist() == [agent != missing for agent in (0, 1)]
        assert known.sel(learner="both").values.tolist() == [False, False]
        assert known.sel(learner="none").values.tolist() == [True, True]
    assert metrics["reward"].notnull().all()
    found = metrics["joint_optimum_probability"].notnull().all(["replicate", "step"])
    assert found.values.tolist() == [False, False, True]
    if isinstance(game, MatrixGame):
        assert metrics["success_rate"].notnull().all(["replicate", "step"]).values.tolist() == [False, False, True]
    silent = run(experiment.replace(arms={"both": Drawing()}), tmp_path)
    assert dataset(silent, "posterior.nc")["policy"].isnull().all()


def test_a_run_says_with_what_it_was_made(whole: Path) -> None:
    made = json.loads((whole / "summary.json").read_text())["made"]
    assert set(made) == {"seconds", "device", "finished", "versions"}
    found = made["versions"]
    assert set(found) == {"python", "inference_marl", "torch", "pyro", "numpy"}
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (found["torch"], found["numpy"]) == (torch.__version__, np.__version__)
