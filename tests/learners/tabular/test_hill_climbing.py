"""Hill climbing against a loop written by hand, the simplex, and who wins."""

import re
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.inference.schedules import InverseTime, Linear
from inference_marl.learners.tabular.hill_climbing import PHC, WoLFPHC, climb
from inference_marl.types import Learner, Seat, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "PHC": ("discrete", lambda: PHC(policy_rate=0.3, epsilon=Linear(0.5, 0.0, 5), initial_policy="random")),
    "WoLFPHC": ("discrete", lambda: WoLFPHC(policy_rate_winning=0.1, policy_rate_losing=0.4)),
    "WoLFPHC, one action": (
        "discrete",
        lambda: WoLFPHC(policy_rate_winning=0.1, policy_rate_losing=0.4, step="played_action"),
    ),
}
"""Cases that tests/test_contract.py drives through the contract."""

Step = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def seat(replicates: int, environments: int = 1) -> Seat:
    game = MatrixGame("climbing", horizon=None, memory=1)
    return Seat(1, game.observations, game.action_spaces, replicates, environments, dtype=torch.float64, game=game)


def learn(learner: Learner, obs: Tensor, action: Tensor, reward: Tensor, after: Tensor, terminated: Tensor) -> None:
    rewards = torch.stack([-reward, reward], dim=-1)
    teach(learner, Transition((obs, obs), (action, action), rewards, (after, after), terminated, terminated), [])


def random_step(replicates: int, states: int, actions: int) -> Step:
    obs, after = torch.randint(states, (2, replicates, 1))
    action, terminated = torch.randint(actions, (replicates, 1)), torch.rand(replicates, 1) < 0.3
    return obs, action, torch.randn(replicates, 1, dtype=torch.float64), after, terminated


def by_hand(learner: WoLFPHC, steps: list[Step], all_actions: bool) -> tuple[Tensor, Tensor]:
    """Policies and average policies after `steps`, one replicate and one number at a time."""
    q, pi, average = learner.values.clone(), learner.strategy.clone(), learner.average.clone()
    replicates, states, actions = q.shape
    visits = torch.zeros(replicates, states)
    for t, (obs, action, reward, after, terminated) in enumerate(steps):
        for r in range(replicates):
            s, a, s2 = int(obs[r]), int(action[r]), int(after[r])
            y = reward[r, 0] + 0.9 * (0.0 if terminated[r] else q[r, s2].max())
            q[r, s, a] += 0.5 * (y - q[r, s, a])
            visits[r, s] += 1
            average[r, s] += (pi[r, s] - average[r, s]) / visits[r, s]
            winning = (pi[r, s] * q[r, s]).sum() > (average[r, s] * q[r, s]).sum()
            delta = 0.1 * 20 / (20 + t) if winning else 0.4 * 10 / (10 + t)
            best = int(q[r, s].argmax())
            if all_actions:
                for other in set(range(actions)) - {best}:
                    moved = min(float(pi[r, s, other]), delta / (actions - 1))
                    pi[r, s, other] -= moved
                    pi[r, s, best] += moved
            else:
                pi[r, s, a] += delta if a == best else -delta / (actions - 1)
                if pi[r, s].min() < 0:
                    pi[r, s] -= pi[r, s].min().item()
                pi[r, s] /= pi[r, s].sum().item()
    return pi, average


@pytest.mark.parametrize("step", ["every_action", "played_action"])
def test_equals_a_loop_by_hand(step: Literal["every_action", "played_action"]) -> None:
    replicates, states, actions = 3, 10, 3
    described = WoLFPHC(
        policy_rate_winning=InverseTime(0.1, 20),
        policy_rate_losing=InverseTime(0.4, 10),
        rate=0.5,
        discount=0.9,
        initial=(-1.0, 1.0),
        initial_policy="random",
        step=step,
    )
    learner = described.bind(seat(replicates))
    torch.manual_seed(1)
    steps = [random_step(replicates, states, actions) for _ in range(120)]
    pi, average = by_hand(learner, steps, step == "every_action")
    for one in steps:
        learn(learner, *one)
    torch.testing.assert_close(learner.strategy, pi, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(learner.average, average, rtol=1e-10, atol=1e-10)
    assert (pi == 0).any()  # the border of the simplex was reached
    every = torch.arange(states).expand(replicates, -1)
    torch.testing.assert_close(learner(every), pi)


@pytest.mark.parametrize(
    ("policy", "values", "delta", "expected"),
    [
        ([0.5, 0.3, 0.2], [0.0, 1.0, 0.0], 0.1, [0.45, 0.4, 0.15]),
        ([0.02, 0.88, 0.1], [0.0, 0.0, 1.0], 0.1, [0.0, 0.83, 0.17]),  # an action has no more than it has
        ([0.2, 0.3, 0.5], [1.0, 1.0, 0.0], 0.2, [0.25, 0.35, 0.4]),  # the best share
        ([0.2, 0.3, 0.5], [1.0, 1.0, 1.0], 0.2, [0.2, 0.3, 0.5]),
        ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], 1.0, [1.0, 0.0, 0.0]),
        ([1.0], [3.0], 0.5, [1.0]),
    ],
)
def test_climbs_on_the_simplex(policy: list[float], values: list[float], delta: float, expected: list[float]) -> None:
    tensors = (torch.tensor(numbers, dtype=torch.float64) for numbers in (policy, values))
    torch.testing.assert_close(climb(*tensors, delta), torch.tensor(expected, dtype=torch.float64))


def test_wolf_with_one_rate_is_phc() -> None:
    torch.manual_seed(2)
    steps = [random_step(4, 10, 3) for _ in range(50)]
    policies = []
    for made in (PHC(policy_rate=0.05, rate=0.3), WoLFPHC(policy_rate_winning=0.05, policy_rate_losing=0.05, rate=0.3)):
        learner = made.bind(seat(4))
        for one in steps:
            learn(learner, *one)
        policies.append(learner.strategy)
    assert policies[0].std() > 0.01
    torch.testing.assert_close(*policies, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("step", "moves"),
    [
        ("every_action", [0.25, -0.125, -0.125]),
        # means of 0.25 0.25 0 0, of 0 0 -0.125 0 and of 0 0 0 -0.125: one number per environment
        ("played_action", [0.125, -0.03125, -0.03125]),
    ],
)
def test_several_environments_step_a_state_once(
    step: Literal["every_action", "played_action"], moves: list[float]
) -> None:
    learner = PHC(policy_rate=0.25, rate=1.0, step=step).bind(seat(1, environments=4))
    zeros, done = torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool)
    reward = torch.tensor([[2.0, 4.0, 1.0, -1.0]], dtype=torch.float64)
    learn(learner, zeros, torch.tensor([[0, 0, 1, 2]]), reward, zeros, done)
    torch.testing.assert_close(learner.values[0, 0], torch.tensor([3.0, 1.0, -1.0], dtype=torch.float64))
    expected = 1 / 3 + torch.tensor(moves, dtype=torch.float64)
    torch.testing.assert_close(learner.strategy[0, 0], expected / expected.sum())
    torch.testing.assert_close(learner.strategy[0, 1:], torch.full((9, 3), 1 / 3, dtype=torch.float64))


def test_starts_and_explores_as_told() -> None:
    obs = torch.zeros(2000, 1, dtype=torch.int64)
    uniform, drawn = PHC().bind(seat(2)), PHC(epsilon=0.4, initial_policy="random").bind(seat(2000))
    assert (uniform(obs[:2]) == 1 / 3).all()
    policy = drawn.strategy[:, 0]
    torch.testing.assert_close(policy.sum(-1), torch.ones(2000, dtype=torch.float64))
    # Dirichlet(1, 1, 1) has mean 1/3 and variance 1/18; six standard errors
    torch.testing.assert_close(policy.mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), rtol=0, atol=0.032)
    torch.testing.assert_close(policy.var(0), torch.full((3,), 1 / 18, dtype=torch.float64), rtol=0, atol=0.008)
    torch.testing.assert_close(drawn(obs)[:, 0], 0.6 * policy + 0.4 / 3)


def test_follows_its_schedules_over_updates() -> None:
    learner = PHC(policy_rate=Linear(0.2, 0.4, 2), rate=1.0, epsilon=Linear(0.6, 0.0, 2)).bind(seat(1))
    zero, done = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    first = 1 / 3  # the probability of the only action that pays
    for update in range(4):
        epsilon = max(0.6 - 0.3 * update, 0.0)
        assert float(learner(zero)[0, 0, 0]) == pytest.approx((1 - epsilon) * first + epsilon / 3)
        learn(learner, zero, zero, torch.ones(1, 1, dtype=torch.float64), zero, done)
        first = min(first + min(0.2 + 0.1 * update, 0.4), 1.0)
        assert float(learner.strategy[0, 0, 0]) == pytest.approx(first)


@pytest.mark.slow
def test_wolf_comes_closer_to_the_mixed_equilibrium_than_phc() -> None:
    """The paper's claim: on matching pennies policies of PHC circle, those of WoLF-PHC converge to (1/2, 1/2)."""
    game, replicates = MatrixGame("matching_pennies"), 200
    obs, done = torch.zeros(replicates, 1, dtype=torch.int64), torch.ones(replicates, 1, dtype=torch.bool)
    distances = []
    for made in (
        PHC(policy_rate=0.02, rate=0.3),
        WoLFPHC(policy_rate_winning=0.005, policy_rate_losing=0.02, rate=0.3),
    ):
        torch.manual_seed(3)
        players = [made.bind(Seat(agent, game.observations, game.action_spaces, replicates)) for agent in range(2)]
        state, total = game.reset(replicates, 1, torch.device("cpu"), torch.float32), 0.0
        for step in range(1000):
            actions = tuple(player.act(obs, {}).action for player in players)
            _, rewards, _, _ = game.step(state, actions)
            for player in players:
                teach(player, Transition((obs, obs), actions, rewards, (obs, obs), done, done), [])
            if step >= 600:
                total += sum(float((player(obs)[..., 0] - 0.5).abs().mean()) for player in players) / 800
        distances.append(total)
    assert distances[1] < 0.6 * distances[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PHC(policy_rate=0.0), "policy_rate: got 0.0, expected a number in (0, 1]"),
        (lambda: PHC(epsilon=1.5), "epsilon: got 1.5"),
        (lambda: PHC(initial_policy="dirichlet"), "initial_policy: got 'dirichlet', expected uniform or random"),  # type: ignore[arg-type]
        (lambda: PHC(step="played"), "step: got 'played', expected every_action or played_action"),  # type: ignore[arg-type]
        (lambda: WoLFPHC(policy_rate_winning=0.1, policy_rate_losing=2.0), "policy_rate_losing: got 2.0"),
        (lambda: WoLFPHC(policy_rate_winning=-0.1, policy_rate_losing=0.2), "policy_rate_winning: got -0.1"),
        (
            lambda: WoLFPHC(policy_rate_winning=0.2, policy_rate_losing=0.1),
            "policy_rate_winning: got 0.2 at the first update, expected at most",
        ),
    ],
)
def test_refuses_numbers_out_of_range(make: Callable[[], Learner], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_plays_the_most_probable_action_when_it_does_not_explore() -> None:
    game = MatrixGame("climbing")
    learner = PHC(epsilon=1.0, initial_policy="random").bind(Seat(0, game.observations, game.action_spaces, 20))
    best = learner.strategy[:, 0].argmax(-1, keepdim=True)
    assert len(best.unique()) == 3
    assert torch.equal(learner.act(torch.zeros(20, 1, dtype=torch.int64), {}, explore=False).action, best)
