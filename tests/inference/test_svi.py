"""`Fit`: what a gradient step may and may not touch, and what a loss that is not finite leaves behind."""

import copy
import io
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from inference_marl.inference.plates import replicate_and_batch
from inference_marl.inference.svi import Fit, NonFiniteError, check_step_size

DOUBLE = torch.float64


class _Regression(nn.Module):
    """`y ~ Normal(w . x + c, 1)`, with a weight and an offset per replicate; both models and its own empty guide."""

    def __init__(self, replicates: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(replicates, 2, dtype=DOUBLE))
        self.offset = nn.Parameter(torch.zeros(replicates, 1, dtype=DOUBLE))

    def mean(self, x: Tensor) -> Tensor:
        return (self.weight.unsqueeze(1) * x).sum(-1) + self.offset

    def forward(self, x: Tensor, y: Tensor) -> None:
        with replicate_and_batch(x):
            pyro.sample("y", dist.Normal(self.mean(x), 1.0), obs=y)


def no_guide(*args: Tensor) -> None:
    pass


def fit_of(
    model: Callable[..., None],
    trained: list[nn.Parameter],
    frozen: list[nn.Parameter] | None = None,
    learning_rate: float = 0.1,
    max_gradient_norm: float | None = None,
) -> Fit:
    return Fit(
        "critic",
        Trace_ELBO(),
        model,
        no_guide,
        trained,
        frozen or [],
        learning_rate=learning_rate,
        max_gradient_norm=max_gradient_norm,
    )


def data(replicates: int, batch: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(replicates, batch, 2, dtype=DOUBLE), torch.randn(replicates, batch, dtype=DOUBLE)


def test_a_step_is_adam_on_minus_the_elbo_over_the_batch() -> None:
    """With squared errors summed over replicates and averaged over the batch, whatever the number of either."""
    model = _Regression(3)
    fit = fit_of(model, list(model.parameters()))
    reference = copy.deepcopy(model)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.1)
    for _ in range(5):
        x, y = data(3)
        fit.step(6, x, y)
        optimizer.zero_grad()
        (0.5 * (reference.mean(x) - y).square().mean(1)).sum().backward()
        for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
        optimizer.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_many_steps_find_the_least_squares() -> None:
    model = _Regression(2)
    fit = fit_of(model, list(model.parameters()))
    x, y = data(2, batch=20)
    for _ in range(300):
        fit.step(20, x, y)
    design = torch.cat([x, torch.ones(2, 20, 1, dtype=DOUBLE)], -1)
    solution = torch.linalg.lstsq(design, y.unsqueeze(-1)).solution.squeeze(-1)
    torch.testing.assert_close(torch.cat([model.weight, model.offset], -1).detach(), solution, atol=1e-4, rtol=0)


@pytest.mark.parametrize("max_gradient_norm", [None, 0.05])
def test_a_replicates_steps_are_those_it_would_make_alone(max_gradient_norm: float | None) -> None:
    """Neither the number of replicates nor the size of their errors reaches the others, clipped or not."""
    together = _Regression(3)
    fits = [fit_of(together, list(together.parameters()), max_gradient_norm=max_gradient_norm)]
    lone = [_Regression(1) for _ in range(3)]
    fits += [fit_of(model, list(model.parameters()), max_gradient_norm=max_gradient_norm) for model in lone]
    for _ in range(4):
        x, y = data(3)
        y[2] *= 1e4
        fits[0].step(6, x, y)
        for r, fit in enumerate(fits[1:]):
            fit.step(6, x[r : r + 1], y[r : r + 1])
    for r, model in enumerate(lone):
        torch.testing.assert_close(together.weight[r : r + 1], model.weight)
        torch.testing.assert_close(together.offset[r : r + 1], model.offset)


def test_clipping_is_per_replicate_over_all_its_parameters() -> None:
    model = _Regression(2)
    fit = fit_of(model, list(model.parameters()), max_gradient_norm=0.5)
    x = torch.ones(2, 1, 2, dtype=DOUBLE)
    # The gradient is (w . x + c - y) (x, 1): -0.1 (1, 1, 1) here, which is short, and -100 (1, 1, 1) there.
    fit.step(1, x, torch.tensor([[0.1], [100.0]], dtype=DOUBLE))
    assert model.weight.grad is not None
    assert model.offset.grad is not None
    gradient = torch.cat([model.weight.grad, model.offset.grad], -1)
    torch.testing.assert_close(gradient[0], torch.full((3,), -0.1, dtype=DOUBLE))
    torch.testing.assert_close(gradient[1], torch.full((3,), -0.5 / math.sqrt(3), dtype=DOUBLE))


def test_a_gradient_of_zero_is_not_clipped_to_nan() -> None:
    model = _Regression(1)
    fit = fit_of(model, list(model.parameters()), max_gradient_norm=0.5)
    fit.step(1, torch.ones(1, 1, 2, dtype=DOUBLE), torch.zeros(1, 1, dtype=DOUBLE))
    assert not model.weight.any()


def test_frozen_parameters_do_not_move_and_stay_trainable() -> None:
    model = _Regression(2)
    fit = fit_of(model, [model.weight], list(model.parameters()))  # a trained parameter among the frozen is trained
    fit.step(6, *data(2))
    assert model.weight.all()
    assert not model.offset.any()
    assert model.offset.grad is None
    assert model.offset.requires_grad
    assert model.weight.requires_grad


def test_frozen_parameters_get_no_gradient_while_the_loss_is_taken() -> None:
    model = _Regression(1)
    seen: list[bool] = []

    def watched(x: Tensor, y: Tensor) -> None:
        seen.append(model.offset.requires_grad)
        model(x, y)

    fit_of(watched, [model.weight], [model.offset]).step(6, *data(1))
    assert seen == [False]


def test_frozen_parameters_are_released_when_the_loss_raises() -> None:
    model = _Regression(1)

    def broken(x: Tensor, y: Tensor) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit_of(broken, [model.weight], [model.offset]).step(6, *data(1))
    assert model.offset.requires_grad


def test_a_parameter_frozen_by_its_owner_stays_so() -> None:
    model = _Regression(1)
    model.offset.requires_grad_(False)
    fit_of(model, [model.weight], [model.offset]).step(6, *data(1))
    assert not model.offset.requires_grad


@pytest.mark.filterwarnings("ignore:Encountered NaN")  # Pyro's own word of it
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing_and_names_its_replicates(value: float) -> None:
    model = _Regression(4)
    fit = fit_of(model, list(model.parameters()), max_gradient_norm=1.0)
    fit.step(6, *data(4))
    before = copy.deepcopy((model.state_dict(), fit.state_dict()))
    x, y = data(4)
    y[1, 3] = y[2, 0] = value
    with pyro.validation_enabled(False), pytest.raises(NonFiniteError) as caught:
        fit.step(6, x, y)
    assert caught.value.replicates == [1, 2]
    assert "critic: the loss or its gradient is not finite in replicate 1, 2" in str(caught.value)
    after = (model.state_dict(), fit.state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    again, reference = data(4), _Regression(4)
    reference.load_state_dict(before[0])
    other = fit_of(reference, list(reference.parameters()), max_gradient_norm=1.0)
    other.load_state_dict(before[1])
    fit.step(6, *again)
    other.step(6, *again)
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is() -> None:
    weight = nn.Parameter(torch.tensor([[1.0], [0.0], [4.0]], dtype=DOUBLE))

    def model(x: Tensor, y: Tensor) -> None:  # the square root's slope at 0 is infinite
        with replicate_and_batch(x):
            pyro.sample("y", dist.Normal(weight.sqrt(), 1.0), obs=y)

    fit = fit_of(model, [weight])
    with pytest.raises(NonFiniteError, match=r"in replicate 1$"):
        fit.step(1, torch.zeros(3, 1, 1, dtype=DOUBLE), torch.ones(3, 1, dtype=DOUBLE))
    assert weight.flatten().tolist() == [1.0, 0.0, 4.0]
    assert not fit.state_dict()["_extra_state"]["state"]


def test_many_broken_replicates_are_cut_short() -> None:
    assert str(NonFiniteError("guide", list(range(30)))).endswith("8, 9, ...")
    assert str(NonFiniteError("guide", [])).endswith("(unknown)")


def test_state_dict_round_trip_continues_identically() -> None:
    """Through a file read without executing code, and with nothing shared afterwards."""
    model = _Regression(2)
    fit = fit_of(model, list(model.parameters()))
    for _ in range(3):
        fit.step(6, *data(2))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "fit": fit.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twins = []
    for _ in range(2):
        twin = _Regression(2)
        twin.load_state_dict(saved["model"])
        its = fit_of(twin, list(twin.parameters()))
        its.load_state_dict(saved["fit"])
        twins.append((twin, its))
    for _ in range(3):
        batch = data(2)
        fit.step(6, *batch)
        for _, its in twins:
            its.step(6, *batch)
    for twin, _ in twins:
        torch.testing.assert_close(twin.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0.0, None), "^learning_rate: got 0.0, expected a positive number"),
        ((-1.0, None), "^learning_rate: got -1.0"),
        ((math.nan, None), "^learning_rate: got nan"),
        ((0.1, 0.0), "^max_gradient_norm: got 0.0, expected a positive number, or null"),
        ((0.1, -1.0), "^max_gradient_norm: got -1.0"),
    ],
)
def test_step_sizes_are_positive(numbers: tuple[float, float | None], message: str) -> None:
    check_step_size(0.1, None)
    check_step_size(0.1, 1.0)
    with pytest.raises(ValueError, match=message):
        check_step_size(*numbers)
