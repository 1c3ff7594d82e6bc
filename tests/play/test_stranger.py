"""Strangers in evaluations: learners of other replicates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.config.together import together
from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import CoinGame, MatrixGame
from inference_marl.learners import Maddpg, Scripted
from inference_marl.learners.alignment import RecurrentAlignment
from inference_marl.play import Collector, Evaluation, GameSimulator, Stranger, Tasks, TrialEvaluation
from inference_marl.types import Actor, Learner, State, Step, Transition
from tests.learners.latent.matching import Homebody, Matching, pearl, seated
from tests.runs.small_runs import assert_same, climbing, complete, cut_after, rommeo_q, run


class Uneven(Matching):
    """Episodes have one, two or three steps, in every replicate and environment others."""

    terminates = True

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        lives = 1 + (torch.arange(replicates).unsqueeze(1) + torch.arange(environments)) % 3
        return {**super().reset(replicates, environments, device, dtype, task), "left": lives}

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        step, left = super().step(state, actions), state["left"] - 1
        return step._replace(state={**step.state, "left": left}, terminated=left == 0)


def remembering() -> Learner:
    """Remembers all steps of a trial, and draws nothing."""
    return pearl(renewed="step", trained_by="opponents", actor_reads="moments")


def bound(game: CoinGame | MatrixGame, learner: Learner, replicates: int = 3) -> tuple[list[Actor], Evaluation]:
    """Two learners, bound, and an evaluation in which the second is a stranger."""
    actors = Experiment(game, {"a": [learner, learner]}, replicates=replicates, environments=2).bind("a")
    return list(actors), Evaluation(every=1, steps=12, environments=4, seats={1: Stranger()})


@pytest.mark.parametrize(
    ("game", "learner"),
    [
        (CoinGame(observation="relative", horizon=5), RecurrentAlignment()),  # with a memory, over the end of episodes
        (MatrixGame("stag_hunt", horizon=5, memory=1), Maddpg(hidden=(4,), replay=20)),
    ],
)
def test_it_plays_as_the_next_replicate(game: CoinGame | MatrixGame, learner: Learner) -> None:
    actors, evaluation = bound(game, learner)
    met = evaluation.play(game, evaluation.seated(actors)).stacked
    alone = Evaluation(every=1, steps=12, environments=4)
    before = alone.play(game, actors).stacked
    with torch.no_grad():
        for value in [*actors[1].parameters(), *actors[1].buffers()]:
            value.copy_(value.roll(-1, 0))
    swapped = alone.play(game, actors).stacked
    for mine, theirs in zip(met.actions, swapped.actions, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    assert not torch.equal(before.actions[1], met.actions[1])


@pytest.mark.parametrize("game", [Matching(), Uneven()])
def test_it_remembers_what_opponents_did_to_it(game: Matching) -> None:
    """And not to the one whose weights it has; also where episodes and trials end at different times."""
    actors = seated(remembering(), game)
    settings: dict[str, Any] = {"every": 1, "steps": 12, "environments": 4, "tasks": Tasks([0, 1], episodes=2)}
    strange = Evaluation(seats={0: Stranger()}, **settings)
    met = strange.play(game, strange.seated(actors)).stacked
    with torch.no_grad():
        for value in actors[0].parameters():
            value.copy_(value.roll(-1, 0))
    swapped = Evaluation(**settings).play(game, actors).stacked
    for mine, theirs in zip(met.actions, swapped.actions, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert (met.ended == met.ended[:, :1, :1]).all() == (type(game) is Matching)


@pytest.mark.parametrize(("game", "ends"), [(Matching(), {3}), (Uneven(), {3, 4, 9})])
def test_stopped_in_the_middle_of_trials_it_goes_on_as_if_nothing_had_happened(game: Matching, ends: set[int]) -> None:
    """So does somebody else with the same weights: as the next replicate, with what was saved of its own memory."""

    def playing(strange: bool = True) -> Collector:
        actors = seated(remembering(), game)
        if strange:
            actors = Evaluation(every=1, environments=4, seats={0: Stranger()}).seated(actors)
        else:
            with torch.no_grad():
                for value in actors[0].parameters():
                    value.copy_(value.roll(-1, 0))
        return Collector(GameSimulator(game, 3, 4, dtype=torch.float64), actors, False, Tasks([0, 1], episodes=2))

    def goes_on(collector: Collector) -> Transition:
        torch.manual_seed(1)
        return collector.collect(9).stacked

    one, other, swapped = playing(), playing(), playing(strange=False)
    for each in (one, swapped):
        torch.manual_seed(0)
        each.collect(4)
    stopped, expected = one.state_dict(), swapped.state_dict()
    assert stopped["memories"][0]
    torch.testing.assert_close(stopped["memories"], expected["memories"])
    played, theirs = goes_on(one), goes_on(swapped)
    assert {int(each) for each in played.ended.sum(0).unique()} == ends
    torch.testing.assert_close((played.actions, played.rewards), (theirs.actions, theirs.rewards))
    for each in (one, other):
        each.load_state_dict(stopped)
        again = goes_on(each)
        torch.testing.assert_close((again.actions, again.rewards), (played.actions, played.rewards), rtol=0, atol=0)


def test_a_run_that_is_resumed_meets_the_same_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = TrialEvaluation(
        every=2, environments=4, after=[0, 1], tasks=Tasks([0, 1], episodes=2), seats={0: Stranger()}
    )
    experiment = Experiment(
        Uneven(),
        {"a": [remembering(), Homebody()]},
        replicates=3,
        environments=2,
        steps=8,
        checkpoint_every=3,
        tasks=Tasks([0, 1], episodes=2),
        evaluation={"strange": strange},
        draws=2,
    )
    whole, cut = run(experiment, tmp_path, "whole"), tmp_path / "cut"
    cut_after(5, monkeypatch, experiment, cut)
    complete(experiment, cut)
    assert_same(whole, cut)


def test_it_has_learned_what_the_next_replicate_has() -> None:
    game = MatrixGame("stag_hunt", horizon=5, memory=1)
    actors, evaluation = bound(game, Maddpg(hidden=(4,), replay=20))
    seated = evaluation.seated(actors)

    def played() -> Tensor:
        return evaluation.play(game, seated).stacked.actions[1]

    before = played()
    with torch.no_grad():
        for value in actors[1].parameters():
            value.copy_(-value)
    assert not torch.equal(before, played())


def test_a_script_with_a_memory_is_its_own_like() -> None:
    """Tit for tat is the same in every replicate."""
    tit_for_tat = Scripted(probabilities=[[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
    game = MatrixGame("prisoners_dilemma", horizon=5, memory=1)
    actors = Experiment(game, {"a": [rommeo_q(), tit_for_tat]}, replicates=3).bind("a")
    plain = Evaluation(every=1, steps=5, environments=4)
    strange = Evaluation(every=1, steps=5, environments=4, seats={1: Stranger()})
    one, other = (each.play(game, each.seated(actors)).stacked for each in (plain, strange))
    for mine, theirs in zip(one.actions, other.actions, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_it_needs_another_replicate_and_somebody_else(tmp_path: Path) -> None:
    watched = {"strangers": Evaluation(every=1, steps=1, seats={1: Stranger()})}
    with pytest.raises(ValueError, match=r"^evaluation\.strangers\.seats\.1: got a Stranger and 1 replicate"):
        climbing(replicates=1, evaluation=watched)
    with pytest.raises(IncompatibleError, match="got a Stranger where nobody else learns"):
        run(climbing(arms={"a": [rommeo_q(), Stranger()]}), tmp_path)


def test_arms_are_played_one_by_one() -> None:
    """Arms that are played as one have their replicates side by side, and would meet."""
    levels = {name: {"temperature": name} for name in ("a", "b")}
    arms = {"a": rommeo_q(temperature=0.1), "b": rommeo_q(temperature=0.2)}
    experiment = climbing(arms=arms, levels=levels, replicates=3)
    assert len(together(experiment)) == 1
    watched = experiment.replace(evaluation=Evaluation(every=1, steps=1, seats={1: Stranger()}))
    assert len(together(watched)) == 2
