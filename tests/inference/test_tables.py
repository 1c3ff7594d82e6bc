"""What tabular learners share: draws at the ends of the interval they are made from."""

import math

import pytest
import torch

from inference_marl.inference.failures import Failures, NonFiniteError
from inference_marl.inference.tables import draw, finite


@pytest.mark.parametrize(
    ("level", "probabilities", "expected"),
    [
        (0.0, [0.0, 0.5, 0.5], 1),  # what has no probability is not drawn, though the level be exactly 0
        (0.5, [0.5, 0.0, 0.5], 2),
        (1 - 2**-24, [0.5, 0.5, 0.0], 1),
        (0.9995, [0.5, 0.499, 0.0], 1),  # nor where rounding has left a sum below 1
        (0.9995, [0.5, 0.501, 0.5], 2),
        (0.49, [0.5, 0.5, 0.0], 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_actions_without_probability_are_never_drawn(
    level: float, probabilities: list[float], expected: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **kind: torch.full(shape, level, **kind))
    rows = torch.tensor(probabilities, dtype=dtype).expand(2, 3, -1)
    assert draw(rows).tolist() == [[expected] * 3] * 2


def test_draws_are_as_frequent_as_their_probabilities() -> None:
    """Of 40000 draws; five standard errors are exceeded with probability below 1e-5."""
    torch.manual_seed(0)
    rows = torch.tensor([[0.7, 0.1, 0.2], [0.0, 0.25, 0.75]], dtype=torch.float64)
    drawn = draw(rows.unsqueeze(1).expand(-1, 40000, -1))
    for row, actions in zip(rows, drawn, strict=True):
        for action, probability in enumerate(row.tolist()):
            error = (probability * (1 - probability) / 40000) ** 0.5
            assert abs(float((actions == action).double().mean()) - probability) <= 5 * error


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_numbers_to_learn_from_are_0_in_replicates_of_which_one_is_not_finite(broken: float) -> None:
    """A sum that overflows is no failure."""
    numbers = torch.full((3, 40), 1e37, requires_grad=True)
    assert finite("critic", numbers) is numbers
    partly = numbers.detach().clone()
    partly[1, 2] = broken
    with pytest.raises(NonFiniteError, match=r"critic is not finite in replicate 1$"):
        finite("critic", partly)
    failures = Failures(3)
    with failures.heeded():
        found = finite("critic", partly)
    assert list(failures.why) == [1]
    assert torch.equal(found, torch.tensor([[1e37], [0.0], [1e37]]).expand(3, 40))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_the_failure_of_its_replicate(broken: float) -> None:
    numbers = torch.zeros(3, 2, 2, requires_grad=True)
    numbers.data[2, 1, 0] = broken
    failures = Failures(3)
    failures.look("reward", numbers, 1)
    assert failures.why == {2: "step 0, agent 1: reward is not finite"}
