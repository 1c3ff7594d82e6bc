"""A grid world in which two agents have to meet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_marl.described import BelowOne, Count, Discount, Horizon, NotNegative
from inference_marl.games.stochastic import StochasticGame

MOVES = {"stay": (0, 0), "up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
"""The actions, in order, as changes of (row, column)."""


class MeetingGrid(StochasticGame):
    """A grid world in which two agents are rewarded for being on the same cell.

    Both choose among `MOVES` simultaneously. A move into a wall or off the grid leaves the agent in place, and so does
    any move with probability `slip`, independently for both. Agents may share a cell and pass through each other. Both
    get the same reward, which depends on the state in which they act and on their actions::

        r = goal(cell) if both are on one cell, else 0;  minus step_cost for each agent that does not stay

    where every cell is a goal of value 1 unless `goals` is given. With several goals there are several equilibria, on
    one of which the agents have to coordinate without communication.

    It is based on the 'meeting in a grid' problem of decentralised planning (2 x 2: Bernstein, Hansen and Zilberstein
    2005, 'Bounded policy iteration for decentralized POMDPs'; 3 x 3: Amato, Dibangoye and Zilberstein 2009,
    'Incremental policy generation for finite-horizon DEC-POMDPs'), but both agents observe both positions, and a failed
    move leaves the agent in place.

    The state is the joint position: with C cells, `C * i + j` for the first agent on cell i and the second on cell j,
    cells counted row by row without walls. `state_names` are "(row,column) (row,column)". The transition table has 25
    C^4 entries, so this is for grids up to about 5 x 5.

    Args:
        width, height: numbers of columns and rows.
        goals: `[row, column, value]` of the rewarded meeting cells; `None` for 1 everywhere.
        walls: `[row, column]` of the cells that cannot be entered.
        starts: `[row, column]` of each agent's initial cell; `None` draws both uniformly.
        slip: probability that a move fails.
        step_cost: cost to both agents of each agent's move.
        horizon: steps per episode; `None` for no limit. No step terminates.
        discount: gamma in [0, 1) for exact returns; see `Game`.

    Attributes:
        cells: the (row, column) of every accessible cell, in order.

    Raises:
        ValueError: if an argument is out of range, or a cell is not one of `cells`.
    """

    action_names = tuple(MOVES)

    def __init__(
        self,
        width: Count = 3,
        height: Count = 3,
        *,
        goals: list[tuple[int, int, float]] | None = None,
        walls: list[tuple[int, int]] | None = None,
        starts: list[tuple[int, int]] | None = None,
        slip: BelowOne = 0.0,
        step_cost: NotNegative = 0.0,
        horizon: Horizon = 10,
        discount: Discount = None,
    ) -> None:
        grid = [(row, column) for row in range(height) for column in range(width)]
        closed = {_number("walls", cell, grid) for cell in walls or ()}
        self.cells = tuple(cell for number, cell in enumerate(grid) if number not in closed)
        if not self.cells:
            raise ValueError(f"walls: got {walls}, expected to leave at least one cell of {width} x {height} free")
        lone = self._moves(slip)
        first = self._first(starts)
        super().__init__(
            first[0].outer(first[1]).flatten(),
            torch.einsum("iap,jbq->ijabpq", lone, lone).flatten(4, 5).flatten(0, 1),
            self._rewards(goals, step_cost),
            horizon=horizon,
            discount=discount,
            state_names=[f"({a},{b}) ({c},{d})" for a, b in self.cells for c, d in self.cells],
        )

    def _rewards(self, goals: list[tuple[int, int, float]] | None, step_cost: float) -> Tensor:
        """The common reward, `states x actions x actions`."""
        value = torch.full((len(self.cells),), 1.0 if goals is None else 0.0, dtype=torch.float64)
        for row, column, worth in goals or ():
            value[_number("goals", (row, column), self.cells)] = worth
        effort = step_cost * torch.tensor([float(change != (0, 0)) for change in MOVES.values()], dtype=torch.float64)
        return value.diag().view(-1, 1, 1) - (effort[:, None] + effort)

    def _moves(self, slip: float) -> Tensor:
        """One agent's transition probabilities, `cells x actions x cells`."""
        lone = torch.zeros(len(self.cells), len(MOVES), len(self.cells), dtype=torch.float64)
        for here, (row, column) in enumerate(self.cells):
            for move, (down, right) in enumerate(MOVES.values()):
                there = (row + down, column + right)
                lone[here, move, self.cells.index(there) if there in self.cells else here] += 1 - slip
                lone[here, move, here] += slip
        return lone

    def _first(self, starts: list[tuple[int, int]] | None) -> Tensor:
        """Initial distribution of each agent, `2 x cells`."""
        count = len(self.cells)
        if starts is None:
            return torch.full((2, count), 1 / count, dtype=torch.float64)
        if len(starts) != 2:
            raise ValueError(f"starts: got {starts}, expected 2 cells, one per agent, or None for random ones")
        begins = torch.tensor([_number("starts", cell, self.cells) for cell in starts])
        return torch.nn.functional.one_hot(begins, count).to(torch.float64)


def _number(argument: str, cell: tuple[int, int], cells: Sequence[tuple[int, int]]) -> int:
    """The index of a cell in `cells`; a file gives the cell as a list."""
    if tuple(cell) not in cells:
        raise ValueError(f"{argument}: got {tuple(cell)}, expected [row, column] of a free cell on the grid")
    return cells.index(tuple(cell))
