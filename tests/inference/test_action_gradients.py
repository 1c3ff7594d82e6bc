"""Estimators of the gradient with respect to a discrete policy, against enumeration."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_marl.inference.action_gradients import ActionGradient, GumbelSoftmax, ScoreFunction

WORTH = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
LOGITS = torch.tensor([[0.5, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.5]], dtype=torch.float64)


def linear(action: Tensor) -> Tensor:
    return (action * WORTH).sum(-1)


def bent(action: Tensor) -> Tensor:
    """The same at the corners of the simplex, with other slopes between them."""
    return linear(action) + 5 * (action * (1 - action)).sum(-1)


def exact() -> Tensor:
    probs = LOGITS.softmax(-1)
    return probs * (WORTH - (probs * WORTH).sum(-1, keepdim=True))


def draws_of(estimator: ActionGradient, values: Callable[[Tensor], Tensor], draws: int) -> tuple[Tensor, Tensor]:
    """Gradients of single data, `2 x draws x actions`, and values of drawn actions."""
    logits = LOGITS.unsqueeze(1).repeat(1, draws, 1).requires_grad_()
    surrogate, worth = estimator(logits, values)
    assert surrogate.shape == worth.shape == (2, draws)
    assert not worth.requires_grad
    (gradient,) = torch.autograd.grad(surrogate.sum(), logits)
    return gradient, worth


@pytest.mark.parametrize("draws", [1, 2, 5])
@pytest.mark.parametrize("values", [linear, bent])
def test_the_score_function_is_unbiased(values: Callable[[Tensor], Tensor], draws: int) -> None:
    found, worth = draws_of(ScoreFunction(draws), values, 20_000)
    error = (found.mean(1) - exact()).abs() / (found.std(1) / 20_000**0.5)
    assert error.max() < 4.5
    mean = (LOGITS.softmax(-1) * WORTH).sum(-1)
    assert ((worth.mean(1) - mean).abs() < 5 * worth.std(1) / 20_000**0.5).all()


def test_the_others_mean_as_baseline_makes_it_less_noisy() -> None:
    """Also where all values are far from 0, which without a baseline is all noise."""
    far = [draws_of(ScoreFunction(draws), lambda a: 100 + linear(a), 5000)[0].std(1).max() for draws in (1, 2)]
    near = draws_of(ScoreFunction(2), linear, 5000)[0].std(1).max()
    assert far[0] > 10 * far[1]
    assert far[1] == pytest.approx(float(near), rel=0.1)


@pytest.mark.parametrize("hard", [True, False])
def test_gumbel_softmax_is_biased_in_the_right_direction_unless_values_are_bent(hard: bool) -> None:
    found = draws_of(GumbelSoftmax(hard=hard), linear, 40_000)[0].mean(1)
    assert torch.cosine_similarity(found, exact(), dim=-1).min() > 0.9
    bent_ones = draws_of(GumbelSoftmax(hard=hard), bent, 40_000)[0].mean(1)
    assert not torch.allclose(bent_ones, exact(), atol=0.1), "its slopes are not what the corners are worth"


def test_a_colder_relaxation_is_less_biased() -> None:
    errors = [
        float((draws_of(GumbelSoftmax(temperature, hard=False), linear, 100_000)[0].mean(1) - exact()).abs().max())
        for temperature in (1.0, 0.1)
    ]
    assert errors[1] < errors[0] / 2


def test_hard_draws_are_one_hot_and_soft_ones_are_not() -> None:
    seen: list[Tensor] = []

    def values(action: Tensor) -> Tensor:
        seen.append(action.detach())
        return linear(action)

    for estimator in (GumbelSoftmax(), GumbelSoftmax(hard=False), ScoreFunction(3)):
        draws_of(estimator, values, 10)
    hard, soft, *scored = seen
    for each in (hard, *scored):
        assert set(each.round(decimals=9).unique().tolist()) == {0.0, 1.0}
        assert (each.sum(-1).round(decimals=9) == 1).all()
    assert len(scored) == 3
    assert ((soft > 0) & (soft < 1)).any()


def test_what_is_not_legal_is_never_drawn_and_has_no_gradient() -> None:
    logits = torch.tensor([[1.0, torch.finfo(torch.float64).min, 0.0]], dtype=torch.float64).repeat(500, 1)
    for estimator in (GumbelSoftmax(), ScoreFunction()):
        given = logits.clone().requires_grad_()

        def values(action: Tensor) -> Tensor:
            assert not action[..., 1].any()
            return action @ torch.tensor([1.0, 1e6, 2.0], dtype=torch.float64)

        (gradient,) = torch.autograd.grad(estimator(given, values)[0].sum(), given)
        assert gradient.isfinite().all()
        assert not gradient[:, 1].any()
        assert gradient[:, 0].any()
