"""The coin game, a social dilemma on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from inference_marl.described import Discount, Horizon, Several
from inference_marl.games.actions import check_actions
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import POSITIVE, PROBABILITY, Game, Metric, Observed, State, Step

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
"""The actions, in order, as changes of (row, column)."""

PENALTY = 2.0
"""Cost to a coin's owner if the other agent takes it."""

OWN_COINS = Metric(
    "own_coins",
    "share of own coins",
    bounds=PROBABILITY,
    higher_is_better=True,
    meaning="Share of an agent's own coins among those that it takes in an episode, over a replicate's environments; "
    "NaN if it takes none.",
)
COINS = Metric(
    "coins",
    "coins per step",
    unit="coins per step",
    bounds=POSITIVE,
    meaning="Number of coins that an agent takes per step, its own and the other's.",
)


class Tables(NamedTuple):
    """The rules as tables on one device; an outcome is `4 owner + 2 (agent 0 takes the coin) + (agent 1 does)`.

    Attributes:
        moved: the cell that an action leads to, `cells x actions`.
        offset: position of a cell relative to another, as the cell with the same offset from cell 0, `from x to`.
        rewards: `outcomes x agents`.
        counted: numbers of coins taken, own and other's, `outcomes x agents x 2`.
        takers: index of the takers of each colour's last coin after an outcome, `outcomes x takers`; see `CoinGame`.
        turned: the same index from agent 1's perspective, with its own colour first, `takers`.
        hot: the unit matrix, `features x features`.
    """

    moved: Tensor
    offset: Tensor
    rewards: Tensor
    counted: Tensor
    takers: Tensor
    turned: Tensor
    hot: Tensor


class CoinGame(Game):
    """The coin game: two agents on a torus, either of whom can take a coin that belongs to one of them.

    It is due to Lerer and Peysakhovich (2017, 'Maintaining cooperation in complex social dilemmas using deep
    reinforcement learning'), here on the torus and with the alternating coins of Foerster et al. (2018, LOLA). Both
    agents move simultaneously, by one of `MOVES`; they may share a cell but cannot stay. An agent on the coin's cell
    then takes it::

        r^i = [i takes the coin] - 2 [the coin is i's, and the other takes it]

    If both take it, its owner gets 1 - 2 = -1, and the other agent 1. A coin that was taken reappears as the other
    agent's, on a uniformly drawn cell without agents. Initially both agents and the coin are on three different random
    cells, and the owner is random.

    These are the rules of the LOLA authors' DiCE code. In their older `lola/envs/coin_game.py` a coin that both take
    goes to agent 0 alone, which favours it.

    Mean reward per step and agent on the 3 x 3 torus: 0 if both take every coin or move at random, and about a third if
    both go for their own coins only.

    `observation` is the agents' observation of the state, from their own perspective, so that the game is symmetric:

    * `history`: an index of the positions of the other agent and the coin, relative to the own one, the coin's owner,
      and who took the last coin of each colour: nobody yet, its owner alone, or the other agent, with or without its
      owner. There are `18 size^4` values, 1458 for size 3. Without this history, a memoryless policy cannot detect
      defection;
    * `index`: the same without the history, `2 size^4` values;
    * `relative`: `3 size^2` numbers, of which two are 1 and the others 0: positions, relative to the own one, of the
      other agent, of the coin if it is the own one, and of the coin if it is the other's;
    * `absolute`: `4 size^2` numbers, of which three are 1: positions of the agent itself, of the other agent, and of
      the own or the other's coin, as in the papers.

    Args:
        size: number of rows and of columns of the torus.
        observation: see above.
        horizon: steps per episode; `None` for no limit. This is a time limit: no step terminates.
        discount: gamma in [0, 1) for exact returns, see `Game`; learners have their own.

    Attributes:
        cells: number of cells; the index of a cell is `size * row + column`.
    """

    terminates = False
    symmetric = True
    action_names = tuple(MOVES)
    episode_metrics = (OWN_COINS, COINS)

    def __init__(
        self,
        size: Several = 3,
        *,
        observation: Literal["history", "index", "relative", "absolute"] = "history",
        horizon: Horizon = 50,
        discount: Discount = 0.96,
    ) -> None:
        self.size, self.observation, self.horizon, self.discount = size, observation, horizon, discount
        self.cells = size**2
        spaces: dict[str, Space] = {
            "history": Discrete(18 * self.cells**2),
            "index": Discrete(2 * self.cells**2),
            "relative": Box(0.0, 1.0, 3 * self.cells),
            "absolute": Box(0.0, 1.0, 4 * self.cells),
        }
        self.observations = (spaces[observation],) * 2
        self.action_spaces = (Discrete(len(MOVES)),) * 2
        self._made: dict[tuple[torch.device, torch.dtype], Tables] = {}

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Place the agents and the coin on three cells; `task` is ignored, see `Game.reset`.

        The state has the cells of `first`, `second` and `coin`, the `owner` and the `takers` of the last coins, int64,
        `replicates x environments`, and the numbers of coins taken, `replicates x environments x agents x (own,
        other)`.
        """
        shape = (replicates, environments)
        first = torch.randint(self.cells, shape, device=device)
        second = self._free(first, first)
        return {
            "first": first,
            "second": second,
            "coin": self._free(first, second),
            "owner": torch.randint(2, shape, device=device),
            "takers": torch.zeros(shape, dtype=torch.int64, device=device),
            "taken": torch.zeros(*shape, 2, 2, dtype=dtype, device=device),
            "steps": torch.zeros(shape, dtype=torch.int64, device=device),
        }

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Move both agents, see `Game.step`.

        Raises:
            ValueError: if the number or the shapes of the actions do not fit.
            IndexError: if actions are not integers or (on the CPU) too large.
        """
        check_actions(self.action_spaces, actions, state["coin"].shape)
        tables, coin, owner = self._tables(state["taken"]), state["coin"], state["owner"]
        first = tables.moved[state["first"], actions[0]]
        second = tables.moved[state["second"], actions[1]]
        outcome = 4 * owner + 2 * (first == coin) + (second == coin)
        gone = outcome % 4 > 0
        after = {
            "first": first,
            "second": second,
            "coin": torch.where(gone, self._free(first, second), coin),
            "owner": owner ^ gone,
            "takers": tables.takers[outcome, state["takers"]],
            "taken": state["taken"] + tables.counted[outcome],
            "steps": state["steps"] + 1,
        }
        return Step(after, tables.rewards[outcome], torch.zeros_like(gone))

    def observe(self, state: State) -> Observed:
        """The observations of both agents, see the class."""
        tables = self._tables(state["taken"])
        places = (state["first"], state["second"])
        return Observed(tuple(self._seen(agent, places[agent], places[1 - agent], state, tables) for agent in (0, 1)))

    def judge(self, state: State) -> dict[str, Tensor]:
        """The share of own coins, and coins per step, of each agent, `replicates x environments x agents`."""
        taken = state["taken"]
        own, every = taken[..., 0].sum(1, keepdim=True), taken.sum((1, 3)).unsqueeze(1)
        coins = taken.sum(-1)
        return {"own_coins": (own / every).expand_as(coins), "coins": coins / state["steps"].unsqueeze(-1)}

    def coin_seen(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The coin's position and owner in an observation, `... x event`.

        Returns:
            The coin's position relative to the observer, as the cell with the same offset from cell 0, int64, and
            whether it is the observer's own, bool; both `...`.
        """
        if not obs.is_floating_point():
            index = obs // 9 if self.observation == "history" else obs
            return index // 2 % self.cells, index % 2 == 0
        coin = obs[..., -2 * self.cells :].argmax(-1)
        where = coin % self.cells
        if self.observation == "absolute":
            where = self._tables(obs).offset[obs[..., : self.cells].argmax(-1), where]
        return where, coin < self.cells

    def _seen(self, agent: int, own: Tensor, other: Tensor, state: State, tables: Tables) -> Tensor:
        """One agent's observation, from its cell and the other's."""
        others_coin = state["owner"] ^ agent  # 1 for the other's
        coin = state["coin"]
        if self.observation == "absolute":
            hot = tables.hot
            return hot[own] + hot[other + self.cells] + hot[coin + (2 + others_coin) * self.cells]
        towards, coin = tables.offset[own, other], tables.offset[own, coin]
        if self.observation == "relative":
            return tables.hot[towards] + tables.hot[coin + (1 + others_coin) * self.cells]
        index = 2 * (self.cells * towards + coin) + others_coin
        if self.observation == "index":
            return index
        return 9 * index + (tables.turned[state["takers"]] if agent else state["takers"])

    def _free(self, first: Tensor, second: Tensor) -> Tensor:
        """Draw a cell without agents uniformly: an index among free cells, shifted past the occupied ones before it."""
        same = first == second
        drawn = (torch.rand(first.shape, device=first.device) * (self.cells - 2 + same.float())).long()
        drawn += drawn >= torch.minimum(first, second)
        drawn += (drawn >= torch.maximum(first, second)) & ~same
        return drawn

    def _tables(self, like: Tensor) -> Tables:
        """The tables for states of the dtype and device of `like`."""
        key = (like.device, like.dtype)
        if key not in self._made:
            made = _tables(self.size, 4 if self.observation == "absolute" else 3)
            self._made[key] = Tables(*(table.to(like if table.is_floating_point() else like.device) for table in made))
        return self._made[key]


def _tables(size: int, channels: int) -> Tables:
    """The tables in double precision, with unit vectors for the given number of channels."""
    cell = torch.arange(size**2)
    row, column = cell // size, cell % size
    moves = torch.tensor(list(MOVES.values()))

    def number(rows: Tensor, columns: Tensor) -> Tensor:
        return rows % size * size + columns % size

    owner, takes = torch.arange(8) // 4, torch.stack([torch.arange(8) // 2 % 2, torch.arange(8) % 2], 1)
    own = torch.stack([1 - owner, owner], 1) * takes  # by agents: it takes the coin, and owns it
    others = takes - own
    last = torch.stack([torch.arange(9) // 3, torch.arange(9) % 3], 1).expand(8, 9, 2)
    newest = torch.where(others.any(1), 2, 1).view(8, 1, 1).expand(8, 9, 2)
    of_owner = torch.nn.functional.one_hot(owner, 2).bool() & takes.any(1, keepdim=True)
    after = torch.where(of_owner.unsqueeze(1), newest, last)
    return Tables(
        moved=number(row.unsqueeze(1) + moves[:, 0], column.unsqueeze(1) + moves[:, 1]),
        offset=number(row - row.unsqueeze(1), column - column.unsqueeze(1)),
        rewards=(takes - PENALTY * others.flip(1)).double(),
        counted=torch.stack([own, others], -1).double(),
        takers=3 * after[..., 0] + after[..., 1],
        turned=3 * (torch.arange(9) % 3) + torch.arange(9) // 3,
        hot=torch.eye(channels * size**2, dtype=torch.float64),
    )
