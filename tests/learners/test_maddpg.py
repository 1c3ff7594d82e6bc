"""MADDPG: its gradients, targets and teams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from inference_marl.config.files import build, dump
from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame, MaxOfTwoQuadratics, Rendezvous, Spread
from inference_marl.inference.failures import NonFiniteError
from inference_marl.inference.noise import NormalNoise, OrnsteinUhlenbeckNoise
from inference_marl.learners import Ddpg, Maddpg, Rommeo, Stationary
from inference_marl.learners.deterministic import DeterministicActorCritic, InferredPolicies
from inference_marl.learners.deterministic.stacks import Stack
from inference_marl.play import Collector, Functional, GameSimulator, update
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import (
    Actor,
    Game,
    Member,
    Observed,
    Start,
    Step,
    Trajectory,
    Transition,
    seed_streams,
)
from tests.finite_differences import assert_gradients

R, E, B = 3, 2, 5


def maddpg(**changes: Any) -> Maddpg:
    return Maddpg(**{"hidden": (6,), "batch_size": B, "replay": 40, "warmup": 1} | changes)


LEARNERS = {
    "Maddpg": ("any", maddpg),
    "Maddpg, shared": ("any", lambda: maddpg(shared=True, noise=NormalNoise(0.0))),
    "Maddpg, one critic": ("any", lambda: maddpg(shared=True, shared_critic=True, others="policies")),
    "Maddpg, noise with a memory": ("box", lambda: maddpg(noise=OrnsteinUhlenbeckNoise())),
}


def bound(game: Game, arm: Actor | list[Actor], **settings: Any) -> list[Actor]:
    experiment = Experiment(game, {"it": arm}, replicates=R, environments=E, dtype="float64", **settings)
    seed_streams(0, torch.device("cpu"))
    return experiment.bind("it")


def team_of(actors: list[Actor]) -> Any:
    (first, *_) = [actor for actor in actors if isinstance(actor, Member)]
    assert isinstance(first.of, DeterministicActorCritic)
    return first.of


def filled(game: Game, arm: Actor | list[Actor], steps: int = 8) -> tuple[Any, list[Actor], Trajectory]:
    """A team that has seen some play, out of its warm-up, and everybody; and the play."""
    actors = bound(game, arm)
    collector = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors)
    newest = collector.collect(steps)
    update(actors, newest, 2)
    return team_of(actors), actors, newest


def by_hand(critics: Stack, number: int, x: Tensor) -> Tensor:
    """Values of a critic with one hidden layer, `replicates x batch`."""
    weights = critics.weights(number)
    hidden = torch.relu(x @ weights["layers.0.weight"] + weights["layers.0.bias"])
    return (hidden @ weights["layers.1.weight"] + weights["layers.1.bias"]).squeeze(-1)


def gradient_of(team: Maddpg, data: Transition) -> list[Tensor]:
    """What the actors' optimisers are given, without their steps."""
    found: list[Tensor] = []
    for group in team.groups:
        its = group.optimiser
        its.__dict__["step"] = lambda loss, its=its: found.extend(torch.autograd.grad(loss.sum(), its._own))
        joint = team._encoded(data.obs, data.actions, data.alive)
        team._improve(group, data, joint, team._others(data, joint))
    return found


@pytest.mark.parametrize("others", ["replay", "policies"])
@pytest.mark.parametrize("shared_critic", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_the_deterministic_policy_gradient_is_that_of_the_critics(
    shared: bool, shared_critic: bool, others: str
) -> None:
    """Against finite differences of `mean Q_i(x, a) with a_i = mu_i(o_i)`, the others' actions as `others` says."""
    game = Rendezvous(dim=2)
    changes: dict[str, Any] = {"shared": shared, "shared_critic": shared_critic, "others": others}
    team, members, _ = filled(game, maddpg(regularisation=0.1, **changes))
    data = team.draw()
    (group,) = team.groups
    found = gradient_of(team, data)

    def everybodys() -> list[Tensor]:
        return [
            member.policy(data.obs[number], {})[0].base_dist.v  # type: ignore[union-attr]
            for number, member in enumerate(members)
        ]

    fixed = list(data.actions) if others == "replay" else [each.detach() for each in everybodys()]

    def objective() -> Tensor:
        """The loss summed over replicates and agents, written by hand."""
        total = torch.zeros((), dtype=torch.float64)
        for number, own in enumerate(everybodys()):
            inside = torch.atanh(own)  # of a box from -1 to 1
            actions = [own if each == number else fixed[each] for each in range(2)]
            critic = 0 if shared_critic else number
            value = by_hand(team.critics[0].stacks[0], critic, torch.cat([*data.obs, *actions], -1))
            loss = (0.1 * inside.square().mean(-1) - value).mean(-1)
            total = total + loss.sum() / (2 if shared else 1)
        return total

    assert_gradients(group.actors.parameters(), found, objective, every=7)


@pytest.mark.parametrize("learner", [Ddpg, Maddpg])
def test_a_critic_in_common_is_fitted_to_the_mean_of_all_losses(learner: type[DeterministicActorCritic]) -> None:
    game = MatrixGame(torch.randn(2, 3, 3).tolist(), common=False)
    described = learner(hidden=(6,), batch_size=B, replay=40, warmup=1, shared_critic=True, max_gradient_norm=None)
    team, _, _ = filled(game, described)
    data = team.draw()
    (critics,) = team.critics
    (stack,) = critics.stacks
    targets = team._targets(data)
    seen = team._encoded(data.obs, data.actions, None)

    def objective() -> Tensor:
        values = [by_hand(stack, 0, torch.cat([seen[at] for at in places], -1)) for places in critics.places]
        losses = [(value - targets[:, number]).square().mean(-1) for number, value in enumerate(values)]
        return (losses[0] + losses[1]).sum() / 2

    found: list[Tensor] = []
    its = critics.optimiser
    its.__dict__["step"] = lambda loss: found.extend(torch.autograd.grad(loss.sum(), its._own))
    said: list[dict[str, Tensor]] = [{}, {}]
    team._evaluate(data, seen, said)
    assert_gradients(stack.every, found, objective, every=5)
    assert not torch.equal(said[0]["critic_loss"], said[1]["critic_loss"])


def test_one_critic_is_not_that_of_agents_with_other_spaces() -> None:
    team, _, _ = filled(MatrixGame(torch.randn(2, 3, 2).tolist(), common=True), maddpg(shared_critic=True))
    assert [critics.numbers for critics in team.critics] == [[0, 2], [1]]


@pytest.mark.parametrize("shared_critic", [False, True])
def test_others_of_other_spaces_do_what_their_policies_do(shared_critic: bool) -> None:
    """The third agent's action in the first one's gradient is that of its policy, not of replay."""
    game = MatrixGame(torch.randn(2, 3, 2).tolist(), common=True)
    team, _, _ = filled(game, maddpg(shared_critic=shared_critic, others="policies"))
    for group in team.groups:
        for weights in group.actors.parameters():
            weights.data.zero_()
        group.actors.network.last.bias.data[..., 0] = 100.0
    data = team.draw()
    joint = team._encoded(data.obs, data.actions, None)
    found = team._others(data, joint)
    assert not all(bool((each[..., 0] == 1).all()) for each in joint[3:])
    for features in found[3:]:
        assert bool((features[..., 0] == 1).all())
    assert all(torch.equal(one, other) for one, other in zip(found[:3], joint[:3], strict=True))


@pytest.mark.parametrize("changes", [{"inferred": InferredPolicies()}, {"sub_policies": 2}])
def test_the_others_policies_must_be_known(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^others: got policies"):
        maddpg(others="policies", **changes)


def test_targets_bootstrap_from_everybodys_target_policy_but_not_where_the_game_is_over() -> None:
    game = Rendezvous(dim=1)
    team, actors, newest = filled(game, maddpg(discount=0.9))
    data = newest.flat
    over = torch.zeros_like(data.terminated)
    over[:, ::2] = True
    data = Transition(data.obs, data.actions, data.rewards, data.next_obs, over, torch.ones_like(over))
    targets = team._targets(data)
    following = []
    for actor, obs in zip(actors, data.next_obs, strict=True):
        snapshot = actor.snapshot()  # type: ignore[attr-defined]
        assert isinstance(snapshot, Functional)
        following.append(snapshot.slow().act(obs, {}, explore=False).action)
    for number in range(2):
        value = by_hand(team.critics[0].slow[0], number, torch.cat([*data.next_obs, *following], -1))
        expected = data.rewards[..., number] + 0.9 * torch.where(over, 0.0, value)
        torch.testing.assert_close(targets[:, number], expected)
    assert not torch.allclose(targets[:, :, 0], targets[:, :, 1])


def test_agents_with_other_spaces_have_stacks_of_their_own() -> None:
    game = MatrixGame(torch.randn(2, 3, 2).tolist(), common=True)
    team, actors, newest = filled(game, maddpg())
    assert [group.numbers for group in team.groups] == [[0, 2], [1]]
    now = [value for group in team.groups for value in group.actors.parameters()]
    before = [value.clone() for value in now]
    said = update(actors, newest)
    assert [set(each) for each in said] == [{"critic_loss", "action_value"}] * 3
    assert all(value.shape == (R,) for each in said for value in each.values())
    assert all(not torch.equal(old, new) for old, new in zip(before, now, strict=True))


def test_replicates_and_agents_do_not_touch_each_other() -> None:
    """What one replicate's one agent earns changes its own networks alone, but for what its actions do."""
    game = Rendezvous(dim=1)

    def after(change: float) -> Maddpg:
        actors = bound(game, maddpg())
        collector = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors)
        newest = collector.collect(8)
        for step in newest.steps:
            step.rewards[1, :, 0] += change
        update(actors, newest, 2)
        return team_of(actors)

    one, other = after(0.0), after(5.0)
    for mine, theirs in zip(
        one.critics[0].stacks[0].parameters(), other.critics[0].stacks[0].parameters(), strict=True
    ):
        differs = (mine != theirs).unflatten(0, (R, 2)).flatten(2).any(-1)
        assert differs.nonzero().tolist() == [[1, 0]]


def test_a_team_takes_the_seats_that_it_names_and_others_the_rest() -> None:
    game, script = Spread(3), Stationary()
    actors = bound(game, [maddpg(seats=[0, 2]), script])
    assert [type(actor) for actor in actors] == [Member, Stationary, Member]
    assert [actor.seat.index for actor in actors] == [0, 1, 2]
    experiment = Experiment(game, {"it": [maddpg(seats=[0, 2]), script]}, steps=2)
    assert build(yaml.safe_load(dump(experiment))).describe() == experiment.describe()
    refused: list[tuple[list[Actor], str]] = [
        ([maddpg(seats=[0]), script], r"got 1 learners and teams in seats \[0\], expected one per seat: 3"),
        ([maddpg(seats=[0, 0]), script, script], r"got 2 learners and teams in seats \[0, 0\], expected one per seat"),
        ([maddpg(seats=[0, 7]), script], r"got 1 learners and teams in seats \[0, 7\], expected one per seat"),
        ([maddpg(), script], r"\[0\].seats: got None, expected the seats that it takes among others"),
        ([maddpg(seats=[]), script], r"\[0\].seats: got \[\], expected the seats that it takes among others"),
    ]
    for arm, message in refused:
        with pytest.raises(IncompatibleError, match=message):
            bound(game, arm)


def test_in_a_list_with_one_actor_per_seat_a_team_takes_its_place() -> None:
    described = maddpg()
    actors = bound(Spread(3), [described, Stationary(), described])
    assert [type(actor) for actor in actors] == [Member, Stationary, Member]
    first, _, last = actors
    assert isinstance(first, Member)
    assert isinstance(last, Member)
    assert first.of is not last.of
    assert [team.team[0].index for team in (first.of, last.of)] == [0, 2]


def test_an_unbounded_action_is_refused() -> None:
    game = Rendezvous()
    game.action_spaces = (Box(shape=1), game.action_spaces[1])
    with pytest.raises(IncompatibleError, match=r"^arms.it: Maddpg got actions Box.* in seat 0, expected finite edges"):
        bound(game, maddpg())
    with pytest.raises(IncompatibleError, match="got seat 0 alone, expected to be bound by its team"):
        maddpg().bind(Experiment(Rendezvous(), {"a": Stationary()}).seats()[0])


def test_a_loss_that_is_not_finite_names_the_replicate() -> None:
    game = Rendezvous(dim=1)
    actors = bound(game, maddpg())
    collector = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors)
    newest = collector.collect(8)
    for step in newest.steps:
        step.rewards[2] = torch.nan
    with pytest.raises(NonFiniteError) as caught:
        update(actors, newest, 2)
    assert caught.value.replicates == [2]


def test_exploration_is_noise_in_boxes_and_uniform_during_warm_up() -> None:
    game = MaxOfTwoQuadratics()
    team, actors, _ = filled(game, maddpg(noise=NormalNoise(0.1), warmup=1))
    (first, _), obs = actors, torch.zeros(R, 4000, dtype=torch.int64)
    space = first.seat.action
    assert isinstance(space, Box)
    greedy = first.act(obs, {}, explore=False).action
    assert (greedy == greedy[:, :1]).all()
    spread = (first.act(obs, {}).action - greedy).std(1)
    assert ((spread / 10 - 0.1).abs() < 0.01).all(), "of a box from -10 to 10"
    team.updates = 0
    drawn = first.act(obs, {}).action
    assert drawn.min() < -9.9
    assert drawn.max() > 9.9
    assert torch.equal(first.act(obs, {}, explore=False).action, greedy)


def test_noise_with_a_memory_begins_anew_in_every_episode() -> None:
    """Of two environments one begins an episode; moves that are discrete have no noise, and greedy play none."""
    game = Spread(2, actions="continuous")
    team, (first, _), _ = filled(game, maddpg(noise=OrnsteinUhlenbeckNoise(0.3)))
    yes, seen = torch.ones(R, E, dtype=torch.bool), torch.zeros(R, E, 12, dtype=torch.float64)
    begun = first.begin(Start.everywhere(R, E, torch.device("cpu")), None)
    torch.testing.assert_close(begun, {"noise": torch.zeros(R, E, 2, dtype=torch.float64)})
    decision = first.act(seen, begun)
    greedy = first.act(seen, decision.memory, explore=False)
    expected = (greedy.action + 0.3 * decision.memory["noise"]).clamp(-1, 1)
    torch.testing.assert_close(decision.action, expected)
    assert torch.equal(greedy.memory["noise"], decision.memory["noise"])
    only_second = torch.tensor([[False, True]]).expand(R, E)
    after = first.begin(Start(only_second, ~yes), decision.memory)["noise"]
    assert torch.equal(after[:, 0], decision.memory["noise"][:, 0])
    assert not after[:, 1].any()
    team.updates = 0
    assert first.act(seen, begun).memory is begun
    discrete = bound(Spread(2), maddpg(noise=OrnsteinUhlenbeckNoise()))
    assert discrete[0].initial_memory(R, E) == bound(game, maddpg())[0].initial_memory(R, E) == {}


class Leaving(Game):
    """Three agents on a line, of whom the second is out from the third step on, though the others go on to the sixth.

    With masks, nobody may stay where it is, and after an odd number of steps all may only go up.
    """

    terminates = False
    horizon = 6

    def __init__(self, actions: Space, masks: bool = False) -> None:
        self.observations, self.action_spaces = (Box(shape=2),) * 3, (actions,) * 3
        self.masks = masks

    def reset(self, replicates: int, environments: int, device: Any, dtype: Any, task: Any = None) -> dict[str, Tensor]:
        shape = (replicates, environments)
        return {"x": torch.rand(*shape, 3, dtype=dtype), "t": torch.zeros(shape, dtype=torch.int64)}

    def observe(self, state: dict[str, Tensor]) -> Observed:
        x, t = state["x"], state["t"]
        alive = torch.ones_like(x, dtype=torch.bool)
        alive[..., 1] = t < 2
        obs = torch.stack([x, x.sum(-1, keepdim=True).expand_as(x)], -1)
        mask = torch.stack([torch.zeros_like(t), (t + 1) % 2, torch.ones_like(t)], -1) == 1
        return Observed(obs.unbind(2), alive, (mask,) * 3 if self.masks else None)

    def step(self, state: dict[str, Tensor], actions: Sequence[Tensor]) -> Step:
        alive = self.observe(state).alive
        moves = torch.stack([action.squeeze(-1) if action.dim() == 3 else action - 1 for action in actions], -1)
        x = state["x"] + 0.1 * moves * alive
        over = torch.zeros_like(state["t"], dtype=torch.bool)
        return Step({"x": x, "t": state["t"] + 1}, -x.square() * alive, over)


def weights_of(team: Maddpg) -> list[Tensor]:
    modules = [*(each for group in team.groups for each in (group.actors, group.slow_actors))]
    return [
        value.clone()
        for each in (*modules, *team.critics[0].stacks, *team.critics[0].slow)
        for value in each.parameters()
    ]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("actions", [Discrete(3), Box(-1, 1, 1)])
def test_what_an_agent_that_is_out_sees_and_does_changes_nothing(actions: Space, shared: bool) -> None:
    """In anybody's weights, nor what it is paid."""
    game = Leaving(actions)

    def after(junk: int) -> tuple[list[Tensor], Maddpg]:
        actors = bound(game, maddpg(shared=shared))
        collector = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors)
        for _ in range(8):
            newest = collector.collect(2)
            for step in newest.steps:
                assert step.alive is not None
                assert step.next_alive is not None
                out, out_after = ~step.alive[..., 1], ~step.next_alive[..., 1]
                step.obs[1][out], step.next_obs[1][out_after] = float(junk), float(junk)
                step.actions[1][out] = junk
                step.rewards[..., 1][out] = float(junk)
            update(actors, newest)
        return weights_of(team_of(actors)), team_of(actors)

    (one, team), (other, _) = after(0), after(1)
    assert not team.replays[0].draw(64).alive.all()  # type: ignore[union-attr]
    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def test_targets_of_who_leaves_are_terminated_and_the_others_see_nothing_of_it() -> None:
    game = Leaving(Box(-1, 1, 1))
    team, actors, _ = filled(game, maddpg(discount=0.9, hidden=(5,)))
    data = team.replays[0].draw(40)
    assert data.next_alive is not None
    assert 0 < data.next_alive[..., 1].sum() < data.next_alive[..., 1].numel()
    targets = team._targets(data)
    there = data.next_alive.to(torch.float64)
    slow = [actor.snapshot().slow() for actor in actors]  # type: ignore[attr-defined]
    actions = [each.act(obs, {}, explore=False).action for each, obs in zip(slow, data.next_obs, strict=True)]
    seen = [value * there[..., i, None] for part in (data.next_obs, actions) for i, value in enumerate(part)]
    for number in range(3):
        value = by_hand(team.critics[0].slow[0], number, torch.cat(seen, -1))
        torch.testing.assert_close(targets[:, number], data.rewards[..., number] + 0.9 * there[..., number] * value)


@pytest.mark.parametrize("actions", [Discrete(3), Box(-1, 1, 1)])
def test_who_is_in_learns_on_without_who_is_out(actions: Space) -> None:
    """From transitions in which the second agent never was: its weights stay; the others' losses are as without it."""
    game = Leaving(actions)
    actors = bound(game, maddpg(warmup=0))
    team = team_of(actors)
    newest = Collector(GameSimulator(game, R, E, dtype=torch.float64), actors).collect(4)
    late = Trajectory(newest.steps[2:])
    before = weights_of(team)
    said = update(actors, late)
    for old, new in zip(before, weights_of(team), strict=True):
        moved = (old != new).unflatten(0, (R, 3)).flatten(2).any(-1)
        assert moved.all(0).tolist() == [True, False, True]
        assert not moved[:, 1].any()
        assert new.isfinite().all()
    assert [float(each["critic_loss"].min()) > 0 for each in said] == [True, False, True]


def test_losses_are_means_over_the_transitions_in_which_the_agent_was() -> None:
    team, _, _ = filled(Leaving(Discrete(3)), maddpg())
    data = team.replays[0].draw(40)
    assert data.alive is not None
    values = torch.randn(R, 3, 40, dtype=torch.float64)
    for r, number in ((0, 0), (1, 1), (2, 1)):
        expected = values[r, number][data.alive[r, :, number]].mean()
        torch.testing.assert_close(team._mean(values, range(3), data.alive)[r, number], expected)


def test_illegal_actions_are_neither_taken_nor_bootstrapped_from() -> None:
    """Where a single action is legal, targets and gradients are those of taking it, whatever is drawn."""
    game = Leaving(Discrete(3), masks=True)
    team, actors, newest = filled(game, maddpg(discount=0.9, regularisation=0.0), steps=6)
    for step in newest.steps:
        assert step.masks is not None
        for action, mask in zip(step.actions, step.masks, strict=True):
            assert mask is not None
            assert mask.gather(-1, action[..., None]).all()
    data = team.replays[0].draw(40)
    assert data.masks is not None
    assert data.next_masks is not None
    legal = data.next_masks[0]
    assert legal is not None
    only_up = torch.tensor([False, False, True])
    following = only_up.to(torch.float64).expand(R, 40, 3)
    assert data.next_alive is not None
    there = data.next_alive.to(torch.float64)
    seen = [value * there[..., i, None] for part in (data.next_obs, [following] * 3) for i, value in enumerate(part)]
    value = by_hand(team.critics[0].slow[0], 0, torch.cat(seen, -1))
    where = (legal == only_up).all(-1)
    assert 0 < where.sum() < where.numel()
    expected = data.rewards[..., 0] + 0.9 * value
    torch.testing.assert_close(team._targets(data)[:, 0][where], expected[where])
    assert all(gradient.any() for gradient in gradient_of(team, data))
    forced = replace(data, masks=(only_up.expand(R, 40, 3),) * 3)
    assert not any(gradient.any() for gradient in gradient_of(team, forced))
    snapshot = actors[0].snapshot()  # type: ignore[attr-defined]
    assert snapshot.heeds_masks
    assert (snapshot.act(data.obs[0], {}, mask=only_up.expand(R, 40, 3)).action == 2).all()
    team.updates = 0
    assert (actors[0].act(data.obs[0], {}, mask=only_up.expand(R, 40, 3)).action == 2).all(), "during warm-up"


def test_it_plays_against_other_learners() -> None:
    from tests.runs.small_runs import rommeo_q

    game = MatrixGame("climbing")
    other: Rommeo = rommeo_q()
    actors = bound(game, [maddpg(seats=[1]), other])
    update(actors, Collector(GameSimulator(game, R, E, dtype=torch.float64), actors).collect(4), 3)
    assert [type(actor) for actor in actors] == [Rommeo, Member]


@pytest.mark.slow
def test_it_learns_to_cover_landmarks() -> None:
    """Two agents; who stands still ends .78 from the landmarks, and random play .92."""
    seed_streams(0, torch.device("cpu"))
    game = Spread(2)
    actors = Experiment(game, {"it": Maddpg(warmup=20)}, replicates=4, environments=16).bind("it")
    collector = Collector(GameSimulator(game, 4, 16), actors)
    for _ in range(1200):
        update(actors, collector.collect(5))
    judged = Collector(GameSimulator(game, 4, 64), actors, explore=False).collect(25).steps[-1].judged
    assert judged is not None
    assert (judged["distance"].mean(1) < 0.6).all()


def test_others_policies_are_the_teams() -> None:
    with pytest.raises(IncompatibleError, match=r"^arms.it\[0\].others: got policies in a team of 1 of 2 agents"):
        bound(Rendezvous(), [maddpg(others="policies", seats=[0]), Stationary()])
