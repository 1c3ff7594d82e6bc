"""Spaces: encodings, sizes, uniform distributions, and joint actions against plain loops."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_marl.spaces import Box, Discrete, Space, encode, joint_action, joint_space

CPU = torch.device("cpu")


def test_discrete() -> None:
    space = Discrete(3)
    assert (space.event_shape, space.features, space.log_size) == ((), 3, pytest.approx(math.log(3)))
    encoded = space.encode(torch.tensor([[2, 0]]), torch.float64)
    assert encoded.dtype == torch.float64
    assert encoded.tolist() == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    uniform = space.uniform(torch.float64, CPU)
    assert uniform.probs.tolist() == pytest.approx([1 / 3] * 3)
    assert uniform.probs.dtype == torch.float64
    assert uniform.batch_shape == torch.Size([])


def test_box() -> None:
    space = Box(-2.0, 6.0, 2)
    assert (space.event_shape, space.features, space.centre, space.half_width) == ((2,), 2, 2.0, 4.0)
    assert space.log_size == pytest.approx(math.log(64))
    encoded = space.encode(torch.tensor([[-2.0, 6.0], [2.0, 4.0]]), torch.float64)
    assert encoded.dtype == torch.float64
    assert encoded.tolist() == [[-1.0, 1.0], [0.0, 0.5]]


def test_uniform_on_a_box_has_its_volume_as_density() -> None:
    space = Box(-2.0, 6.0, 2)
    uniform = space.uniform(torch.float64, CPU)
    draws = uniform.sample((1000,))
    assert draws.shape == (1000, 2)
    assert draws.dtype == torch.float64
    assert ((draws >= -2) & (draws <= 6)).all()
    assert (draws.amin(0) < -1.9).all()
    assert (draws.amax(0) > 5.9).all()
    edges = torch.tensor([[-2.0, -2.0], [6.0, 6.0], [0.0, 6.0]], dtype=torch.float64)
    for point in (draws, edges):
        torch.testing.assert_close(uniform.log_prob(point), torch.full(point.shape[:1], -space.log_size).double())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Discrete(0), "Discrete.n: got 0, expected a positive integer"),
        (lambda: Box(1.0, 1.0), "got low = 1.0, high = 1.0, expected low < high"),
        (lambda: Box(0.0, 1.0, 0), "Box.dim: got 0, expected a positive integer"),
    ],
)
def test_empty_spaces_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_last_agents_action_runs_fastest(sizes: list[int]) -> None:
    spaces = [Discrete(size) for size in sizes]
    joint = joint_space(spaces)
    assert joint == Discrete(math.prod(sizes))
    cells = list(itertools.product(*(range(size) for size in sizes)))
    actions = [torch.tensor(column) for column in zip(*cells, strict=True)]
    assert joint_action(spaces, actions).tolist() == list(range(joint.n))


def test_boxes_stand_side_by_side() -> None:
    spaces = [Box(-1.0, 1.0, 1), Box(-1.0, 1.0, 2)]
    assert joint_space(spaces) == Box(-1.0, 1.0, 3)
    first, second = torch.rand(4, 2, 1), torch.rand(4, 2, 2)
    joint = joint_action(spaces, [first, second])
    assert torch.equal(joint, torch.cat([first, second], -1))


@pytest.mark.parametrize("space", [Discrete(3), Box(0.0, 1.0, 2)])
def test_joint_actions_broadcast(space: Space) -> None:
    event = space.event_shape
    first, second = (
        space.uniform(torch.float32, CPU).sample((5, 1, 2)),
        space.uniform(torch.float32, CPU).sample((4, 1)),
    )
    joint = joint_action([space, space], [first, second])
    wide = [first.expand(5, 4, 2, *event), second.expand(5, 4, 2, *event)]
    assert torch.equal(joint, joint_action([space, space], wide))


@pytest.mark.parametrize(
    "spaces", [[Discrete(2), Box(0.0, 1.0)], [Box(0.0, 1.0), Discrete(2)], [Box(0.0, 1.0), Box(0.0, 2.0)]]
)
def test_what_one_site_cannot_hold_is_refused(spaces: list[Space]) -> None:
    with pytest.raises(ValueError, match=r"action spaces: got .* expected all Discrete, or all Box with the same"):
        joint_space(spaces)


def test_encode_broadcasts_enumerated_sites() -> None:
    spaces = [Discrete(2), Box(-1.0, 1.0, 2), Discrete(3)]
    obs, action = torch.randint(2, (4, 5)), torch.rand(4, 5, 2)
    opponent_action = torch.arange(3).view(3, 1, 1)
    encoded = encode(spaces, [obs, action, opponent_action], torch.float64)
    assert encoded.shape == (3, 4, 5, 7)
    for b, r, i in itertools.product(range(3), range(4), range(5)):
        alone = [
            space.encode(value, torch.float64)
            for space, value in zip(spaces, (obs[r, i], action[r, i], torch.tensor(b)), strict=True)
        ]
        assert torch.equal(encoded[b, r, i], torch.cat(alone))


def test_encode_of_one_value() -> None:
    values = torch.randint(3, (2, 4))
    assert torch.equal(encode([Discrete(3)], [values], torch.float32), Discrete(3).encode(values, torch.float32))
