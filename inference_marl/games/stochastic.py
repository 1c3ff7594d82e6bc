"""Tabular stochastic games with any number of states and agents, and the risky bridge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inference_marl.described import Discount, Horizon, Probability
from inference_marl.games.actions import check_actions
from inference_marl.games.tables import Kept, index, numbers
from inference_marl.spaces import Discrete
from inference_marl.types import Dynamics, Game, State, Step

ROUNDING = 1e-6
"""Tolerance within which probabilities sum to 1: files hold rounded numbers."""


class StochasticGame(Game):
    """A stochastic game given by tables, in which every agent observes the state.

    A step from state s with the joint action (a^1, ..., a^n)::

        r^i = reward[i, s, a^1, ..., a^n]
        s'  ~ transition[s, a^1, ..., a^n]        missing mass: the game terminates

    as in Shapley (1953), 'Stochastic games', where every row has missing mass; here rows may be complete, and a game
    without missing mass ends only by its time limit. On termination, the next observation is s again.

    The state is as in `MatrixGame`. Structured games are subclasses whose constructors compute the tables.

    Args:
        initial: probabilities of the initial state: `states` numbers that sum to 1, a list or a tensor.
        transition: probabilities of the next state, `states x A1 x ... x An x states`, nested lists or a tensor. Rows
            that sum to 1 within 1e-6 are normalised exactly.
        reward: `states x A1 x ... x An` if all agents get the same, `n x states x A1 x ... x An` if every agent has its
            own.
        horizon: steps per episode; `None` if episodes end only by termination. This is a time limit, not termination.
        state_names: names of the states; `None` for their numbers.
        discount: gamma in [0, 1) for exact returns; see `Game`.

    Raises:
        ValueError: if a number is out of range, or a table is ragged, not numeric, does not fit the others, or has an
            invalid row; names the row.
    """

    shared_observation = True

    def __init__(
        self,
        initial: Any,
        transition: Any,
        reward: Any,
        *,
        horizon: Horizon = None,
        state_names: Sequence[str] | None = None,
        discount: Discount = None,
    ) -> None:
        initial = _probabilities("initial", initial)
        if initial.dim() != 1:
            raise ValueError(f"initial: got shape {tuple(initial.shape)}, expected one number per state")
        if initial.sum() < 1 - ROUNDING:
            raise ValueError(f"initial: got a row with the sum {initial.sum():g}, expected 1; add what is missing")
        states = len(initial)
        transition = _probabilities("transition", transition)
        if transition.dim() < 4 or (transition.shape[0], transition.shape[-1]) != (states, states):
            raise ValueError(
                f"transition: got shape {tuple(transition.shape)}, expected {states} x A1 x ... x An x {states}, for "
                f"the {states} states of initial and at least 2 agents; add what is missing"
            )
        if state_names is not None and not (len(set(state_names)) == len(state_names) == states):
            raise ValueError(f"state_names: got {list(state_names)}, expected {states} different names, one per state")
        sizes = tuple(transition.shape[1:-1])
        self._dynamics = Dynamics(initial, transition, _rewards(reward, states, sizes))
        self.horizon = horizon
        self.discount = discount
        self.state_names = None if state_names is None else tuple(state_names)
        self.action_spaces = tuple(map(Discrete, sizes))
        self.observations = (Discrete(states),) * len(sizes)
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] = Kept()

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Draw the states from `initial`."""
        initial = self._on(device, dtype)[0]
        return {
            "obs": _draw(initial.expand(replicates, environments, -1)),
            "rewards": torch.zeros(replicates, environments, self.agents, dtype=dtype, device=device),
        }

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Compute the rewards and draw the next state, see `Game.step`."""
        obs = state["obs"]
        check_actions(self.action_spaces, actions, obs.shape)
        _, transition, reward = self._on(obs.device, state["rewards"].dtype)
        cell = (obs, *actions)
        rewards, following = reward[cell], _draw(transition[cell])
        terminated = following == self.observations[0].features
        state = {"obs": torch.where(terminated, obs, following), "rewards": rewards}
        return Step(state, rewards, terminated)

    def dynamics(self) -> Dynamics:
        """The tables."""
        return self._dynamics

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """The tables for steps, cached per device and dtype.

        Returns:
            Cumulative probabilities of the initial and of the next state (float64), and rewards with agents last,
            `states x A1 x ... x An x agents`.
        """
        key = (device, dtype)
        if key not in self._tables:
            tables = self._dynamics
            self._tables[key] = (
                _cumulative(tables.initial).to(device),
                _cumulative(tables.transition).to(device),
                tables.reward.movedim(0, -1).to(device, dtype).contiguous(),
            )
        return self._tables[key]


class RiskyBridge(StochasticGame):
    """The risky bridge: two agents walk around a river, the best in expectation, or jump it, the best with luck.

    Both agents get the same reward and must coordinate: at the bank, nothing happens unless both do the same::

        action 0, walk:  bank -> path           certainly; a step on the path pays `safe`
        action 1, jump:  bank -> across         with `probability`; a step there pays `prize`
                         bank -> river          otherwise; a step there pays `loss`
        path, across, river -> home             for all actions; home pays nothing and is absorbing

    Jumping has the value `probability prize + (1 - probability) loss`, by default -8, and walking has the value 1, so
    agents that do not treat luck as controllable walk. But an agent that conditions everything, including the dynamics,
    on optimality chooses the action that best explains success: log E[exp(r)] is 1 for walking, and log(0.1 exp(10) +
    0.9 exp(-10)) = 7.7 for jumping. Its posterior jumps and believes that it will land. This is the over-optimism of
    control as inference in stochastic games (Levine 2018, 'Reinforcement learning and control as probabilistic
    inference', sections 2.4 and 3). A guide that keeps the true dynamics, as in Eq. 7 of the ROMMEO paper (Tian et al.
    2019), avoids it.

    The time limit allows one failed attempt to coordinate. The game never terminates.

    Args:
        probability: probability of landing on the other side.
        prize: reward for landing there.
        loss: reward for landing in the river.
        safe: reward for walking around.
        horizon: steps per episode; `None` for no limit.
    """

    action_names = ("walk", "jump")

    def __init__(
        self,
        *,
        probability: Probability = 0.1,
        prize: float = 10.0,
        loss: float = -10.0,
        safe: float = 1.0,
        horizon: Horizon = 3,
    ) -> None:
        names = ["bank", "path", "across", "river", "home"]
        bank, path, across, river, home = range(5)
        transition = torch.zeros(5, 2, 2, 5, dtype=torch.float64)
        transition[bank, 0, 0, path] = 1
        transition[bank, 1, 1, across] = probability
        transition[bank, 1, 1, river] = 1 - probability
        transition[bank, [0, 1], [1, 0], bank] = 1
        transition[path:, :, :, home] = 1
        reward = torch.zeros(5, 2, 2, dtype=torch.float64)
        reward[path], reward[across], reward[river] = safe, prize, loss
        initial = torch.zeros(5, dtype=torch.float64)
        initial[bank] = 1
        super().__init__(initial, transition, reward, horizon=horizon, state_names=names)


def _draw(cumulative: Tensor) -> Tensor:
    """Sample an index from each row of cumulative probabilities, `... x n` to `...`; `n` for the missing mass."""
    uniform = torch.rand(*cumulative.shape[:-1], 1, dtype=cumulative.dtype, device=cumulative.device)
    return torch.searchsorted(cumulative.contiguous(), uniform, right=True).squeeze(-1)


def _cumulative(probabilities: Tensor) -> Tensor:
    """Cumulative sums over the last dimension; complete rows end at exactly 1, so rounding never terminates."""
    sums = probabilities.cumsum(-1)
    return torch.where(sums[..., -1:] > 1 - ROUNDING, sums / sums[..., -1:], sums)


def _probabilities(name: str, values: Any) -> Tensor:
    """Convert nested lists to float64 `... x n`, whose rows are distributions with possibly missing mass."""
    tensor = numbers(name, values)
    negative = (tensor < 0).nonzero()
    if len(negative):
        at = negative[0].tolist()
        raise ValueError(f"{name}: got {tensor[tuple(at)]:g} at {index(at)}, expected probabilities, from 0 to 1")
    totals = tensor.sum(-1, keepdim=True)
    above = (totals.squeeze(-1) > 1 + ROUNDING).nonzero()
    if len(above):
        at = above[0].tolist()
        row = f"the row at {index(at)}" if at else "a row"
        raise ValueError(f"{name}: got {row} with the sum {totals[tuple(at)].item():g}, expected at most 1; correct it")
    return torch.where(totals > 1 - ROUNDING, tensor / totals, tensor)


def _rewards(values: Any, states: int, sizes: tuple[int, ...]) -> Tensor:
    """One table for each agent, float64, `agents x states x A1 x ... x An`."""
    tensor = numbers("reward", values)
    each = (len(sizes), states, *sizes)
    if tensor.shape == each[1:]:
        return tensor.expand(each)
    if tensor.shape != each:
        raise ValueError(
            f"reward: got shape {tuple(tensor.shape)}, expected {each[1:]}, the same for all agents, or {each}, one "
            "table per agent; make it fit transition"
        )
    return tensor
