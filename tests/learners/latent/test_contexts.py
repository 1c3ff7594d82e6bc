"""What is believed of opponents: products of normals, memories, and when they are forgotten."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame
from inference_marl.learners import Stationary
from inference_marl.learners.latent import GaussianFactors, Pearl, Recurrent
from inference_marl.learners.latent.encoders import LEAST_VARIANCE
from inference_marl.learners.latent.rows import Rows
from inference_marl.play import Collector, GameSimulator
from inference_marl.types import Game
from tests.learners.boxes import ThreeBoxes, bound
from tests.learners.latent.matching import EPISODES, HORIZON, E, Matching, R, collecting, pearl, seated


def factors(**changes: Any) -> Any:
    context = GaussianFactors(**{"latent": 2, "hidden": (8,)} | changes)
    return seated(Pearl(context=context, hidden=(8,)))[0].belief


@pytest.mark.parametrize("prior_factor", [True, False])
def test_the_belief_is_the_normalised_product_of_normal_densities(prior_factor: bool) -> None:
    """On a grid, in one coordinate."""
    context = factors(latent=1, prior_factor=prior_factor)
    rows = torch.randn(R, 1, 4, context.layout.features, dtype=torch.float64)
    with torch.no_grad():
        mean, spread = context.network(rows.flatten(1, 2)).chunk(2, -1)
        found = context(rows)
    variance = torch.nn.functional.softplus(spread) + LEAST_VARIANCE
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64).view(1, 1, -1)
    log_density = -((grid - mean) ** 2 / variance).sum(1) / 2
    log_density = log_density - grid[0] ** 2 / 2 if prior_factor else log_density
    share = log_density.softmax(-1)
    expected = (share * grid[0]).sum(-1)
    torch.testing.assert_close(found.mean.flatten(), expected, rtol=0, atol=1e-6)
    sd = (share * (grid[0] - expected.unsqueeze(-1)) ** 2).sum(-1).sqrt()
    torch.testing.assert_close(found.sd.flatten(), sd, rtol=0, atol=1e-6)


def test_the_order_of_transitions_does_not_matter_nor_do_those_that_do_not_count() -> None:
    context = factors()
    rows = torch.randn(R, 2, 6, context.layout.features, dtype=torch.float64)
    there = torch.tensor([True, True, False, True, False, True]).expand(R, 2, 6)
    some = context(rows, there)
    order = torch.randperm(6)
    for one, other in ((context(rows), context(rows[:, :, order])), (some, context(rows[:, :, there[0, 0]]))):
        torch.testing.assert_close(one.mean, other.mean)
        torch.testing.assert_close(one.sd, other.sd)


@pytest.mark.parametrize("prior_factor", [True, False])
def test_an_empty_context_is_the_prior(prior_factor: bool) -> None:
    context = factors(prior_factor=prior_factor)
    rows = torch.randn(R, 2, 3, context.layout.features, dtype=torch.float64)
    empty = context(rows, torch.zeros(R, 2, 3, dtype=torch.bool))
    assert torch.equal(empty.mean, torch.zeros(R, 2, 2, dtype=torch.float64))
    assert torch.equal(empty.sd, torch.ones(R, 2, 2, dtype=torch.float64))


def test_memory_is_the_encoder_of_the_whole_context() -> None:
    """With the parameters as they are, step by step in play, over the end of an episode."""
    actors = seated(pearl(renewed="step", actor_reads="moments"))
    collector = collecting(actors)
    played = collector.collect(HORIZON + 1)
    learner = actors[0]
    rows = torch.stack([learner.layout.of(step.seen_by(learner.seat)) for step in played.steps], 2)
    expected = learner.belief(rows)
    memory = collector.memories[0]
    torch.testing.assert_close(memory["mean"], expected.mean.detach())
    torch.testing.assert_close(memory["sd"], expected.sd.detach())


def test_recurrent_memory_is_the_state_after_the_whole_trial() -> None:
    actors = seated(pearl("recurrent", renewed="step"))
    collector = collecting(actors)
    played = collector.collect(HORIZON + 1)
    learner = actors[0]
    rows = torch.stack([learner.layout.of(step.seen_by(learner.seat)) for step in played.steps], 2)
    torch.testing.assert_close(collector.memories[0]["hidden"], learner.belief.states(rows)[:, :, -1].detach())


@pytest.mark.parametrize("context", ["factors", "recurrent"])
def test_evidence_is_forgotten_where_a_task_begins_and_only_there(context: str) -> None:
    actors = seated(pearl(context, renewed="step"))
    collector = collecting(actors)
    evidence = "precision" if context == "factors" else "hidden"
    for step in range(1, 2 * EPISODES * HORIZON + 1):
        collector.observe()
        before = collector.memories[0][evidence]
        assert bool((before == 0).all()) == ((step - 1) % (EPISODES * HORIZON) == 0)
        (played,) = collector.collect().steps
        assert played.task_ended is not None
        assert bool(played.task_ended.all()) == (step % (EPISODES * HORIZON) == 0)
        assert not bool((collector.memories[0][evidence] == 0).any())


@pytest.mark.parametrize(("renewed", "changes"), [("step", range(12)), ("episode", (0, 3, 6, 9))])
def test_what_the_policy_is_given_is_renewed(renewed: Any, changes: Any) -> None:
    """After a step, or with an episode; a draw stays as long as the posterior that it is of."""
    actors = seated(pearl(renewed=renewed))
    collector = collecting(actors)
    before = torch.full((R, E, 2), torch.nan, dtype=torch.float64)
    for step in range(12):
        collector.observe()
        now = collector.memories[0]
        assert bool((now["draw"] != before).all()) == (step in changes)
        before = now["draw"].clone()
        collector.collect()


def test_without_tasks_ends_of_tasks_are_not_known() -> None:
    actors = seated(pearl("none"))
    collector = Collector(GameSimulator(Matching(), R, E, dtype=torch.float64), actors)
    (step,) = collector.collect().steps
    assert step.task_ended is None


def test_an_oracle_is_told_the_type_and_nothing_else_changes_it() -> None:
    actors = seated(pearl("told", renewed="step"))
    collector = collecting(actors)
    played = collector.collect(5).stacked
    assert played.task is not None
    expected = 2.0 * played.task[-1].double() - 1
    assert torch.equal(collector.memories[0]["mean"].squeeze(-1), expected)


def test_a_game_without_hidden_types_has_no_oracle() -> None:
    with pytest.raises(IncompatibleError, match=r"context: Told got Matching, without hidden_type, expected a game"):
        seated(pearl("told"), Matching(reveals=False))


def test_a_context_needs_tasks() -> None:
    actors = seated(pearl())
    collector = Collector(GameSimulator(Matching(), R, E, dtype=torch.float64), actors)
    with pytest.raises(IncompatibleError, match="Pearl got no tasks, expected the experiment's key tasks"):
        actors[0].store(collector.collect())
    (oracle, other) = seated(pearl("told"))
    with pytest.raises(IncompatibleError, match="Told got no task, expected the key tasks"):
        Collector(GameSimulator(Matching(), R, E, dtype=torch.float64), [oracle, other]).collect()


def test_what_does_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"least_context_steps: got 7, expected at most context_steps, 5"):
        GaussianFactors(context_steps=5, least_context_steps=7)


@pytest.mark.parametrize("game", [ThreeBoxes(), MatrixGame("stag_hunt", horizon=4, memory=1)])
def test_rows_are_taken_apart_as_they_were_put_together(game: Game) -> None:
    """Of several opponents, and of discrete observations and actions, too."""
    actors = bound(Stationary(), game)
    collector = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors)
    seat = actors[-1].seat
    (step,) = (each.seen_by(seat) for each in collector.collect().steps)
    rows = Rows(seat)
    apart = rows.apart(rows.of(step))
    given = (step.obs, step.action, *step.opponent_actions, step.next_obs)
    found = (apart.obs, apart.action, *apart.opponent_actions, apart.next_obs)
    for space, value, features in zip((*seat.spaces, seat.observation), given, found, strict=True):
        torch.testing.assert_close(features, space.encode(value, torch.float64))
    assert torch.equal(apart.reward, step.reward)


def test_gru_in_training_meets_the_states_of_play() -> None:
    """Before each step of a trial, its state is what memory was in play; by episode, what it was at its beginning."""
    actors = seated(pearl("recurrent", renewed="step"))
    collector = collecting(actors)
    learner = actors[0]
    played, memories = [], []
    for _ in range(EPISODES * HORIZON):
        collector.observe()
        memories.append(collector.memories[0]["hidden"].clone())
        played.append(collector.collect())
        learner.store(played[-1])
    states = torch.stack(memories, 2)  # replicates x environments x time x hidden
    assert isinstance(learner.belief, Recurrent)
    groups = learner.trials.draw_tasks(2)
    for by_episode in (False, True):
        drawn = learner.belief.draw(learner.trials, groups, 4, by_episode)
        rows = torch.stack([learner.layout.of(each.flat.seen_by(learner.seat)) for each in played], 2)
        for r in range(R):
            for task in range(2):
                (e,) = [e for e in range(E) if torch.equal(rows[r, e], drawn.steps.rows[r, task])]
                expected = states[r, e]
                if by_episode:
                    expected = expected[[0] * HORIZON + [HORIZON] * HORIZON]
                torch.testing.assert_close(drawn.before.mean[r, task].detach(), expected)
                after = expected if by_episode else expected[1:]
                torch.testing.assert_close(drawn.after.mean[r, task].detach()[: len(after)], after)
