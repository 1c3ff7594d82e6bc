"""What holds in all particle worlds: spaces, layout, batches, gradients, rules; and what each is judged by, by hand."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.games import Adversary, Crypto, ParticleWorld, Push, Reference, SpeakerListener, Spread, Tag
from inference_marl.games.particles.physics import Body, Physics
from inference_marl.games.particles.world import Agent, back, turned
from inference_marl.spaces import Box, Discrete
from inference_marl.types import State

CPU = torch.device("cpu")
WORLDS: list[Callable[..., ParticleWorld]] = [Spread, SpeakerListener, Adversary, Tag, Push, Crypto, Reference]
MOVING = [world for world in WORLDS if world is not Crypto]
SOLID = [Spread, Tag, Push]


def sampled(game: ParticleWorld, *shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [space.uniform(dtype, CPU).sample(shape) for space in game.action_spaces]


def start(game: ParticleWorld, *shape: int, dtype: torch.dtype = torch.float64, squeezed: float = 0.3) -> State:
    """An initial state, with everybody so near to each other that many touch."""
    state = game.reset(shape[0], shape[1], CPU, dtype)
    return {name: squeezed * value if name == "position" else value for name, value in state.items()}


def played(game: ParticleWorld, state: State, actions: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """All that is to be seen of an episode: observations and rewards of every step."""
    found = []
    for joint in actions:
        state, rewards, terminated, truncated = game.step(state, joint)
        assert not terminated.any()
        assert truncated is None
        found += [*game.observe(state).obs, rewards]
    return [*found, *game.judge(state).values()]


def assert_same(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


def assert_alike(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def places(*pairs: tuple[float, float]) -> Tensor:
    return torch.tensor([[pairs]], dtype=torch.float64)


def drawn(index: int, values: int) -> Tensor:
    return torch.eye(values, dtype=torch.float64)[index].view(1, 1, values)


def at_rest(position: Tensor, landmarks: Tensor, **more: Tensor) -> State:
    return {"position": position, "velocity": torch.zeros_like(position), "landmarks": landmarks, **more}


def moves(*actions: int) -> list[Tensor]:
    return [torch.tensor([[action]]) for action in actions]


NOTHING = torch.zeros(1, 1, dtype=torch.float64)


def test_spaces() -> None:
    assert Spread().action_spaces == (Discrete(5),) * 3
    assert Spread().action_names == ("stay", "left", "right", "down", "up")
    assert Spread(actions="continuous").action_spaces == (Box(-1, 1, 2),) * 3
    assert Spread(4, 2).observations == (Box(shape=4 + 4 + 6 + 6),) * 4
    assert SpeakerListener(4).action_spaces == (Discrete(4), Discrete(5))
    assert SpeakerListener(4, actions="continuous").action_spaces == (Box(0, 1, 4), Box(-1, 1, 2))
    assert SpeakerListener(4).observations == (Box(shape=4), Box(shape=2 + 8 + 4))
    assert Reference(3, 10).action_spaces == (Discrete(50),) * 2
    assert Reference(3, 2, actions="continuous").action_spaces == (Box([-1, -1, 0, 0], [1, 1, 1, 1], 4),) * 2
    assert Crypto(3, 5).action_spaces == (Discrete(5),) * 3
    assert Tag(2, 3, 1).agents == 5
    assert Tag(obstacles=0).observations[0] == Box(shape=4 + 6 + 2)
    assert [body.within for body in Tag().places] == [0.9, 0.9]
    assert [world().horizon for world in WORLDS] == [25] * 7
    assert [world().symmetric for world in WORLDS] == [False] * 6 + [True]
    assert Spread(2).symmetric
    assert Spread(horizon=None).horizon is None


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("world", WORLDS)
class TestBatches:
    def test_replicates_and_environments_do_not_mix(self, world: Callable[..., ParticleWorld], kind: Any) -> None:
        """Alone, each gives the same numbers as among others and in any order, but for rounding, which has lanes."""
        game = world(actions=kind)
        state, actions = start(game, 3, 4), [sampled(game, 3, 4) for _ in range(4)]
        whole = played(game, state, actions)

        def of(rows: Any, columns: Any) -> list[Tensor]:
            its = {name: value[rows][:, columns] for name, value in state.items()}
            return played(game, its, [[each[rows][:, columns] for each in joint] for joint in actions])

        for r in range(3):
            row = slice(r, r + 1)
            assert_alike(of(row, slice(None)), [value[row] for value in whole])
            assert_alike(of(row, slice(2, 3)), [value[row, 2:3] for value in whole])
        order = [2, 0, 3, 1]
        assert_alike(of(slice(None), order), [value[:, order] for value in whole])

    def test_a_state_that_was_saved_goes_on_to_the_bit(self, world: Callable[..., ParticleWorld], kind: Any) -> None:
        game = world(actions=kind)
        state = game.step(start(game, 2, 3, dtype=torch.float32), sampled(game, 2, 3, dtype=torch.float32)).state
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        actions = [sampled(game, 2, 3, dtype=torch.float32) for _ in range(5)]
        expected = played(game, state, actions)
        assert_same(played(game, torch.load(file, weights_only=True), actions), expected)
        in_other_memory = {name: value.contiguous() for name, value in state.items()}
        assert_same(played(game, in_other_memory, actions), expected)

    def test_types(self, world: Callable[..., ParticleWorld], kind: Any) -> None:
        """Everything is in the floating type of the state, and single precision is close to double."""
        game = world(actions=kind)
        state, actions = start(game, 2, 3), sampled(game, 2, 3)
        exact = [*game.step(state, actions).state.values(), *played(game, state, [actions])]
        state = {name: value.float() for name, value in state.items()}
        actions = [action.float() if action.is_floating_point() else action for action in actions]
        rough = [*game.step(state, actions).state.values(), *played(game, state, [actions])]
        assert {value.dtype for value in exact} == {torch.float64}
        assert {value.dtype for value in rough} == {torch.float32}
        for one, other in zip(rough, exact, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_a_move_by_hand() -> None:
    """Velocity 0.5 after a step along the axis of the move, 0.375 after the next; positions follow a step later."""
    game, openai = Spread(5), Spread(5, rules="openai")
    position, landmarks = places(*[(float(k), 0.0) for k in range(5)]), places(*[(0.0, 0.0)] * 5)
    state = at_rest(position, landmarks, collisions=NOTHING)
    directions = places((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    first = game.step(state, moves(0, 1, 2, 3, 4)).state
    second = game.step(first, moves(0, 0, 0, 0, 0)).state
    torch.testing.assert_close(first["velocity"], 0.5 * directions)
    assert torch.equal(first["position"], position)
    torch.testing.assert_close(second["velocity"], 0.375 * directions)
    torch.testing.assert_close(second["position"], position + 0.05 * directions)
    first = openai.step(state, moves(0, 1, 2, 3, 4)).state
    torch.testing.assert_close(first["velocity"], 0.5 * directions)
    torch.testing.assert_close(first["position"], position + 0.05 * directions)


def test_speed_by_hand() -> None:
    """Adversaries accelerate by 0.3 a step up to 1, good agents by 0.4 up to 1.3."""
    game = Tag(1, 1, 0)
    state = {"position": places((0, 0), (9, 0)), "velocity": places((0, 0), (0, 0)), "catches": NOTHING}
    fastest = [[0.3, 0.525, 0.69375, 0.8203125, 0.915234375, 0.98642578125, 1.0, 1.0]]
    fastest += [[0.4, 0.7, 0.925, 1.09375, 1.2203125, 1.3, 1.3, 1.3]]
    for one, other in zip(*fastest, strict=True):
        state = game.step(state, moves(2, 4)).state
        torch.testing.assert_close(state["velocity"], places((one, 0), (0, other)))


def test_a_top_speed_is_that_of_its_body_alone() -> None:
    physics = Physics.of([Body(top_speed=1.0), Body()], [])
    still = turned(places((0, 0), (0, 0)))
    velocity = turned(places((6, 8), (6, 8)))
    _, moved = physics.step(still, velocity, None, still, "mpe2")
    torch.testing.assert_close(back(moved), places((0.6, 0.8), (4.5, 6.0)))


def test_contact_by_hand() -> None:
    """An overlap of 0.1 pushes either with a force of 10, along the line between them; 0.01 away nothing does."""
    game = Spread(3, size=0.1)
    x = 0.1 / math.sqrt(2)
    state = at_rest(places((0, 0), (x, x), (-0.21, 0)), places(*[(0.0, 0.0)] * 3), collisions=NOTHING)
    velocity = game.step(state, moves(0, 0, 0)).state["velocity"]
    push = 10 * 0.1 / math.sqrt(2)
    torch.testing.assert_close(velocity, places((-push, -push), (push, push), (0, 0)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("world", SOLID)
def test_bodies_at_one_point_do_not_push(world: Callable[..., ParticleWorld], dtype: torch.dtype) -> None:
    """Nothing is undefined, and gradients are finite, there and when bodies are on landmarks or barely touch."""
    game = world(actions="continuous")
    state = start(game, 1, 2, dtype=dtype)
    position, landmarks = torch.zeros_like(state["position"]), torch.zeros_like(state["landmarks"])
    position[:, 1] = landmarks[:, 1] = 0.25
    position[:, 1, 0, 0] -= 0.15  # the first is in contact, the others are not apart
    state |= {"position": position, "landmarks": landmarks}
    actions = [torch.zeros(1, 2, 2, dtype=dtype, requires_grad=True) for _ in range(game.agents)]
    first = game.step(state, actions).state
    assert torch.equal(first["velocity"][:, 0], torch.zeros_like(first["velocity"][:, 0]))
    total = torch.zeros((), dtype=dtype)
    state = first
    for _ in range(4):
        state, rewards, *_ = game.step(state, actions)
        total = total + rewards.sum() + sum(obs.sum() for obs in game.observe(state).obs)
    assert total.isfinite()
    for gradient in torch.autograd.grad(total, actions):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("world", WORLDS)
def test_gradients(world: Callable[..., ParticleWorld]) -> None:
    """Of rewards and observations with respect to all actions, against finite differences."""
    torch.manual_seed(3)
    game = world(actions="continuous")
    state, actions = start(game, 1, 1, squeezed=0.6), sampled(game, 1, 1)

    def seen(*actions: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for value in played(game, state, [actions] * 3)[:-1] if value.requires_grad)

    assert torch.autograd.gradcheck(seen, [action.requires_grad_() for action in actions], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("world", MOVING)
def test_starts_are_uniform(world: Callable[..., ParticleWorld]) -> None:
    copies = 4000
    game = world()
    state = game.reset(1, copies, CPU, torch.float64)
    assert not state["velocity"].any()
    for name, bodies in (("position", game.bodies), ("landmarks", game.places)):
        for number, body in enumerate(bodies):
            for column in state[name][0, :, number].T / body.within:
                assert column.abs().max() <= 1
                counts = torch.histc(column, bins=4, min=-1, max=1)
                # one of some hundred is off by 6 standard errors about once in 5 million seeds
                assert bool(((counts / copies - 0.25).abs() < 6 * (0.25 * 0.75 / copies) ** 0.5).all())
    for name, shape in game.draws.items():
        shares = state[name].mean((0, 1))
        assert bool(((shares - 1 / shape[-1]).abs() < 6 * 0.5 / copies**0.5).all())
        assert torch.equal(state[name].sum(-1), torch.ones(1, copies, *shape[:-1], dtype=torch.float64))


def towards(away: Tensor, velocity: Tensor) -> Tensor:
    return (10 * away - 3 * velocity).clamp(-1, 1)


def picked(state: State) -> Tensor:
    return (state["goal"].unsqueeze(-1) * state["landmarks"]).sum(2)


def in_spread(state: State) -> list[Tensor]:
    return list(towards(state["landmarks"] - state["position"], state["velocity"]).unbind(2))


def in_speaker_listener(state: State) -> list[Tensor]:
    """The speaker says the goal, and the listener goes to what it has heard."""
    heard = (state["message"][:, :, 0].unsqueeze(-1) * state["landmarks"]).sum(2)
    there = torch.where(state["message"].any(-1), heard, state["position"][:, :, 0])
    return [state["goal"], towards(there - state["position"][:, :, 0], state["velocity"][:, :, 0])]


def in_reference(state: State) -> list[Tensor]:
    """Each tells the other its goal, and goes to what it has heard."""
    heard = state["message"][:, :, :, :3].flip(2)
    there = (heard.unsqueeze(-1) * state["landmarks"].unsqueeze(2)).sum(3)
    there = torch.where(heard.any(-1, keepdim=True), there, state["position"])
    forces = towards(there - state["position"], state["velocity"])
    said = torch.nn.functional.pad(state["goal"].flip(2), (0, 7))
    return list(torch.cat([forces, said], -1).unbind(2))


def good_at_the_goal(state: State) -> list[Tensor]:
    forces = towards(picked(state).unsqueeze(2) - state["position"], state["velocity"])
    forces[:, :, 0] = 0.0
    return list(forces.unbind(2))


def in_tag(state: State) -> list[Tensor]:
    forces = towards(state["position"][:, :, 3:] - state["position"], state["velocity"])
    return list(forces.unbind(2))


def in_crypto(state: State) -> list[Tensor]:
    """Alice says whether secret and key are alike, from which and the key Bob has the secret; Eve guesses."""
    alike = (state["secret"] == state["key"]).all(-1, keepdim=True)
    code = torch.cat([alike, ~alike], -1).double()
    heard = state["message"][:, :, 2, :1] > 0
    guess = torch.where(heard, state["key"], state["key"].flip(-1))
    return [torch.nn.functional.pad(said, (0, 2)) for said in (torch.full_like(code, 0.5), guess, code)]


@pytest.mark.parametrize(
    ("world", "policy", "agent", "metric", "least", "most"),
    [
        (Spread, in_spread, 0, "covered", 0.8, 0.1),
        (SpeakerListener, in_speaker_listener, 0, "reached", 0.95, 0.05),
        (Reference, in_reference, 0, "reached", 0.95, 0.05),
        (Adversary, good_at_the_goal, 1, "good_reached", 0.95, 0.1),
        (Push, good_at_the_goal, 1, "good_reached", 0.9, 0.05),
        (Tag, in_tag, 0, "catches", 3.0, 0.6),
        (Crypto, in_crypto, 1, "bob_correct", 1.0, 0.6),
    ],
)
def test_a_script_beats_doing_nothing(
    world: Callable[..., ParticleWorld],
    policy: Callable[[State], list[Tensor]],
    agent: int,
    metric: str,
    least: float,
    most: float,
) -> None:
    game = world(actions="continuous")
    start = game.reset(1, 500, CPU, torch.float64)
    nothing = [torch.zeros(1, 500, *space.event_shape, dtype=torch.float64) for space in game.action_spaces]
    found = []
    for scripted in (True, False):
        state, total = start, 0.0
        for _ in range(25):
            state, rewards, *_ = game.step(state, policy(state) if scripted else nothing)
            total += float(rewards[..., agent].mean())
        found.append((total, float(game.judge(state)[metric].mean())))
    (played, reached), (idle, by_chance) = found
    assert played > idle
    assert reached >= least
    assert by_chance <= most


def test_spread_by_hand() -> None:
    """The nearest agents are 0.5, 0.05 and 0.8 away, and the first two agents touch."""
    position, landmarks = places((0, 0), (0.2, 0), (1, 0)), places((0, 0.5), (0.15, 0), (1, 0.8))
    state = at_rest(position, landmarks, collisions=NOTHING + 4)
    far, stay = 0.5 + 0.05 + 0.8, moves(0, 0, 0)
    game = Spread(collision=2.0, local_ratio=0.25)
    after, rewards, *_ = game.step(state, stay)
    assert rewards.flatten().tolist() == pytest.approx([-0.75 * far - 0.5, -0.75 * far - 0.5, -0.75 * far])
    judged = {name: float(value) for name, value in game.judge(after).items()}
    assert judged == pytest.approx({"distance": far / 3, "covered": 1 / 3, "collisions": 5})
    for second, touching in ((0.0, 5), (0.31, 3)):  # with themselves; at one point nobody is pushed away
        where = state | {"position": places((0, 0), (second, 0), (1, 0))}
        _, rewards, *_ = Spread(collision=2.0, rules="openai").step(where, stay)
        far = 0.5 + min(0.15, abs(second - 0.15)) + 0.8
        assert rewards.flatten().tolist() == pytest.approx([-3 * far - 2 * touching] * 3)
    fewer = Spread(3, 1)
    assert fewer.judge(state | {"landmarks": landmarks[:, :, :1]})["distance"].item() == pytest.approx(0.5)


@pytest.mark.parametrize(("agents", "still", "uniform"), [(2, -0.78, -0.85), (3, -0.97, -1.06)])
def test_mean_rewards_are_as_documented(agents: int, still: float, uniform: float) -> None:
    """Of 6000 episodes, with standard errors of about 0.004."""
    game = Spread(agents)
    start = game.reset(1, 6000, CPU, torch.float32)
    for documented, moving in ((still, 0), (uniform, 1)):
        state, total = start, 0.0
        for _ in range(25):
            state, rewards, *_ = game.step(state, [moving * action for action in sampled(game, 1, 6000)])
            total += float(rewards.mean()) / 25
        assert total == pytest.approx(documented, abs=0.03)


def test_speaker_and_listener_by_hand() -> None:
    state = at_rest(places((0, 0)), places((1, 0), (0, 0.3), (0, -1)), message=places((0, 0, 0)), goal=drawn(1, 3))
    game = SpeakerListener()
    speaker, listener = (obs.flatten().tolist() for obs in game.observe(state).obs)
    assert speaker == pytest.approx([0.15, 0.65, 0.15])
    assert listener == [0, 0, 1, 0, 0, 0.3, 0, -1, 0, 0, 0]
    after, rewards, *_ = game.step(state, moves(2, 0))
    assert rewards.flatten().tolist() == pytest.approx([-0.09] * 2)
    assert game.observe(after).obs[1].flatten().tolist()[-3:] == [0, 0, 1]
    assert SpeakerListener(rules="openai").step(state, moves(2, 0)).rewards.flatten().tolist() == pytest.approx(
        [-0.18] * 2
    )
    assert {name: float(value) for name, value in game.judge(after).items()} == {"distance": 0.3, "reached": 0}
    assert game.judge(after | {"position": places((0.11, 0.3))})["reached"].item() == 0
    near = after | {"position": places((0.06, 0.3))}
    assert {name: float(value) for name, value in game.judge(near).items()} == pytest.approx(
        {"distance": 0.06, "reached": 1}
    )


def test_reference_by_hand() -> None:
    """Agent 0 is 0.5 from its landmark, the second, which agent 1 knows; agent 1 is 0.05 from its own, the first."""
    goal = torch.stack([drawn(1, 3), drawn(0, 3)], dim=2)
    words = torch.zeros(1, 1, 2, 4, dtype=torch.float64)
    state = at_rest(places((0, 0), (1, 0.05)), places((1, 0), (0, 0.5), (7, 7)), goal=goal, message=words)
    game = Reference(words=4, local_ratio=0.2)
    after, rewards, *_ = game.step(state, moves(0 + 5 * 3, 0 + 5 * 1))
    assert rewards.flatten().tolist() == pytest.approx([-0.2 * 0.05 - 0.8 * 0.275, -0.2 * 0.5 - 0.8 * 0.275])
    first, second = (obs.flatten().tolist() for obs in game.observe(after).obs)
    assert first == pytest.approx([0, 0, 1, 0, 0, 0.5, 7, 7, 0.75, 0.25, 0.25, 0, 1, 0, 0])
    assert second[-7:] == pytest.approx([0.25, 0.75, 0.25, 0, 0, 0, 1])
    rewards = Reference(words=4, rules="openai").step(state, moves(0, 0)).rewards
    assert rewards.flatten().tolist() == pytest.approx([-0.25 - 0.0025] * 2)
    judged = {name: float(value) for name, value in game.judge(after).items()}
    assert judged == pytest.approx({"distance": 0.275, "reached": 0.5})


def test_adversary_by_hand() -> None:
    """Two adversaries are 1 and 0.15 from the goal, good agents 0.2 and 2."""
    position, landmarks = places((0, 1), (0.15, 0), (0, -0.2), (2, 0)), places((5, 5), (0, 0))
    state = at_rest(position, landmarks, goal=drawn(1, 2))
    game = Adversary(2, 2)
    after, rewards, *_ = game.step(state, moves(0, 0, 0, 0))
    assert rewards.flatten().tolist() == pytest.approx([-1, -0.15, 0.95, 0.95])
    judged = {name: float(value) for name, value in game.judge(after).items()}
    expected = {"good_reached": 0, "adversary_reached": 1, "good_distance": 0.2, "adversary_distance": 0.15}
    assert judged == pytest.approx(expected)
    obs = game.observe(after).obs
    assert obs[0].flatten().tolist() == pytest.approx([5, 4, 0, -1, 0.15, -1, 0, -1.2, 2, -1])
    assert obs[2].flatten().tolist()[:6] == pytest.approx([0, 0.2, 5, 5.2, 0, 0.2])


def test_push_by_hand() -> None:
    state = at_rest(places((0, 1), (0.05, 0)), places((5, 5), (0, 0)), goal=drawn(1, 2))
    game = Push()
    after, rewards, *_ = game.step(state, moves(0, 0))
    assert rewards.flatten().tolist() == pytest.approx([0.05 - 1, -0.05])
    judged = {name: float(value) for name, value in game.judge(after).items()}
    expected = {"good_reached": 1, "adversary_reached": 0, "good_distance": 0.05, "adversary_distance": 1}
    assert judged == pytest.approx(expected)
    assert game.observe(after).obs[1].flatten().tolist()[4:7] == pytest.approx([0.25, 0.25, 0.75])


def test_tag_by_hand() -> None:
    """Two adversaries are at the first good agent, one at the second, which is at the edge."""
    position = places((0, 0), (0.2, 0), (0.95, -1.5), (0.1, 0), (0.95, -1.45))
    state = {"position": position, "velocity": torch.zeros_like(position), "catches": NOTHING + 2}
    game = Tag(2, 3, 0)
    after, rewards, *_ = game.step(state, moves(*[0] * 5))
    edge = 0.5 + math.exp(0.9)
    assert rewards.flatten().tolist() == pytest.approx([30, 30, 30, -20, -10 - edge])
    assert game.judge(after)["catches"].item() == 5
    far = state | {"position": places((9, 0), (8, 0), (7, 0), (0.9, -1), (3, -4))}
    assert game.step(far, moves(*[0] * 5)).rewards.flatten().tolist() == pytest.approx([0, 0, 0, -1, -20])


def test_crypto_by_hand() -> None:
    message = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    state = {"message": message, "secret": drawn(1, 2), "key": drawn(0, 2)}
    game = Crypto(actions="continuous")
    eve, bob, alice = (
        torch.tensor([[said]], dtype=torch.float64) for said in ([0.0] * 4, [0, 0.5, 0.2, 0], [1, 0, 0, 0.3])
    )
    after, rewards, *_ = game.step(state, [eve, bob, alice])
    assert rewards.flatten().tolist() == pytest.approx([0, -0.29, -0.29])  # who says nothing is not paid for it
    assert {name: float(value) for name, value in game.judge(after).items()} == {"bob_correct": 1, "eve_correct": 0}
    assert [obs.flatten().tolist() for obs in game.observe(after).obs] == [
        [1, 0, 0, 0.3],
        [1, 0, 0, 0, 1, 0, 0, 0.3],
        [0, 1, 0, 0, 1, 0, 0, 0],
    ]
    _, rewards, *_ = Crypto().step(state, moves(0, 1, 3))
    assert rewards.flatten().tolist() == [-2, 2, 2]


@pytest.mark.parametrize(
    ("world", "arguments", "message"),
    [
        (Spread, {"agents": 1}, "agents: got 1, expected an integer of at least 2"),
        (Spread, {"actions": "moves"}, "actions: got 'moves', expected discrete or continuous"),
        (Spread, {"rules": "vmas"}, "rules: got 'vmas', expected mpe2 or openai"),
        (Spread, {"collision": -1.0}, "collision: got -1.0, expected a number that is not negative"),
        (Spread, {"size": 0.0}, "size: got 0.0, expected a positive number"),
        (Spread, {"horizon": 0}, "horizon: got 0, expected a positive integer"),
        (Spread, {"local_ratio": 0.1, "rules": "openai"}, "local_ratio: got 0.1 for rules without one"),
        (Reference, {"local_ratio": 1.0, "rules": "openai"}, "local_ratio: got 1.0 for rules without one"),
        (Crypto, {"secrets": 5}, "secrets: got 5, expected at most words = 4"),
        (Tag, {"obstacles": -1}, "obstacles: got -1, expected an integer that is not negative"),
        (Adversary, {"good": 0}, "good: got 0, expected a positive integer"),
    ],
)
def test_what_is_refused(world: Callable[..., ParticleWorld], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        world(**arguments)


@pytest.mark.parametrize("world", WORLDS)
def test_step_refuses_what_is_no_action(world: Callable[..., ParticleWorld]) -> None:
    game = world(actions="continuous")
    state = game.reset(2, 3, CPU, torch.float32)
    actions = sampled(game, 2, 3, dtype=torch.float32)
    for wrong in (actions[1:], [action[..., :1] for action in actions]):
        with pytest.raises(ValueError, match=r"^actions: got shapes .*one tensor per agent"):
            game.step(state, wrong)
    game = world()
    for wrong in ([0 * action + 50 for action in sampled(game, 2, 3)], [action - 60 for action in sampled(game, 2, 3)]):
        with pytest.raises(IndexError):
            game.step(state, wrong)
    with pytest.raises(RuntimeError, match="Expected dtype int32 or int64"):
        game.step(state, [action.float() for action in sampled(game, 2, 3)])


def test_observations_must_be_linear() -> None:
    class Curved(Spread):
        def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
            return [seen["position"][agent].abs()]

    with pytest.raises(TypeError, match=r"Curved.sees: got a function that is not linear"):
        Curved()


def test_a_world_of_ones_own() -> None:
    """A silent agent beside one that moves and talks: neither all alike, nor in a row."""

    class Own(ParticleWorld):
        def __init__(self) -> None:
            agents = [Agent(Body(), words=2), Agent(), Agent(None, words=2)]
            super().__init__(agents, actions="discrete", rules="mpe2", horizon=3)

        def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
            return [seen["velocity"], seen["message"]]

        def pays(self, state: State) -> tuple[Tensor, State]:
            return state["position"][:, 0].sum(0).expand(3, -1, -1), {}

    game = Own()
    assert game.action_spaces == (Discrete(10), Discrete(5), Discrete(2))
    after = game.step(game.reset(1, 1, CPU, torch.float64), moves(7, 3, 0)).state
    assert game.observe(after).obs[1].flatten().tolist() == [0.5, 0, 0, -0.5, 0, 1, 1, 0]
