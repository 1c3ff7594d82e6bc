"""Level-k opponents: replies by hand, against a slow reference, and through the critic that the model reads."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame
from inference_marl.guides import OpponentFirst, Optimal
from inference_marl.inference.conditional import Reads
from inference_marl.learners import Rommeo
from inference_marl.models import ControlModel, ExponentialOptimality, LevelK, TabularCritic, Uniform
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Seat

CLIMBING = [[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]]


class _Values:
    """All of a model that a prior may read: one table, `replicates x states x actions x opponent_actions`."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def q_table(self, obs: Tensor) -> Tensor:
        return self.table[torch.arange(len(self.table)).view(-1, 1), obs]


Forecast = Callable[[Tensor], dist.Categorical]


def given(prior: LevelK, table: Any) -> Forecast:
    """The prior in a game with these values: `actions x opponent_actions`, with or without leading dims."""
    values = torch.as_tensor(table, dtype=torch.float64)
    values = values.expand(*[1] * (4 - values.dim()), *values.shape)
    replicates, states, own, opponents = values.shape
    seat = Seat(0, (Discrete(states),) * 2, (Discrete(own), Discrete(opponents)), replicates, dtype=torch.float64)
    bound = prior.bind(seat, seat.opponent_action, [seat.observation])
    model = cast(Reads, _Values(values))
    return lambda obs: cast(dist.Categorical, bound.given(model, obs))


def first(forecast: Forecast) -> list[float]:
    probabilities: list[float] = forecast(torch.zeros(1, 1, dtype=torch.int64)).probs.flatten().tolist()
    return probabilities


def two(one: float, other: float) -> float:
    return 1 / (1 + math.exp(other - one))


def test_levels_by_hand() -> None:
    table = [[4.0, 1.0], [3.0, 2.0]]
    assert first(given(LevelK(0), table)) == pytest.approx([0.5, 0.5])
    # Level 1: means over own actions 3.5 and 1.5; own means 2.5 and 2.5.
    assert first(given(LevelK(1), table))[0] == pytest.approx(two(3.5, 1.5))
    assert first(given(LevelK(2), table))[0] == pytest.approx(two(3.5, 1.5))
    assert first(given(LevelK(1, temperature=2.0), table))[0] == pytest.approx(two(1.75, 0.75))
    # Level 3: own level 2 replies to level 1.
    p = two(3.5, 1.5)
    own = two(4 * p + (1 - p), 3 * p + 2 * (1 - p))
    assert first(given(LevelK(3), table))[0] == pytest.approx(two(4 * own + 3 * (1 - own), own + 2 * (1 - own)))


def test_opposed_opponents_want_the_opposite_and_the_learner_does_not() -> None:
    table = [[4.0, 1.0], [0.0, 2.0]]
    assert first(given(LevelK(1, interests="opposed"), table))[0] == pytest.approx(two(-2.0, -1.5))
    own = two(2.5, 1.0)
    expected = two(-(4 * own), -(own + 2 * (1 - own)))
    assert first(given(LevelK(2, interests="opposed"), table))[0] == pytest.approx(expected)


@pytest.mark.parametrize("interests", ["common", "opposed"])
@pytest.mark.parametrize("level", range(5))
def test_against_one_reply_at_a_time(level: int, interests: str) -> None:
    table = 3 * torch.randn(2, 3, 4, 5, dtype=torch.float64)
    prior = given(LevelK(level, 0.7, interests), table)  # type: ignore[arg-type]
    sign = {"common": 1.0, "opposed": -1.0}[interests]

    def opponents(level: int, q: Tensor) -> Tensor:
        if level == 0:
            return torch.full((5,), 0.2, dtype=q.dtype)
        own = learner(level - 1, q)
        return torch.stack([sign * (own * q[:, b]).sum() / 0.7 for b in range(5)]).softmax(0)

    def learner(level: int, q: Tensor) -> Tensor:
        if level == 0:
            return torch.full((4,), 0.25, dtype=q.dtype)
        others = opponents(level - 1, q)
        return torch.stack([(others * q[a]).sum() / 0.7 for a in range(4)]).softmax(0)

    obs = torch.tensor([[0, 2, 1, 0], [1, 1, 0, 2]])
    probabilities = prior(obs).probs
    for r in range(2):
        for i in range(4):
            torch.testing.assert_close(probabilities[r, i], opponents(level, table[r, obs[r, i]]))


def test_cold_replies_are_best_replies() -> None:
    """In the climbing game C is best against a uniform player and against C as a row, B against C as a column."""
    for level, played in [(1, "C"), (2, "C"), (3, "B"), (4, "B")]:
        best = [float(action == played) for action in "ABC"]
        assert first(given(LevelK(level, 0.01), CLIMBING)) == pytest.approx(best)


def test_two_opponents_reply_as_one() -> None:
    """The probabilities are those of joint actions; only one of four is good for everybody."""
    table = torch.zeros(2, 4, dtype=torch.float64)
    table[:, 2] = 3.0
    seat = Seat(0, (Discrete(1),) * 3, (Discrete(2), Discrete(2), Discrete(2)), 1, dtype=torch.float64)
    prior = LevelK().bind(seat, seat.opponent_action, [seat.observation])
    values = cast(Reads, _Values(table.view(1, 1, 2, 4)))
    assert first(lambda obs: prior.given(values, obs))[2] == pytest.approx(math.exp(3) / (math.exp(3) + 3))


def test_the_prior_follows_the_critic_that_the_model_reads() -> None:
    seat = Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), 1, dtype=torch.float64)
    critic, target = (TabularCritic().bind(seat) for _ in range(2))
    prior = LevelK().bind(seat, seat.opponent_action, [seat.observation])
    model = ControlModel(seat, prior, critic, ExponentialOptimality())
    obs = torch.zeros(1, 1, dtype=torch.int64)
    for read in (critic, target):
        means = read.values[0, 0].mean(0).tolist()
        (probability, _) = replace(model, critic=read).opponent_prior(obs).table().exp().flatten().tolist()
        assert probability == pytest.approx(two(*means))


def test_in_a_learner_it_reads_the_learners_values_and_owns_nothing() -> None:
    game = MatrixGame("climbing")
    learner = Rommeo(opponent_prior=LevelK(1), guide=OpponentFirst(Optimal(), Optimal()), critic=TabularCritic())
    bound = learner.bind(Seat(0, game.observations, game.action_spaces, 2, dtype=torch.float64))
    bound.critic.values[:] = torch.tensor(CLIMBING, dtype=torch.float64)
    belief = bound.beliefs(torch.zeros(2, 1, dtype=torch.int64), {}, 1)
    assert belief["opponent_prior"] is not None
    expected = torch.tensor(CLIMBING, dtype=torch.float64).mean(0).softmax(0)
    torch.testing.assert_close(belief["opponent_prior"], expected.expand(2, 1, 3))
    assert list(bound.opponent_prior.modules()) == [bound.opponent_prior]
    assert not bound.opponent_prior.state_dict()


def test_without_a_model_it_says_what_it_lacks() -> None:
    seat = Seat(0, (Discrete(1),) * 2, (Discrete(2), Discrete(2)), 1)
    message = "^LevelK got no model to read values from, expected to be the opponent prior of a learner"
    with pytest.raises(IncompatibleError, match=message):
        LevelK().bind(seat, seat.opponent_action, [seat.observation])(torch.zeros(1, 1, dtype=torch.int64))
    bound = Rommeo(opponent_prior=Uniform(), guide=OpponentFirst(LevelK(), Optimal()), critic=TabularCritic()).bind(
        seat
    )
    with pytest.raises(IncompatibleError, match=message):
        bound.act(torch.zeros(1, 1, dtype=torch.int64), {})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"level": -1}, "^level: got -1, expected an integer that is not negative"),
        ({"temperature": 0.0}, r"^temperature: got 0\.0, expected a positive number"),
        ({"temperature": math.nan}, "^temperature: got nan"),
        ({"interests": "mixed"}, "^interests: got 'mixed', expected common or opposed"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LevelK(**wrong)


def test_continuous_actions_are_refused() -> None:
    seat = Seat(0, (Discrete(1),) * 2, (Box(0, 1), Box(0, 1)), 1)
    with pytest.raises(IncompatibleError, match="LevelK got Box"):
        LevelK().bind(seat, seat.opponent_action, [seat.observation])
