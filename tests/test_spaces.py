"""Spaces: encodings, sizes, uniform distributions, and joint actions against plain loops."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_marl.spaces import (
    Box,
    Discrete,
    Space,
    encode,
    joint_action,
    joint_names,
    joint_space,
    separate_actions,
)

CPU = torch.device("cpu")
INF = math.inf


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
    assert space.stored(torch.float32) == torch.int64


def test_points_of_the_simplex_are_features_already() -> None:
    """It is the type that tells them from indices: a one-hot point of int64 is three indices."""
    space = Discrete(3)
    points = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    encoded = space.encode(points, torch.float64)
    assert torch.equal(encoded, points)
    assert encoded.requires_grad
    assert torch.equal(space.encode(points, torch.float32), points.float())
    assert torch.equal(space.encode(points[1].long(), torch.float64), torch.eye(3, dtype=torch.float64)[[0, 0, 1]])
    # Beside indices, as a network reads it: extra dimensions of the points lead.
    wide = encode([space, space], [points.expand(4, 2, 3), torch.tensor([2, 0])], torch.float64)
    assert wide.shape == (4, 2, 6)
    assert torch.equal(wide[0, 0], torch.tensor([0.2, 0.5, 0.3, 0.0, 0.0, 1.0], dtype=torch.float64))


def test_box() -> None:
    space = Box(-2.0, 6.0, 2)
    assert (space.event_shape, space.features) == ((2,), 2)
    centre, half_width = space.scale(torch.float64, CPU)
    assert (centre.tolist(), half_width.tolist()) == ([2.0, 2.0], [4.0, 4.0])
    assert space.bounded
    assert space.stored(torch.float32) == torch.float32
    assert space.log_size == pytest.approx(math.log(64))
    encoded = space.encode(torch.tensor([[-2.0, 6.0], [2.0, 4.0]]), torch.float64)
    assert encoded.dtype == torch.float64
    assert encoded.tolist() == [[-1.0, 1.0], [0.0, 0.5]]


def test_edges_may_differ_by_dimension() -> None:
    space = Box([-2.0, 0.0, -1.0], (6.0, 1.0, 1.0), 3)
    assert (space.low, space.high, space.shape) == ((-2.0, 0.0, -1.0), (6.0, 1.0, 1.0), (3,))
    assert [edge.tolist() for edge in space.edges(torch.float64, CPU)] == [[-2.0, 0.0, -1.0], [6.0, 1.0, 1.0]]
    assert [part.tolist() for part in space.scale(torch.float64, CPU)] == [[2.0, 0.5, 0.0], [4.0, 0.5, 1.0]]
    assert space.log_size == pytest.approx(math.log(8 * 1 * 2))
    encoded = space.encode(torch.tensor([[-2.0, 1.0, 0.5], [4.0, 0.5, -1.0]]), torch.float64)
    assert encoded.tolist() == [[-1.0, 1.0, 0.5], [0.5, 0.0, -1.0]]
    draws = space.uniform(torch.float64, CPU).sample((2000,))
    low, high = space.edges(torch.float64, CPU)
    assert ((draws >= low) & (draws <= high)).all()
    # The nearest of 2000 draws is further from an edge than 1 percent with probability 2e-9.
    assert (draws.amin(0) < low + 0.01 * (high - low)).all()
    assert (draws.amax(0) > high - 0.01 * (high - low)).all()
    torch.testing.assert_close(
        space.uniform(torch.float64, CPU).log_prob(draws), torch.full((2000,), -space.log_size).double()
    )


def test_one_edge_may_be_a_number_and_the_other_one_per_dimension() -> None:
    space = Box(0.0, [1.0, 3.0], 2)
    assert [edge.tolist() for edge in space.edges(torch.float32, CPU)] == [[0.0, 0.0], [1.0, 3.0]]
    assert space.log_size == pytest.approx(math.log(3))


def test_edges_that_agree_are_a_number() -> None:
    """So boxes that are the same compare and hash the same, whichever way they were written."""
    assert Box([-1.0, -1.0], [1.0, 1.0], 2) == Box(-1.0, 1.0, (2,)) == Box(-1.0, 1.0, 2)
    assert hash(Box([-1.0, -1.0], [1.0, 1.0], 2)) == hash(Box(-1.0, 1.0, 2))
    assert Box([-1.0, -1.0], [1.0, 2.0], 2) != Box(-1.0, 1.0, 2)
    assert Box(-1.0, 1.0, (2, 3)) != Box(-1.0, 1.0, 6)


def test_a_box_may_be_an_image() -> None:
    space = Box(0.0, 10.0, (3, 4, 2))
    assert (space.event_shape, space.features) == ((3, 4, 2), 24)
    assert space.log_size == pytest.approx(24 * math.log(10))
    uniform = space.uniform(torch.float64, CPU)
    assert (uniform.batch_shape, uniform.event_shape) == ((), (3, 4, 2))
    values = uniform.sample((5, 6))
    assert torch.equal(space.encode(values, torch.float64), ((values - 5) / 5).flatten(-3))
    torch.testing.assert_close(uniform.log_prob(values), torch.full((5, 6), -space.log_size).double())
    side_by_side = encode([space, Discrete(2)], [values, torch.ones(5, 6, dtype=torch.int64)], torch.float64)
    assert side_by_side.shape == (5, 6, 26)


@pytest.mark.parametrize(
    "space", [Box(), Box(-1.0), Box(high=1.0), Box([-1.0, -INF], 1.0, 2), Box([-1.0, 0.0], [1.0, INF], 2)]
)
def test_a_box_without_an_edge_has_no_uniform_density(space: Box) -> None:
    assert not space.bounded
    assert space.log_size == INF
    with pytest.raises(ValueError, match=r"^got Box\(.*\), expected a box with finite edges: no density is uniform"):
        space.uniform(torch.float64, CPU)


def test_coordinates_without_an_edge_are_encoded_as_they_are() -> None:
    """Those with both edges are scaled beside them; half a line has no scale either."""
    space = Box([-2.0, -INF, 5.0], [6.0, INF, INF], 3)
    assert [part.tolist() for part in space.scale(torch.float64, CPU)] == [[2.0, 0.0, 0.0], [4.0, 1.0, 1.0]]
    encoded = space.encode(torch.tensor([[6.0, 100.0, 7.0]], dtype=torch.float64), torch.float64)
    assert encoded.tolist() == [[1.0, 100.0, 7.0]]
    values = torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(Box(shape=2).encode(values, torch.float64), values)


@pytest.mark.parametrize(
    ("space", "values", "message"),
    [
        (Discrete(3), torch.tensor([[0, 2], [1, 1]]), None),
        (Discrete(3), torch.tensor([0, 3]), "numbers from 0 to 3, expected 0 to 2"),
        (Discrete(3), torch.tensor([-1, 2]), "numbers from -1 to 2, expected 0 to 2"),
        (Discrete(3), torch.tensor([0, 1], dtype=torch.int32), "torch.int32, expected int64"),
        (Discrete(3), torch.tensor([0.0, 1.0, 0.0]), "torch.float32, expected int64"),
        (Discrete(3), torch.zeros(0, 4, dtype=torch.int64), None),
        (Box(-2.0, 6.0, 2), torch.tensor([[-2.0, 6.0]]), None),
        (Box(-2.0, 6.0, 2), torch.tensor([[-2.1, 0.0]]), "numbers from -2.1 to 0, expected -2.0 to 6.0"),
        (Box(-2.0, 6.0, 2), torch.tensor([[0.0, 6.5]]), "numbers from 0 to 6.5, expected -2.0 to 6.0"),
        (Box(-2.0, 6.0, 2), torch.tensor([[0.0, math.nan]]), "numbers from nan to nan, expected -2.0 to 6.0"),
        (Box(-2.0, 6.0, 2), torch.tensor([[0, 1]]), "torch.int64, expected a floating type"),
        (Box([0.0, -1.0], [2.0, 1.0], 2), torch.tensor([[2.0, -1.0]]), None),
        (Box([0.0, -1.0], [2.0, 1.0], 2), torch.tensor([[1.0, 1.5]]), r"expected \(0.0, -1.0\) to \(2.0, 1.0\)"),
        (Box(0.0), torch.tensor([[1e30]]), None),
        (Box(0.0), torch.tensor([[-1.0]]), "numbers from -1 to -1, expected 0.0 to inf"),
        (Box(), torch.tensor([[-1e30], [1e30]]), None),
        (Box(), torch.tensor([[math.nan]]), "numbers from nan to nan"),
        (Box(0.0, 1.0, (2, 2)), torch.rand(4, 2, 2), None),
        (Box(0.0, 1.0, (2, 2)), torch.rand(4, 2, 2) + 0.9, "expected 0.0 to 1.0"),
    ],
)
def test_misfit_says_why_values_are_not_in_the_space(space: Space, values: torch.Tensor, message: str | None) -> None:
    found = space.misfit(values)
    if message is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(message, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_that_rounding_took_out_of_a_box_fit(dtype: torch.dtype) -> None:
    space = Box(-100.0, 100.0)
    edge = torch.tensor([[100.0]], dtype=dtype)
    assert space.misfit(torch.nextafter(edge, edge + 1)) is None
    assert space.misfit(-torch.nextafter(edge, edge + 1)) is None
    assert space.misfit(edge + 0.01) is not None


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
        (lambda: Box(1.0, 1.0), "^Box.low: got 1.0 with high = 1.0, expected low < high"),
        (
            lambda: Box([0.0, 0.0], [1.0, -1.0], 2),
            r"^Box.low: got \[0.0, 0.0\] with high = \[1.0, -1.0\], expected low < high",
        ),
        (lambda: Box(math.nan, 1.0), "^Box.low: got nan with high = 1.0, expected low < high"),
        (lambda: Box(0.0, 1.0, 0), "^Box.shape: got 0, expected positive integers"),
        (lambda: Box(0.0, 1.0, (3, 0)), r"^Box.shape: got \(3, 0\), expected positive integers"),
        (lambda: Box(0.0, 1.0, ()), r"^Box.shape: got \(\), expected positive integers"),
        (lambda: Box([0.0, 0.0], 1.0, 3), r"^Box.low: got 2 numbers, expected one, or one per dimension of \(3,\)"),
        (lambda: Box(0.0, [1.0, 2.0], 3), r"^Box.high: got 2 numbers, expected one, or one per dimension of \(3,\)"),
        (lambda: Box([0.0, 0.0], 1.0, (2, 2)), r"^Box.low: got 2 numbers, expected one"),
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
    assert all(map(torch.equal, separate_actions(spaces, joint), (first, second)))


def test_boxes_with_other_edges_stand_side_by_side_too() -> None:
    spaces = [Box(-1.0, 1.0, 1), Box([0.0, -INF], [2.0, INF], 2), Box(0.0, 2.0)]
    assert joint_space(spaces) == Box([-1.0, 0.0, -INF, 0.0], [1.0, 2.0, INF, 2.0], 4)
    actions = [torch.rand(4, 3, space.features) for space in spaces]
    joint = joint_action(spaces, actions)
    assert joint.shape == (4, 3, 4)
    assert all(map(torch.equal, separate_actions(spaces, joint), actions))
    # Bounded or not, every part is encoded in the joint box as in its own.
    encoded = joint_space(spaces).encode(joint, torch.float64)
    assert torch.equal(encoded, encode(spaces, actions, torch.float64))


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
    "spaces", [[Discrete(2), Box(0.0, 1.0)], [Box(0.0, 1.0), Discrete(2)], [Box(0.0, 1.0), Box(0.0, 1.0, (2, 2))]]
)
def test_what_one_site_cannot_hold_is_refused(spaces: list[Space]) -> None:
    with pytest.raises(ValueError, match=r"action spaces: got .* expected all Discrete, or all Box with one dimension"):
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


def test_joint_actions_have_names_of_their_own_in_their_order() -> None:
    assert joint_names([Discrete(2), Discrete(3)]) == ["AA", "AB", "AC", "BA", "BB", "BC"]
    assert joint_names([Discrete(2)] * 2, ["stag", "hare"]) == [
        *("stag & stag", "stag & hare"),
        *("hare & stag", "hare & hare"),
    ]
    assert joint_names([Discrete(26)])[-1] == "Z"
    assert joint_names([Discrete(27)])[-1] == "26"
    # More actions than letters: neither 1 and 11 nor 11 and 1 is called 111.
    many = joint_names([Discrete(2), Discrete(30), Discrete(30)])
    assert len(set(many)) == len(many) == 1800
    assert many[31] == "0 & 1 & 1"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_a_joint_action_taken_apart_is_what_it_was_made_of(sizes: list[int]) -> None:
    spaces = [Discrete(size) for size in sizes]
    actions = [torch.randint(size, (4, 3)) for size in sizes]
    assert all(map(torch.equal, separate_actions(spaces, joint_action(spaces, actions)), actions))
