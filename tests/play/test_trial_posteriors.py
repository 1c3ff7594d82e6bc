"""Beliefs that are recorded where episodes begin: of the right episode and opponent, without any trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference_marl.experiment import Experiment
from inference_marl.play import Stranger, Tasks, TrialEvaluation
from inference_marl.types import Actor, Experience, Memory, Start, Trajectory, seed_streams
from tests.learners.latent.matching import HORIZON, Homebody, Matching, R, pearl
from tests.play.test_stranger import Uneven


def trials(**changes: Any) -> TrialEvaluation:
    settings: dict[str, Any] = {
        "every": 6,
        "environments": 4,
        "tasks": Tasks([0, 1], episodes=3, order="in_turn"),
        "after": (0, 2),
        "posteriors": True,
    }
    return TrialEvaluation(**settings | changes)


class Counting(Actor):
    """It believes in how many steps it has seen of a task, and in where its opponent was last."""

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        shape = start.episode.shape
        if memory is None:
            return {"seen": torch.zeros(*shape), "last": torch.zeros(*shape)}
        return {name: value.where(~start.new_task, 0.0) for name, value in memory.items()}

    def remember(self, memory: Memory, step: Experience) -> Memory:
        return {"seen": memory["seen"] + 1, "last": step.opponent_actions[0][..., 0].to(memory["last"])}

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Normal, Memory]:
        return dist.Normal(torch.zeros(*obs.shape[:2], 1), 0.1).to_event(1), memory

    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        number = torch.arange(R).view(-1, 1).expand(obs.shape[:2]).float()
        mean = torch.stack([memory["seen"], memory["last"], number], -1)
        return {"latent_mean": mean, "latent_sd": 1 / (1 + mean.square())}


def played(actor: Actor, game: Matching | None = None, **changes: Any) -> tuple[TrialEvaluation, Trajectory]:
    evaluation, game = trials(**changes), game or Matching()
    seed_streams(0, torch.device("cpu"))
    actors = Experiment(game, {"it": [actor, Homebody()]}, replicates=R, environments=2).bind("it")
    return evaluation, evaluation.play(game, evaluation.seated(actors))


def kept(actor: Actor, game: Matching | None = None, **changes: Any) -> Mapping[str, Tensor]:
    evaluation, trajectory = played(actor, game, **changes)
    return evaluation.kept(game or Matching(), trajectory)


def test_it_is_the_belief_with_which_the_episode_begins() -> None:
    """After as many steps as the episodes before had, with the last of them, and none of its own."""
    evaluation, trajectory = played(Counting())
    found, every = evaluation.kept(Matching(), trajectory), trajectory.stacked
    assert found["mean"].shape == found["sd"].shape == (R, 4, 2, 3)
    assert found["mean"][..., 0].unique(dim=1).tolist() == [[[0.0, 2.0 * HORIZON]]] * R
    torch.testing.assert_close(found["mean"][:, :, 1, 1], every.actions[1][2 * HORIZON - 1, ..., 0])
    assert found["mean"][:, :, 0, 1].unique().tolist() == [0.0]
    torch.testing.assert_close(found["sd"], 1 / (1 + found["mean"].square()))
    assert found["type"].tolist() == [[[-1.0], [1.0], [-1.0], [1.0]]] * R


def test_where_episodes_are_not_equally_long() -> None:
    """Environments on their own; what did not begin is not a number."""
    evaluation, trajectory = played(Counting())
    ends = [[1, 4], [0, 1, 6], [3], [2, 5, 8]]
    steps = []
    for number, step in enumerate(trajectory.steps):
        ended = torch.tensor([[number in each for each in ends]]).expand(R, -1)
        mean = torch.full((R, 4, 1), float(number))
        steps.append(replace(step, ended=ended, infos=({"latent_mean": mean}, {})))
    found = evaluation.kept(Matching(), Trajectory(steps))
    assert "sd" not in found
    for each in found["mean"][..., 0].tolist():
        assert [one[0] for one in each] == [0.0] * 4
        assert [one[1] for one in each] == [5.0, 2.0, pytest.approx(math.nan, nan_ok=True), 6.0]


def test_only_what_is_believed_is_kept() -> None:
    assert set(kept(pearl("factors"))) == {"mean", "sd", "type"}
    assert set(kept(pearl("recurrent"))) == set(kept(pearl("told"))) == {"mean", "type"}
    assert set(kept(pearl("factors"), Matching(reveals=False))) == {"mean", "sd"}
    assert kept(pearl("none")) == {}
    assert kept(pearl("factors"), posteriors=False) == kept(pearl("factors"), posteriors=False, forecasts=True) == {}


def test_who_is_told_believes_what_is_hidden() -> None:
    found = kept(pearl("told"))
    for number in range(2):
        assert torch.equal(found["mean"][:, :, number].double(), found["type"])


@pytest.mark.parametrize("context", ["factors", "recurrent", "told", "none"])
def test_recording_changes_nothing(context: str) -> None:
    (asked, with_it), (plain, without) = (played(pearl(context), posteriors=each) for each in (True, False))
    for one, other in zip(with_it.stacked.actions, without.stacked.actions, strict=True):
        assert torch.equal(one, other)
    measured = asked.measure(with_it)
    assert measured.keys() == plain.measure(without).keys()
    assert all(torch.equal(value, measured[name]) for name, value in plain.measure(without).items())
    assert asked.declared(Matching()) == plain.declared(Matching())


def test_beside_forecasts_it_is_the_same_belief() -> None:
    both, alone = (kept(pearl("factors", trained_by="opponents"), forecasts=each) for each in (True, False))
    assert all(torch.equal(value, both[name]) for name, value in alone.items())
    assert (both["sd"][:, :, 0] == 1).all()
    assert (both["sd"][:, :, 1] < 1).all()


@pytest.mark.parametrize(("game", "asked"), [(Matching(), 3), (Uneven(), 9)])
def test_it_is_asked_where_an_episode_begins_and_no_more(game: Matching, asked: int) -> None:
    """In any environment; what is kept is the same as of who is asked at every step, for its forecasts."""
    times = {False: 0, True: 0}

    class Asked(Counting):
        def __init__(self, forecasts: bool) -> None:
            self.forecasts = forecasts

        def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
            times[self.forecasts] += 1
            return super().beliefs(obs, memory, draws)

    rare, often = (kept(Asked(forecasts), game, forecasts=forecasts) for forecasts in times)
    assert times == {False: asked, True: 3 * HORIZON}
    assert set(rare) == {"mean", "sd", "type"}
    for name, value in rare.items():
        torch.testing.assert_close(value, often[name], rtol=0, atol=0, equal_nan=True)


def test_a_strangers_belief_is_its_own() -> None:
    own, foreign = (kept(Counting(), seats=seats)["mean"][..., 2] for seats in ({}, {0: Stranger()}))
    assert own[:, 0, 0].tolist() == [0, 1, 2]
    assert foreign[:, 0, 0].tolist() == [1, 2, 0]
