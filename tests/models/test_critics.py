"""Critics: the tabular update is a gradient step on the likelihood; tables agree with values; regression converges."""

import itertools
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.inference.failures import NonFiniteError
from inference_marl.inference.schedules import InverseTime, Linear
from inference_marl.inference.svi import no_guide
from inference_marl.models import Critic, NetworkCritic, TabularCritic
from inference_marl.spaces import Box, Discrete, Space, separate_actions
from inference_marl.types import Seat

DOUBLE = torch.float64
R, STATES, ACTIONS, OPPONENT_ACTIONS = 3, 4, 2, 6
OPPONENTS = (Discrete(2), Discrete(3))


def fit(critic: Any, *data: Tensor) -> None:
    """Fit to observations, everybody's actions and, last, targets."""
    *given, target = data
    critic.fit(*given, target=target)


def seat_of(own: Space, *opponents: Space, replicates: int = R, states: int = STATES) -> Seat:
    return Seat(0, (Discrete(states),) * 2, (own, *opponents), replicates, dtype=DOUBLE)


def bound(critic: Critic, **options: int) -> Any:
    """Two opponents, so that their joint action has 2 x 3 values."""
    return critic.bind(seat_of(Discrete(ACTIONS), *OPPONENTS, **options))


def data(batch: int, replicates: int = R) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """States, own actions, those of both opponents, and targets."""
    shape = (replicates, batch)
    state, action, first, second = (torch.randint(size, shape) for size in (STATES, ACTIONS, 2, 3))
    return state, action, first, second, torch.randn(shape, dtype=DOUBLE)


def each(joint: Tensor) -> list[Tensor]:
    """Both opponents' actions of their joint one."""
    return separate_actions(OPPONENTS, joint)


CRITICS = [
    pytest.param(lambda: TabularCritic(initial=(-1.0, 1.0)), id="TabularCritic"),
    pytest.param(lambda: NetworkCritic([8]), id="NetworkCritic"),
]


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_a_tabular_update_on_one_datum_is_a_gradient_step_on_the_likelihood(rate: float) -> None:
    critic = bound(TabularCritic(initial=(-1.0, 1.0), rate=rate))
    datum = data(batch=1)
    before = critic.values.clone()
    leaf = before.clone().requires_grad_()
    twin = bound(TabularCritic())
    twin.values = leaf
    *given, target = datum
    Trace_ELBO().differentiable_loss(partial(twin.likelihood, target=target), no_guide, *given).backward()
    assert leaf.grad is not None
    assert leaf.grad.count_nonzero() == R
    fit(critic, *datum)
    torch.testing.assert_close(critic.values, before - rate * leaf.grad)


@pytest.mark.parametrize("make", CRITICS)
def test_the_likelihood_is_a_unit_normal_around_the_value(make: type[Critic]) -> None:
    """So minus its log-density is Eq. 14 up to a constant; the site is `td_target`, in both plates."""
    critic = bound(make())
    *given, target = data(batch=5)
    trace = poutine.trace(critic.likelihood).get_trace(*given, target=target)
    trace.compute_log_prob()
    site = trace.nodes["td_target"]
    assert site["is_observed"]
    assert {frame.name: frame.dim for frame in site["cond_indep_stack"]} == {"replicate": -2, "batch": -1}
    expected = dist.Normal(critic(*given), 1.0).log_prob(target)
    torch.testing.assert_close(site["log_prob"], expected)


def test_visited_cells_move_towards_the_mean_of_their_targets() -> None:
    """Against a loop, for batches that visit cells several times."""
    critic = bound(TabularCritic(initial=(-1.0, 1.0), rate=0.3))
    for batch in (1, 7, 60):
        obs, action, first, second, target = data(batch)
        expected = critic.values.clone()
        for r in range(R):
            cells: dict[tuple[int, int, int], list[float]] = {}
            for i in range(batch):
                cell = (int(obs[r, i]), int(action[r, i]), 3 * int(first[r, i]) + int(second[r, i]))
                cells.setdefault(cell, []).append(float(target[r, i]))
            for cell, targets in cells.items():
                expected[(r, *cell)] += 0.3 * (sum(targets) / len(targets) - expected[(r, *cell)])
        fit(critic, obs, action, first, second, target)
        torch.testing.assert_close(critic.values, expected)


def test_the_rate_follows_its_schedule_over_updates() -> None:
    critic = bound(TabularCritic(initial=0.0, rate=Linear(1.0, 0.5, 1)), replicates=1)
    zero = torch.zeros(1, 1, dtype=torch.int64)
    for target, value in [(4.0, 4.0), (0.0, 2.0), (6.0, 4.0)]:
        fit(critic, zero, zero, zero, zero, torch.full((1, 1), target, dtype=DOUBLE))
        assert critic(zero, zero, zero, zero).item() == pytest.approx(value)


def test_the_rate_goes_on_where_a_state_dict_left_it() -> None:
    critic, other = (bound(TabularCritic(rate=InverseTime(1.0, 2.0))) for _ in range(2))
    for _ in range(3):
        fit(critic, *data(2))
    other.load_state_dict({k: v.clone() if torch.is_tensor(v) else v for k, v in critic.state_dict().items()})
    batch = data(2)
    fit(critic, *batch)
    fit(other, *batch)
    assert torch.equal(critic.values, other.values)


def test_the_rate_over_visits_is_a_loop() -> None:
    """Every cell follows the schedule at its own pace, one step per update that moves it, however many data do."""
    schedule = InverseTime(0.8, 2.0)
    critic = bound(TabularCritic(initial=(-1.0, 1.0), rate=schedule, rate_over="visits"))
    expected, visits = critic.values.clone(), torch.zeros_like(critic.values)
    for batch in (1, 40, 1, 7, 1):
        obs, action, first, second, target = data(batch)
        fit(critic, obs, action, first, second, target)
        for r in range(R):
            cells: dict[tuple[int, int, int, int], list[float]] = {}
            for i in range(batch):
                cell = (r, int(obs[r, i]), int(action[r, i]), 3 * int(first[r, i]) + int(second[r, i]))
                cells.setdefault(cell, []).append(float(target[r, i]))
            for cell, targets in cells.items():
                rate = 0.8 * 2 / (2 + float(visits[cell]))
                expected[cell] += rate * (sum(targets) / len(targets) - expected[cell])
                visits[cell] += 1
    torch.testing.assert_close(critic.values, expected)


def test_values_are_sample_means_and_optimism_stays_where_nothing_was_seen() -> None:
    critic = bound(TabularCritic(initial=20.0, rate=InverseTime(1.0, 1.0), rate_over="visits"), replicates=1)
    zero = torch.zeros(1, 1, dtype=torch.int64)
    for action, target, value in [(0, 14.0, 14.0), (0, 0.0, 7.0), (1, 5.0, 5.0), (0, 1.0, 5.0), (1, -65.0, -30.0)]:
        fit(critic, zero, zero + action, zero, zero, torch.full((1, 1), target, dtype=DOUBLE))
        assert critic(zero, zero + action, zero, zero).item() == pytest.approx(value)
    assert critic.values.flatten().tolist().count(20.0) == critic.values.numel() - 2


def test_visits_go_on_where_a_state_dict_left_them() -> None:
    critic, other = (bound(TabularCritic(rate=InverseTime(1.0, 1.0), rate_over="visits")) for _ in range(2))
    batch = data(2)
    fit(critic, *batch)
    other.load_state_dict({k: v.clone() if torch.is_tensor(v) else v for k, v in critic.state_dict().items()})
    again = (*batch[:-1], torch.randn_like(batch[-1]))
    fit(critic, *again)
    fit(other, *again)
    assert torch.equal(critic.values, other.values)
    assert "visits" not in bound(TabularCritic()).state_dict()


def test_initial_values() -> None:
    drawn = bound(TabularCritic(initial=(2.0, 5.0)), replicates=200).values
    assert drawn.shape == (200, STATES, ACTIONS, OPPONENT_ACTIONS)
    assert ((drawn >= 2) & (drawn < 5)).all()
    assert drawn.mean().item() == pytest.approx(3.5, abs=0.06)  # 6 standard errors of 9600 draws
    assert (bound(TabularCritic(initial=20.0)).values == 20).all()
    network = bound(NetworkCritic([8], initial=50.0), replicates=20)
    *given, _ = data(50, replicates=20)
    assert network(*given).mean().item() == pytest.approx(50, abs=1.0)


@pytest.mark.parametrize("make", CRITICS)
def test_the_table_is_the_value_of_every_pair(make: type[Critic]) -> None:
    critic = bound(make())
    obs = data(batch=5)[0]
    table = critic.table(obs)
    assert table.shape == (R, 5, ACTIONS, OPPONENT_ACTIONS)
    for a, b in itertools.product(range(ACTIONS), range(OPPONENT_ACTIONS)):
        value = critic(obs, torch.full_like(obs, a), *each(torch.full_like(obs, b)))
        torch.testing.assert_close(table[:, :, a, b], value)


@pytest.mark.parametrize("make", CRITICS)
def test_enumerated_sites_are_a_loop(make: type[Critic]) -> None:
    """Both where a dimension holds the joint actions, and where every opponent's have one of their own."""
    critic = bound(make())
    obs, action, *_ = data(batch=5)
    values = critic(obs, action, *each(torch.arange(OPPONENT_ACTIONS).view(-1, 1, 1)))
    assert values.shape == (OPPONENT_ACTIONS, R, 5)
    apart = critic(obs, action, torch.arange(2).view(-1, 1, 1, 1), torch.arange(3).view(-1, 1, 1))
    assert apart.shape == (2, 3, R, 5)
    for b, (first, second) in enumerate(itertools.product(range(2), range(3))):
        value = critic(obs, action, torch.full_like(obs, first), torch.full_like(obs, second))
        torch.testing.assert_close(values[b], value)
        torch.testing.assert_close(apart[first, second], value)


def test_a_network_critic_learns_a_table() -> None:
    critic = bound(NetworkCritic([32], learning_rate=0.02))
    truth = torch.randn(R, STATES, ACTIONS, OPPONENT_ACTIONS, dtype=DOUBLE)
    grid = torch.cartesian_prod(torch.arange(STATES), torch.arange(ACTIONS), torch.arange(OPPONENT_ACTIONS))
    states, actions, joint = (column.expand(R, -1) for column in grid.T)
    cells = states, actions, *each(joint)
    for _ in range(600):
        fit(critic, *cells, truth.flatten(1))
    torch.testing.assert_close(critic(*cells).detach(), truth.flatten(1), atol=0.1, rtol=0)


def test_a_network_critic_learns_a_surface() -> None:
    critic: Any = NetworkCritic([32, 32], learning_rate=0.01).bind(
        seat_of(Box(-10.0, 10.0), Box(-10.0, 10.0), states=1)
    )
    grid = torch.cartesian_prod(*[torch.linspace(-10, 10, 15, dtype=DOUBLE)] * 2).expand(R, -1, -1)
    action, opponent_action = grid[..., :1], grid[..., 1:]
    target = (action * opponent_action / 20 - action.abs() / 5).squeeze(-1)
    obs = torch.zeros(R, grid.shape[1], dtype=torch.int64)
    first = (critic(obs, action, opponent_action) - target).detach().square().mean(1)
    for _ in range(300):
        fit(critic, obs, action, opponent_action, target)
    last = (critic(obs, action, opponent_action) - target).detach().square().mean(1)
    assert (last < 0.05).all()
    assert (last < first / 20).all()


def test_fitting_a_network_critic_moves_its_network_only() -> None:
    critic, bystander = bound(NetworkCritic([8])), bound(NetworkCritic([8]))
    before = [[parameter.clone() for parameter in one.parameters()] for one in (critic, bystander)]
    fit(critic, *data(4))
    for parameter, old in zip(critic.parameters(), before[0], strict=True):
        assert (parameter != old).flatten(1).any(1).all()
    for parameter, kept in zip(bystander.parameters(), before[1], strict=True):
        assert parameter.grad is None
        assert torch.equal(parameter, kept)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize("make", CRITICS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_target_that_is_not_finite_changes_nothing_and_is_named(make: type[Critic], value: float) -> None:
    critic = bound(make())
    before = {k: v.clone() for k, v in critic.state_dict().items() if torch.is_tensor(v)}
    *given, target = data(4)
    target[0, :2] = target[2, 1] = value
    message = r"^critic is not finite in replicate 0, 2$"
    with pyro.validation_enabled(False), pytest.raises(NonFiniteError, match=message):
        fit(critic, *given, target)
    assert all(torch.equal(v, before[k]) for k, v in critic.state_dict().items() if torch.is_tensor(v))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TabularCritic(initial=(1.0, 0.0)), r"^initial: got \(1.0, 0.0\), expected \[low, high\]"),
        (lambda: TabularCritic(rate=0.0), "^rate: got 0.0, expected a number in"),
        (lambda: TabularCritic(rate=1.5), "^rate: got 1.5"),
        (lambda: TabularCritic(rate_over="steps"), "^rate_over: got 'steps', expected updates or visits"),  # type: ignore[arg-type]
        (lambda: TabularCritic(target_rate=0.0), "^target_rate: got 0.0, expected a number in"),
        (lambda: NetworkCritic(target_rate=1.1), "^target_rate: got 1.1"),
        (lambda: NetworkCritic([0]), r"^hidden\[0\]: got 0, expected a positive integer"),
        (lambda: NetworkCritic(learning_rate=-1.0), "^learning_rate: got -1.0"),
        (lambda: NetworkCritic(max_gradient_norm=-1.0), "^max_gradient_norm: got -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "seat",
    [
        seat_of(Box(0.0, 1.0), Box(0.0, 1.0)),
        Seat(0, (Box(0.0, 1.0),) * 2, (Discrete(2), Discrete(2)), 1),
        Seat(0, (Discrete(2),) * 2, (Discrete(2), Box(0.0, 1.0)), 1),
    ],
)
def test_a_table_needs_discrete_spaces(seat: Seat) -> None:
    with pytest.raises(IncompatibleError, match=r"TabularCritic got .* expected Discrete spaces; use NetworkCritic"):
        TabularCritic().bind(seat)


def test_a_network_critic_has_no_table_of_continuous_actions() -> None:
    critic = NetworkCritic([4]).bind(seat_of(Box(0.0, 1.0), Box(0.0, 1.0)))
    with pytest.raises(IncompatibleError, match=r"a table of values: got actions Box.* expected Discrete spaces"):
        critic.table(torch.zeros(R, 1, dtype=torch.int64))
