"""PEARL and what it is with other parts: it learns, adapts with fixed parameters, and resumes."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
import yaml
from torch import Tensor

from inference_marl.config.files import build, dump
from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame
from inference_marl.inference.schedules import Linear
from inference_marl.inference.svi import elbo_loss
from inference_marl.learners import Pearl
from inference_marl.learners.latent import GaussianFactors
from inference_marl.learners.latent.contexts import Posterior
from inference_marl.learners.latent.networks import OpponentActions, outlook_features
from inference_marl.play import Collector, GameSimulator, update
from inference_marl.spaces import Box, Discrete
from tests.learners.boxes import ThreeBoxes, bound
from tests.learners.latent.matching import (
    CONTEXTS,
    EPISODES,
    HORIZON,
    SMALL,
    E,
    Matching,
    R,
    collecting,
    pearl,
    seated,
    trained,
)
from tests.runs.small_runs import assert_same, complete, cut_after, run

LEARNERS = {
    "Pearl": ("any", lambda: pearl("none")),
    "Pearl, of draws": ("box", pearl),
    "Pearl, of moments": (
        "any",
        lambda: pearl(trained_by="both", actor_reads="moments", critic_reads="moments", renewed="step"),
    ),
    "Pearl, of opponents": (
        "any",
        lambda: pearl(trained_by="opponents", actor_reads="moments", temperature=Linear(0.5, 0.1, 3)),
    ),
    "Pearl, of forecasts": (
        "box",
        lambda: pearl(trained_by="opponents", actor_reads="forecasts", critic_reads="actions", forecasts=3),
    ),
    "Pearl, of transitions": ("any", lambda: pearl(trained_by="transitions", actor_reads="moments")),
    "Pearl, with a value": ("any", lambda: pearl(bootstrap="value", actor_reads="moments")),
    "Pearl, recurrent": ("any", lambda: pearl("recurrent", trained_by="both", renewed="step", opponent_sd=0.3)),
    "Pearl, recurrent, by episode": ("any", lambda: pearl("recurrent, some steps", max_gradient_norm=1.0)),
}
OPTIONS = list(
    itertools.product(
        CONTEXTS,
        ("critic", "opponents", "both", "transitions"),
        ("draw", "moments"),
        ("draw", "moments"),
        ("episode", "step"),
    )
)
OPTIONS += list(
    itertools.product(CONTEXTS, ("opponents",), ("draw", "forecasts"), ("moments", "actions"), ("episode", "step"))
)


@pytest.mark.slow
@pytest.mark.parametrize("discrete", [False, True])
def test_every_combination_of_options_plays_and_learns(discrete: bool) -> None:
    for context, trained_by, actor_reads, critic_reads, renewed in OPTIONS:
        options = {"trained_by": trained_by, "actor_reads": actor_reads, "critic_reads": critic_reads}
        learner = pearl(context, renewed=renewed, **options)
        actors = seated(learner, Matching(discrete))
        before = {name: value.clone() for name, value in actors[0].named_parameters()}
        (said, _) = update(actors, collecting(actors).collect(EPISODES * HORIZON))
        assert all(bool(value.isfinite().all()) and value.shape == (R,) for value in said.values())
        expected = {"critic_loss", "temperature", "fitted_steps", "encoded_steps"}
        expected |= {"posterior_kl", "posterior_sd"} if context == "factors" else set()
        assert said.keys() == expected | (set() if trained_by == "critic" else {"opponent_nll"})
        parts = ("actor.", "critics.", "context.", "opponents.", "outcomes.", "log_temperature")
        moved = {
            part
            for part in parts
            for name, value in before.items()
            if name.startswith(part) and not torch.equal(value, dict(actors[0].named_parameters())[name])
        }
        there = {part for part in parts for name in before if name.startswith(part)}
        assert moved == there, (context, options, renewed)


def test_how_many_transitions_are_learned_from_and_read() -> None:
    """A recurrent one learns from whole trials, or from as many as the others do."""
    counts = {}
    for context in CONTEXTS:
        actors = seated(pearl(context))
        (said, _) = update(actors, collecting(actors).collect(EPISODES * HORIZON))
        counts[context] = tuple(int(said[f"{name}_steps"][0]) for name in ("fitted", "encoded"))
    tasks, batch, trial = SMALL["tasks_per_update"], SMALL["batch"], EPISODES * HORIZON
    assert counts == {
        "none": (tasks * batch, 0),
        "factors": (tasks * batch, tasks * 5),
        "recurrent": (tasks * trial, tasks * trial),
        "recurrent, some steps": (tasks * batch, tasks * trial),
        "told": (tasks * batch, 0),
    }


def returns(learner: Any, other: Any) -> Tensor:
    """Greedy returns by episode of a trial, `episodes x replicates`."""
    torch.manual_seed(9)
    collector = collecting([learner, other], explore=False, environments=60, seed=3)
    rewards = collector.collect(EPISODES * HORIZON).stacked.rewards[..., 0]
    return rewards.view(EPISODES, HORIZON, R, 60).sum(1).mean(-1)


@pytest.mark.slow
def test_a_context_helps_from_the_second_episode_on_and_an_oracle_from_the_first() -> None:
    """Who knows nothing stays in the middle, for 0; who knows all is at home, for 3."""
    found = {}
    for name, options in {
        "none": {},
        "factors": {"trained_by": "both", "actor_reads": "moments", "kl_weight": 0.01},
        "told": {},
    }.items():
        more: Any = {"hidden": (16,), "batch": 16, "replay": 2000, "learning_rate": 1e-2, "discount": 0.5}
        learner = pearl(name, **more | {"temperature": 0.02} | options)
        actors = seated(learner, dtype="float32", environments=8)
        collector = collecting(actors, environments=8)
        for _ in range(8):
            update(actors, collector.collect(EPISODES * HORIZON), updates=20)
        found[name] = returns(*actors)
    assert found["none"].max() < 1.0
    assert (found["factors"][1] > found["none"][1] + 1).all()
    assert (found["factors"][1] > found["factors"][0] + 0.5).all()
    assert (found["told"][0] > found["factors"][0] + 1).all()
    assert found["told"].min() > 2.0


@pytest.mark.parametrize("context", CONTEXTS)
def test_adaptation_changes_no_parameter(context: str) -> None:
    """To the bit, nor anything else that a checkpoint holds of the learner; memory alone moves."""
    learner, _ = trained(pearl(context, trained_by="both", renewed="step"), 8)
    kept = copy.deepcopy(learner.state_dict())
    actors = [learner, seated(pearl())[1]]
    collector = collecting(actors, explore=False)
    collector.collect(2)
    now = learner.state_dict()
    for name, value in kept.items():
        assert torch.equal(value, now[name]) if isinstance(value, Tensor) else str(value) == str(now[name])
    if context not in ("none", "told"):
        before = {name: value.clone() for name, value in collector.memories[0].items()}
        collector.collect(1)
        assert all(bool((collector.memories[0][name] != value).any()) for name, value in before.items())


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("cut", [HORIZON - 1, HORIZON, HORIZON + 2])
def test_a_stop_in_the_middle_of_a_trial_changes_nothing(context: str, cut: int) -> None:
    """Replay and memory go on to the bit, from within an episode and from between two of a trial."""
    whole, parts = (seated(pearl(context, trained_by="both", renewed="step")) for _ in range(2))
    runs = []
    for actors in (whole, parts):
        torch.manual_seed(4)
        collector = collecting(actors)
        for _ in range(EPISODES * HORIZON + cut):
            update(actors, collector.collect())
        if actors is parts:
            saved = copy.deepcopy([actor.state_dict() for actor in actors]), copy.deepcopy(collector.state_dict())
            actors = seated(pearl(context, trained_by="both", renewed="step"))
            collector = collecting(actors)
            for actor, state in zip(actors, saved[0], strict=True):
                actor.load_state_dict(state)
            collector.load_state_dict(saved[1])
        torch.manual_seed(6)
        found = []
        for _ in range(HORIZON + 2):
            newest = collector.collect()
            found += [*newest.flat.actions, *update(actors, newest)[0].values()]
        runs.append([*found, *actors[0].parameters(), *actors[0].trials.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


@pytest.mark.parametrize("discrete", [False, True])
def test_targets_by_hand(discrete: bool) -> None:
    """`c r + gamma (min Q'(s', a', z) - alpha log pi(a' | s', z))`, and nothing after a terminal state."""
    options: Any = {"temperature": 0.3, "reward_scale": 5.0, "discount": 0.9}
    learner, _ = trained(pearl("told", **options), 4, Matching(discrete))
    drawn = learner.belief.draw(learner.trials, learner.trials.draw_tasks(2), 4, False)
    terminated = torch.zeros(R, 2, 4, dtype=torch.bool)
    terminated[..., 0] = True
    drawn = drawn._replace(steps=drawn.steps._replace(terminated=terminated))
    model = learner.model(drawn)
    z = drawn.before.mean
    torch.manual_seed(8)
    found = model.target(z)
    torch.manual_seed(8)
    seen = torch.cat([model.seen.next_obs, z.expand(R, 2, 4, 1)], -1)
    policy = learner.actor(seen.flatten(1, 2))
    if discrete:
        first, second = (critic(seen) for critic in learner.target.each)
        probs = policy.probs.view(R, 2, 4, 2)
        value = (probs * (torch.minimum(first, second) - 0.3 * probs.log())).sum(-1)
    else:
        action = policy.sample()
        inputs = torch.cat([model.seen.next_obs, action.view(R, 2, 4, 1), z.expand(R, 2, 4, 1)], -1)
        first, second = (critic(inputs).squeeze(-1) for critic in learner.target.each)
        value = torch.minimum(first, second) - 0.3 * policy.log_prob(action).view(R, 2, 4)
    torch.testing.assert_close(found, 5.0 * model.seen.reward + 0.9 * value * ~terminated)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("context", ["none", "told"])
def test_targets_of_actions_by_hand(context: str, discrete: bool) -> None:
    """Mean over draws of b, which are not those that the policy is given, of either critic; then the smaller."""
    options: Any = {"trained_by": "opponents", "actor_reads": "forecasts", "critic_reads": "actions", "forecasts": 3}
    learner, _ = trained(pearl(context, temperature=0.3, **options), 4, Matching(discrete))
    drawn = learner.belief.draw(learner.trials, learner.trials.draw_tasks(2), 4, False)
    model, z = learner.model(drawn), drawn.before.mean
    torch.manual_seed(8)
    found = model.target(z)
    torch.manual_seed(8)
    obs = model.seen.next_obs
    wide, believed = obs.repeat_interleave(3, 2), z.expand(R, 2, 12, -1)
    (act,) = learner.opponents(wide, believed)
    shown = act.sample().clamp(-1, 1).view(R, 2, 4, 3)
    policy = learner.actor(torch.cat([obs, shown], -1).flatten(1, 2))
    judged = act.sample().clamp(-1, 1)
    assert not torch.equal(judged.view(R, 2, 4, 3), shown)
    if discrete:
        values = [critic(torch.cat([wide, judged], -1)).view(R, 2, 4, 3, 2).mean(3) for critic in learner.target.each]
        probs = policy.probs.view(R, 2, 4, 2)
        value = (probs * (torch.minimum(*values) - 0.3 * probs.log())).sum(-1)
    else:
        action = policy.sample()
        inputs = torch.cat([wide, action.view(R, 2, 4, 1).repeat_interleave(3, 2), judged], -1)
        values = [critic(inputs).view(R, 2, 4, 3).mean(3) for critic in learner.target.each]
        value = torch.minimum(*values) - 0.3 * policy.log_prob(action).view(R, 2, 4)
    discounted = learner.discount * value * ~drawn.steps.terminated
    torch.testing.assert_close(found, model.seen.reward + discounted)


def test_critics_of_actions_are_shown_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    options: Any = {"trained_by": "opponents", "critic_reads": "actions"}
    learner, _ = trained(pearl(**options), 4)
    drawn = learner.belief.draw(learner.trials, learner.trials.draw_tasks(2), 4, False)
    model, shown = learner.model(drawn), []
    forward = learner.critics.forward
    monkeypatch.setattr(learner.critics, "forward", lambda *given: shown.append(given[1]) or forward(*given))
    torch.testing.assert_close(by_pyro_of(learner, model), by_pyro_of(learner, model))
    torch.testing.assert_close(shown[0], model.seen.opponent_actions[0])


def by_pyro_of(learner: Any, model: Any) -> Tensor:
    torch.manual_seed(2)
    return elbo_loss(learner.elbo, model, model.guide, 1)


def test_a_value_network_by_hand() -> None:
    """Targets are `r + gamma V'(s', z)`; V goes towards `min Q - alpha log pi` of the policy, and V' follows V."""
    options: Any = {"bootstrap": "value", "temperature": 0.3, "target_rate": 0.25, "learning_rate": 1e-3}
    learner, newest = trained(pearl("told", **options), 4)
    drawn = learner.belief.draw(learner.trials, learner.trials.draw_tasks(2), 4, False)
    model, z = learner.model(drawn), drawn.before.mean
    seen = torch.cat([model.seen.next_obs, z.expand(R, 2, 4, 1)], -1)
    following = learner.target.network(seen).squeeze(-1)
    going_on = learner.discount * following * ~drawn.steps.terminated
    torch.testing.assert_close(model.target(z), model.seen.reward + going_on)

    slow = [each.clone() for each in learner.target.parameters()]
    learner.learn(newest, [])
    for before, now, towards in zip(slow, learner.target.parameters(), learner.value.parameters(), strict=True):
        torch.testing.assert_close(now, 0.75 * before + 0.25 * towards)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(("context", "critic_reads"), [("told", "draw"), ("factors", "moments"), ("recurrent", "draw")])
def test_the_loss_of_a_value_network_by_hand(
    context: str, critic_reads: str, discrete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of `(V(s, z) - min Q(s, a, z) + alpha log pi)^2`, `a ~ pi`, over the steps that are there."""
    options: Any = {"bootstrap": "value", "temperature": 0.3, "critic_reads": critic_reads}
    learner, _ = trained(pearl(context, **options), EPISODES * HORIZON + 2, Matching(discrete))
    drawn = learner.belief.draw(learner.trials, learner.trials.draw_tasks(2), 4, False)
    model, (mean, sd) = learner.model(drawn), drawn.before.detach()
    model.z = z = mean if sd is None else mean + 0.5 * sd
    taken: list[Tensor] = []
    monkeypatch.setattr(learner.value_optimiser, "step", taken.append)
    monkeypatch.setattr(learner.actor_optimiser, "step", lambda loss: None)
    torch.manual_seed(1)
    learner._improve(model)
    torch.manual_seed(1)
    steps = model.seen.obs.shape[2]
    given = torch.cat([mean, sd], -1) if critic_reads == "moments" and sd is not None else z
    z, given = (each.expand(-1, -1, steps, -1) for each in (z, given))
    policy = learner.actor(torch.cat([model.seen.obs, z], -1).flatten(1, 2))
    if discrete:
        probs = policy.probs.view(R, 2, steps, 2)
        first, second = (critic(torch.cat([model.seen.obs, given], -1)) for critic in learner.critics.each)
        soft = (probs * (torch.minimum(first, second) - 0.3 * probs.log())).sum(-1)
    else:
        action = policy.rsample()
        seen = torch.cat([model.seen.obs, action.view(R, 2, steps, 1), given], -1)
        first, second = (critic(seen).squeeze(-1) for critic in learner.critics.each)
        soft = torch.minimum(first, second) - 0.3 * policy.log_prob(action).view(R, 2, steps)
    error = (learner.value.network(torch.cat([model.seen.obs, given], -1)).squeeze(-1) - soft).square()
    there = drawn.steps.there
    there = torch.ones_like(error, dtype=torch.bool) if there is None else there
    expected = torch.stack([error[r][there[r]].mean() for r in range(R)])
    torch.testing.assert_close(taken[0], expected)
    monkeypatch.undo()
    others = [*learner.critics.parameters(), *learner.actor.parameters()]
    assert all(each is None for each in torch.autograd.grad(taken[0].sum(), others, allow_unused=True))


def test_forecasts_are_as_wide_as_the_belief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy, and what judges it, have draws of b each of a z of its own, of mean and sd as they are in use."""
    options: Any = {"trained_by": "opponents", "actor_reads": "forecasts", "critic_reads": "actions", "forecasts": 3}
    learner, _ = trained(pearl("factors", **options), EPISODES * HORIZON + 2)
    used: list[Tensor] = []
    draw = Posterior.draw

    def noted(self: Posterior) -> Tensor:
        used.append(draw(self))
        return used[-1]

    monkeypatch.setattr(Posterior, "draw", noted)
    believed = Posterior(torch.zeros(R, 2, 1, learner.belief.features).double(), torch.ones(()).double())
    believed = Posterior(believed.mean + 3.0, 2.0 * torch.ones_like(believed.mean))
    obs = learner.seat.observation.encode(
        learner.seat.observation.uniform(torch.float64, torch.device("cpu")).sample((R, 2, 50)), torch.float64
    )
    for reads in ("forecasts", "actions"):
        used.clear()
        learner._beside(reads, obs, believed, believed.mean)
        (z,) = used
        assert z.shape == (R, 2, 150, learner.belief.features)
        assert abs(z.mean() - 3.0) < 0.3
        assert abs(z.std() - 2.0) < 0.3
    memory = {"mean": believed.mean.squeeze(2), "sd": believed.sd.squeeze(2)}
    used.clear()
    learner._shown(learner.seat.observation.uniform(torch.float64, torch.device("cpu")).sample((R, 2)), memory)
    assert used[0].std() > 1.0


def test_forecasts_stay_in_the_box() -> None:
    seat = bound(pearl("none"), ThreeBoxes())[0].seat
    seat = replace(seat, action_spaces=(seat.action_spaces[0], Box(-10.0, 2.0, 2), Box()))
    model = OpponentActions(seat, 1, (8,), 5.0)
    believed = Posterior(torch.zeros(R, 2, 1, 1).double())
    obs = torch.randn(R, 2, 40, seat.observation.features).double()
    for drawn in (model.actions(obs, believed, 4), model.outlook(obs, believed, 4)):
        inside, free = drawn[..., : drawn.shape[-1] * 2 // 3], drawn[..., drawn.shape[-1] * 2 // 3 :]
        assert inside.abs().max() == 1.0
        assert free.abs().max() > 3.0


def test_rewards_are_in_units_of_all_that_were_seen() -> None:
    learner, _ = trained(pearl("none", trained_by="transitions"), EPISODES * HORIZON + 2)
    rewards = learner.layout.apart(learner.trials.row[:, : learner.trials._size]).reward
    torch.testing.assert_close(learner.rewards.lowest.squeeze(1), rewards.amin(1))
    torch.testing.assert_close(learner.rewards.highest.squeeze(1), rewards.amax(1))


def test_beliefs_are_of_all_that_was_seen() -> None:
    """Also in the middle of an episode, at the beginning of which what the policy is given was renewed."""
    learner, _ = trained(pearl(renewed="episode"), 4)
    actors = [learner, seated(pearl())[1]]
    collector = collecting(actors, explore=False)
    collector.collect(HORIZON + 2)
    memory, obs = collector.memories[0], collector.observe().obs[0]
    known = learner.belief.read(memory)
    found = learner.beliefs(obs, memory, 3)
    torch.testing.assert_close(found["latent_mean"], known.mean)
    torch.testing.assert_close(found["latent_sd"], known.sd)
    assert not torch.equal(memory["mean"], known.mean)


def test_forecasts_of_discrete_actions_are_probabilities() -> None:
    """The mean over draws of z; beside those of actions in boxes, which are draws."""
    seat = bound(pearl("none"), ThreeBoxes())[0].seat
    both = (Discrete(3), Box(-1.0, 1.0, 2))
    seat = replace(seat, action_spaces=(seat.action_spaces[0], *both))
    model = OpponentActions(seat, 2, (8,), 0.5)
    obs, mean = torch.randn(R, 2, 4, seat.observation.features).double(), torch.randn(R, 2, 1, 2).double()
    torch.manual_seed(3)
    shown = model.outlook(obs, Posterior(mean, torch.ones_like(mean)), 6)
    assert shown.shape == (R, 2, 4, outlook_features(both, 6)) == (R, 2, 4, 3 + 6 * 2)
    torch.manual_seed(3)
    z = mean + torch.randn(R, 2, 24, 2, dtype=torch.float64)
    kinds, _ = model(obs.repeat_interleave(6, 2), z)
    torch.testing.assert_close(shown[..., :3], kinds.probs.view(R, 2, 4, 6, 3).mean(3))


def test_forecasts_are_of_the_belief_in_use() -> None:
    """The policy acts on what opponents of the type in its memory would do, one draw after the other."""
    options: Any = {"trained_by": "opponents", "actor_reads": "forecasts", "forecasts": 5, "opponent_sd": 1e-3}
    learner, _ = trained(pearl("told", **options), 4)
    obs = learner.seat.observation.uniform(torch.float64, torch.device("cpu")).sample((R, E))
    memory = {"told": torch.zeros(R, E, 1, dtype=torch.float64), "mean": torch.full((R, E, 1), 0.7).double()}
    shown = learner._shown(obs, memory)
    seen = learner.seat.observation.encode(obs, torch.float64)
    (act,) = learner.opponents(seen.unsqueeze(2), memory["mean"].unsqueeze(2))
    torch.testing.assert_close(shown[..., :-5], seen)
    torch.testing.assert_close(shown[..., -5:], act.base_dist.loc.squeeze(2).expand(-1, -1, 5), rtol=0, atol=0.01)
    assert (shown[..., -5:].std(-1) > 0).all()


@pytest.mark.parametrize("low", [-1.0, -10.0])
def test_a_learnt_temperature_keeps_the_entropy(low: float) -> None:
    """It falls while the policy is wider than wanted, and rises while it is narrower, in boxes of any size."""
    wider = math.log((1 - low) / 2)
    for wanted, rises in ((-20.0, False), (20.0, True)):
        game = ThreeBoxes()
        game.action_spaces = (Box(low, 1.0, 2), *game.action_spaces[1:])
        actors = bound(pearl("none", target_entropy=wanted), game)
        learner = actors[0]
        assert learner._wanted_entropy == pytest.approx(wanted + 2 * wider)
        start = learner.log_temperature.clone()
        update(actors[:1], collect_of(actors, game))
        assert bool((learner.log_temperature > start).all()) == rises
        assert bool((learner.log_temperature != start).all())


def test_target_critics_follow() -> None:
    learner, newest = trained(pearl(target_rate=0.25), EPISODES * HORIZON)
    slow = [value.clone() for value in learner.target.parameters()]
    learner.learn(newest, [])
    fast = learner.critics.parameters()
    for before, now, towards in zip(slow, learner.target.parameters(), fast, strict=True):
        torch.testing.assert_close(now, 0.75 * before + 0.25 * towards)
        assert not torch.equal(now, before)


def test_the_reported_kl_is_that_of_the_belief(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, newest = trained(pearl(), EPISODES * HORIZON)
    drawn = []
    draw = learner.belief.draw

    def kept(*args: Any) -> Any:
        drawn.append(draw(*args))
        return drawn[-1]

    monkeypatch.setattr(learner.belief, "draw", kept)
    said = learner.learn(newest, [])
    mean, sd = drawn[-1].before
    normal = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, sd), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(said["posterior_kl"], normal.sum(-1).mean((1, 2)).detach())


def test_entropy_is_worth_something_to_the_policy() -> None:
    """At a high temperature it stays wide where it pays to be sure."""
    entropies = []
    for temperature in (0.01, 10.0):
        torch.manual_seed(3)
        learner, _ = trained(pearl("none", temperature=temperature, learning_rate=0.01), 100)
        obs = learner.trials.row[:, :8, : learner.seat.observation.features].to(torch.float64)
        policy = learner.actor(obs)
        draws = policy.sample((200,))
        entropies.append(-policy.log_prob(draws).mean().item())
    assert entropies[1] > entropies[0] + 0.5, entropies


def collect_of(actors: Any, game: Any) -> Any:
    return Collector(GameSimulator(game, R, E, dtype=torch.float64), actors).collect()


def test_several_opponents_and_observations_of_all_kinds() -> None:
    game = ThreeBoxes()
    actors = bound(pearl("none", trained_by="both"), game)
    update(actors, collect_of(actors, game))
    for actor, obs in zip(actors, game.observe(game.reset(R, E, torch.device("cpu"), torch.float64)).obs, strict=True):
        found = actor.beliefs(obs, {}, 7)
        assert found.keys() == {"policy", "opponent_model_0", "opponent_model_1"}
        for name, space in zip(found, (actor.seat.action, *actor.seat.opponent_actions), strict=True):
            assert space.misfit(found[name]) is None
            assert found[name].shape == (R, E, 7, *space.event_shape)


def test_what_does_not_fit_is_refused() -> None:
    game = ThreeBoxes()
    game.action_spaces = (Box(-1, 1, (2, 2)), *game.action_spaces[1:])
    with pytest.raises(IncompatibleError, match=r"Pearl got actions Box\(.*, expected Discrete, or vectors in a Box"):
        bound(pearl("none"), game)
    game.action_spaces = (Box(-1), *game.action_spaces[1:])
    with pytest.raises(IncompatibleError, match=r"Pearl got actions Box\(.*, expected Discrete, or vectors in a Box"):
        bound(pearl("none"), game)
    alone = MatrixGame("climbing")
    alone.observations, alone.action_spaces = alone.observations[:1], alone.action_spaces[:1]
    with pytest.raises(IncompatibleError, match="trained_by: got both in a game of one agent, expected opponents"):
        bound(pearl("none", trained_by="both"), alone)
    refused: Any = [
        ({"actor_reads": "forecasts"}, "actor_reads: got forecasts with trained_by critic"),
        ({"critic_reads": "actions", "trained_by": "both"}, "critic_reads: got actions with trained_by both, expected"),
        ({"critic_reads": "actions", "trained_by": "opponents", "bootstrap": "value"}, "bootstrap: got value with"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            Pearl(**options)
    for name, value in {"trained_by": "nobody", "actor_reads": "mean", "renewed": "never"}.items():
        with pytest.raises(ValueError, match=f"{name}: got '?{value}"):
            build(yaml.safe_load(FILE.format(init_args=f"{{{name}: {value}}}")))


def test_the_published_settings() -> None:
    """A KL weight of .1, summed over 16 tasks, and rewards times 5."""
    learner = Pearl.published()
    assert (learner.kl_weight, learner.reward_scale, learner.temperature) == (pytest.approx(1.6), 5.0, 1.0)
    assert learner.bootstrap == "value"
    assert isinstance(learner.context, GaussianFactors)
    assert not learner.context.prior_factor
    seated(learner)


FILE = """
game: {{class_path: tests.learners.latent.matching.Matching}}
replicates: 2
environments: 2
collect: 4
steps: 20
checkpoint_every: 4
tasks: {{class_path: Tasks, init_args: {{ids: [0, 1], episodes: 2}}}}
arms:
  it:
    - {{class_path: Pearl, init_args: {init_args}}}
    - {{class_path: tests.learners.latent.matching.Homebody}}
"""
ARMS = {
    "no context": "{context: null}",
    "PEARL": "{context: {class_path: GaussianFactors, init_args: {latent: 6}}, actor_reads: draw, renewed: episode}",
    "belief": "{context: GaussianFactors, trained_by: opponents, actor_reads: moments, renewed: step, kl_weight: 0.03}",
    "transitions": "{trained_by: transitions, actor_reads: moments}",
    "ROMMEO": "{trained_by: opponents, actor_reads: forecasts, critic_reads: actions, forecasts: 4}",
    "recurrent": "{context: {class_path: Recurrent, init_args: {hidden: 64}}, renewed: step}",
    "recurrent, predicting": "{context: Recurrent, trained_by: both, renewed: step}",
    "oracle": "{context: Told}",
}


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_files_name_every_arm(arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built says of itself what was read; it runs and records, stopped in the middle of a trial or not."""
    experiment = build(yaml.safe_load(FILE.format(init_args=ARMS[arm])))
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    whole, cut = run(experiment, tmp_path, "whole"), tmp_path / "cut"
    cut_after(2, monkeypatch, experiment, cut)
    complete(experiment, cut)
    assert_same(whole, cut)
    with xr.open_dataset(whole / "metrics.nc") as metrics:
        assert ("posterior_sd" in metrics) == (arm in ("PEARL", "belief", "transitions", "ROMMEO"))
