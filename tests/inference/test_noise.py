"""Exploration noise: its size, its memory, and its units."""

from __future__ import annotations

import pytest
import torch

from inference_marl.inference.noise import ActionNoise, NormalNoise, OrnsteinUhlenbeckNoise
from inference_marl.inference.schedules import Linear
from inference_marl.spaces import Box
from inference_marl.types import Memory, Seat

BOX = Box((-10.0, 0.0), (10.0, 1.0), 2)
SEAT = Seat(0, (BOX,), (BOX,), 2, dtype=torch.float64)
CENTRE = torch.tensor([0.0, 0.5], dtype=torch.float64)
HALF = torch.tensor([10.0, 0.5], dtype=torch.float64)


def drawn(noise: ActionNoise, steps: int, update: int = 0, environments: int = 2000) -> torch.Tensor:
    """Deviations from the centre of the box in units of half its width, `steps x replicates x environments x 2`."""
    memory: Memory = noise.initial_memory(SEAT, 2, environments)
    found = []
    for _ in range(steps):
        action, memory = noise(CENTRE.expand(2, environments, 2), BOX, memory, update)
        found.append((action - CENTRE) / HALF)
    return torch.stack(found)


@pytest.mark.parametrize("kind", [NormalNoise, OrnsteinUhlenbeckNoise])
def test_the_scale_is_in_units_of_half_the_width(kind: type[ActionNoise]) -> None:
    """Bounds are five standard errors."""
    torch.manual_seed(0)
    (first,) = drawn(kind(0.1), 1)
    assert ((first.std(1) / 0.1 - 1).abs() < 5 / 4000**0.5).all()
    for update, expected in [(0, 0.2), (5, 0.1)]:
        (now,) = drawn(kind(Linear(0.2, 0.0, 10)), 1, update)
        assert ((now.std(1) / expected - 1).abs() < 5 / 4000**0.5).all()
    assert not drawn(kind(0.0), 3).any()
    outside = drawn(kind(30.0), 1)
    assert outside.abs().max() == 1.0


def test_normal_noise_remembers_nothing() -> None:
    assert NormalNoise().initial_memory(SEAT, 2, 3) == {}
    steps = drawn(NormalNoise(0.1), 2).flatten(1)
    assert torch.corrcoef(steps)[0, 1].abs() < 5 / 8000**0.5


def test_ornstein_uhlenbeck_noise_is_the_recursion() -> None:
    """`x <- x - rate x + scale e`, with the draws of normal noise; and its size and correlation in the long run."""
    torch.manual_seed(3)
    fresh = drawn(NormalNoise(0.02), 4, environments=5)
    torch.manual_seed(3)
    found = drawn(OrnsteinUhlenbeckNoise(0.02, 0.3), 4, environments=5)
    x = torch.zeros_like(fresh[0])
    for t in range(4):
        x = x - 0.3 * x + fresh[t]
        torch.testing.assert_close(found[t], x)
    long = drawn(OrnsteinUhlenbeckNoise(0.02), 61)[-2:].flatten(1)
    assert abs(float(long.std()) / 0.02 - 1 / (1 - 0.85**2) ** 0.5) < 0.05
    assert abs(float(torch.corrcoef(long)[0, 1]) - 0.85) < 0.02


def test_it_moves_actions_and_keeps_what_else_is_remembered() -> None:
    noise, other = OrnsteinUhlenbeckNoise(0.1), torch.ones(2, 3)
    memory = noise.initial_memory(SEAT, 2, 3) | {"other": other}
    _, after = noise(CENTRE.expand(2, 3, 2), BOX, memory, 0)
    assert after["other"] is other
    assert not memory["noise"].any(), "not changed in place"


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^scale: got -0\.1, expected a number that is not negative"):
        NormalNoise(-0.1)
    with pytest.raises(ValueError, match=r"^rate: got 0, expected a number in \(0, 1\]"):
        OrnsteinUhlenbeckNoise(rate=0)
