"""The rendezvous: rewards and moves by hand, gradients, noise, edges, and the symmetry of the two agents."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.games import Rendezvous
from inference_marl.spaces import Box

CPU = torch.device("cpu")


def at(*positions: float) -> dict[str, Tensor]:
    return {"obs": torch.tensor([[positions]], dtype=torch.float64)}


def doing(*velocity: float) -> Tensor:
    return torch.tensor([[velocity]], dtype=torch.float64)


def test_spaces() -> None:
    game = Rendezvous(3)
    assert game.observations == (Box(-1, 1, 6),) * 2
    assert game.action_spaces == (Box(-1, 1, 3),) * 2
    assert game.shared_observation
    assert game.dynamics() is None
    assert (game.horizon, Rendezvous(horizon=7).horizon, Rendezvous(horizon=None).horizon) == (20, 7, None)


def test_a_step_by_hand() -> None:
    game = Rendezvous(speed=0.5, noise=0, cost=0.1)
    state, rewards, terminated, _ = game.step(at(-0.5, 0.25), [doing(1.0), doing(-0.5)])
    # for where they were: distance 0.75, and 0.1 times squared velocities of 1 + 0.25
    assert rewards.flatten().tolist() == pytest.approx([-0.6875, -0.6875])
    assert state["obs"].flatten().tolist() == [0.0, 0.0]
    assert not terminated.any()
    after, rewards, _, _ = game.step(state, [doing(0.0), doing(0.0)])
    assert rewards.flatten().tolist() == [0, 0]
    assert torch.equal(after["obs"], state["obs"])


def test_a_step_on_the_plane_by_hand() -> None:
    game = Rendezvous(2, speed=0.1, noise=0, cost=1.0)
    state, rewards, _, _ = game.step(at(0.5, -0.5, 0.0, 0.25), [doing(1.0, -1.0), doing(0.0, 0.5)])
    # the squared distance is 0.25 + 0.5625, the squared velocities sum to 2 + 0.25
    assert rewards.flatten().tolist() == pytest.approx([-3.0625, -3.0625])
    assert state["obs"].flatten().tolist() == pytest.approx([0.6, -0.6, 0.0, 0.3])


def test_nobody_leaves_the_box() -> None:
    game = Rendezvous(speed=0.5, noise=0)
    assert game.step(at(0.9, -0.9), [doing(1.0), doing(-1.0)])[0]["obs"].flatten().tolist() == [1, -1]


def test_gradients_of_rewards_by_hand() -> None:
    """dr/dx = -2 (x - y), dr/dy = 2 (x - y), dr/da = -2 cost a; through a step, dr'/da = -2 speed (x' - y')."""
    game = Rendezvous(speed=0.5, noise=0, cost=0.1)
    obs = torch.tensor([[-0.5, 0.25]], dtype=torch.float64, requires_grad=True)
    actions = [torch.tensor([[value]], dtype=torch.float64, requires_grad=True) for value in (0.5, -0.2)]
    gradients = torch.autograd.grad(game.expected_reward(obs, actions)[..., 0].sum(), [obs, *actions])
    assert gradients[0].flatten().tolist() == pytest.approx([1.5, -1.5])
    assert [float(gradient) for gradient in gradients[1:]] == pytest.approx([-0.1, 0.04])
    batched = [action[None] for action in actions]
    after = game.step({"obs": obs[None]}, batched)[0]["obs"]  # at -0.25 and 0.15
    idle = [torch.zeros(1, 1, 1, dtype=torch.float64)] * 2
    gradient = torch.autograd.grad(game.expected_reward(after, idle)[..., 1].sum(), actions)
    assert [float(part) for part in gradient] == pytest.approx([0.4, -0.4])


def test_rewards_broadcast_and_are_what_steps_pay() -> None:
    game = Rendezvous(2)
    state = game.reset(3, 4, CPU, torch.float64)
    actions = [space.uniform(torch.float64, CPU).sample((3, 4)) for space in game.action_spaces]
    assert torch.equal(game.step(state, actions)[1], game.expected_reward(state["obs"], actions))
    assert game.expected_reward(state["obs"], [action.expand(7, 3, 4, 2) for action in actions]).shape == (7, 3, 4, 2)


def test_noise_has_the_given_scale() -> None:
    copies = 20_000
    game = Rendezvous(noise=0.05, speed=0.2)
    start = torch.zeros(copies, 1, 2, dtype=torch.float64)
    idle = torch.zeros(copies, 1, 1, dtype=torch.float64)
    moved = game.step({"obs": start}, [idle, idle + 1])[0]["obs"][:, 0] - torch.tensor([0.0, 0.2])
    # each of the five is off by 5 standard errors once in 1.7 million seeds
    assert bool((moved.mean(0).abs() < 5 * 0.05 / copies**0.5).all())
    assert bool(((moved.std(0) / 0.05 - 1).abs() < 5 / (2 * copies) ** 0.5).all())
    assert abs(float(torch.corrcoef(moved.T)[0, 1])) < 5 / copies**0.5


def test_starts_are_uniform() -> None:
    copies = 20_000
    obs = Rendezvous().reset(copies, 1, CPU, torch.float64)["obs"][:, 0]
    counts = torch.stack([torch.histc(column, bins=4, min=-1, max=1) for column in obs.T])
    # each of the eight is off by 6 standard errors about once in 500 million seeds
    assert bool(((counts / copies - 0.25).abs() < 6 * (0.25 * 0.75 / copies) ** 0.5).all())


def test_exchanging_the_agents_changes_nothing_else() -> None:
    game = Rendezvous(2, noise=0)
    state = game.reset(5, 4, CPU, torch.float64)
    first, second = (space.uniform(torch.float64, CPU).sample((5, 4)) for space in game.action_spaces)
    exchanged = {"obs": state["obs"].roll(2, dims=-1)}
    one, other = game.step(state, [first, second]), game.step(exchanged, [second, first])
    torch.testing.assert_close(one[0]["obs"].roll(2, dims=-1), other[0]["obs"], rtol=0, atol=0)
    torch.testing.assert_close(one[1], other[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types(dtype: torch.dtype) -> None:
    game = Rendezvous()
    state = game.reset(2, 3, CPU, dtype)
    after, rewards, _, _ = game.step(state, [torch.zeros(2, 3, 1, dtype=dtype)] * 2)
    assert state["obs"].dtype == after["obs"].dtype == rewards.dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim: got 0, expected a positive integer"),
        ({"speed": 0.0}, "speed: got 0.0, expected a positive number"),
        ({"noise": -1.0}, "noise: got -1.0, expected a number that is not negative"),
        ({"cost": math.inf}, "cost: got inf, expected"),
        ({"horizon": 0}, "horizon: got 0, expected a positive integer"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Rendezvous(**arguments)


def test_step_refuses_wrong_shapes() -> None:
    game = Rendezvous()
    state = game.reset(2, 3, CPU, torch.float32)
    fine = torch.zeros(2, 3, 1)
    with pytest.raises(ValueError, match=r"actions: got shapes \[\(2, 3\), \(2, 3\)\], expected \[\(2, 3, 1\), "):
        game.step(state, [fine[..., 0], fine[..., 0]])
    with pytest.raises(ValueError, match="one tensor per agent"):
        game.step(state, [fine])
