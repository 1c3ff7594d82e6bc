"""What is played: seeds, episodes, environments, and what stops an arm."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import Tensor

from inference_marl.config.check import check
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, RiskyBridge
from inference_marl.guides import CategoricalNetwork, Empirical, ExactTrajectory, OpponentFirst, Optimal, Tabular
from inference_marl.learners import Planner, Rommeo, Stationary
from inference_marl.models import (
    Amortised,
    BernoulliOptimality,
    DirichletMultinomial,
    DirichletTransition,
    NetworkCritic,
    Uniform,
)
from inference_marl.runs.arm import Arm
from inference_marl.runs.errors import ArmError, RunError
from inference_marl.runs.execution import execute
from inference_marl.runs.job import Job
from inference_marl.spaces import Discrete
from inference_marl.types import Actor, Decision, Game, Learner, Memory, Observed, State, Step, Trajectory, Transition
from tests.runs.small_runs import (
    RESULTS,
    Breaking,
    assert_same,
    climbing,
    complete,
    cut_after,
    dataset,
    results,
    rommeo_ac,
    rommeo_q,
    run,
)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_result_and_another_does_not(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # what was drawn before does not matter
    assert_same(whole, run(climbing(), tmp_path))
    other = run(climbing(seed=1), tmp_path)
    for name in RESULTS:
        assert not dataset(whole, name).equals(dataset(other, name))


@pytest.mark.slow
def test_arms_do_not_depend_on_each_other(whole: Path, tmp_path: Path) -> None:
    arms = climbing().arms
    both = results(whole)
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
        name: [actor.state_dict() for actor in Arm.start(experiment, name).actors] for name in changes
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


class _Plain(Actor):
    """A user's own, which knows nothing of where Pyro keeps parameters."""

    def setup(self) -> None:
        self.strategy = Tabular().bind(self.seat, self.seat.action, [self.seat.observation])

    def policy(
        self, obs: Tensor, memory: Memory, mask: Tensor | None = None
    ) -> tuple[dist.TorchDistribution | None, Memory]:
        return self.strategy(obs).expand(obs.shape[:2]), memory


@pytest.mark.pyro_store
@pytest.mark.parametrize("name", ["plain", "planner", "rommeo_ac"])
def test_a_run_leaves_nothing_in_pyros_store(name: str, tmp_path: Path) -> None:
    def network() -> CategoricalNetwork:
        return CategoricalNetwork([4])

    planner = Planner(
        opponent_prior=Amortised(network(), window=4, batch_size=2),
        reward=NetworkCritic([4]),
        guide=ExactTrajectory(),
        transition=DirichletTransition(),
        horizon=2,
    )
    bridge, quadratics = RiskyBridge(), MaxOfTwoQuadratics()
    games = {"plain": (bridge, _Plain()), "planner": (bridge, planner), "rommeo_ac": (quadratics, rommeo_ac())}
    game, arm = games[name]
    run(Experiment(game, {"a": arm}, replicates=2, steps=5, draws=2), tmp_path)
    assert list(pyro.get_param_store()) == []


def test_environments_are_played_side_by_side(tmp_path: Path) -> None:
    experiment = climbing(environments=64, replicates=2, steps=2, arms={"a": Stationary(probabilities=[1, 1, 1])})
    metrics = dataset(run(experiment, tmp_path), "metrics.nc")
    rewards = metrics["reward"].values.ravel()
    assert len(set(np.round(rewards, 4))) > 2
    # A mean of 64 of the nine payoffs, of standard deviation 14: within 5 standard errors of their mean.
    assert np.abs(rewards + 31 / 9).max() < 5 * 14 / 8
    experiment = climbing(
        environments=4, arms={"a": rommeo_q(), "b": rommeo_q(guide=OpponentFirst(Empirical(), Optimal()))}
    )
    assert dict(dataset(run(experiment, tmp_path), "metrics.nc").sizes)["replicate"] == 3


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

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        return {
            "time": torch.zeros(replicates, environments, dtype=torch.int64),
            "deep": torch.zeros(replicates, environments, 2),
        }

    def observe(self, state: State) -> Observed:
        return Observed((state["time"], state["time"]))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        later = state["time"] + 1
        terminated = later == torch.arange(later.shape[1]) + 2
        rewards = torch.stack([later, -later], -1).float()
        return Step({"time": later, "deep": state["deep"] + 1}, rewards, terminated)


class _Witness(Stationary, Learner):
    """Keeps what it is shown, all copies together."""

    seen: list[Transition]

    def __init__(self) -> None:
        super().__init__()
        type(self).seen = []

    def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
        if self.seat.index == 0:
            self.seen.extend(newest.steps)
        return {}


def test_episodes_end_at_termination_and_at_the_time_limit(tmp_path: Path) -> None:
    experiment = Experiment(_Clock(), {"a": _Witness()}, replicates=2, environments=5, steps=13)
    arm = Arm.start(experiment, "a")
    for _ in range(13):
        arm.advance()
    for environment in range(5):
        length = min(environment + 2, 4)
        seen = [made.obs[0][:, environment].tolist() for made in _Witness.seen]
        assert seen == [[step % length] * 2 for step in range(13)]
        # The transition itself is not cut: the last observation of an episode is what followed the action.
        after = [made.next_obs[0][0, environment].item() for made in _Witness.seen]
        assert after == [step % length + 1 for step in range(13)]
        # A time limit is not termination.
        over = [made.terminated[0, environment].item() for made in _Witness.seen]
        assert over == [environment + 2 <= 4 and step % length == length - 1 for step in range(13)]
    arm.collector.observe()  # begins the episodes that are due
    game = arm.collector.simulator.state_dict()
    assert torch.equal(game["state"]["deep"][..., 0], game["state"]["time"].float())
    assert torch.equal(game["clock"], game["state"]["time"])


def test_peers_are_as_they_were_before_the_step() -> None:
    """Nobody sees a peer that has already learned from this step, so seats are treated alike."""
    shown: list[list[float]] = []

    class _Counting(Stationary, Learner):
        reads_peers = True

        def setup(self) -> None:
            super().setup()
            self.register_buffer("count", torch.zeros(()))

        def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
            shown.append([float(peer.get_buffer("count")) for peer in peers])
            self.count += 1
            return {}

    arm = Arm.start(Experiment(_Clock(), {"a": _Counting()}), "a")
    arm.advance()
    arm.advance()
    assert shown == [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]


def test_episodes_end_by_time_or_termination() -> None:
    ends: list[list[bool]] = []

    class _Watching(Stationary, Learner):
        def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
            assert not peers, "peers are copied only for those that read them"
            ends.extend([bool(step.ended.all()), bool(step.terminated.all())] for step in newest.steps)
            return {}

    game = MatrixGame("prisoners_dilemma", horizon=3, memory=1)
    arm = Arm.start(Experiment(game, {"a": [_Watching(), Stationary()]}), "a")
    for _ in range(6):
        arm.advance()
    assert ends == [[step % 3 == 2, False] for step in range(6)]


def test_tabular_and_network_learners_meet(tmp_path: Path) -> None:
    network = Rommeo(
        opponent_prior=Amortised(CategoricalNetwork([4]), window=10, batch_size=4),
        guide=OpponentFirst(CategoricalNetwork([4]), CategoricalNetwork([4])),
        critic=NetworkCritic([4]),
        replay=10,
        batch_size=4,
    )
    fitted = rommeo_q(opponent_prior=DirichletMultinomial(), guide=OpponentFirst(Tabular(), Tabular()))
    experiment = climbing(arms={"mixed": [rommeo_q(), network], "svi": [fitted, Stationary()]}, dtype="float64")
    posterior = dataset(run(experiment, tmp_path), "posterior.nc")
    assert posterior["policy"].notnull().all()
    np.testing.assert_allclose(posterior["policy"].sum("action"), 1, rtol=1e-5)


def test_settings_out_of_range_are_refused() -> None:
    for name in ("replicates", "steps", "environments", "record_every", "draws", "success_window", "checkpoint_every"):
        with pytest.raises(ValueError, match=rf"^{name}: got 0, expected a positive integer"):
            climbing(**{name: 0})
    with pytest.raises(ValueError, match=r"^arms: got none, expected at least one"):
        check(climbing(arms={}))


def test_whatever_a_part_raises_is_the_failure_of_its_arm_alone(tmp_path: Path) -> None:
    experiment = climbing(arms={"breaks": Breaking(), "a": rommeo_q()}, steps=2)
    with pytest.raises(ArmError, match=r"^arms.breaks, step 1: RuntimeError: shapes cannot be multiplied$"):
        run(experiment, tmp_path)
    metrics, _, summary = results(tmp_path / "test")
    assert metrics["learner"].values.tolist() == ["a"]
    assert list(summary["failed"]) == ["breaks"]


class _Poisoned(MatrixGame):
    """The climbing game, which pays NaN from step `last` on, in every replicate."""

    def __init__(self, last: int) -> None:
        super().__init__("climbing", horizon=None)
        self.last = last

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        state = super().reset(replicates, environments, device, dtype, task)
        return state | {"time": torch.zeros(replicates, environments, dtype=torch.int64)}

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        step = super().step(state, actions)
        time_now = state["time"] + 1
        rewards = step.rewards
        if int(time_now.max()) >= self.last and rewards.shape[0] > 1:
            rewards = torch.full_like(rewards, torch.nan)
        return step._replace(state=step.state | {"time": time_now}, rewards=rewards)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize(
    "learner",
    [
        rommeo_q,
        pytest.param(lambda: rommeo_q(critic=NetworkCritic([4]), replay=3, batch_size=64), marks=pytest.mark.slow),
    ],
)
def test_numbers_that_are_nowhere_finite_stop_the_run_and_keep_the_last_good_checkpoint(
    learner: Callable[[], Rommeo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(
        _Poisoned(last=6), {"a": [Stationary(), learner()]}, replicates=3, steps=10, checkpoint_every=2
    )
    folder = tmp_path / "poisoned"
    with pytest.raises(RunError) as caught:
        run(experiment, tmp_path, "poisoned")
    message = "arms.a, step 6: reward is not finite in replicate 0, 1, 2."
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    checkpoint = folder / "checkpoints" / "a.pt"
    assert torch.load(checkpoint, weights_only=True)["step"] == 4
    kept = checkpoint.read_bytes()
    with pytest.raises(RunError, match="step 6"):
        complete(experiment, folder)
    assert checkpoint.read_bytes() == kept
    # Loadable, and sound: without the poison the run goes on from it.
    monkeypatch.setattr(experiment.game, "last", 99)
    complete(experiment, folder)
    assert_same(folder, run(experiment, tmp_path, "healthy"))


def test_a_part_that_refuses_what_the_game_led_to_stops_the_run_in_one_line(tmp_path: Path) -> None:
    learner = rommeo_q(optimality=BernoulliOptimality(upper=5.0))
    with pytest.raises(RunError) as caught:
        run(climbing(arms={"a": learner}, record_every=6, replicates=20), tmp_path)
    assert str(caught.value).startswith("arms.a, step 6: optimality.upper: got 5.0, but Q reaches")
    assert "\n" not in str(caught.value)


def test_everybody_learns_as_often_as_was_asked_from_what_was_collected(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    class _Counting(Stationary, Learner):
        def store(self, newest: Trajectory) -> None:
            seen.append(("store", len(newest.steps)))

        def learn(self, newest: Trajectory, peers: Sequence[Actor]) -> Mapping[str, Tensor]:
            seen.append(("learn", len(newest.steps)))
            return {}

    arms: dict[str, Actor | list[Actor]] = {"a": [_Counting(), Stationary()]}
    experiment = climbing(
        arms=arms, steps=12, collect=3, updates=2, record_every=6, beliefs_every=3, checkpoint_every=5
    )
    seen.clear()
    assert execute(Job.of(experiment, "a", tmp_path)) is None
    assert seen == [("store", 3), ("learn", 3), ("learn", 3)] * 4
    index = Job.of(experiment, "a", tmp_path).said()["index"]
    assert index["counts"] == {"metrics": 2, "beliefs": 4, "actions": 12}
    for name, number in {"steps": 10, "record_every": 2, "beliefs_every": 4}.items():
        with pytest.raises(ValueError, match=rf"^{name}: got {number}, expected a multiple of collect = 3"):
            climbing(**{"steps": 12, "collect": 3, "record_every": 6, "beliefs_every": 3, name: number})


def test_what_is_collected_at_once_is_gone_on_with_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = climbing(steps=12, collect=3, updates=2, record_every=3, checkpoint_every=4)
    whole = run(experiment, tmp_path / "whole")
    cut_after(3, monkeypatch, experiment, tmp_path / "test")  # of rounds; the last checkpoint is from the second
    complete(experiment, tmp_path / "test")
    assert_same(tmp_path / "test", whole)


@pytest.mark.parametrize("how", ["ends", "fails", "cannot be restored"])
def test_environments_are_closed_however_a_job_ends(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(Arm, "close", lambda arm: closed.append(arm.name))
    arm = Breaking() if how == "fails" else Stationary()
    assert (execute(Job.of(climbing(arms={"a": arm}, steps=1), "a", tmp_path)) is None) == (how != "fails")
    assert closed == ["a"]
    if how == "cannot be restored":
        (tmp_path / "records" / "a" / "actions" / "action.0").unlink()
        with pytest.raises(RunError, match="got 0 bytes of records"):
            execute(Job.of(climbing(arms={"a": arm}, steps=2), "a", tmp_path))
        assert closed == ["a", "a"]


@pytest.mark.parametrize("breaks", [False, True])
def test_an_arm_is_played_with_its_threads_and_leaves_their_number_as_it_was(breaks: bool, tmp_path: Path) -> None:
    seen: list[int] = []

    class _Threads(Stationary):
        def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
            seen.append(torch.get_num_threads())
            if breaks:
                raise RuntimeError("broken")
            return super().act(obs, memory, explore, mask)

    before = torch.get_num_threads()
    experiment = climbing(arms={"a": _Threads()}, threads=before + 1, steps=1)
    try:
        why = execute(Job.of(experiment, "a", tmp_path))
        assert why == ("arms.a, step 1: RuntimeError: broken" if breaks else None)
        assert set(seen) == {before + 1}
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)


def test_an_arm_reports_what_it_found_and_what_it_has_played_since(tmp_path: Path) -> None:
    class _StopError(BaseException):
        pass

    reports: list[tuple[int, int]] = []

    def report(found: int, played: int) -> None:
        reports.append((found, played))
        if (found, played) == (0, 3):
            raise _StopError

    experiment = climbing(arms={"a": Stationary()}, steps=5, checkpoint_every=2)
    with pytest.raises(_StopError):
        execute(Job.of(experiment, "a", tmp_path), report)
    execute(Job.of(experiment, "a", tmp_path), report)
    execute(Job.of(experiment, "a", tmp_path), report)
    assert reports == [(0, 0), (0, 1), (0, 2), (0, 3), (2, 0), (2, 1), (2, 2), (2, 3), (5, 0)]


@pytest.mark.pyro_store
def test_binding_an_arm_leaves_nothing_in_pyros_store() -> None:
    """Also where nobody has entered `local_parameters`, and also a user's own that evaluates its parts at once."""

    class _Eager(_Plain):
        def setup(self) -> None:
            super().setup()
            self.first = self.strategy(torch.zeros(self.seat.replicates, 1, dtype=torch.int64)).probs.detach()

    planner = Planner(
        opponent_prior=Amortised(CategoricalNetwork([4]), window=4, batch_size=2),
        reward=NetworkCritic([4]),
        guide=ExactTrajectory(),
        transition=DirichletTransition(),
        horizon=2,
    )
    experiment = Experiment(RiskyBridge(), {"planner": planner, "eager": _Eager()})
    for name in experiment.arms:
        Arm.start(experiment, name)
    planner.bind(experiment.seats()[0])
    assert list(pyro.get_param_store()) == []
    assert not pyro.settings.get("module_local_params")
