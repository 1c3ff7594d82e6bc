"""Ring buffers against lists, whether they fill alike or apart, and what a minibatch is drawn from."""

import io
import itertools
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from inference_marl.inference.replay import Replay, Ring
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat, Transition

SEAT = Seat(0, (Box(-1.0, 1.0, 2),) * 3, (Discrete(3), Discrete(2), Discrete(4)), replicates=2, dtype=torch.float64)


def ring(capacity: int, replicates: int = 2, keys: int = 1) -> Any:
    seat = Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), replicates)
    return Ring(seat, capacity, {"x": ((), torch.int64), "y": ((3,), torch.float32)}, keys)


def entries(first: int, n: int, replicates: int = 2) -> dict[str, Tensor]:
    """Entry `i` of replicate `r` is `100 r + i`."""
    x = torch.arange(first, first + n) + 100 * torch.arange(replicates).view(-1, 1)
    return {"x": x, "y": x.unsqueeze(-1) + torch.tensor([0.25, 0.5, 0.75])}


def held(buffer: Any) -> list[list[list[int]]]:
    """What every ring of every replicate holds, sorted."""
    sizes = buffer._apart(torch.device("cpu"))[1]
    rows = buffer.x.unflatten(1, (buffer.keys, buffer.capacity))
    return [[sorted(row[:n].tolist()) for row, n in zip(*both, strict=True)] for both in zip(rows, sizes, strict=True)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 7), st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_the_newest_are_kept(capacity: int, pushes: list[int]) -> None:
    """Against a list, for pushes that wrap around and pushes larger than the ring."""
    buffer, first = ring(capacity), 0
    for n in pushes:
        buffer.push(entries(first, n))
        first += n
        newest = range(max(0, first - capacity), first)
        assert buffer.ready(len(newest))
        assert not buffer.ready(len(newest) + 1)
        assert held(buffer) == [[[100 * r + i for i in newest]] for r in range(2)]
        torch.testing.assert_close(buffer.y[..., 1], buffer.x * (buffer.y[..., 1] != 0) + 0.5 * (buffer.y[..., 1] != 0))


def test_the_oldest_are_overwritten_in_order() -> None:
    buffer = ring(3)
    buffer.push(entries(0, 2))
    buffer.push(entries(2, 2))
    assert buffer.x[0].tolist() == [3, 1, 2]
    buffer.push(entries(4, 1))
    assert buffer.x[0].tolist() == [3, 4, 2]
    assert buffer.x[1].tolist() == [103, 104, 102]


def test_names_stay_together_and_replicates_apart() -> None:
    buffer = ring(10)
    buffer.push(entries(0, 7))
    drawn = buffer.sample(50)
    assert drawn["x"].shape == (2, 50)
    assert drawn["y"].shape == (2, 50, 3)
    assert torch.equal(drawn["y"], drawn["x"].unsqueeze(-1) + torch.tensor([0.25, 0.5, 0.75]))
    assert set(drawn["x"][0].tolist()) == set(range(7))  # with 50 draws, each is missed with probability 5e-4
    assert set(drawn["x"][1].tolist()) == set(range(100, 107))


def test_minibatches_are_uniform_and_independent_per_replicate() -> None:
    """Pairs of indices of two replicates fill the square evenly; p < 1e-6 by chance, and the seed is fixed."""
    buffer, size = ring(8), 4
    buffer.push(entries(0, size))
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
    buffer.push(entries(0, 7))
    other.push(entries(50, 3))
    saved = {name: value.clone() if torch.is_tensor(value) else value for name, value in buffer.state_dict().items()}
    other.load_state_dict(saved)
    for each in (buffer, other):
        each.push(entries(7, 2))
    assert other.get_extra_state() == buffer.get_extra_state() == {"size": 5, "position": 2}
    assert torch.equal(other.x, buffer.x)
    assert torch.equal(other.y, buffer.y)
    torch.manual_seed(1)
    drawn = buffer.sample(20)
    torch.manual_seed(1)
    assert all(torch.equal(drawn[name], again) for name, again in other.sample(20).items())


class _Lists:
    """What `Ring` is to be: one list per replicate and key, whose oldest entries fall out."""

    def __init__(self, capacity: int, keys: int) -> None:
        self.rings: list[list[deque[int]]] = [[deque(maxlen=capacity) for _ in range(keys)] for _ in range(2)]

    def push(self, x: Tensor, key: Tensor | None, kept: Tensor | None) -> None:
        for r, i in itertools.product(*map(range, x.shape)):
            at = 0 if key is None else int(key[r, i])
            if at >= 0 and (kept is None or bool(kept[r, i])):
                self.rings[r][at].append(int(x[r, i]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    capacity=st.integers(1, 5),
    keys=st.integers(1, 3),
    pushes=st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
)
def test_every_ring_keeps_the_newest_of_its_own(
    capacity: int, keys: int, pushes: list[tuple[int, bool, bool]], seed: int
) -> None:
    """With keys and masks, one of them or neither, in any order; a key below 0 leaves an entry out."""
    generator = torch.Generator().manual_seed(seed)
    buffer, lists, first = ring(capacity, keys=keys), _Lists(capacity, keys), 0
    for n, with_keys, with_mask in pushes:
        newest = entries(first, n)
        key = torch.randint(-1, keys, (2, n), generator=generator) if with_keys else None
        kept = torch.rand(2, n, generator=generator) < 0.6 if with_mask else None
        buffer.push(newest, key, kept)
        lists.push(newest["x"], key, kept)
        first += n
        assert held(buffer) == [[sorted(each) for each in row] for row in lists.rings]
        assert torch.equal(buffer.y[..., 1] > 0, buffer.y[..., 0] > 0)
        seen = buffer.y[..., 1] > 0
        torch.testing.assert_close(buffer.y[..., 1][seen], buffer.x[seen] + 0.5)
    fewest = min(len(each) for row in lists.rings for each in row)
    assert buffer.ready(fewest)
    assert not buffer.ready(fewest + 1)


def test_rings_that_stand_alike_or_apart_hold_the_same() -> None:
    """Where nothing is left out, a mask or a key changes nothing: not even where an entry stands."""
    alike, masked, keyed = ring(5), ring(5), ring(5)
    for first, n in [(0, 3), (3, 4), (7, 1), (8, 5)]:
        newest = entries(first, n)
        alike.push(newest)
        masked.push(newest, kept=torch.ones(2, n, dtype=torch.bool))
        keyed.push(newest, key=torch.zeros(2, n, dtype=torch.int64))
        for other in (masked, keyed):
            assert torch.equal(alike.x, other.x)
            assert torch.equal(alike.y, other.y)


def test_an_entry_that_is_left_out_is_left_out_of_its_ring_alone() -> None:
    buffer = ring(3)
    buffer.push(entries(0, 2))
    buffer.push(entries(2, 2), kept=torch.tensor([[True, True], [False, True]]))
    assert buffer.x.tolist() == [[3, 1, 2], [100, 101, 103]]
    buffer.push(entries(4, 1))
    assert buffer.x.tolist() == [[3, 4, 2], [104, 101, 103]]


def test_a_ring_per_key() -> None:
    buffer = ring(2, keys=3)
    assert not buffer.ready(1)
    buffer.push(entries(0, 4), key=torch.tensor([[0, 2, 0, 0], [1, 1, -1, 2]]))
    assert held(buffer) == [[[2, 3], [], [1]], [[], [100, 101], [103]]]
    assert not buffer.ready(1)
    buffer.push(entries(4, 2), key=torch.tensor([[1, 2], [0, 2]]))
    assert held(buffer) == [[[2, 3], [4], [1, 5]], [[104], [100, 101], [103, 105]]]
    assert buffer.ready(1)
    assert not buffer.ready(2)


def test_minibatches_of_keys_are_of_their_rings() -> None:
    """`replicates x tasks x batch`, each task's from its own ring, however much that holds; pairs stay together."""
    buffer = ring(6, keys=3)
    key = torch.tensor([[0, 0, 0, 1, 2, 2, 2, 2], [2, 1, 1, 1, 1, 0, 0, 2]])
    buffer.push(entries(0, 8), key=key)
    wanted = torch.tensor([[2, 0], [1, 1]])
    drawn = buffer.sample(60, wanted)
    assert drawn["x"].shape == (2, 2, 60)
    assert drawn["y"].shape == (2, 2, 60, 3)
    assert torch.equal(drawn["y"], drawn["x"].unsqueeze(-1) + torch.tensor([0.25, 0.5, 0.75]))
    for r, task in itertools.product(range(2), range(2)):
        ours = (key[r] == wanted[r, task]).nonzero().flatten() + 100 * r
        # Each of at most four is missed by 60 draws with probability 3e-8.
        assert set(drawn["x"][r, task].tolist()) == set(ours.tolist())
    assert not torch.equal(drawn["x"][1, 0], drawn["x"][1, 1])  # the same ring, and draws of their own


def test_minibatches_of_rings_that_stand_apart_are_uniform_over_what_they_hold() -> None:
    """One replicate holds 5 of 8 and the other all 8 places; p < 1e-6 by chance, and the seed is fixed."""
    buffer = ring(8)
    kept = torch.ones(2, 8, dtype=torch.bool)
    kept[0, ::3] = False
    buffer.push(entries(0, 8), kept=kept)
    drawn = buffer.sample(4000)["x"]
    assert drawn.shape == (2, 4000)
    for r, expected in enumerate([[1, 2, 4, 5, 7], [100, 101, 102, 103, 104, 105, 106, 107]]):
        values, counts = drawn[r].unique(return_counts=True)
        assert values.tolist() == expected
        assert chisquare(counts.numpy()).pvalue > 1e-6
    pairs = torch.bincount((drawn[0] % 100) * 8 + drawn[1] % 100, minlength=64).view(8, 8)[[1, 2, 4, 5, 7]]
    assert chisquare(pairs.flatten().numpy()).pvalue > 1e-6


def test_an_empty_ring_among_others_is_named() -> None:
    buffer = ring(3, keys=2)
    buffer.push(entries(0, 2), key=torch.tensor([[0, 1], [0, 0]]))
    assert buffer.sample(4, torch.tensor([[0], [0]]))["x"].shape == (2, 1, 4)
    for keys in ([[0, 1], [0, 1]], [[1], [1]]):
        with pytest.raises(IndexError, match="got an empty ring, expected at least one push"):
            buffer.sample(4, torch.tensor(keys))
    masked = ring(3)
    masked.push(entries(0, 2), kept=torch.tensor([[True, True], [False, False]]))
    with pytest.raises(IndexError, match="got an empty ring, expected at least one push"):
        masked.sample(1)


@pytest.mark.parametrize("apart", [False, True])
def test_the_only_ring_may_be_asked_for_by_its_key(apart: bool) -> None:
    """Minibatches lead with the rings asked for, whether or not entries were ever left out."""
    buffer = ring(4)
    for _ in range(2):
        x, y = torch.arange(6).view(2, 3), torch.zeros(2, 3, 3)
        buffer.push({"x": x, "y": y}, kept=torch.ones(2, 3, dtype=torch.bool) if apart else None)
    drawn = buffer.sample(50, torch.zeros(2, 1, dtype=torch.int64))
    assert drawn["x"].shape == (2, 1, 50)
    assert drawn["y"].shape == (2, 1, 50, 3)
    assert [set(row.flatten().tolist()) for row in drawn["x"]] == [{0, 1, 2}, {3, 4, 5}]


@pytest.mark.parametrize(("keys", "masked"), [(1, False), (1, True), (3, False), (3, True)])
def test_rings_go_on_where_a_file_left_them(keys: int, masked: bool) -> None:
    """Saved and read without executing code; copies then fill and draw as the original, and share nothing."""
    buffer, one, other = (ring(4, keys=keys) for _ in range(3))

    def push(first: int, *rings: Any, seed: int) -> None:
        torch.manual_seed(seed)
        key = torch.randint(-1, keys, (2, 5)) if keys > 1 else None
        kept = torch.rand(2, 5) < 0.7 if masked else None
        for each in rings:
            each.push(entries(first, 5), key, kept)

    for first in (0, 5, 10, 15):
        push(first, buffer, seed=first)
    push(50, one, seed=50)
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    for each in (one, other):
        each.load_state_dict(saved)
    push(20, buffer, one, seed=20)
    push(20, other, seed=20)  # after the other copy has gone on
    wanted = torch.arange(keys).expand(2, -1) if keys > 1 else None
    torch.manual_seed(1)
    drawn = buffer.sample(20, wanted)
    for each in (one, other):
        assert held(each) == held(buffer)
        assert torch.equal(each.x, buffer.x)
        assert torch.equal(each.y, buffer.y)
        torch.manual_seed(1)
        again = each.sample(20, wanted)
        assert all(torch.equal(drawn[name], again[name]) for name in ("x", "y"))


def steps(n: int, **more: Any) -> Transition:
    """Three agents, two replicates; every number tells where it is from."""
    obs, next_obs = (tuple(torch.rand(2, n, 2, dtype=torch.float64) for _ in range(3)) for _ in range(2))
    return Transition(
        obs,
        tuple(torch.randint(space.features, (2, n)) for space in SEAT.action_spaces),
        torch.rand(2, n, 3, dtype=torch.float64),
        next_obs,
        torch.rand(2, n) < 0.3,
        torch.rand(2, n) < 0.5,
        **more,
    )


def numbers(step: Transition) -> dict[str, Tensor]:
    """All tensors that a replay keeps, by name."""
    by_agent = {
        f"{name}_{i}": each for name in ("obs", "actions", "next_obs") for i, each in enumerate(getattr(step, name))
    }
    return by_agent | {name: getattr(step, name) for name in ("rewards", "terminated", "ended")}


def test_replay_holds_what_all_agents_did() -> None:
    replay, batch = Replay(SEAT, capacity=6), steps(4)
    replay.add(batch)
    drawn = replay.draw(32)
    given_numbers = numbers(batch)
    for name, value in numbers(drawn).items():
        assert value.dtype == given_numbers[name].dtype
        assert value.shape == (2, 32, *given_numbers[name].shape[2:])
    for r, i in itertools.product(range(2), range(32)):
        (source,) = (batch.rewards[r, :, 0] == drawn.rewards[r, i, 0]).nonzero().flatten().tolist()
        for name, value in numbers(drawn).items():
            assert torch.equal(value[r, i], given_numbers[name][r, source])


def test_any_seat_may_look_at_what_replay_holds() -> None:
    """The view of seat 1: its own numbers, and the others' joint action, the last one's running fastest."""
    replay, batch = Replay(replace(SEAT, index=1), capacity=4), steps(4)
    replay.add(batch)
    seen = replay.draw(32).seen_by(replace(SEAT, index=1))
    for r, i in itertools.product(range(2), range(32)):
        (source,) = (batch.rewards[r, :, 1] == seen.reward[r, i]).nonzero().flatten().tolist()
        assert torch.equal(seen.obs[r, i], batch.obs[1][r, source])
        assert seen.action[r, i] == batch.actions[1][r, source]
        assert seen.opponent_action[r, i] == 4 * batch.actions[0][r, source] + batch.actions[2][r, source]
        assert torch.equal(seen.next_obs[r, i], batch.next_obs[1][r, source])
        assert seen.terminated[r, i] == batch.terminated[r, source]


@pytest.mark.parametrize("index", [0, 2])
def test_transitions_without_the_seats_agent_are_left_out(index: int) -> None:
    """In each replicate as far as it was alive there, whatever the others were."""
    alive = (
        torch.tensor([[[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]], [[0, 1, 1], [1, 1, 0], [0, 1, 1], [0, 1, 1]]]) == 1
    )
    batch = steps(4, alive=alive, next_alive=torch.ones_like(alive))
    replay: Any = Replay(replace(SEAT, index=index), capacity=6)
    replay.add(batch)
    drawn = replay.draw(64)
    for r in range(2):
        expected = batch.rewards[r, :, 0][alive[r, :, index]]
        assert set(drawn.rewards[r, :, 0].tolist()) == set(expected.tolist())  # missed by chance in 1e-8
    assert replay.ready(int(alive[..., index].sum(1).min()))
    assert not replay.ready(int(alive[..., index].sum(1).min()) + 1)


def test_a_transition_after_which_the_agent_is_out_is_its_last() -> None:
    """Terminated for it, so that nothing is bootstrapped, though the game goes on and its episode has not ended."""
    next_alive = torch.tensor([[[False, True, True], [True, False, True]]] * 2)
    batch = steps(2, alive=torch.ones(2, 2, 3, dtype=torch.bool), next_alive=next_alive)
    batch.terminated, batch.ended = torch.zeros(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)
    for index, expected in [(0, [True, False]), (1, [False, True]), (2, [False, False])]:
        replay: Any = Replay(replace(SEAT, index=index), capacity=2)
        replay.add(batch)
        assert replay.terminated.tolist() == [expected] * 2
        assert not replay.ended.any()


def test_a_team_keeps_what_one_of_it_was_in() -> None:
    """With who was in before and after, and what was legal; what the game alone ends is kept apart from who leaves."""
    alive = torch.tensor([[[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]]] * 2) == 1
    next_alive = alive.roll(1, 1)
    mask, next_mask = torch.rand(2, 4, 3) < 0.5, torch.rand(2, 4, 3) < 0.5
    batch = steps(4, alive=alive, next_alive=next_alive, masks=(None, mask, None), next_masks=(None, next_mask, None))
    before = steps(1)
    replay: Any = Replay(SEAT, capacity=9, team=[0, 2])
    replay.add(before)
    assert replay.draw(1).alive is replay.draw(1).masks is None
    replay.add(batch)
    saved = {name: value.clone() if isinstance(value, Tensor) else value for name, value in replay.state_dict().items()}
    again: Any = Replay(SEAT, capacity=9, team=[0, 2])
    again.load_state_dict(saved)
    for each in (replay, again):
        drawn, found = each.draw(64), set()
        for r, i in itertools.product(range(2), range(64)):
            (source,) = (batch.rewards[r, :, 0] == drawn.rewards[r, i, 0]).nonzero().flatten().tolist() or [None]
            found.add(source)
            if source is None:
                assert drawn.rewards[r, i, 0] == before.rewards[r, 0, 0]
                assert all(each[r, i].all() for each in (drawn.alive, drawn.next_alive, drawn.masks[1]))
                continue
            assert torch.equal(drawn.alive[r, i], alive[r, source])
            assert torch.equal(drawn.next_alive[r, i], next_alive[r, source])
            assert torch.equal(drawn.masks[1][r, i], mask[r, source])
            assert torch.equal(drawn.next_masks[1][r, i], next_mask[r, source])
            assert drawn.masks[0] is drawn.masks[2] is None
            assert drawn.terminated[r, i] == batch.terminated[r, source]
        assert found == {None, 0, 2, 3}, "all but the one without anybody of the team; missed by chance in 1e-7"
    replay.add(steps(3))  # which says nothing of who was in
    assert replay.draw(64).alive[..., 1].any()
    again.load_state_dict(Replay(SEAT, capacity=9, team=[0, 2]).state_dict())
    assert again.alive.all(), "as before anybody left"


def test_a_replay_per_task() -> None:
    replay, batch = Replay(SEAT, capacity=3, keys=2), steps(4)
    key = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 1]])
    replay.add(batch, key)
    drawn = replay.draw(64, torch.tensor([[1, 0], [1, 0]]))
    assert drawn.obs[2].shape == (2, 2, 64, 2)
    assert drawn.actions[0].shape == drawn.terminated.shape == (2, 2, 64)
    for r, task in itertools.product(range(2), range(2)):
        ours = batch.rewards[r, :, 2][key[r] == task]
        assert set(drawn.rewards[r, 1 - task, :, 2].tolist()) == set(ours.tolist())


def test_a_ring_holds_what_a_prior_remembers() -> None:
    observed: Any = Ring(SEAT, 3, {"obs": ((2,), torch.float64), "opponent_action": ((), torch.int64)})
    obs, opponent_action = torch.rand(2, 3, 2, dtype=torch.float64), torch.randint(8, (2, 3))
    observed.push({"obs": obs, "opponent_action": opponent_action})
    assert torch.equal(observed.obs, obs)
    assert torch.equal(observed.opponent_action, opponent_action)
