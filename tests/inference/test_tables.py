"""What tabular learners share: draws at the ends of the interval they are made from."""

import pytest
import torch

from inference_marl.inference.tables import draw


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
