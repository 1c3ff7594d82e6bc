"""Policies of other runs, as actors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from inference_marl import Frozen, load
from inference_marl.analysis.recorded import read
from inference_marl.cli import main
from inference_marl.config.build import SpecError
from inference_marl.config.check import check
from inference_marl.config.factors import ablation
from inference_marl.config.files import build, dump
from inference_marl.config.together import together
from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, Rendezvous, Spread
from inference_marl.learners import Maddpg, Stationary
from inference_marl.play import Evaluation, Tasks, TrialEvaluation
from inference_marl.runs.arm import Arm
from inference_marl.runs.run import resume
from inference_marl.types import Actor, Learner, Start
from tests.learners.latent.matching import Homebody, Matching, pearl
from tests.runs.small_runs import Alternating, assert_same, climbing, complete, cut_after, rommeo_ac, rommeo_q, run

CPU = torch.device("cpu")
GAME = MatrixGame("chicken", horizon=3, memory=1)


def small(arm: Any, game: Any = GAME, **settings: Any) -> Experiment:
    return Experiment(game, {"a": arm}, **{"replicates": 2, "environments": 3, "steps": 8, "draws": 2} | settings)


def learned(experiment: Experiment, arm: str = "a") -> list[Actor]:
    """Everybody's policy at the end of training, in memory."""
    playing = Arm.start(experiment, arm)
    while playing.step < experiment.steps:
        playing.advance()
    return [actor.snapshot() if isinstance(actor, Learner) else actor for actor in playing.actors]


def opponent(frozen: Frozen, experiment: Experiment, seat: int = 0) -> Actor:
    """Bound to a seat of an experiment's first arm."""
    return frozen.bind(experiment.seats()[seat])


@pytest.mark.parametrize(
    ("arm", "game"),
    [
        (rommeo_q(), GAME),
        ([Alternating(), rommeo_q()], GAME),
        (rommeo_ac(), Rendezvous(horizon=4)),
        (Maddpg(hidden=(4,), replay=20, batch_size=4, warmup=3), Spread(2, horizon=4)),
        (Maddpg(hidden=(4,), replay=20, batch_size=4, warmup=3), Rendezvous(horizon=4)),
    ],
)
def test_it_plays_as_its_learner_did_at_the_end(arm: Any, game: Any, tmp_path: Path) -> None:
    experiment = small(arm, game)
    folder = run(experiment, tmp_path)
    for index, expected in enumerate(learned(experiment)):
        frozen = opponent(Frozen(str(folder)), experiment, index)
        start = Start.everywhere(2, 3, CPU)
        obs = game.observe(game.reset(2, 3, CPU, torch.float32)).obs[index]
        for explore in (False, True):
            torch.manual_seed(1)
            one = frozen.act(obs, frozen.begin(start, None), explore)
            torch.manual_seed(1)
            other = expected.act(obs, expected.begin(start, None), explore)
            assert torch.equal(one.action, other.action)
        mine, theirs = (actor.beliefs(obs, actor.begin(start, None), 2) for actor in (frozen, expected))
        assert {"policy"} <= mine.keys() <= theirs.keys()
        if "policy" in theirs and not game.action_spaces[index].event_shape:
            assert torch.equal(mine["policy"], theirs["policy"])


def test_its_belief_is_judged_as_that_of_its_learner(tmp_path: Path) -> None:
    """Forecasts and how wide the belief is, in the same evaluation at the end of its training."""
    tasks = Tasks([0, 1], episodes=2)
    watched = TrialEvaluation(every=6, environments=4, after=[0, 1], forecasts=True, tasks=tasks)
    settings: dict[str, Any] = {"tasks": tasks, "steps": 6, "collect": 6, "evaluation": watched}
    trained = small([pearl(trained_by="opponents"), Homebody()], Matching(), **settings)
    folder = run(trained, tmp_path)
    frozen = run(trained.replace(arms={"a": [Frozen(str(folder)), Homebody()]}), tmp_path, "frozen")
    mine, theirs = (read(each).metrics.isel(step=-1) for each in (frozen, folder))
    for name in ("posterior_sd_after_0", "posterior_sd_after_1", "forecast_score_after_1"):
        assert mine[name].notnull().all()
        assert (mine[name] == theirs[name]).all()


@pytest.mark.parametrize("replicates", [2, 3, 8])
def test_replicates_begin_again_where_there_are_more(replicates: int, tmp_path: Path) -> None:
    experiment = small(rommeo_q(), replicates=3)
    there = learned(experiment)[1]
    here = opponent(Frozen(str(run(experiment, tmp_path))), experiment.replace(replicates=replicates), 1)
    obs = torch.randint(5, (replicates, 4))
    memory = here.begin(Start.everywhere(replicates, 4, CPU), None)
    policy = here.beliefs(obs, memory, 1)["policy"]
    for replicate in range(replicates):
        everywhere = there.beliefs(obs[None, replicate].expand(3, -1), {}, 1)["policy"]
        assert torch.equal(policy[replicate], everywhere[replicate % 3])
    distribution, _ = here.policy(obs, memory)
    assert distribution is not None
    torch.testing.assert_close(distribution.probs, policy)
    states = torch.arange(5).expand(3, -1)
    every = there.beliefs(states, {}, 1)["policy"]
    assert not every[0].allclose(every[1]), "replicates must differ for this to show anything"


def test_what_it_remembers_is_its_own(tmp_path: Path) -> None:
    """A policy with a memory, in other numbers of replicates and environments than it was run in."""
    folder = run(small([Alternating(), Stationary()]), tmp_path)
    found = []
    for name, actor in {"frozen": Frozen(str(folder)), "direct": Alternating()}.items():
        read_back = read(run(small([actor, Stationary()], replicates=5, environments=2), tmp_path, name))
        assert read_back.posterior is not None
        found.append(read_back.posterior["policy"].sel(agent=0).isel(learner=0).values)
    frozen, direct = found
    assert (frozen == direct).all()
    assert frozen.std() > 0.1


def test_arms_of_an_ablation_that_were_played_as_one(tmp_path: Path) -> None:
    factors = {"temperature": [0.3, 3.0]}
    experiment = ablation(small(rommeo_q()), factors)
    assert len(together(experiment)) == 1
    folder = run(experiment, tmp_path)
    obs, start = torch.arange(5).expand(2, -1), Start.everywhere(2, 5, CPU)
    for arm in experiment.arms:
        (expected, _), frozen = learned(experiment, arm), opponent(Frozen(str(folder), arm), experiment)
        mine, theirs = (actor.beliefs(obs, actor.begin(start, None), 1) for actor in (frozen, expected))
        torch.testing.assert_close(mine["policy"], theirs["policy"])


def test_arms_against_it_are_played_alone(tmp_path: Path) -> None:
    """Which of its replicates plays depends on how many there are: arms that differ in numbers find what they find."""
    frozen = Frozen(str(run(small(rommeo_q(), replicates=3), tmp_path)))
    base = [rommeo_q(), frozen]
    described = [each.describe() for each in base]
    one, other = (dict(described[0], init_args=described[0]["init_args"] | {"temperature": t}) for t in (0.3, 3.0))
    arms = {"low": [one, described[1]], "high": [other, described[1]]}
    levels = {"low": {"temperature": "0.3"}, "high": {"temperature": "3.0"}}
    content = yaml.safe_load(dump(small(rommeo_q()))) | {"arms": arms, "levels": levels}
    assert [each.arms for each in together(build(content))] == [("low",), ("high",)]
    content["arms"] = {"low": one, "high": other}
    assert [each.arms for each in together(build(content))] == [("low", "high")]
    content["evaluation"] = Evaluation(every=4, seats={1: frozen}).describe()
    assert [each.arms for each in together(build(content))] == [("low",), ("high",)]


@pytest.mark.slow
def test_in_populations_and_evaluations_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(small(rommeo_q()), tmp_path)
    text = f"""
game: {{class_path: MatrixGame, init_args: {{payoff: chicken, horizon: 3, memory: 1}}}}
replicates: 3
environments: 2
steps: 8
checkpoint_every: 1
arms:
  learning:
  - class_path: Rommeo
    init_args: {yaml.safe_dump(rommeo_q().describe()["init_args"], default_flow_style=True, width=10000).strip()}
  - class_path: Population
    init_args:
      members:
      - Stationary
      - {{class_path: Frozen, init_args: {{run: {folder}, agent: 1}}}}
evaluation:
  against_it:
    class_path: Evaluation
    init_args: {{every: 4, seats: {{1: {{class_path: Frozen, init_args: {{run: {folder}}}}}}}}}
"""
    (tmp_path / "spec.yaml").write_text(text)
    experiment = load(tmp_path / "spec.yaml")
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    assert "digest: null" not in dump(experiment)
    whole = run(experiment, tmp_path / "whole")
    assert read(whole).metrics["evaluation_reward_against_it"].isel(step=[3, 7]).notnull().all()
    cut_after(5, monkeypatch, experiment, tmp_path / "cut" / "test")
    complete(experiment, tmp_path / "cut" / "test")
    assert_same(tmp_path / "cut" / "test", whole)


def test_a_run_never_goes_on_against_another_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(small(rommeo_q()), tmp_path)
    experiment = small([rommeo_q(), Frozen(str(folder))], checkpoint_every=1)
    cut_after(5, monkeypatch, experiment, tmp_path / "cut")
    again = run(small(rommeo_q(), seed=1), tmp_path, "again")
    shutil.copy(again / "checkpoints" / "a.pt", folder / "checkpoints" / "a.pt")
    with pytest.raises(SpecError, match=r"^arms.a\[1\].digest: got [0-9a-f]{16}, expected [0-9a-f]{16}, that of"):
        resume(tmp_path / "cut", progress=False)
    (folder / "checkpoints" / "a.pt").unlink()
    with pytest.raises(SpecError, match=r"^arms.a\[1\].run: got .*, where arm a has no checkpoint"):
        resume(tmp_path / "cut", progress=False)


@pytest.mark.slow
def test_a_run_is_looked_at_without_the_one_that_it_played_against(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(small(rommeo_q()), tmp_path)
    against = run(small([rommeo_q(), Frozen(str(folder))]), tmp_path, "against")
    shutil.rmtree(folder)
    assert main(["inspect", str(against)]) == 0
    assert "nan" not in capsys.readouterr().out


def test_its_checkpoint_is_that_of_its_spec(tmp_path: Path) -> None:
    folder = run(small(rommeo_q()), tmp_path)
    spec = folder / "spec.yaml"
    spec.write_text(spec.read_text().replace("discount: 0.9", "discount: 0.5"))
    with pytest.raises(IncompatibleError, match=r"spec.yaml: got another content than was written there"):
        check(small([rommeo_q(), Frozen(str(folder))]))
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(IncompatibleError, match="got a checkpoint of another experiment"):
        check(small([rommeo_q(), Frozen(str(folder))]))
    (folder / "checkpoints" / "a.pt").write_bytes(b"no checkpoint")
    with pytest.raises(IncompatibleError, match="got a file that is not a checkpoint"):
        check(small([rommeo_q(), Frozen(str(folder))]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arm": "c"}, "^arm: got c, expected one of a, b$"),
        ({}, "^arm: got none, expected one of a, b$"),
        ({"arm": "a", "agent": 2}, "^agent: got 2, expected one from 0 to 1$"),
        ({"arm": "a", "digest": "0" * 16}, "^digest: got 0{16}, expected "),
    ],
)
def test_what_is_not_there_is_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = run(climbing(), tmp_path)
    with pytest.raises(ValueError, match=message):
        Frozen(str(folder), **arguments)
    with pytest.raises(ValueError, match=r"^run: got .*, expected the folder of a run, as seen from the working"):
        Frozen(str(tmp_path / "nowhere"))


def test_other_spaces_are_refused(tmp_path: Path) -> None:
    frozen = Frozen(str(run(small(rommeo_q()), tmp_path)))
    with pytest.raises(IncompatibleError, match=r"^arms.a\[1\]: Frozen got agent 1 of .*, expected one that observes"):
        check(Experiment(MatrixGame("climbing"), {"a": [Stationary(), frozen]}))


def test_another_floating_type(tmp_path: Path) -> None:
    folder = run(small(rommeo_ac(), Rendezvous(horizon=4)), tmp_path)
    double = small([Stationary(), Frozen(str(folder))], Rendezvous(horizon=4), dtype="float64")
    assert read(run(double, tmp_path, "double")).metrics["reward"].notnull().all()
