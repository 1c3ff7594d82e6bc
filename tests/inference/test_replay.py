"""Ring buffers against a list, and what a minibatch is drawn from."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from inference_marl.inference.replay import Observed, Replay, Ring
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Experience, Seat

SEAT = Seat(0, Box(-1.0, 1.0, 2), (Discrete(3), Discrete(2), Discrete(4)), replicates=2, dtype=torch.float64)


def ring(capacity: int, replicates: int = 2) -> Ring:
    seat = Seat(0, Discrete(1), (Discrete(2), Discrete(2)), replicates)
    return Ring(seat, capacity, {"x": ((), torch.int64), "y": ((3,), torch.float32)})


def entries(first: int, n: int, replicates: int = 2) -> dict[str, torch.Tensor]:
    """Entry `i` of replicate `r` is `100 r + i`."""
    x = torch.arange(first, first + n) + 100 * torch.arange(replicates).view(-1, 1)
    return {"x": x, "y": x.unsqueeze(-1) + torch.tensor([0.25, 0.5, 0.75])}


def kept(buffer: Ring) -> list[list[int]]:
    return [sorted(row[: buffer.size].tolist()) for row in buffer.x]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 7), st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_the_newest_are_kept(capacity: int, pushes: list[int]) -> None:
    """Against a list, for pushes that wrap around and pushes larger than the ring."""
    buffer, first = ring(capacity), 0
    for n in pushes:
        buffer.push(**entries(first, n))
        first += n
        newest = range(max(0, first - capacity), first)
        assert buffer.size == len(newest)
        assert kept(buffer) == [[100 * r + i for i in newest] for r in range(2)]
        torch.testing.assert_close(buffer.y[..., 1], buffer.x * (buffer.y[..., 1] != 0) + 0.5 * (buffer.y[..., 1] != 0))


def test_the_oldest_are_overwritten_in_order() -> None:
    buffer = ring(3)
    buffer.push(**entries(0, 2))
    buffer.push(**entries(2, 2))
    assert buffer.x[0].tolist() == [3, 1, 2]
    buffer.push(**entries(4, 1))
    assert buffer.x[0].tolist() == [3, 4, 2]
    assert buffer.x[1].tolist() == [103, 104, 102]


def test_names_stay_together_and_replicates_apart() -> None:
    buffer = ring(10)
    buffer.push(**entries(0, 7))
    drawn = buffer.sample(50)
    assert drawn["x"].shape == (2, 50)
    assert drawn["y"].shape == (2, 50, 3)
    assert torch.equal(drawn["y"], drawn["x"].unsqueeze(-1) + torch.tensor([0.25, 0.5, 0.75]))
    assert set(drawn["x"][0].tolist()) == set(range(7))  # with 50 draws, each is missed with probability 5e-4
    assert set(drawn["x"][1].tolist()) == set(range(100, 107))


def test_minibatches_are_uniform_and_independent_per_replicate() -> None:
    """Pairs of indices of two replicates fill the square evenly; p < 1e-6 by chance, and the seed is fixed."""
    buffer, size = ring(8), 4
    buffer.push(**entries(0, size))
    drawn = buffer.sample(4000)["x"] % 100
    pairs = torch.bincount(drawn[0] * size + drawn[1], minlength=size * size)
    assert chisquare(pairs.numpy()).pvalue > 1e-6
    successive = torch.bincount(drawn[0, :-1] * size + drawn[0, 1:], minlength=size * size)
    assert chisquare(successive.numpy()).pvalue > 1e-6


def test_an_empty_ring_has_nothing_to_sample() -> None:
    with pytest.raises(IndexError, match="got an empty ring, expected at least one push"):
        ring(3).sample(1)


def test_state_dict_round_trip() -> None:
    buffer, other = ring(5), ring(5)
    buffer.push(**entries(0, 7))
    other.push(**entries(50, 3))
    saved = {name: value.clone() if torch.is_tensor(value) else value for name, value in buffer.state_dict().items()}
    other.load_state_dict(saved)
    for each in (buffer, other):
        each.push(**entries(7, 2))
    assert (other.size, other.position) == (buffer.size, buffer.position)
    assert torch.equal(other.x, buffer.x)
    assert torch.equal(other.y, buffer.y)
    torch.manual_seed(1)
    drawn = buffer.sample(20)
    torch.manual_seed(1)
    assert all(torch.equal(drawn[name], again) for name, again in other.sample(20).items())


def test_replay_holds_one_seats_view() -> None:
    replay = Replay(SEAT, capacity=6)
    batch = Experience(
        obs=torch.rand(2, 4, 2, dtype=torch.float64),
        action=torch.randint(3, (2, 4)),
        opponent_action=torch.randint(8, (2, 4)),
        reward=torch.rand(2, 4, dtype=torch.float64),
        next_obs=torch.rand(2, 4, 2, dtype=torch.float64),
        terminated=torch.tensor([[True, False, False, True]] * 2),
    )
    replay.add(batch)
    drawn = replay.draw(32)
    for name, value in drawn.tensors().items():
        given_value = getattr(batch, name)
        assert value.dtype == given_value.dtype
        assert value.shape == (2, 32, *given_value.shape[2:])
    for r, i in itertools.product(range(2), range(32)):
        (source,) = (batch.reward[r] == drawn.reward[r, i]).nonzero().flatten().tolist()
        for name, value in drawn.tensors().items():
            assert torch.equal(value[r, i], getattr(batch, name)[r, source])


def test_observed_holds_pairs() -> None:
    observed = Observed(SEAT, capacity=3)
    obs, opponent_action = torch.rand(2, 3, 2, dtype=torch.float64), torch.randint(8, (2, 3))
    observed.push(obs=obs, opponent_action=opponent_action)
    assert torch.equal(observed.obs, obs)
    assert torch.equal(observed.opponent_action, opponent_action)
