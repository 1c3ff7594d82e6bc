"""`Optimiser` and `elbo_loss`: what a gradient step may and may not touch, and what a broken loss leaves behind."""

import copy
import io
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from inference_marl.inference.failures import Failures, NonFiniteError
from inference_marl.inference.optimise import Optimiser, frozen
from inference_marl.inference.plates import ONE_STEP
from inference_marl.inference.svi import elbo_loss, no_guide

DOUBLE = torch.float64


class _Regression(nn.Module):
    """`y ~ Normal(w . x + c, 1)`, with a weight and an offset per replicate; the model of an empty guide."""

    def __init__(self, replicates: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(replicates, 2, dtype=DOUBLE))
        self.offset = nn.Parameter(torch.zeros(replicates, 1, dtype=DOUBLE))

    def mean(self, x: Tensor) -> Tensor:
        return (self.weight.unsqueeze(1) * x).sum(-1) + self.offset

    def forward(self, x: Tensor, y: Tensor) -> None:
        with ONE_STEP.open(ONE_STEP.sizes(x, x.shape[2:])).within():
            pyro.sample("y", dist.Normal(self.mean(x), 1.0), obs=y)


def loss_of(model: Callable[..., None], x: Tensor, y: Tensor) -> Tensor:
    return elbo_loss(Trace_ELBO(), model, no_guide, x.shape[1], x, y)


def optimiser_of(
    parameters: Iterable[nn.Parameter],
    learning_rate: float | Tensor = 0.1,
    max_gradient_norm: float | None = None,
) -> Optimiser:
    return Optimiser("critic", parameters, learning_rate=learning_rate, max_gradient_norm=max_gradient_norm)


def data(replicates: int, batch: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(replicates, batch, 2, dtype=DOUBLE), torch.randn(replicates, batch, dtype=DOUBLE)


class _Watched:
    """The gradients that Adam gets, step by step: an optimiser leaves none behind."""

    def __init__(self, optimiser: Optimiser, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gradients: list[list[Tensor]] = []
        step = optimiser.adam.step

        def watched(*args: Any) -> Any:
            self.gradients.append([p.grad.clone() for p in optimiser._own if p.grad is not None])
            return step(*args)

        monkeypatch.setattr(optimiser.adam, "step", watched)


def test_a_loss_is_minus_the_elbo_over_the_batch() -> None:
    """Squared errors and the normal's constant, summed over replicates and averaged over the batch."""
    model, (x, y) = _Regression(3), data(3, batch=6)
    by_hand = 0.5 * (model.mean(x) - y).square() + 0.5 * math.log(2 * math.pi)
    loss = loss_of(model, x, y)
    torch.testing.assert_close(loss, by_hand.mean(1).sum())
    assert loss.requires_grad
    assert elbo_loss(Trace_ELBO(), model, no_guide, 60, x, y).item() == pytest.approx(loss.item() / 10)


def test_a_step_is_adam_on_minus_the_elbo_over_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With squared errors summed over replicates and averaged over the batch, whatever the number of either."""
    model = _Regression(3)
    optimiser = optimiser_of(model.parameters())
    watched = _Watched(optimiser, monkeypatch)
    reference = copy.deepcopy(model)
    adam = torch.optim.Adam(reference.parameters(), lr=0.1)
    for _ in range(5):
        x, y = data(3)
        optimiser.step(loss_of(model, x, y))
        adam.zero_grad()
        (0.5 * (reference.mean(x) - y).square().mean(1)).sum().backward()
        for ours, theirs in zip(watched.gradients[-1], reference.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs.grad)
        adam.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_loss_per_replicate_steps_as_its_sum_does() -> None:
    one, other = _Regression(3), _Regression(3)
    summed, apart = optimiser_of(one.parameters()), optimiser_of(other.parameters())
    for _ in range(3):
        x, y = data(3)
        losses = [0.5 * (model.mean(x) - y).square().mean(1) for model in (one, other)]
        summed.step(losses[0].sum())
        apart.step(losses[1])
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(7,), (1,), (2, 1), (2, 7)])
def test_a_loss_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """Such as a mean over the replicates instead of the batch, whose sum would couple them."""
    model = _Regression(2)
    optimiser = optimiser_of(model.parameters())
    with pytest.raises(ValueError, match=rf"^critic: got a loss of shape {re.escape(str([*shape]))}, .*, \[2\], or"):
        optimiser.step((model.weight.sum() + 1) * torch.ones(shape, dtype=DOUBLE))
    assert not model.weight.any()


def test_many_steps_find_the_least_squares() -> None:
    model = _Regression(2)
    optimiser = optimiser_of(model.parameters())
    x, y = data(2, batch=20)
    for _ in range(300):
        optimiser.step(loss_of(model, x, y))
    design = torch.cat([x, torch.ones(2, 20, 1, dtype=DOUBLE)], -1)
    solution = torch.linalg.lstsq(design, y.unsqueeze(-1)).solution.squeeze(-1)
    torch.testing.assert_close(torch.cat([model.weight, model.offset], -1).detach(), solution, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rates", [None, (0.1, 0.003, 2.0)])
@pytest.mark.parametrize("max_gradient_norm", [None, 0.05])
def test_a_replicates_steps_are_those_it_would_make_alone(
    max_gradient_norm: float | None, rates: tuple[float, ...] | None
) -> None:
    """Neither the number of replicates, nor the size of their errors or steps reaches the others, clipped or not.

    With a learning rate per replicate, each goes as far as an optimiser of its own with that number would go.
    """
    together = _Regression(3)
    per_replicate = 0.1 if rates is None else torch.tensor(rates, dtype=DOUBLE)
    optimiser = optimiser_of(together.parameters(), per_replicate, max_gradient_norm)
    lone = [_Regression(1) for _ in range(3)]
    alone = [
        optimiser_of(model.parameters(), rate, max_gradient_norm)
        for model, rate in zip(lone, rates or (0.1,) * 3, strict=True)
    ]
    for _ in range(6):
        x, y = data(3)
        y[2] *= 1e4
        optimiser.step(loss_of(together, x, y))
        for r, (model, its) in enumerate(zip(lone, alone, strict=True)):
            its.step(loss_of(model, x[r : r + 1], y[r : r + 1]))
    for r, model in enumerate(lone):
        torch.testing.assert_close(together.weight[r : r + 1], model.weight, rtol=1e-10, atol=0)
        torch.testing.assert_close(together.offset[r : r + 1], model.offset, rtol=1e-10, atol=0)
    assert together.weight.all()


def test_rates_of_one_size_are_that_number() -> None:
    """To rounding: a rate per replicate is a step of size 1, of which that share is taken."""
    one, other = _Regression(3), _Regression(3)
    number = optimiser_of(one.parameters(), 0.1)
    tensor = optimiser_of(other.parameters(), torch.full((3,), 0.1, dtype=DOUBLE))
    for _ in range(5):
        batch = data(3)
        number.step(loss_of(one, *batch))
        tensor.step(loss_of(other, *batch))
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-10, atol=0)


def test_a_rate_of_zero_stands_still_and_its_neighbours_do_not() -> None:
    model = _Regression(2)
    optimiser = optimiser_of(model.parameters(), torch.tensor([0.0, 0.1], dtype=DOUBLE))
    optimiser.step(loss_of(model, *data(2)))
    assert not model.weight[0].any()
    assert not model.offset[0].any()
    assert model.weight[1].all()


@pytest.mark.parametrize("learning_rate", [0.1, torch.tensor([0.1, 0.1], dtype=DOUBLE)])
def test_clipping_is_per_replicate_over_all_its_parameters(
    learning_rate: float | Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _Regression(2)
    optimiser = optimiser_of(model.parameters(), learning_rate, max_gradient_norm=0.5)
    watched = _Watched(optimiser, monkeypatch)
    x = torch.ones(2, 1, 2, dtype=DOUBLE)
    # The gradient is (w . x + c - y) (x, 1): -0.1 (1, 1, 1) here, which is short, and -100 (1, 1, 1) there.
    optimiser.step(loss_of(model, x, torch.tensor([[0.1], [100.0]], dtype=DOUBLE)))
    gradient = torch.cat(watched.gradients[-1], -1)
    torch.testing.assert_close(gradient[0], torch.full((3,), -0.1, dtype=DOUBLE))
    torch.testing.assert_close(gradient[1], torch.full((3,), -0.5 / math.sqrt(3), dtype=DOUBLE))


def test_a_gradient_of_zero_is_not_clipped_to_nan() -> None:
    model = _Regression(1)
    optimiser = optimiser_of(model.parameters(), max_gradient_norm=0.5)
    optimiser.step(loss_of(model, torch.ones(1, 1, 2, dtype=DOUBLE), torch.zeros(1, 1, dtype=DOUBLE)))
    assert not model.weight.any()


def test_parameters_that_are_read_and_not_owned_stay_as_they_are() -> None:
    """They get no gradient and no step; nothing has to be frozen for that."""
    model = _Regression(2)
    optimiser_of([model.weight]).step(loss_of(model, *data(2)))
    assert model.weight.all()
    assert not model.offset.any()
    assert model.offset.grad is None
    assert model.offset.requires_grad
    assert model.weight.requires_grad


def test_no_gradient_is_left_behind_and_none_that_was_there_counts() -> None:
    """So a step does not depend on what others accumulated, on its own parameters or on those it reads."""
    model, reference = _Regression(2), _Regression(2)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    batch = data(2)
    optimiser_of([model.weight]).step(loss_of(model, *batch))
    optimiser_of([reference.weight]).step(loss_of(reference, *batch))
    assert torch.equal(model.weight, reference.weight)
    assert model.weight.grad is None
    assert model.offset.grad is not None
    assert (model.offset.grad == 100).all()


@pytest.mark.parametrize("learning_rate", [0.1, torch.tensor([0.1, 0.2], dtype=DOUBLE)])
def test_a_parameter_that_the_loss_does_not_read_waits(learning_rate: float | Tensor) -> None:
    """Whatever others have accumulated on it."""
    model, spare = _Regression(2), nn.Parameter(torch.ones(2, 3, dtype=DOUBLE))
    spare.grad = torch.ones_like(spare)
    optimiser = optimiser_of([spare, *model.parameters()], learning_rate, max_gradient_norm=1.0)
    optimiser.step(loss_of(model, *data(2)))
    assert (spare == 1).all()
    assert model.weight.all()


def test_frozen_parameters_are_constants_inside() -> None:
    model = _Regression(1)
    seen: list[bool] = []

    def watched(x: Tensor, y: Tensor) -> None:
        seen.append(model.offset.requires_grad)
        model(x, y)

    optimiser = optimiser_of([model.weight])
    with frozen([model.offset]):
        optimiser.step(loss_of(watched, *data(1)))
    assert seen == [False]
    assert model.offset.requires_grad
    assert model.weight.all()
    assert not model.offset.any()


@pytest.mark.parametrize("learning_rate", [0.1, torch.tensor([0.1, 0.2], dtype=DOUBLE)])
def test_an_own_parameter_that_is_frozen_waits(learning_rate: float | Tensor) -> None:
    model = _Regression(2)
    optimiser = optimiser_of(model.parameters(), learning_rate, max_gradient_norm=1.0)
    with frozen([model.offset]):
        optimiser.step(loss_of(model, *data(2)))
    assert model.weight.all()
    assert not model.offset.any()
    optimiser.step(loss_of(model, *data(2)))
    assert model.offset.all()


def test_a_norm_that_overflows_is_no_failure_and_stops_its_replicate_alone() -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    optimiser = optimiser_of([weight], max_gradient_norm=1.0)
    optimiser.step((weight * torch.tensor([[1e30], [1.0]])).sum(1))
    assert (weight[0] == 1).all()
    torch.testing.assert_close(weight[1].detach(), torch.full((3,), 0.9))


def test_freezing_changes_no_step() -> None:
    one, other = _Regression(2), _Regression(2)
    batch = data(2)
    optimiser_of([one.weight]).step(loss_of(one, *batch))
    with frozen([other.offset]):
        optimiser_of([other.weight]).step(loss_of(other, *batch))
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_frozen_parameters_are_released_when_the_loss_raises() -> None:
    model = _Regression(1)

    def broken(x: Tensor, y: Tensor) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), frozen([model.offset]):
        optimiser_of([model.weight]).step(loss_of(broken, *data(1)))
    assert model.offset.requires_grad


def test_a_parameter_frozen_by_its_owner_stays_so() -> None:
    model = _Regression(1)
    model.offset.requires_grad_(False)
    with frozen(iter([model.offset])):
        optimiser_of([model.weight]).step(loss_of(model, *data(1)))
    assert not model.offset.requires_grad


RATES = [0.1, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE)]


@pytest.mark.filterwarnings("ignore:Encountered NaN")  # Pyro's own word of it
@pytest.mark.parametrize("learning_rate", RATES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing_and_names_its_replicates(
    value: float, learning_rate: float | Tensor
) -> None:
    model = _Regression(4)
    optimiser = optimiser_of(model.parameters(), learning_rate, max_gradient_norm=1.0)
    optimiser.step(loss_of(model, *data(4)))
    before = copy.deepcopy((model.state_dict(), optimiser.state_dict()))
    x, y = data(4)
    y[1, 3] = y[2, 0] = value
    with pyro.validation_enabled(False), pytest.raises(NonFiniteError) as caught:
        optimiser.step(loss_of(model, x, y))
    assert caught.value.replicates == [1, 2]
    assert caught.value.agent is None
    assert "critic is not finite in replicate 1, 2" in str(caught.value)
    after = (model.state_dict(), optimiser.state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())
    again, reference = data(4), _Regression(4)
    reference.load_state_dict(before[0])
    other = optimiser_of(reference.parameters(), learning_rate, max_gradient_norm=1.0)
    other.load_state_dict(before[1])
    optimiser.step(loss_of(model, *again))
    other.step(loss_of(reference, *again))
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is() -> None:
    weight = nn.Parameter(torch.tensor([[1.0], [0.0], [4.0]], dtype=DOUBLE))

    def model(x: Tensor, y: Tensor) -> None:  # the square root's slope at 0 is infinite
        with ONE_STEP.open(ONE_STEP.sizes(x, (1,))).within():
            pyro.sample("y", dist.Normal(weight.sqrt(), 1.0), obs=y)

    optimiser = optimiser_of([weight])
    with pytest.raises(NonFiniteError, match=r"in replicate 1$"):
        optimiser.step(loss_of(model, torch.zeros(3, 1, 1, dtype=DOUBLE), torch.ones(3, 1, dtype=DOUBLE)))
    assert weight.flatten().tolist() == [1.0, 0.0, 4.0]
    assert not optimiser.state_dict()["_extra_state"]["state"]


def test_a_loss_per_replicate_says_who_broke_though_no_gradient_does() -> None:
    """An infinite constant has no gradient, so a sum alone could not say whose it was."""
    for summed, listed in [(False, "replicate 2$"), (True, r"replicate \(unknown\)$")]:
        weight = nn.Parameter(torch.ones(3, 1, dtype=DOUBLE))
        loss = weight.squeeze(-1) + torch.tensor([0.0, 0.0, math.inf], dtype=DOUBLE)
        with pytest.raises(NonFiniteError, match=listed):
            optimiser_of([weight]).step(loss.sum() if summed else loss)
        assert (weight == 1).all()


@pytest.mark.parametrize("rates", [0.1, torch.tensor([0.1, 0.02, 0.3], dtype=DOUBLE)])
def test_a_replicate_that_has_failed_stays_where_it_was_and_its_neighbours_go_on(rates: float | Tensor) -> None:
    """Neither momentum nor later gradients move it."""
    found = []
    for broken in (False, True):
        model = _Regression(3)
        optimiser, failures = optimiser_of(model.parameters(), rates), Failures(3)
        torch.manual_seed(0)
        x, y = data(3)
        with failures.heeded():
            for step in range(6):
                if broken and step == 3:
                    y[1] = math.inf
                    before = model.weight[1].clone()
                elif step == 4:
                    y[1] = 0.0
                optimiser.step(loss_of(model, x, y))
        found.append(model.weight.detach())
    assert list(failures.why) == [1]
    assert torch.equal(found[1][1], before)
    assert torch.equal(found[0][[0, 2]], found[1][[0, 2]])


def test_many_broken_replicates_are_cut_short() -> None:
    assert str(NonFiniteError("guide", list(range(30)))).endswith("8, 9, ...")
    assert str(NonFiniteError("guide", [])).endswith("(unknown)")


@pytest.mark.parametrize("learning_rate", [0.1, torch.tensor([0.1, 0.02], dtype=DOUBLE)])
def test_state_dict_round_trip_continues_identically(learning_rate: float | Tensor) -> None:
    """Through a file read without executing code, and with nothing shared afterwards."""
    model = _Regression(2)
    optimiser = optimiser_of(model.parameters(), learning_rate)
    for _ in range(3):
        optimiser.step(loss_of(model, *data(2)))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twins = []
    for _ in range(2):
        twin = _Regression(2)
        twin.load_state_dict(saved["model"])
        its = optimiser_of(twin.parameters(), learning_rate)
        its.load_state_dict(saved["optimiser"])
        twins.append((twin, its))
    for _ in range(3):
        batch = data(2)
        optimiser.step(loss_of(model, *batch))
        for twin, its in twins:
            its.step(loss_of(twin, *batch))
    for twin, _ in twins:
        torch.testing.assert_close(twin.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.pyro_store
def test_a_loss_leaves_no_parameters_in_pyros_store() -> None:
    """Also where nobody has entered `local_parameters`; the module's own are found all the same."""
    with pyro.settings.context(module_local_params=True):
        model: Any = pyro.nn.PyroModule[nn.Linear](2, 1)
    x, y = torch.randn(3, 4, 2), torch.randn(3, 4)

    def likelihood(x: Tensor, y: Tensor) -> None:
        with ONE_STEP.open((3, 4)).within():
            pyro.sample("y", dist.Normal(model(x).squeeze(-1), 1.0), obs=y)

    gradients = torch.autograd.grad(loss_of(likelihood, x, y), list(model.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("rate", [0.25, torch.tensor([0.5, 0.0], dtype=DOUBLE)])
def test_a_step_has_the_size_that_was_set_last(rate: float | Tensor) -> None:
    """Adam's first steps are of its learning rate, whatever the gradient; also where that was one of each replicate."""
    for before in (3.0, torch.tensor([7.0, 9.0], dtype=DOUBLE)):
        parameter = nn.Parameter(torch.zeros(2, 1, dtype=DOUBLE))
        optimiser = optimiser_of([parameter], before)
        optimiser.set_rate(rate)
        optimiser.step(-parameter.sum(1) * 2)
        expected = torch.as_tensor(rate, dtype=DOUBLE).expand(2).unsqueeze(1)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=0)
