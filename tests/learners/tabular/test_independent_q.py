"""Q-learning against a loop written by hand, and what it plays."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from inference_marl.games import MatrixGame
from inference_marl.inference.failures import NonFiniteError
from inference_marl.inference.schedules import ExponentialDecay, InverseTime, Schedule
from inference_marl.learners.tabular.exploration import Boltzmann, EpsilonGreedy
from inference_marl.learners.tabular.independent_q import IndependentQ
from inference_marl.types import Learner, Seat, Trajectory, Transition
from tests.steps import teach

LEARNERS: dict[str, tuple[str, Callable[[], Learner]]] = {
    "IndependentQ": ("discrete", lambda: IndependentQ(exploration=Boltzmann(ExponentialDecay(5.0, 0.1, 0.1)))),
    "IndependentQ, greedy": (
        "discrete",
        lambda: IndependentQ(exploration=EpsilonGreedy(0.2), rate=InverseTime(), initial=(0.0, 1.0)),
    ),
}
"""Cases that tests/test_contract.py drives through the contract."""


def transition(
    obs: Tensor, actions: tuple[Tensor, Tensor], reward: Tensor, next_obs: Tensor, terminated: Tensor
) -> Transition:
    rewards = torch.stack([reward, -reward], dim=-1)
    return Transition((obs, obs), actions, rewards, (next_obs, next_obs), terminated, terminated)


def test_equals_a_loop_by_hand() -> None:
    replicates, states, steps = 3, 5, 40
    game = MatrixGame("prisoners_dilemma", horizon=None, memory=1)
    seat = Seat(1, game.observations, game.action_spaces, replicates, dtype=torch.float64, game=game)
    learner = IndependentQ(
        exploration=Boltzmann(0.7), rate=InverseTime(0.5, 10), discount=0.9, initial=(-1.0, 1.0)
    ).bind(seat)
    q = learner.values.clone()
    assert q.shape == (replicates, states, 2)
    assert q.std() > 0.3
    torch.manual_seed(1)
    for step in range(steps):
        obs, after = torch.randint(states, (2, replicates, 1))
        own, other = torch.randint(2, (2, replicates, 1))
        reward, terminated = torch.randn(replicates, 1, dtype=torch.float64), torch.rand(replicates, 1) < 0.3
        teach(learner, transition(obs, (other, own), -reward, after, terminated), [])
        for r in range(replicates):
            s, a, s2 = int(obs[r]), int(own[r]), int(after[r])
            y = reward[r, 0] + 0.9 * (0.0 if terminated[r] else q[r, s2].max())
            q[r, s, a] += 0.5 * 10 / (10 + step) * (y - q[r, s, a])
    torch.testing.assert_close(learner.values, q, rtol=1e-12, atol=1e-12)
    every = torch.arange(states).expand(replicates, -1)
    torch.testing.assert_close(learner(every), torch.softmax(q / 0.7, -1))


def test_several_environments_move_a_cell_once_towards_their_mean() -> None:
    game = MatrixGame("stag_hunt")
    seat = Seat(0, game.observations, game.action_spaces, 1, environments=3, dtype=torch.float64)
    learner = IndependentQ(exploration=Boltzmann(), rate=0.5, initial=2.0).bind(seat)
    zeros, done = torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.bool)
    reward = torch.tensor([[1.0, 4.0, 6.0]], dtype=torch.float64)
    teach(learner, transition(zeros, (torch.tensor([[0, 0, 1]]), zeros), reward, zeros, done), [])
    torch.testing.assert_close(learner.values[0, 0], torch.tensor([2.25, 4.0], dtype=torch.float64))


@pytest.mark.parametrize(("epsilon", "best", "others"), [(0.0, 0.5, 0.0), (0.3, 0.45, 0.1), (1.0, 1 / 3, 1 / 3)])
def test_epsilon_greedy_shares_ties(epsilon: float, best: float, others: float) -> None:
    values = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    expected = torch.tensor([best, best, others], dtype=torch.float64)
    torch.testing.assert_close(EpsilonGreedy(epsilon)(values, 0), expected)


class Falling(Schedule):
    """Does not say where it ends."""

    def __call__(self, step: int) -> float:
        return 0.5 - step / 2


def test_explorations_follow_their_schedules() -> None:
    values = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    schedule = ExponentialDecay(0.8, 1.0)
    for step in (0, 2):
        number = schedule(step)
        torch.testing.assert_close(Boltzmann(schedule)(values, step), torch.softmax(values / number, -1))
        torch.testing.assert_close(EpsilonGreedy(schedule)(values, step)[0, 0], torch.tensor(number / 2).double())
    assert Boltzmann(schedule)(values.float(), 10**6).tolist() == [[0.0, 1.0]]
    beyond = EpsilonGreedy(Falling())
    assert beyond(values, 2).tolist() == [[0.0, 1.0]], "a schedule that goes below 0 is at 0"


def test_a_reward_that_is_not_finite_changes_nothing_and_is_named() -> None:
    game = MatrixGame("stag_hunt")
    learner = IndependentQ(exploration=Boltzmann(), initial=1.0).bind(Seat(0, game.observations, game.action_spaces, 3))
    zeros, done = torch.zeros(3, 1, dtype=torch.int64), torch.ones(3, 1, dtype=torch.bool)
    reward = torch.tensor([[1.0], [float("nan")], [float("inf")]])
    with pytest.raises(NonFiniteError, match=r"^reward is not finite in replicate 1, 2$"):
        teach(learner, transition(zeros, (zeros, zeros), reward, zeros, done), [])
    assert (learner.values == 1).all()
    assert learner.updates == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: IndependentQ(exploration=Boltzmann(0.0)),
            "temperature: got 0.0, expected a positive number",
        ),
        (lambda: IndependentQ(exploration=EpsilonGreedy(1.5)), "epsilon: got 1.5"),
        (lambda: IndependentQ(exploration=Boltzmann(), rate=0.0), "rate: got 0.0"),
        (lambda: IndependentQ(exploration=Boltzmann(), discount=1.0), "discount: got 1.0"),
        (lambda: IndependentQ(exploration=Boltzmann(), initial=(1.0, 0.0)), "initial: got"),
    ],
)
def test_refuses_numbers_out_of_range(make: Callable[[], Learner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_two_steps_at_once_are_learned_as_one_after_the_other() -> None:
    """Schedules count steps, not trajectories."""
    game = MatrixGame("climbing")
    seat = Seat(0, game.observations, game.action_spaces, 2, 3, dtype=torch.float64, game=game)
    description = IndependentQ(exploration=Boltzmann(), rate=InverseTime())
    zeros, done = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool)

    def step() -> Transition:
        actions = (torch.randint(3, (2, 3)), torch.randint(3, (2, 3)))
        return Transition((zeros,) * 2, actions, torch.randn(2, 3, 2).double(), (zeros,) * 2, done, done)

    steps = [step() for _ in range(4)]
    together, apart = description.bind(seat), description.bind(seat)
    together.load_state_dict(apart.state_dict())
    for pair in (steps[:2], steps[2:]):
        together.learn(Trajectory(pair), [])
    for each in steps:
        apart.learn(Trajectory([each]), [])
    assert torch.equal(together.values, apart.values)
    assert together.updates == apart.updates == 4
