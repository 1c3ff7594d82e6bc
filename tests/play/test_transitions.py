"""A transition as each of three agents sees it, and trajectories of several."""

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Dynamics, Seat, Trajectory, Transition, choose

R, E, AGENTS = 2, 3, 3
SIZES = (2, 3, 5)


def step(alive: bool = False) -> Transition:
    """Numbers that say whose they are and where they stand."""

    def number(agent: int, kind: int) -> Tensor:
        return 1000 * kind + 100 * agent + torch.arange(R * E).view(R, E)

    terminated = torch.tensor([[True, False, False], [False, False, True]])
    ended = terminated | torch.tensor([[False, True, False], [False, False, False]])
    left = torch.ones(R, E, AGENTS, dtype=torch.bool)
    left[0, 2, 1] = False
    return Transition(
        obs=tuple(number(agent, 1) for agent in range(AGENTS)),
        actions=tuple(torch.randint(size, (R, E)) for size in SIZES),
        rewards=torch.stack([number(agent, 2) for agent in range(AGENTS)], -1).double(),
        next_obs=tuple(number(agent, 3) for agent in range(AGENTS)),
        terminated=terminated,
        ended=ended,
        alive=torch.ones(R, E, AGENTS, dtype=torch.bool) if alive else None,
        next_alive=left if alive else None,
    )


@pytest.mark.parametrize("agent", range(AGENTS))
@pytest.mark.parametrize("alive", [False, True])
def test_every_agent_sees_what_is_its_own_and_what_the_others_did(agent: int, alive: bool) -> None:
    made = step(alive)
    seat = Seat(agent, (Discrete(9),) * AGENTS, tuple(Discrete(size) for size in SIZES), R, E)
    seen = made.seen_by(seat)
    assert torch.equal(seen.obs, made.obs[agent])
    assert torch.equal(seen.next_obs, made.next_obs[agent])
    assert torch.equal(seen.reward, made.rewards[..., agent])
    assert torch.equal(seen.action, made.actions[agent])
    first, second = (other for other in range(AGENTS) if other != agent)
    assert torch.equal(seen.opponent_action, made.actions[first] * SIZES[second] + made.actions[second])
    assert seat.opponent_action == Discrete(SIZES[first] * SIZES[second])
    assert torch.equal(seen.ended, made.ended)
    out = torch.zeros(R, E, dtype=torch.bool)
    out[0, 2] = alive and agent == 1
    assert torch.equal(seen.terminated, made.terminated | out)
    assert torch.equal(made.truncated, made.ended & ~made.terminated)


@pytest.mark.parametrize("agent", range(AGENTS))
def test_a_joint_action_of_boxes_is_in_the_opponents_space(agent: int) -> None:
    """Their edges stand in the order of their actions."""
    spaces = (Box(0.0, 1.0), Box(2.0, 3.0, 2), Box(-5.0, -4.0))
    seat = Seat(agent, (Discrete(9),) * AGENTS, spaces, R, E)
    made = step()
    made.actions = tuple(space.uniform(torch.float64, torch.device("cpu")).sample((R, E)) for space in spaces)
    assert seat.opponent_action.misfit(made.seen_by(seat).opponent_action) is None


@pytest.mark.parametrize("agent", range(AGENTS))
def test_rules_are_seen_as_experience_is(agent: int) -> None:
    """The column of a joint action in an agent's view of the rules is that of the same action in its experience."""
    states = 2
    rules = Dynamics(torch.tensor([0.5, 0.5]), torch.rand(states, *SIZES, states), torch.rand(AGENTS, states, *SIZES))
    seat = Seat(agent, (Discrete(9),) * AGENTS, tuple(Discrete(size) for size in SIZES), R, E)
    transition, reward = rules.seen_by(agent)
    made = step()
    seen = made.seen_by(seat)
    for state in range(states):
        mine = reward[state, seen.action, seen.opponent_action]
        assert torch.equal(mine, rules.reward[(agent, state, *made.actions)])
        assert torch.equal(
            transition[state, seen.action, seen.opponent_action], rules.transition[(state, *made.actions)]
        )


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_trajectory_lays_all_its_steps_side_by_side(steps: int) -> None:
    newest = Trajectory([step() for _ in range(steps)])
    assert newest.flat.rewards.shape == (R, steps * E, AGENTS)
    assert newest.stacked.rewards.shape == (steps, R, E, AGENTS)
    for t, each in enumerate(newest.steps):
        for agent in range(AGENTS):
            assert torch.equal(newest.flat.actions[agent][:, t * E : (t + 1) * E], each.actions[agent])
            assert torch.equal(newest.stacked.actions[agent][t], each.actions[agent])


@pytest.mark.parametrize("where", [0, 1])
def test_agents_that_are_out_in_any_step_are_refused(where: int) -> None:
    Trajectory([step(), step()]).check_all_act("Learner")
    steps = [step(alive=t == where) for t in range(2)]
    with pytest.raises(IncompatibleError, match=r"^Learner got a game in which agents may be out"):
        Trajectory(steps).check_all_act("Learner")


def test_choosing_goes_by_environment() -> None:
    where = torch.tensor([[True, False, True], [False, False, True]])
    yes = {"a": torch.ones(R, E), "b": torch.ones(R, E, 2, 2)}
    no = {name: torch.zeros_like(value) for name, value in yes.items()}
    chosen = choose(where, yes, no)
    assert torch.equal(chosen["a"], where.float())
    assert torch.equal(chosen["b"], where.float()[..., None, None].expand(R, E, 2, 2))
