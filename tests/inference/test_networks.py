"""Batched networks: a replicate of many equals that replicate alone, and extra dimensions equal a loop."""

import itertools
import math

import pytest
import torch
from torch import nn

from inference_marl.inference.networks import MLP, BatchedGRU, BatchedLinear, track
from inference_marl.spaces import Discrete
from inference_marl.types import Seat

R, BATCH, INPUTS, OUTPUTS = 3, 5, 4, 2


def mlp(replicates: int = R, hidden: tuple[int, ...] = (7, 6)) -> MLP:
    seat = Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), replicates, dtype=torch.float64)
    return MLP(seat, INPUTS, OUTPUTS, hidden)


def alone(network: MLP, replicate: int) -> nn.Sequential:
    """The plain torch network with one replicate's weights."""
    layers: list[nn.Module] = []
    for layer in network.layers:
        inputs, outputs = layer.weight.shape[1:]
        plain = nn.Linear(inputs, outputs, dtype=torch.float64)
        with torch.no_grad():
            plain.weight.copy_(layer.weight[replicate].T)
            plain.bias.copy_(layer.bias[replicate, 0])
        layers += [plain, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def biased(network: MLP) -> MLP:
    """Biases start at 0, where mixing them up would not show."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return network


@pytest.mark.parametrize("hidden", [(), (7,), (7, 6)])
def test_a_replicate_is_a_plain_network(hidden: tuple[int, ...]) -> None:
    network = biased(mlp(hidden=hidden))
    x = torch.randn(R, BATCH, INPUTS, dtype=torch.float64)
    y = network(x)
    assert y.shape == (R, BATCH, OUTPUTS)
    for r in range(R):
        torch.testing.assert_close(y[r], alone(network, r)(x[r]))


def test_gradients_stay_in_their_replicate() -> None:
    network = biased(mlp())
    x = torch.randn(R, BATCH, INPUTS, dtype=torch.float64)
    network(x)[1].square().sum().backward()
    single = alone(network, 1)
    single(x[1]).square().sum().backward()
    for layer, plain in zip(network.layers, single[::2], strict=True):
        torch.testing.assert_close(layer.weight.grad[1], plain.weight.grad.T)
        torch.testing.assert_close(layer.bias.grad[1, 0], plain.bias.grad)
        assert not layer.weight.grad[[0, 2]].any()
        assert not layer.bias.grad[[0, 2]].any()


@pytest.mark.parametrize("extra", [(2,), (3, 2)])
def test_extra_dimensions_are_a_loop(extra: tuple[int, ...]) -> None:
    network = biased(mlp())
    x = torch.randn(*extra, R, BATCH, INPUTS, dtype=torch.float64)
    y = network(x)
    assert y.shape == (*extra, R, BATCH, OUTPUTS)
    for index in itertools.product(*map(range, extra)):
        torch.testing.assert_close(y[index], network(x[index]))


def test_extra_dimensions_of_a_broadcast_view() -> None:
    network = biased(mlp())
    x = torch.randn(R, BATCH, INPUTS, dtype=torch.float64)
    torch.testing.assert_close(network(x.expand(4, R, BATCH, INPUTS)), network(x).expand(4, R, BATCH, OUTPUTS))


def test_initial_weights_are_xavier_uniform_per_replicate() -> None:
    layer = BatchedLinear(50, 20, 30, device=torch.device("cpu"), dtype=torch.float64)
    bound = math.sqrt(6 / 50)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert layer.weight.abs().max().item() <= bound
    # A uniform's variance, of 600 draws per replicate: 5 standard errors.
    torch.testing.assert_close(layer.weight.var((1, 2)), torch.full((50,), bound**2 / 3).double(), rtol=0.2, atol=0)
    assert not layer.bias.any()


class _Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_buffer("scale", torch.randn(2))


def test_track_moves_parameters_and_buffers_part_of_the_way() -> None:
    target, online = _Normalised(), _Normalised()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    ahead = {name: value.clone() for name, value in online.state_dict().items()}
    track(target, online, 0.25)
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * ahead[name])
    for name, value in online.state_dict().items():
        assert torch.equal(value, ahead[name])
    assert target.weight.requires_grad
    assert target.weight.grad_fn is None
    track(target, online, 1.0)
    for name, value in target.state_dict().items():
        torch.testing.assert_close(value, ahead[name])


def test_track_takes_over_what_has_no_fractions() -> None:
    """Counts and switches are those of the online network at any rate."""
    target, online = mlp(), mlp()
    for network, count in ((target, 1), (online, 4)):
        network.register_buffer("count", torch.full((R,), count))
        network.register_buffer("used", torch.full((R,), count > 1))
    track(target, online, 0.25)
    assert target.get_buffer("count").tolist() == [4] * R
    assert target.get_buffer("used").all()


def test_recurrent_units_are_those_of_torch() -> None:
    """Step by step and along a trajectory, in the middle of which some begin anew."""
    units, hidden, steps = BatchedGRU(R, INPUTS, 3, device=torch.device("cpu"), dtype=torch.float64), 3, 6
    for layer in (units.read, units.recall):
        nn.init.normal_(layer.bias)
    x, first = torch.randn(steps, R, BATCH, INPUTS).double(), torch.randn(R, BATCH, hidden).double()
    kept = torch.ones(steps, R, BATCH).double()
    kept[3, 1, :2] = 0
    found, without = units.unrolled(x, first, kept), units.unrolled(x, first)
    for r in range(R):
        plain = nn.GRUCell(INPUTS, hidden, dtype=torch.float64)
        with torch.no_grad():
            for name, layer in (("ih", units.read), ("hh", units.recall)):
                getattr(plain, f"weight_{name}").copy_(layer.weight[r].T)
                getattr(plain, f"bias_{name}").copy_(layer.bias[r, 0])
        state = other = first[r]
        for step in range(steps):
            state, other = plain(x[step, r], state * kept[step, r].unsqueeze(-1)), plain(x[step, r], other)
            torch.testing.assert_close(found[step, r], state)
            torch.testing.assert_close(without[step, r], other)
    torch.testing.assert_close(units(x[0], first), without[0])
