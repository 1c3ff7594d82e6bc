"""What is recorded, how often and where, and what of it a resumed run keeps."""

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import yaml
from torch import Tensor

from inference_marl.analysis.arviz import to_arviz
from inference_marl.analysis.recorded import read
from inference_marl.cli import main
from inference_marl.config.files import dump, load
from inference_marl.described import IncompatibleError, InspectError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics
from inference_marl.learners import Stationary
from inference_marl.runs import arm
from inference_marl.runs.errors import RunError
from inference_marl.runs.recorder import TOGETHER, Recorder
from inference_marl.runs.records import Records
from inference_marl.runs.run import resume
from inference_marl.statistics.metrics import OF_PLAY, REWARD
from inference_marl.types import Actor, Experience, Learner, Memory, Metric, Start
from tests.runs.small_runs import ROOT, assert_same, climbing, cut_after, dataset, rommeo_q, run

DECLARED = {metric.name: metric for metric in (Metric("mean"), Metric("last", over="last"), Metric("joint", dims=()))}


def recorder(folder: Path, **settings: Any) -> Recorder:
    return Recorder(folder, DECLARED, replicates=2, agents=2, **settings)


def records(recorder: Recorder) -> Records:
    assert recorder.folder is not None
    return Records(recorder.folder, recorder.index(), slice(0, 2))


def test_values_between_records_are_averaged_or_the_last_one_counts(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    for number in (1.0, 2.0, 6.0):
        one.note("mean", torch.full((2,), number), agent=1)
        one.note("last", torch.tensor([[number, 0.0], [0.0, 0.0]]))
        one.note("joint", torch.tensor([[number, 0.0], [1.0, 3.0]]))  # in two environments
    one.commit()
    one.note("joint", torch.tensor([4, 5]))
    one.commit()
    one.flush()
    mean, last, joint = (records(one).rows("metrics", name, 0, 2) for name in ("mean", "last", "joint"))
    np.testing.assert_array_equal(mean, [[[np.nan, 3.0]] * 2, [[np.nan, np.nan]] * 2])
    np.testing.assert_array_equal(last[0], [[6.0, 0.0], [0.0, 0.0]])
    assert np.isnan(last[1]).all(), "what was not noted again is missing"
    np.testing.assert_array_equal(joint, [[1.5, 2.0], [4.0, 5.0]])


def test_a_value_that_its_owner_changes_later_is_recorded_as_it_was(tmp_path: Path) -> None:
    one, value = recorder(tmp_path), torch.ones(2)
    one.note("last", value, agent=0)
    value += 1
    one.commit()
    one.flush()
    np.testing.assert_array_equal(records(one).rows("metrics", "last", 0, 1)[0, :, 0], 1.0)


@pytest.mark.parametrize("chunk", [1, 1000, 2**22])  # written at once, many together, and all in the end
def test_tensors_are_recorded_in_order_as_their_dtypes_say(tmp_path: Path, chunk: int) -> None:
    one, dtypes = recorder(tmp_path, chunk=chunk), {"action": np.dtype(np.uint8), "move": np.dtype(np.float32)}
    for step in range(TOGETHER + 3):
        move = torch.tensor([[step + 0.5], [-step]], dtype=torch.float64, requires_grad=True)
        one.append("played", {"action": torch.tensor([[step % 7], [3]]), "move": move}, dtypes)
    one.failed = [1]
    one.append("played", {"action": torch.tensor([[5], [6]]), "move": torch.ones(2, 1)}, dtypes)
    one.flush()
    action, move = (records(one).rows("played", name, 0, TOGETHER + 4) for name in ("action", "move"))
    steps = np.arange(TOGETHER + 3)
    assert (action.dtype, move.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(action[:, 0, 0], [*(steps % 7), 5])
    np.testing.assert_array_equal(action[:, 1, 0], [*np.full_like(steps, 3), 6])  # integers have no NaN
    np.testing.assert_array_equal(move[:, 0, 0], [*(steps + 0.5), 1.0])
    np.testing.assert_array_equal(move[:, 1, 0], [*(-steps), np.nan])


def test_tensors_that_are_used_again_are_recorded_as_they_were(tmp_path: Path) -> None:
    """Such as an actor's decisions, if it writes all of them to the same tensor."""
    one, action = recorder(tmp_path), torch.zeros(2, 1, dtype=torch.int64)
    for step in range(4):
        action.fill_(step)
        one.append("played", {"action": action}, {"action": np.dtype(np.uint8)})
    one.flush()
    np.testing.assert_array_equal(records(one).rows("played", "action", 0, 4)[:, 0, 0], range(4))


def test_integers_that_are_recorded_as_floats_are_nan_where_a_replicate_has_failed(tmp_path: Path) -> None:
    """So are the discrete actions of one agent if another's are continuous."""
    one, dtypes = recorder(tmp_path), {"action": np.dtype(np.float32)}
    for failed in ([], [1]):
        one.failed = failed
        one.append("played", {"action": torch.tensor([[2], [3]])}, dtypes)
    one.flush()
    action = records(one).rows("played", "action", 0, 2)
    np.testing.assert_array_equal(action[..., 0], [[2.0, 3.0], [2.0, np.nan]])


def test_a_record_of_another_shape_is_refused(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    one.append("played", {"action": torch.zeros(2, 1)}, {"action": np.dtype(np.float32)})
    with pytest.raises(ValueError, match=r"^played: got action of shape \(2, 2\), expected \(2, 1\) as before"):
        one.append("played", {"action": torch.zeros(2, 2)})


def test_what_appears_late_is_missing_before(tmp_path: Path) -> None:
    one = recorder(tmp_path, chunk=1)
    for record in range(5):
        one.note("joint", torch.full((2,), float(record)))
        if record == 3:
            one.note("mean", torch.ones(2, 2))
        one.commit()
    rows = records(one).rows("metrics", "mean", 1, 5)
    assert np.isnan(rows).all((1, 2)).tolist() == [True, True, False, True]
    np.testing.assert_array_equal(records(one).rows("metrics", "joint", 2, 4)[:, 0], [2.0, 3.0])
    assert records(one).rows("metrics", "mean", 0, 2).shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "td_error",
            torch.zeros(2),
            r"^metrics: got td_error, which is not declared, expected one of mean, l",
        ),
        ("mean", torch.zeros(2), r"^metrics: got mean of shape \(2,\), expected \(2, 2\)"),
        ("joint", torch.zeros(3), r"^metrics: got joint of shape \(3,\), expected \(2,\)"),
    ],
)
def test_undeclared_names_and_wrong_shapes_are_refused(name: str, value: Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        recorder(tmp_path).note(name, value)


def test_a_value_of_another_shape_than_before_is_refused_as_well(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    one.note("joint", torch.zeros(2))
    with pytest.raises(ValueError, match=r"^metrics: got joint of shape \(3,\), expected \(2,\)"):
        one.note("joint", torch.zeros(3))


def test_an_array_that_is_recorded_stays_as_it_was_though_a_replicate_has_failed(tmp_path: Path) -> None:
    """It may be a view of a learner's own tensor."""
    one, own = recorder(tmp_path), torch.ones(2, 1)
    one.failed = [0]
    one.append("beliefs", {"policy": own.numpy()})
    one.flush()
    np.testing.assert_array_equal(records(one).rows("beliefs", "policy", 0, 1)[0, :, 0], [np.nan, 1.0])
    assert (own == 1).all()


def test_a_tensor_that_is_missing_in_between_is_nan_there(tmp_path: Path) -> None:
    one, dtypes = recorder(tmp_path), {"there": np.dtype(np.float32), "often": np.dtype(np.uint8)}
    for step in range(4):
        record = {"often": torch.full((2, 1), step)}
        one.append("played", record if step == 2 else {**record, "there": torch.full((2, 1), float(step))}, dtypes)
    one.flush()
    np.testing.assert_array_equal(records(one).rows("played", "there", 0, 4)[:, 0, 0], [0.0, 1.0, np.nan, 3.0])
    np.testing.assert_array_equal(records(one).rows("played", "often", 0, 4)[:, 0, 0], range(4))


def test_records_newer_than_the_state_are_dropped(tmp_path: Path) -> None:
    one = recorder(tmp_path, chunk=1)
    for record in range(3):
        one.note("joint", torch.full((2,), float(record)))
        one.commit()
        if record == 1:
            state = one.state_dict()
    one.append("late", {"x": np.zeros(2)})
    assert (tmp_path / "late" / "x").stat().st_size == 16
    other = recorder(tmp_path)
    other.load_state_dict(state)
    assert not (tmp_path / "late" / "x").exists()
    assert (tmp_path / "metrics" / "joint").stat().st_size == 2 * 2 * 4
    other.note("joint", torch.full((2,), 9.0))
    other.commit()
    other.flush()
    np.testing.assert_array_equal(records(other).rows("metrics", "joint", 0, 3)[:, 0], [0.0, 1.0, 9.0])


def test_state_does_not_grow_with_what_is_recorded(tmp_path: Path) -> None:
    one, sizes = recorder(tmp_path), []
    for _ in range(3):
        for _ in range(50):
            one.note("mean", torch.ones(2, 2))
            one.commit()
        torch.save(one.state_dict(), tmp_path.parent / "state.pt")
        sizes.append((tmp_path.parent / "state.pt").stat().st_size)
    assert len(set(sizes)) == 1


@pytest.mark.slow
def test_a_run_cut_amid_chunks_is_the_unbroken_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(climbing(checkpoint_every=2), tmp_path, "run")
    monkeypatch.setattr(arm, "Recorder", partial(Recorder, chunk=1))
    folder = tmp_path / "cut" / "run"
    for steps in (1, 4):  # before the first checkpoint, and between two
        cut_after(steps, monkeypatch, climbing(checkpoint_every=2), folder)
        assert (folder / "records" / "a" / "metrics" / "reward").stat().st_size == steps * 3 * 2 * 4
    resume(folder, progress=False)
    assert_same(folder, whole)
    assert not (folder / "records").exists()


def test_records_that_were_lost_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cut"
    cut_after(5, monkeypatch, climbing(checkpoint_every=2), folder)
    path = folder / "records" / "a" / "actions" / "action.1"
    os.truncate(path, 2)
    with pytest.raises(RunError, match=r"action.1: got 2 bytes of records, expected 12 as its checkpoint says"):
        resume(folder, progress=False)


OWN = '''
from inference_marl.learners import Rommeo
from inference_marl.types import Metric

class Noting(Rommeo):
    """Says how far its critic was from the reward, from its second update on."""
    metrics = (*Rommeo.metrics, Metric("td_error", "TD error", unit="reward", over="{over}"))

    def learn(self, newest, peers):
        super().learn(newest, peers)
        return {{"td_error": newest.steps[0].rewards[:, 0, 0]}} if self.updates > 1 else {{}}
'''


@pytest.mark.slow
@pytest.mark.parametrize("over", ["mean", "last"])
def test_a_learner_in_a_file_of_its_own_adds_a_metric(
    over: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"own_{over}"
    (tmp_path / f"{name}.py").write_text(OWN.format(over=over))
    monkeypatch.syspath_prepend(tmp_path)
    content = yaml.safe_load(dump(climbing(record_every=1)))
    content["arms"]["a"]["class_path"] = f"{name}.Noting"
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    every = dataset(run(load(tmp_path / "own.yaml"), tmp_path, "every"), "metrics.nc")
    second = dataset(run(load(tmp_path / "own.yaml", [("record_every", 2)]), tmp_path, "second"), "metrics.nc")
    assert every["td_error"].dims == ("learner", "replicate", "step", "agent")
    declared = Metric.from_attributes(every["td_error"].attrs)
    assert (declared.label, declared.unit) == ("TD error", "reward")
    assert every["td_error"].attrs["long_name"] == "TD error"
    assert every["td_error"].sel(learner="b").isnull().all(), "the other arm's learners have none"
    values = every["td_error"].sel(learner="a")
    assert values.isel(step=0).isnull().all(), "it had nothing to say yet"
    reward = every["reward"].sel(learner="a", agent=0)
    for agent in (0, 1):
        np.testing.assert_array_equal(
            values.isel(step=slice(1, None)).sel(agent=agent), reward.isel(step=slice(1, None))
        )
    pairs = reward.to_numpy().reshape(3, 3, 2)
    expected = pairs.mean(-1) if over == "mean" else pairs[..., 1].copy()
    expected[:, 0] = pairs[:, 0, 1]
    np.testing.assert_allclose(second["td_error"].sel(learner="a", agent=1), expected, rtol=1e-6)


def test_every_variable_of_the_metrics_says_what_it_is(whole: Path) -> None:
    metrics = dataset(whole, "metrics.nc")
    for name, values in metrics.data_vars.items():
        assert Metric.from_attributes(values.attrs).name == name
    assert Metric.from_attributes(metrics["reward"].attrs) == REWARD
    assert set(metrics) <= {metric.name for metric in (*OF_PLAY, *rommeo_q().metrics)}


class _Silent(Stationary, Learner):
    """Reports what it does not declare."""

    def learn(self, newest: Any, peers: Any) -> Mapping[str, Tensor]:
        return {"loss": newest.steps[0].rewards[:, 0, 0]}


class _Boasting(Stationary):
    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        return {**super().beliefs(obs, memory, draws), "pride": torch.ones(obs.shape[:2])}


@pytest.mark.parametrize(("learner", "name"), [(_Silent(), "loss"), (_Boasting(), "pride")])
def test_what_is_not_declared_is_refused_before_anything_is_written(learner: Actor, name: str, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match=rf"^arms\.a\.metrics: got {name}, which is not declared"):
        run(climbing(arms={"a": learner}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_metric_is_declared_in_one_way() -> None:
    class _Other(Stationary):
        metrics = (Metric("reward", "something else"),)

    class _Joint(Stationary):
        metrics = (Metric("of_all", dims=()),)

    with pytest.raises(ValueError, match=r"^arms.a: got another reward than is declared elsewhere, expected one"):
        climbing(arms={"a": _Other()})
    with pytest.raises(ValueError, match=r"^arms.a: got of_all with dims \(\), expected \('agent',\)"):
        climbing(arms={"a": [Stationary(), _Joint()]})


@pytest.mark.slow
def test_beliefs_have_steps_of_their_own(whole: Path, tmp_path: Path) -> None:
    folder = run(climbing(beliefs_every=2, record_every=3), tmp_path)
    metrics, posterior = dataset(folder, "metrics.nc"), dataset(folder, "posterior.nc")
    assert metrics["step"].values.tolist() == [3, 6]
    assert posterior["step"].values.tolist() == [2, 4, 6]
    every = dataset(whole, "posterior.nc").sel(step=[2, 4, 6])
    np.testing.assert_array_equal(posterior["opponent_model"], every["opponent_model"])
    np.testing.assert_array_equal(metrics["elbo"], dataset(whole, "metrics.nc")["elbo"].sel(step=[3, 6]))
    assert main(["report", str(folder)]) == 0
    for step, missing in ((4, True), (6, False)):
        found = to_arviz(folder, step=step)
        assert ("sample_stats" in found.groups()) != missing
    with pytest.raises(InspectError, match=r"^step: got 3, which was not recorded, expected one of 2, 4, 6"):
        to_arviz(folder, step=3)


def test_beliefs_can_be_off(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(climbing(beliefs_every=0), tmp_path)
    assert not (folder / "posterior.nc").exists()
    assert dataset(folder, "metrics.nc").drop_attrs().equals(dataset(whole, "metrics.nc").drop_attrs())
    with pytest.raises(InspectError, match=r"without posterior\.nc, expected one that records beliefs"):
        _ = read(folder).beliefs
    assert main(["inspect", str(folder)]) == 0
    assert "This run did not record beliefs." in capsys.readouterr().out


def test_rhythms_out_of_range_are_refused() -> None:
    assert climbing(record_every=2).beliefs_every == 2, "that of the metrics, as in older files"
    with pytest.raises(
        ValueError, match=r"^beliefs_every: got -1, expected an integer that is not negative, 0 to record none"
    ):
        climbing(beliefs_every=-1)
    with pytest.raises(ValueError, match=r"^beliefs_every: got 7, expected at most steps = 6"):
        climbing(beliefs_every=7)


class _InTurn(Actor):
    """Plays its actions in turn, from the start of each episode, and says so."""

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        return {"made": torch.zeros(replicates, environments, dtype=torch.int64)}

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        fresh = super().begin(start, memory)
        return {"made": fresh["made"] + torch.arange(start.episode.shape[1]) * start.episode}

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Categorical, Memory]:
        turn = torch.nn.functional.one_hot(memory["made"] % self.seat.action.features, self.seat.action.features)
        return dist.Categorical(probs=turn.to(self.seat.dtype)), memory

    def remember(self, memory: Memory, step: Experience) -> Memory:
        return {"made": memory["made"] + 1}


def test_the_actions_that_follow_a_belief_are_those_of_the_next_step(tmp_path: Path) -> None:
    game = MatrixGame("climbing", horizon=4, memory=1)
    folder = run(Experiment(game, {"a": _InTurn()}, replicates=2, environments=3, steps=10), tmp_path)
    actions, posterior = dataset(folder, "actions.nc"), dataset(folder, "posterior.nc")
    assert actions["actions"].dims == ("learner", "replicate", "environment", "step", "agent")
    assert actions["actions"].dtype == np.uint8
    assert actions["ended"].dtype == bool
    assert actions["ended"].isel(learner=0, replicate=0, environment=1).values.tolist() == [
        t % 4 == 3 for t in range(10)
    ]
    played = actions["actions"].isel(learner=0, replicate=1, agent=0)
    assert played.isel(environment=0).values.tolist() == [0, 1, 2, 0, 0, 1, 2, 0, 0, 1]
    assert played.isel(environment=2).values.tolist() == [2, 0, 1, 2, 2, 0, 1, 2, 2, 0]
    believed = posterior["policy"].isel(learner=0, replicate=1, agent=0).argmax("action")  # state: environment
    np.testing.assert_array_equal(believed.sel(step=slice(1, 9)).T, played.sel(step=slice(2, 10)))


def test_actions_are_recorded_as_they_were_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = dataset(run(climbing(environments=1), tmp_path), "metrics.nc")["reward"].isel(agent=0)
    actions = dataset(tmp_path / "test", "actions.nc")["actions"].isel(environment=0)
    payoff = MatrixGame("climbing").expected_payoff[0].numpy()
    np.testing.assert_array_equal(payoff[actions.isel(agent=0), actions.isel(agent=1)], rewards)
    seen: list[Tensor] = []

    class _Witness(Stationary, Learner):
        def learn(self, newest: Any, peers: Any) -> Mapping[str, Tensor]:
            if self.seat.replicates > 1:  # not in the check before the run
                seen.append(torch.stack(newest.steps[0].actions, 2))
            return {}

    folder = run(
        Experiment(MaxOfTwoQuadratics(), {"a": [_Witness(), Stationary()]}, replicates=2, environments=3, steps=4),
        tmp_path,
    )
    drawn = dataset(folder, "actions.nc")["actions"]
    assert drawn.dims[-2:] == ("agent", "action_dim")
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn.isel(learner=0).transpose("step", ...), torch.stack(seen).numpy())
    wide = MatrixGame(torch.rand(300, 2).tolist(), common=True)
    folder = run(Experiment(wide, {"a": Stationary()}, replicates=2, steps=3), tmp_path)
    assert dataset(folder, "actions.nc")["actions"].dtype == np.uint16
    folder = run(climbing(record_actions=False), tmp_path)
    assert not (folder / "actions.nc").exists()


def test_an_older_folder_is_read_by_its_new_names() -> None:
    found = read(Path(__file__).parent / "data" / "climbing_0_1_0")
    assert "success_rate" in found.metrics
    assert "success" not in found.metrics
    assert found.summary["made"]["seconds"] == found.summary["seconds"]


LONG = """
import sys
from pathlib import Path
import torch
from inference_marl.config.files import load
from inference_marl.runs.execution import execute
from inference_marl.runs.job import Job

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def report(found, played):
    if played % 5000 == 0:
        print(played, resident(), flush=True)

folder = Path(sys.argv[1])
execute(Job.of(load(folder / "spec.yaml"), "a", folder), report)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_memory_does_not_grow_with_the_length_of_a_run(tmp_path: Path) -> None:
    experiment = climbing(arms={"a": Stationary(probabilities=[1, 2, 3])}, replicates=20, steps=100_000)
    (tmp_path / "spec.yaml").write_text(dump(experiment))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LONG, str(tmp_path)]
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    steps, resident = np.array([line.split() for line in lines], dtype=float).T
    settled = steps >= 20_000
    slope = np.polyfit(steps[settled], resident[settled], 1)[0]
    recorded = sum(path.stat().st_size for path in (tmp_path / "records").rglob("*") if path.is_file()) / steps[-1]
    assert recorded > 500, "bytes per step"
    assert abs(slope) < recorded / 20, f"{slope} of {recorded} bytes per step stay in memory"
