"""`own_stream`: parts that are made one after the other share no random numbers, and shift nobody else's by more."""

import pytest
import torch

from inference_marl.types import own_stream

CPU = torch.device("cpu")


def test_parts_made_in_turn_draw_nothing_in_common() -> None:
    drawn = []
    for _ in range(3):
        with own_stream(CPU):
            drawn.append(set(torch.rand(1000, dtype=torch.float64).tolist()))
    drawn.append(set(torch.rand(1000, dtype=torch.float64).tolist()))
    assert len(set.union(*drawn)) == 4000


@pytest.mark.parametrize("inside", [0, 1, 100])
def test_what_is_drawn_inside_moves_the_stream_outside_by_one_draw(inside: int) -> None:
    torch.manual_seed(3)
    torch.randint(2**62, ())
    expected = torch.rand(4)
    torch.manual_seed(3)
    with own_stream(CPU):
        torch.rand(inside)
    assert torch.equal(torch.rand(4), expected)
