"""Payoffs of matrix games, from the literature or from nested lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from inference_marl.games.tables import numbers


@dataclass(frozen=True)
class NamedPayoff:
    """A payoff tensor from the literature.

    Attributes:
        source: origin of the values.
        values: nested lists, with the dimensions given by `common` and `stochastic` (see `MatrixGame`).
        common: whether every agent gets the same payoff, so that the agent dimension is omitted.
        stochastic: whether the first dimension is over equally likely outcomes.
    """

    source: str
    values: list[Any]
    common: bool = True
    stochastic: bool = False


def penalty(k: float) -> list[list[float]]:
    """The penalty game of Claus and Boutilier (1998), `3 x 3`: two equal optima, guarded by `k`."""
    return [[10, 0, k], [0, 2, 0], [k, 0, 10]]


def pure_coordination(actions: int) -> list[list[float]]:
    """Two agents get 1 if they choose the same of `actions` actions and 0 otherwise, `actions x actions`."""
    return [[float(row == column) for column in range(actions)] for row in range(actions)]


PAYOFFS: dict[str, NamedPayoff] = {
    "climbing": NamedPayoff(
        "Claus and Boutilier (1998), 'The dynamics of reinforcement learning in cooperative multiagent "
        "systems', climbing game. The ROMMEO paper (Tian et al. 2019, section 5.1) prints (5, 3) in the last "
        "cell; the standard game and the authors' code have (5, 5).",
        [[11, -30, 0], [-30, 7, 6], [0, 0, 5]],
    ),
    "partially_stochastic_climbing": NamedPayoff(
        "Kapetanakis and Kudenko (2002), 'Reinforcement learning of coordination in cooperative "
        "multi-agent systems': the climbing game, but the middle cell pays 14 or 0.",
        [[[11, -30, 0], [-30, 14, 6], [0, 0, 5]], [[11, -30, 0], [-30, 0, 6], [0, 0, 5]]],
        stochastic=True,
    ),
    "fully_stochastic_climbing": NamedPayoff(
        "Matignon, Laurent and Le Fort-Piat (2012), 'Independent reinforcement learners in cooperative "
        "Markov games'. Expected payoffs are those of the climbing game, except for 6 in place of 0 at (2, 1); "
        "public codes without this exception have 5 | -5, 5 | -5, 10 | 0 in the last row.",
        [[[10, 5, 8], [5, 14, 12], [8, 12, 10]], [[12, -65, -8], [-65, 0, 0], [-8, 0, 0]]],
        stochastic=True,
    ),
    "penalty": NamedPayoff("Claus and Boutilier (1998), penalty game; here with k = -100.", penalty(-100)),
    "pure_coordination": NamedPayoff(
        "Claus and Boutilier (1998), the two-action coordination game with equal payoffs, here 1.",
        pure_coordination(2),
    ),
    "stag_hunt": NamedPayoff(
        "Skyrms (2004), 'The stag hunt and the evolution of social structure'; values of "
        "github.com/ml3705454/mapr2, maci/environments/matrix_game.py. Action 0 hunts the stag.",
        [[[4, 1], [3, 2]], [[4, 3], [1, 2]]],
        common=False,
    ),
    "prisoners_dilemma": NamedPayoff(
        "Foerster et al. (2018), 'Learning with opponent-learning awareness', table 1. Action 0 cooperates.",
        [[[-1, -3], [0, -2]], [[-1, 0], [-3, -2]]],
        common=False,
    ),
    "chicken": NamedPayoff(
        "Rapoport and Guyer (1966), 'A taxonomy of 2 x 2 games', ordinal payoffs; values of mapr2. Action 0 swerves.",
        [[[3, 2], [4, 1]], [[3, 4], [2, 1]]],
        common=False,
    ),
    "battle_of_the_sexes": NamedPayoff(
        "Luce and Raiffa (1957), 'Games and decisions', but 0 for both if they miscoordinate, as in "
        "mapr2, which calls it coordination_same_action_with_preference.",
        [[[2, 0], [0, 1]], [[1, 0], [0, 2]]],
        common=False,
    ),
    "matching_pennies": NamedPayoff(
        "Foerster et al. (2018), 'Learning with opponent-learning awareness', table 2. Agent 0 wants to "
        "match, agent 1 to differ.",
        [[[1, -1], [-1, 1]], [[-1, 1], [1, -1]]],
        common=False,
    ),
    "rock_paper_scissors": NamedPayoff(
        "Osborne and Rubinstein (1994), 'A course in game theory'; 1 for the winner, -1 for the loser.",
        [[[0, -1, 1], [1, 0, -1], [-1, 1, 0]], [[0, 1, -1], [-1, 0, 1], [1, -1, 0]]],
        common=False,
    ),
    "harmony": NamedPayoff(
        "Rapoport and Guyer (1966), ordinal payoffs; values of mapr2. Action 0 is dominant for both.",
        [[[4, 3], [2, 1]], [[4, 2], [3, 1]]],
        common=False,
    ),
}
"""The payoffs that `MatrixGame` knows by name. Dimension i of a tensor is agent i's action."""


def check_unused(payoff: str, **arguments: tuple[object, object]) -> None:
    """Raise for arguments that have no meaning for a payoff and are not at their defaults.

    Args:
        payoff: name of the payoff, for the message.
        arguments: given value and default of each argument.

    Raises:
        ValueError: names the argument.
    """
    for name, (got, default) in arguments.items():
        if got != default:
            raise ValueError(
                f"{name}: got {got} with payoff = {payoff}, expected {default}, the default; "
                "it means nothing for this payoff, so leave it out"
            )


def named_outcomes(payoff: str, k: float, actions: int, common: bool | None, stochastic: bool) -> Tensor:
    """The outcomes of a payoff in `PAYOFFS`, `outcomes x agents x A1 x ... x An`."""
    if payoff not in PAYOFFS:
        raise ValueError(
            f"payoff: got {payoff!r}, expected nested lists of numbers, or one of {', '.join(PAYOFFS)}; "
            "choose one of them"
        )
    check_unused(payoff, common=(common, None), stochastic=(stochastic, False))
    known = PAYOFFS[payoff]
    values = known.values
    if payoff == "penalty":
        values = penalty(k)
    else:
        check_unused(payoff, k=(k, -100.0))
    if payoff == "pure_coordination":
        values = pure_coordination(actions)
    else:
        check_unused(payoff, actions=(actions, 2))
    return outcomes_of(values, known.common, known.stochastic)


def outcomes_of(payoff: list[Any], common: bool | None, stochastic: bool) -> Tensor:
    """Convert nested lists to one tensor, float64, `outcomes x agents x A1 x ... x An`."""
    tensor = numbers("payoff", payoff)
    got = f"payoff: got shape {tuple(tensor.shape)} with stochastic = {stochastic}"
    outcomes = "outcomes x " if stochastic else ""
    if not stochastic:
        tensor = tensor.unsqueeze(0)
    shape = tuple(tensor.shape[1:])
    dims = len(shape)
    one_per_agent = dims >= 3 and shape[0] == dims - 1
    if common is None and one_per_agent:
        raise ValueError(
            f"{got}, which may be one tensor for each of {dims - 1} agents, or one tensor shared by {dims} "
            "agents, expected to be told which; set common to false for the first, to true for the second"
        )
    if common is False and not one_per_agent:
        raise ValueError(
            f"{got} with common = False, expected {outcomes}n x A1 x ... x An: one tensor for each of n >= "
            "2 agents, with one dimension for each agent's action; add what is missing, or set common to "
            "true if the agents share one tensor"
        )
    if dims < 2:
        raise ValueError(
            f"{got}, expected {outcomes}A1 x ... x An: one dimension for each of at least 2 agents; add a dimension"
        )
    if common is not False:
        tensor = tensor.unsqueeze(1).expand(-1, dims, *shape)
    return tensor.contiguous()
