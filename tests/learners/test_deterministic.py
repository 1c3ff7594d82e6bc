"""DDPG, DDPG-OM and MADDPG with inferred policies: what critics see, and what targets are told of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, Rendezvous, Spread
from inference_marl.guides import CategoricalNetwork, SamplerNetwork, TanhNormalNetwork
from inference_marl.inference.action_gradients import GumbelSoftmax, ScoreFunction
from inference_marl.inference.conditional import local_parameters
from inference_marl.inference.noise import NormalNoise
from inference_marl.inference.schedules import ByReplicate
from inference_marl.learners import Stationary
from inference_marl.learners.deterministic import (
    Ddpg,
    DdpgOm,
    DeterministicActorCritic,
    InferredPolicies,
    Maddpg,
    ModellingOthers,
    PredictedActions,
)
from inference_marl.learners.deterministic.modelling import OPPONENT_ERROR, OPPONENT_KL, TARGET_ERROR, compared
from inference_marl.learners.deterministic.stacks import Stack
from inference_marl.models import EmpiricalFrequency, HierarchicalDirichlet
from inference_marl.play import Collector, GameSimulator, update
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Actor, Game, Member, Seat, Trajectory, Transition, seed_streams
from tests.finite_differences import assert_gradients

R, E, B = 3, 2, 5
SMALL: dict[str, Any] = {"hidden": (6,), "batch_size": B, "replay": 40, "warmup": 1}


def inferred(**changes: Any) -> InferredPolicies:
    return InferredPolicies(**{"window": 10, "batch_size": 4} | changes)


def predicted(**changes: Any) -> PredictedActions:
    return PredictedActions(**{"hidden": (6,), "window": 10, "batch_size": 4} | changes)


LEARNERS: dict[str, tuple[str, Callable[[], Actor]]] = {
    "Ddpg": ("any", lambda: Ddpg(**SMALL)),
    "Ddpg, as TD3": ("any", lambda: Ddpg(**SMALL, twin_critics=True, target_noise=0.2, actor_interval=2)),
    "DdpgOm": ("any", lambda: DdpgOm(**SMALL, predicted=predicted())),
    "Maddpg, ensemble": ("box", lambda: Maddpg(**SMALL | {"warmup": 0}, sub_policies=2)),
    "Maddpg, inferred": ("any", lambda: Maddpg(**SMALL, inferred=inferred(), estimator=ScoreFunction())),
}
GAMES: dict[str, Callable[[], Game]] = {
    "boxes": lambda: Rendezvous(dim=2),
    "discrete": lambda: Spread(3),
    "unequal": lambda: MatrixGame(torch.randn(2, 3, 2).tolist(), common=True),
}


def filled(game: Game, arm: Actor, steps: int = 8) -> tuple[DeterministicActorCritic, list[Actor], Trajectory]:
    """A team that has seen some play, out of its warm-up, and everybody; and the play."""
    seed_streams(0, torch.device("cpu"))
    actors = Experiment(game, {"it": arm}, replicates=R, environments=E, dtype="float64").bind("it")
    newest = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors).collect(steps)
    update(actors, newest, 3)
    (first, *_) = actors
    assert isinstance(first, Member)
    assert isinstance(first.of, DeterministicActorCritic)
    return first.of, actors, newest


def by_hand(stack: Stack, row: int, x: Tensor) -> Tensor:
    """Values of a critic with one hidden layer, `replicates x batch`."""
    weights = stack.weights(row)
    hidden = torch.relu(x @ weights["layers.0.weight"] + weights["layers.0.bias"])
    return (hidden @ weights["layers.1.weight"] + weights["layers.1.bias"]).squeeze(-1)


def critic_of(team: DeterministicActorCritic, number: int, copy: int = 0) -> Callable[[Tensor], Tensor]:
    """The target of a member's critic."""
    (its,) = [critics for critics in team.critics if number in critics.numbers]
    return lambda x: by_hand(its.slow[copy], its.numbers.index(number), x)


def features(game: Game, agent: int, action: Tensor) -> Tensor:
    space = game.action_spaces[agent]
    return one_hot(action, space.n).double() if isinstance(space, Discrete) else space.encode(action, torch.float64)


@pytest.mark.parametrize("name", GAMES)
def test_ddpgs_critic_sees_its_own_observation_and_action(name: str) -> None:
    game = GAMES[name]()
    team, _, _ = filled(game, Ddpg(**SMALL))
    data = team.draw()
    joint = team._encoded(data.obs, data.actions, data.alive)
    for critics in team.critics:
        x = critics.inputs(joint).expand(-1, len(critics.numbers), -1, -1)
        for row, number in enumerate(critics.numbers):
            obs = game.observations[number].encode(data.obs[number], torch.float64)
            torch.testing.assert_close(x[:, row], torch.cat([obs, features(game, number, data.actions[number])], -1))
    assert sorted(number for critics in team.critics for number in critics.numbers) == list(range(game.agents))
    assert len(team.critics) == (2 if name == "unequal" else 1)


def test_ddpgs_gradient_is_that_of_its_critic_alone() -> None:
    """Against finite differences; what the others did does not matter."""
    game = Rendezvous(dim=2)
    team, members, _ = filled(game, Ddpg(**SMALL | {"regularisation": 0.1}))
    data = team.draw()
    (group,) = team.groups
    found: list[Tensor] = []
    its = group.optimiser
    its.__dict__["step"] = lambda loss: found.extend(torch.autograd.grad(loss.sum(), its._own))
    joint = team._encoded(data.obs, data.actions, None)
    team._improve(group, data, joint, joint)

    def objective() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for number in range(2):
            own = members[number].policy(data.obs[number], {})[0].base_dist.v  # type: ignore[union-attr]
            value = by_hand(team.critics[0].stacks[0], number, torch.cat([data.obs[number], own], -1))
            total = total + (0.1 * torch.atanh(own).square().mean(-1) - value).mean(-1).sum()
        return total

    assert_gradients(group.actors.parameters(), found, objective, every=9)


def next_own(members: Sequence[Actor], data: Transition) -> list[Tensor]:
    """What everybody's target does next, in boxes."""
    return [
        member.snapshot().slow().act(obs, {}, explore=False).action  # type: ignore[attr-defined]
        for member, obs in zip(members, data.next_obs, strict=True)
    ]


@pytest.mark.parametrize("learner", [Ddpg, DdpgOm, Maddpg])
def test_targets_by_hand(learner: type[DeterministicActorCritic]) -> None:
    """DDPG's of the agent alone, DDPG-OM's with what it predicts from its own observation, MADDPG's as inferred."""
    game = Rendezvous(dim=2)
    more: dict[str, Any] = {
        Ddpg: {},
        DdpgOm: {"predicted": predicted(target_rate=0.3)},
        Maddpg: {"inferred": inferred(target_rate=0.3)},
    }[learner]
    team, members, _ = filled(game, learner(**SMALL, **more, discount=0.9))
    data = team.draw()
    over = torch.zeros_like(data.terminated)
    over[:, ::2] = True
    data = Transition(data.obs, data.actions, data.rewards, data.next_obs, over, over)
    own = next_own(members, data)
    seed_streams(5, torch.device("cpu"))
    targets = team._targets(data)
    for number in range(2):
        other = 1 - number
        if learner is Ddpg:
            x = torch.cat([data.next_obs[number], own[number]], -1)
        else:
            assert isinstance(team, ModellingOthers)
            assert team.module is not None
            row = team.module.kinds[0].index((number, other))
            reads = number if learner is DdpgOm else other
            predicts = team.module.slow[0]
            if learner is DdpgOm:
                weights = {name: value.unflatten(0, (R, 2))[:, row] for name, value in predicts.named_parameters()}
                hidden = torch.relu(data.next_obs[reads] @ weights["network.layers.0.weight"])
                assert not weights["network.layers.0.bias"].eq(0).all()
                hidden = torch.relu(
                    data.next_obs[reads] @ weights["network.layers.0.weight"] + weights["network.layers.0.bias"]
                )
                theirs = torch.tanh(hidden @ weights["network.layers.1.weight"] + weights["network.layers.1.bias"])
            else:
                seed_streams(5, torch.device("cpu"))
                rows = torch.stack([data.next_obs[pair[1]] for pair in team.module.kinds[0]], 1).flatten(0, 1)
                with local_parameters(), torch.no_grad():
                    theirs = predicts(rows).sample().unflatten(0, (R, 2))[:, row]
            done = [own[number], theirs] if number == 0 else [theirs, own[number]]
            seen = [data.next_obs[number]] if learner is DdpgOm else list(data.next_obs)
            x = torch.cat([*seen, *done], -1)
        expected = data.rewards[..., number] + 0.9 * torch.where(over, 0.0, critic_of(team, number)(x))
        torch.testing.assert_close(targets[:, number], expected)


@pytest.mark.parametrize("name", GAMES)
def test_the_smaller_of_two_critics_is_the_target(name: str) -> None:
    game = GAMES[name]()
    team, _, _ = filled(game, Ddpg(**SMALL, twin_critics=True, discount=0.9))
    data = team.replays[0].draw(40)
    data = replace(data, terminated=torch.zeros_like(data.terminated))
    seen = [team._feature(value, place, None) for place, value in enumerate(data.next_obs)]
    seed_streams(1, torch.device("cpu"))
    following = team._following(data, seen)
    seed_streams(1, torch.device("cpu"))
    targets = team._targets(data)
    smaller = 0
    for number in range(game.agents):
        action = following[number]
        done = action if isinstance(game.action_spaces[number], Discrete) else features(game, number, action)
        x = torch.cat([seen[number], done], -1)
        one, other = critic_of(team, number)(x), critic_of(team, number, 1)(x)
        smaller += int((other < one).sum())
        torch.testing.assert_close(targets[:, number], data.rewards[..., number] + 0.9 * torch.minimum(one, other))
    assert 0 < smaller < game.agents * R * 40


def test_noise_on_the_actions_of_targets_is_in_half_widths_clipped_and_stays_in_the_box() -> None:
    team, _, _ = filled(MaxOfTwoQuadratics(), Ddpg(**SMALL, target_noise=0.2))
    space = team.seat.action
    raw = torch.zeros(1, 1, 100_000, 1, dtype=torch.float64)
    noise = team._drawn(space, raw) / 10
    assert float(noise.std()) == pytest.approx(0.2, rel=0.03)
    assert float(noise.abs().max()) == pytest.approx(0.5)
    assert float(team._drawn(space, raw + 20).max()) == pytest.approx(10.0)


def test_delayed_actors_move_with_the_targets_every_other_update() -> None:
    team, actors, newest = filled(Rendezvous(), Ddpg(**SMALL, actor_interval=2))

    moves, worth = [], []
    for _ in range(4):
        before = {name: value.clone() for name, value in team.named_parameters()}
        worth.append(update(actors, newest)[0]["action_value"])
        now = dict(team.named_parameters())
        changed = {".".join(name.split(".")[::2][:2]) for name in now if not torch.equal(now[name], before[name])}
        moves.append(sorted(changed))
    every = ["critics.slow", "critics.stacks", "groups.actors", "groups.slow_actors"]
    # Two updates were made, of which the second left the actors alone.
    assert moves == [every, ["critics.stacks"]] * 2
    assert torch.equal(worth[0], worth[1]), "what is reported is the newest, whatever the rhythm"
    assert not torch.equal(worth[1], worth[2])


@pytest.mark.parametrize("updates", [1, 2])
def test_every_metric_is_reported_however_often_everybody_learns(updates: int) -> None:
    game, arm = Spread(2), Maddpg(**SMALL, inferred=inferred(), actor_interval=2)
    seed_streams(0, torch.device("cpu"))
    actors = Experiment(game, {"it": arm}, replicates=R, environments=E).bind("it")
    collector = Collector(GameSimulator(game, R, E), actors)
    for _ in range(3):
        said = update(actors, collector.collect(), updates)
    assert [set(each) for each in said] == [{"critic_loss", "action_value", OPPONENT_KL.name, TARGET_ERROR.name}] * 2


def test_warm_up_with_the_policys_own_exploration() -> None:
    team, actors, newest = filled(MaxOfTwoQuadratics(), Ddpg(**SMALL | {"warmup": 10, "warmup_actions": "policy"}))
    obs = torch.zeros(R, 2000, dtype=torch.int64)
    played = actors[0].act(obs, {}).action
    assert float((played / 10).std()) == pytest.approx(0.2, rel=0.1)
    before = {name: value.clone() for name, value in team.named_parameters()}
    update(actors, newest)
    assert all(torch.equal(value, before[name]) for name, value in team.named_parameters())


def likely(policies: InferredPolicies, game: Game, steps: int, fits: int) -> tuple[ModellingOthers, Trajectory]:
    team, actors, _ = filled(game, Maddpg(**SMALL | {"warmup": 10**6}, inferred=policies))
    assert isinstance(team, ModellingOthers)
    assert team.module is not None
    newest = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors).collect(steps)
    team.store(newest)
    for _ in range(fits):
        team.module.fit()
    return team, newest


def test_inferred_policies_are_those_that_were_played() -> None:
    """Agents who play uniformly at random are inferred to; those who always do the same, as well."""
    game = MatrixGame("climbing")
    policies = inferred(window=2000, batch_size=500, learning_rate=0.05, conditional=CategoricalNetwork((4,)))
    team, _ = likely(policies, game, 500, 60)
    assert team.module is not None
    obs = [torch.zeros(R, 1, dtype=torch.int64)] * 2
    assert (team.module.beliefs(0, obs)[1] - 1 / 3).abs().max() < 0.06
    only = Transition(
        tuple(torch.zeros(R, 2000, dtype=torch.int64) for _ in range(2)),
        (torch.zeros(R, 2000, dtype=torch.int64), torch.full((R, 2000), 2)),
        torch.zeros(R, 2000, 2, dtype=torch.float64),
        tuple(torch.zeros(R, 2000, dtype=torch.int64) for _ in range(2)),
        torch.zeros(R, 2000, dtype=torch.bool),
        torch.zeros(R, 2000, dtype=torch.bool),
    )
    team.module.observe(only)
    for _ in range(60):
        team.module.fit()
    assert (team.module.beliefs(0, obs)[1][..., 2] > 0.9).all()
    assert (team.module.beliefs(1, obs)[0][..., 0] > 0.9).all()
    believed = team.module.opponent_model(0, obs[0], 1)
    assert believed is not None
    torch.testing.assert_close(believed, [team.module.beliefs(0, obs)[1]])


def test_more_entropy_makes_them_less_sure() -> None:
    game = MatrixGame("climbing")
    found = []
    for entropy in (0.0, 1.0):
        policies = inferred(window=64, batch_size=64, learning_rate=0.05, entropy=entropy)
        team, newest = likely(policies, game, 32, 0)
        assert team.module is not None
        for step in newest.steps:
            step.actions[1].fill_(0)
        team.store(newest)
        for _ in range(80):
            team.module.fit()
        found.append(team.module.beliefs(0, [torch.zeros(R, 1, dtype=torch.int64)] * 2)[1][..., 0].max())
    # -log p - H is least where log(2 p / (1 - p)) = 1 / p.
    assert found[0] > 0.95
    assert float(found[1]) == pytest.approx(0.685, abs=0.02)


def test_they_read_what_the_modelled_agent_sees_and_predictions_what_the_owner_sees() -> None:
    game = Spread(3)
    for arm, reads_theirs in (
        (Maddpg(**SMALL, inferred=inferred()), True),
        (DdpgOm(**SMALL, predicted=predicted()), False),
    ):
        team, _, newest = filled(game, arm)
        assert isinstance(team, ModellingOthers)
        assert team.module is not None
        obs = list(newest.flat.obs)
        believed = team.module.beliefs(0, obs)
        for changed in range(3):
            other = [value + 1.0 if agent == changed else value for agent, value in enumerate(obs)]
            now = team.module.beliefs(0, other)
            for agent in (1, 2):
                differs = not torch.equal(now[agent], believed[agent])
                assert differs == (changed == agent if reads_theirs else changed == 0)


def test_beliefs_are_recorded_where_the_others_observation_is_known() -> None:
    """Of every other agent, where all observe the same; predictions are from the own observation anywhere."""
    common = MatrixGame(torch.randn(2, 3, 2).tolist(), common=True)
    one = torch.zeros(R, 1, dtype=torch.int64)
    for arm in (Maddpg(**SMALL, inferred=inferred()), DdpgOm(**SMALL, predicted=predicted())):
        team, actors, newest = filled(common, arm)
        assert isinstance(team, ModellingOthers)
        assert team.module is not None
        believed, each = actors[0].beliefs(one, {}, 1), team.module.beliefs(0, [one] * 3)
        for number, other in enumerate((1, 2)):
            assert believed[f"opponent_model_{number}"].shape == (R, 1, common.action_spaces[other].features)
            torch.testing.assert_close(believed[f"opponent_model_{number}"], each[other])
        _, others, newest = filled(Spread(3), arm)
        assert ("opponent_model_0" in others[0].beliefs(newest.flat.obs[0], {}, 1)) == isinstance(arm, DdpgOm)
        _, boxes, _ = filled(MaxOfTwoQuadratics(), arm)
        drawn = boxes[0].beliefs(one, {}, 7)["opponent_model"]
        assert drawn.shape == (R, 1, 7, 1)
        assert (drawn[:, :, :1] == drawn).all() == isinstance(arm, DdpgOm)


def test_what_they_are_compared_with_is_the_truth() -> None:
    """By hand: KL of a categorical, distance from the mean of draws; transitions without the agent do not count."""
    spaces = (Discrete(2), Box(-10, 10, 1))
    probs, sure = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])
    actual = {0: probs.expand(R, 4, 2), 1: torch.full((R, 4, 1), 5.0)}
    believed = {0: sure.expand(R, 4, 2), 1: torch.tensor([0.0, 4.0]).view(1, 1, 2, 1).expand(R, 4, 2, 1)}
    found = compared(spaces, believed, actual, None)
    kl = float((probs * (probs / sure).log()).sum())
    torch.testing.assert_close(found[OPPONENT_KL.name], torch.full((R,), kl))
    torch.testing.assert_close(found[OPPONENT_ERROR.name], torch.full((R,), 0.3))
    alive = torch.ones(R, 4, 2, dtype=torch.bool)
    alive[:, :2] = False
    wrong = {agent: torch.cat([torch.full_like(value[:, :2], 0.5), value[:, 2:]], 1) for agent, value in actual.items()}
    for name, value in compared(spaces, believed, wrong, alive).items():
        torch.testing.assert_close(value, found[name])


def errors_of(team: ModellingOthers) -> Tensor:
    """Those of targets, `replicates x team`."""
    team._compare()
    return team.measured[..., 2].clone()


def test_the_error_of_targets_is_nought_if_what_is_believed_is_true() -> None:
    """Of deterministic policies that are the same everywhere, and of random ones, whatever is drawn."""
    for game in (Rendezvous(dim=1), Spread(3)):
        team, _, _ = filled(game, DdpgOm(**SMALL, predicted=predicted(target_rate=1.0)))
        assert isinstance(team, ModellingOthers)
        assert team.module is not None
        assert (errors_of(team) > 0).all()
        for network in (*(group.slow_actors for group in team.groups), *team.module.slow):
            for parameter in network.parameters():
                parameter.data.zero_()
        assert not errors_of(team).any()


def test_where_the_game_is_over_targets_have_no_error() -> None:
    team, _, _ = filled(MatrixGame("climbing"), Maddpg(**SMALL, inferred=inferred()))
    assert isinstance(team, ModellingOthers)
    assert not errors_of(team).any()
    assert (team.measured[..., 0] > 0).all()


def test_seats_that_are_not_the_teams_are_modelled_and_not_compared() -> None:
    """Nobody knows what they would do next."""
    game = Spread(3)
    seed_streams(0, torch.device("cpu"))
    arm = [Maddpg(**SMALL, inferred=inferred(), seats=[2]), Stationary(), Stationary()]
    actors = Experiment(game, {"it": arm}, replicates=R, environments=E, dtype="float64").bind("it")
    collector = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors)
    for _ in range(3):
        said = update(actors, collector.collect(4))
    assert [set(each) for each in said] == [set(), set(), {"critic_loss", "action_value"}]
    member = actors[2]
    assert isinstance(member, Member)
    assert isinstance(member.of, ModellingOthers)
    assert member.of.module is not None
    assert set(member.of.module.beliefs(0, collector.observe().obs)) == {0, 1}


def test_measuring_changes_nothing() -> None:
    game = Spread(2)

    def after(every: int, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Tensor], Tensor]:
        monkeypatch.setattr("inference_marl.learners.deterministic.modelling.COMPARED_EVERY", every)
        team, actors, newest = filled(game, Maddpg(**SMALL, inferred=inferred()))
        said = update(actors, newest, 3)
        return {name: value.clone() for name, value in team.named_parameters()}, said[0][OPPONENT_KL.name]

    with pytest.MonkeyPatch.context() as patched:
        (one, often), (other, once) = after(2, patched), after(1000, patched)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(often, once)


@pytest.mark.parametrize("learner", [Ddpg, DdpgOm, Maddpg])
def test_a_rate_or_discount_may_differ_by_replicate(learner: type[DeterministicActorCritic]) -> None:
    """Each replicate learns as it would if all had its numbers."""
    game = Rendezvous(dim=1)

    def weights(rate: Any, discount: Any) -> list[Tensor]:
        team, _, _ = filled(game, learner(**SMALL | {"learning_rate": rate, "discount": discount}))
        parts = [*(part.actors for part in team.groups), *(stack for part in team.critics for stack in part.stacks)]
        return [value.detach().unflatten(0, (R, 2)) for part in parts for value in part.parameters()]

    rates, discounts = [0.01, 0.001, 0.003], [0.0, 0.9, 0.5]
    apart = [weights(rate, discount) for rate, discount in zip(rates, discounts, strict=True)]
    together = weights(ByReplicate(rates), ByReplicate(discounts))
    for replicate in range(R):
        for one, other in zip(together, apart[replicate], strict=True):
            torch.testing.assert_close(one[replicate], other[replicate])


def test_models_of_pairs_do_not_touch_each_other() -> None:
    """What agent 0 did in replicate 1 changes what is believed of it there, and of nobody else."""
    game = MatrixGame(torch.zeros(2, 3, 2).tolist(), common=True)

    def after(change: int) -> ModellingOthers:
        team, _, newest = filled(game, Maddpg(**SMALL | {"warmup": 10**6}, inferred=inferred()))
        assert isinstance(team, ModellingOthers)
        assert team.module is not None
        for step in newest.steps:
            step.actions[0][1] = change
        team.store(newest)
        for _ in range(3):
            team.module.fit()
        return team

    one, other = after(0).module, after(1).module
    assert one is not None
    assert other is not None
    for its, mine, theirs in zip(one.kinds, one.networks, other.networks, strict=True):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            differs = (a != b).unflatten(0, (R, len(its))).flatten(2).any(-1)
            assert all(int(r) == 1 and its[int(row)][1] == 0 for r, row in differs.nonzero())
    assert any((a != b).any() for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("conditional", [TanhNormalNetwork((5,)), CategoricalNetwork((5,))])
def test_a_family_that_does_not_fit_is_refused(conditional: Any) -> None:
    game = Spread(2) if isinstance(conditional, TanhNormalNetwork) else MaxOfTwoQuadratics()
    with pytest.raises(IncompatibleError, match=r"arms.it.inferred.conditional.*expected (Box|Discrete)"):
        filled(game, Maddpg(**SMALL, inferred=inferred(conditional=conditional)))
    fits = MaxOfTwoQuadratics() if isinstance(conditional, TanhNormalNetwork) else Spread(2)
    filled(fits, Maddpg(**SMALL, inferred=inferred(conditional=conditional), noise=NormalNoise(0.1)))


def test_soft_draws_may_be_passed_on_as_in_the_authors_code() -> None:
    team, _, _ = filled(Spread(2), Maddpg(**SMALL, estimator=GumbelSoftmax(hard=False)))
    assert all(value.isfinite().all() for value in team.parameters())


def ensemble(game: Game, **changes: Any) -> tuple[DeterministicActorCritic, list[Actor], Trajectory]:
    """Three sub-policies per agent, all of which have been played."""
    settings = SMALL | {"replay": 60, "warmup": 0, "sub_policies": 3} | changes
    learner = settings.pop("learner", Maddpg)
    return filled(game, learner(**settings), steps=200)


class Short(Spread):
    """Many short episodes."""

    def __init__(self, agents: int = 2, actions: Any = "discrete") -> None:
        super().__init__(agents, actions=actions, horizon=3)


def test_a_sub_policy_is_drawn_for_each_episode_and_kept() -> None:
    _, actors, newest = ensemble(Short())
    played = [torch.stack([step.infos[agent]["sub_policy"] for step in newest.steps]) for agent in range(2)]
    for each in played:
        episodes = each[:198].unflatten(0, (-1, 3))
        assert (episodes == episodes[:, :1]).all()
        shares = torch.bincount(episodes[:, 0].flatten(), minlength=3) / episodes[:, 0].numel()
        assert ((shares - 1 / 3).abs() < 0.08).all()
    assert (played[0] == played[1]).double().mean() < 0.5, "each agent draws its own"
    obs = newest.flat.obs[0][:, :1]
    acts = [actors[0].policy(obs, {"sub_policy": torch.full((R, 1), k)})[0].logits for k in range(3)]  # type: ignore[union-attr]
    assert not any(torch.equal(acts[a], acts[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_every_sub_policy_has_a_replay_of_what_it_played() -> None:
    team, _, newest = ensemble(Short())
    flat = newest.flat
    data = team.draw()
    assert data.rewards.shape == (R, 2, 3 * B, 2)
    for number in range(2):
        for k in range(3):
            mine = data.obs[number][:, number, k * B : (k + 1) * B]
            there = flat.obs[number]
            same = (mine.unsqueeze(2) == there.unsqueeze(1)).all(-1)
            who = flat.infos[number]["sub_policy"].unsqueeze(1).expand_as(same)
            assert same.any(-1).all()
            assert (who[same] == k).all()


def test_targets_of_an_ensemble_go_on_with_the_own_sub_policy_and_draw_the_others_uniformly() -> None:
    """By hand: a target is one of those with another's first, second or third sub-policy, each as often."""
    team, actors, _ = ensemble(Short(actions="continuous"), discount=0.9, batch_size=60)
    data = team.draw()
    targets = team._targets(data)
    for number in range(2):
        other = 1 - number
        rows = [slice(k * 60, (k + 1) * 60) for k in range(3)]
        obs = [each[:, number] for each in data.next_obs]

        def acts(agent: int, k: int, seen: Tensor) -> Tensor:
            memory = {"sub_policy": torch.full(seen.shape[:2], k)}
            found: Tensor = actors[agent].snapshot().slow().act(seen, memory, explore=False).action  # type: ignore[attr-defined]
            return found

        own = torch.cat([acts(number, k, obs[number][:, rows[k]]) for k in range(3)], 1)
        matches = []
        for k in range(3):
            theirs = acts(other, k, obs[other])
            done = [own, theirs] if number == 0 else [theirs, own]
            value = critic_of(team, number)(torch.cat([*obs, *done], -1))
            expected = data.rewards[:, number, :, number] + 0.9 * value
            matches.append((targets[:, number] - expected).abs() < 1e-9)
        matched = torch.stack(matches)
        assert matched.any(0).all()
        only = matched & (matched.sum(0) == 1)  # a few are the same to rounding
        assert (only.sum((1, 2)) - only.sum() / 3).abs().max() < 5, "each as often"
        for block in rows:
            shares = only[:, :, block].sum((1, 2)) / only[:, :, block].sum()
            assert ((shares - 1 / 3).abs() < 0.15).all()


def test_each_of_the_others_is_expected_to_play_any_of_its_sub_policies_whatever_the_third_does() -> None:
    """Of three agents: all nine pairs of sub-policies occur in the first one's targets, each about as often."""
    team, _, _ = ensemble(Short(3, "continuous"), batch_size=120)
    data = team.draw()
    seen = [team._feature(value, place, None) for place, value in enumerate(data.next_obs)]
    following = team._following(data, seen)
    which = []
    for agent in (1, 2):
        obs = data.next_obs[agent][:, 0]
        x = team.spaces[agent].encode(obs, torch.float64).unsqueeze(1)
        slow = team.groups[0].slow_actors
        every = torch.stack([torch.tanh(slow(x, [3 * agent + k])[:, 0]) for k in range(3)])
        which.append((every - following[agent][:, 0]).abs().sum(-1).argmin(0))
    pairs = torch.bincount((3 * which[0] + which[1]).flatten(), minlength=9) / which[0].numel()
    assert ((pairs - 1 / 9).abs() < 0.04).all()


def test_a_sub_policys_gradient_is_of_what_it_played() -> None:
    """Against finite differences, in its own part of the minibatch."""
    team, actors, _ = ensemble(Short(actions="continuous"), regularisation=0.1)
    data = team.draw()
    (group,) = team.groups
    found: list[Tensor] = []
    its = group.optimiser
    its.__dict__["step"] = lambda loss: found.extend(torch.autograd.grad(loss.sum(), its._own))
    joint = team._encoded(data.obs, data.actions, data.alive)
    team._improve(group, data, joint, joint)

    def objective() -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for number in range(2):
            for k in range(3):
                rows = slice(k * B, (k + 1) * B)
                obs = [each[:, number, rows] for each in data.obs]
                memory = {"sub_policy": torch.full((R, B), k)}
                own = actors[number].policy(obs[number], memory)[0].base_dist.v  # type: ignore[union-attr]
                actions = [own if agent == number else data.actions[agent][:, number, rows] for agent in range(2)]
                value = by_hand(team.critics[0].stacks[0], number, torch.cat([*obs, *actions], -1))
                total = total + (0.1 * torch.atanh(own).square().mean(-1) - value).mean(-1).sum()
        return total

    assert_gradients(group.actors.parameters(), found, objective, every=29)


@pytest.mark.parametrize("game", [Short, lambda: Short(3), lambda: Short(2, "continuous"), *GAMES.values()])
@pytest.mark.parametrize("learner", [*(pytest.param(each, marks=pytest.mark.slow) for each in (Ddpg, DdpgOm)), Maddpg])
def test_an_ensemble_learns_with_any_critic(learner: type[DeterministicActorCritic], game: Callable[[], Game]) -> None:
    more: dict[str, Any] = {"inferred": inferred()} if learner is Maddpg else {}
    seed_streams(0, torch.device("cpu"))
    played = game()
    arm = learner(**SMALL | {"sub_policies": 2, "warmup": 0}, **more)
    actors = Experiment(played, {"it": arm}, replicates=R, environments=8, dtype="float64").bind("it")
    collector = Collector(GameSimulator(played, R, 8, dtype=torch.float64), actors)
    before = None
    for _ in range(12):
        said = update(actors, collector.collect(3))
        first = actors[0]
        assert isinstance(first, Member)
        before = before or {name: value.clone() for name, value in first.of.named_parameters()}
    assert said[0]["critic_loss"].shape == (R,)
    now = dict(first.of.named_parameters())
    assert all(value.isfinite().all() for value in now.values())
    moved = [name for name in now if not torch.equal(now[name], before[name])]
    assert {name.split(".")[0] for name in moved} >= {"groups", "critics"}


def test_a_sub_policy_that_was_not_played_learns_nothing_and_replicates_do_not_wait_for_each_other() -> None:
    game = Rendezvous(horizon=100)
    arm = Ddpg(**SMALL | {"sub_policies": 4, "warmup": 0})
    seed_streams(0, torch.device("cpu"))
    actors = Experiment(game, {"it": arm}, replicates=R, environments=1).bind("it")
    (first, _) = actors
    assert isinstance(first, Member)
    assert isinstance(first.of, DeterministicActorCritic)
    (group,) = first.of.groups
    before = [value.clone() for value in group.actors.parameters()]
    newest = Collector(GameSimulator(game, R, 1), actors).collect(5)
    update(actors, newest, 2)
    played = torch.zeros(R, 2, 4, dtype=torch.bool)
    for agent in range(2):
        played[torch.arange(R), agent, newest.flat.infos[agent]["sub_policy"][:, 0]] = True
    for old, new in zip(before, group.actors.parameters(), strict=True):
        moved = (old != new).unflatten(0, (R, 2, 4)).flatten(3).any(-1)
        assert torch.equal(moved, played)


@pytest.mark.parametrize("masked", [0, 1, 2])
def test_illegal_actions_of_one_agent_alone_are_not_predicted(masked: int) -> None:
    game = Spread(3)
    team, _, newest = filled(game, Maddpg(**SMALL, inferred=inferred()))
    assert isinstance(team, ModellingOthers)
    assert team.module is not None
    obs = [value.repeat(1, 20, 1) for value in newest.flat.obs]
    legal = torch.tensor([True, False, True, False, True]).expand(*obs[0].shape[:2], 5)
    masks = [legal if agent == masked else None for agent in range(3)]
    for (_, agent), drawn in team.module.predict(obs, masks).items():
        assert bool(drawn[..., [1, 3]].any()) == (agent != masked)
    for number in range(3):
        for agent, believed in team.module.beliefs(number, obs, masks=masks).items():
            assert bool(believed[..., [1, 3]].any()) == (agent != masked)


class Apart(Ddpg):
    """Agent 0's critic sees its own part, the others' everything."""

    def sees(self, seat: Seat) -> list[int]:
        return super().sees(seat) if seat.index == 0 else list(range(2 * len(seat.observations)))


class Blind(Ddpg):
    """Whose critic does not see what its agent does."""

    def sees(self, seat: Seat) -> list[int]:
        return [seat.index]


def test_a_critic_sees_its_agents_own_action() -> None:
    with pytest.raises(IncompatibleError, match=r"Blind.sees got \[0\] for seat 0, expected .* own action, 2, in them"):
        filled(Rendezvous(), Blind(**SMALL))


def test_critics_of_equal_agents_may_see_different_things() -> None:
    team, _, _ = filled(Spread(3), Apart(**SMALL))
    assert sorted(group.numbers for group in team.groups) == [[0], [1, 2]]
    assert sorted(critics.numbers for critics in team.critics) == [[0], [1, 2]]


@pytest.mark.parametrize("conditional", [SamplerNetwork(), EmpiricalFrequency(), HierarchicalDirichlet()])
def test_what_cannot_be_fitted_by_likelihood_is_refused(conditional: Any) -> None:
    game = MaxOfTwoQuadratics() if isinstance(conditional, SamplerNetwork) else MatrixGame("climbing")
    with pytest.raises(IncompatibleError, match=r"^arms.it.inferred.conditional: got \w+, which"):
        filled(game, Maddpg(**SMALL, inferred=inferred(conditional=conditional)))


def test_an_ensemble_is_not_shared() -> None:
    with pytest.raises(ValueError, match=r"^sub_policies: got 2 with shared actors, expected 1, or shared: false"):
        Maddpg(sub_policies=2, shared=True)
