"""Hidden types: from which populations, of whom, who may see them; and repeated matrix games with such opponents."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from inference_marl.config.build import construct
from inference_marl.config.together import together
from inference_marl.experiment import Experiment
from inference_marl.games import (
    BayesianGame,
    BayesianMatrixGame,
    DirichletTypes,
    Guard,
    ListedTypes,
    MatrixGame,
    MixedTypes,
    Scaled,
    ShellTypes,
    Types,
    UniformTypes,
)
from inference_marl.learners import Stationary
from inference_marl.learners.scripts import BayesOracle, PlaysItsType
from inference_marl.play import Collector, GameSimulator, Tasks
from inference_marl.types import Game

CPU = torch.device("cpu")
RPS = "rock_paper_scissors"


def guard(**populations: Types) -> Guard:
    found: Mapping[str, Types] = populations or {
        "training": UniformTypes(-0.7, 0.7, 32),
        "interpolated": UniformTypes(-0.7, 0.7, 10),
        "extrapolated": ShellTypes(0.8, 1.0, 20),
    }
    return Guard(found)


def types_of(game: Game, population: str, replicates: int = 3) -> np.ndarray[Any, Any]:
    """All types of a population, `replicates x opponents x features`."""
    tasks = torch.tensor(game.populations[population]).expand(replicates, -1)
    found = game.hidden_type(tasks)
    assert found is not None
    assert found.dtype == torch.float64
    return found.numpy()


# Populations


def test_populations_are_ranges_of_tasks_in_their_order() -> None:
    game = guard()
    assert game.populations == {"training": range(32), "interpolated": range(32, 42), "extrapolated": range(42, 62)}
    assert game.tasks == 62
    assert Scaled(game, 2.0).populations == game.populations
    assert MatrixGame().populations == {}
    assert MatrixGame().hidden_type(torch.zeros(1, 1, dtype=torch.int64)) is None


@pytest.mark.parametrize(
    ("types", "distribution"),
    [
        (UniformTypes(-0.7, 0.5, 300), stats.uniform(-0.7, 1.2)),
        (UniformTypes([-1, -0.5, 0, 0, 0, 0], [1, 0.5, 1, 1, 1, 1], 300), None),
    ],
)
def test_boxes(types: UniformTypes, distribution: Any) -> None:
    found = types_of(guard(all=types), "all")
    if distribution is not None:
        assert stats.kstest(found.ravel(), distribution.cdf).pvalue > 0.01
        return
    for number, (low, high) in enumerate([(-1, 1), (-0.5, 0.5), (0, 1)]):
        assert stats.kstest(found[..., number].ravel(), stats.uniform(low, high - low).cdf).pvalue > 0.01


def test_shells_are_far_out_on_every_axis() -> None:
    found = types_of(guard(all=ShellTypes(0.8, 1.0, 300)), "all")
    assert stats.kstest(np.abs(found).ravel(), stats.uniform(0.8, 0.2).cdf).pvalue > 0.01
    assert abs(np.mean(found > 0) - 0.5) < 0.02
    assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("concentration", [1.0, [0.5, 2.0, 3.0], 1e-3])
def test_dirichlet(concentration: Any) -> None:
    found = types_of(BayesianMatrixGame(RPS, {"all": DirichletTypes(concentration, 500)}), "all", replicates=2)
    assert np.allclose(found.sum(-1), 1)
    alpha = np.broadcast_to(concentration, 3)
    for number in range(3) if alpha.max() > 0.1 else ():
        expected = stats.beta(alpha[number], alpha.sum() - alpha[number])
        assert stats.kstest(found[..., number].ravel(), expected.cdf).pvalue > 0.01


def test_listed_types_are_the_same_in_all_replicates() -> None:
    points = [[0.2, 0.3, 0.5], [1, 0, 0]]
    assert (types_of(BayesianMatrixGame(RPS, {"all": ListedTypes(points)}), "all") == np.array(points)).all()


def test_types_depend_on_seed_replicate_population_and_number_alone() -> None:
    before = torch.get_rng_state()
    game = guard()
    found = {name: types_of(game, name) for name in game.populations}
    assert len(np.unique(np.concatenate([each.reshape(-1, 6) for each in found.values()]), axis=0)) == 3 * 62
    for twin in (guard(), pickle.loads(pickle.dumps(game)), construct(Game, game.describe(), "game")):
        assert all((types_of(twin, name) == found[name]).all() for name in found)
    assert (types_of(game, "training", 5)[:3] == found["training"]).all()
    other = Guard({"training": UniformTypes(-0.7, 0.7, 32, seed=1)})
    assert not (types_of(other, "training") == found["training"]).any()
    assert torch.equal(torch.get_rng_state(), before)


def test_opponents_stay_as_they_are_if_another_population_grows() -> None:
    far = ShellTypes(0.8, 1.0, 20)
    small, large = (guard(training=UniformTypes(-0.7, 0.7, count), far=far) for count in (32, 40))
    assert (types_of(large, "training")[:, :32] == types_of(small, "training")).all()
    assert (types_of(large, "far") == types_of(small, "far")).all()
    assert (types_of(guard(far=far), "far") == types_of(small, "far")).all()


def test_opponents_stay_as_they_are_from_one_version_to_the_next() -> None:
    """Random numbers are of seed, replicate, number and name: results that were published are of these opponents."""
    game = guard(training=UniformTypes(-0.7, 0.7, 32), far=ShellTypes(0.8, 1.0, 20, seed=3))
    for number in (0, 31):
        expected = np.random.default_rng([0, 2, number, *b"training"]).uniform(-0.7, 0.7, 6)
        assert (types_of(game, "training")[2, number] == expected).all()
    random = np.random.default_rng([3, 1, 4, *b"far"])
    signs = 2 * random.integers(2, size=6) - 1
    assert (types_of(game, "far")[1, 4] == signs * random.uniform(0.8, 1, 6)).all()


def test_mixtures() -> None:
    """First the opponents of one part, then those of the next, which do not change with the size of the first."""
    points = [[0.1] * 6, [0.2] * 6]

    def mixed(count: int) -> Guard:
        return guard(all=MixedTypes([UniformTypes(-0.1, 0.1, count), ShellTypes(0.9, 1, 5), ListedTypes(points)]))

    game = mixed(7)
    assert game.populations == {"all": range(14)}
    found = types_of(game, "all")
    near, far, listed = np.split(found, [7, 12], axis=1)
    assert np.abs(near).max() <= 0.1
    assert np.abs(far).min() >= 0.9
    assert (listed == np.array(points)).all()
    assert len(np.unique(np.concatenate([near, far], 1).reshape(-1, 6), axis=0)) == 3 * 12
    assert (types_of(construct(Game, game.describe(), "game"), "all") == found).all()
    larger = types_of(mixed(30), "all")
    assert (larger[:, :7] == near).all()
    assert (larger[:, 30:] == found[:, 7:]).all()
    alike = types_of(guard(all=MixedTypes([UniformTypes(-0.1, 0.1, 3), UniformTypes(-0.1, 0.1, 3)])), "all")
    assert not (alike[:, :3] == alike[:, 3:]).any()


def test_a_mixture_draws_as_the_part_that_has_the_number() -> None:
    mixed = MixedTypes([ListedTypes([[0.1], [0.2]]), UniformTypes(-1, 1, 3), ListedTypes([[0.3]])])
    random = np.random.default_rng(0)
    assert [mixed.draw(1, number, random).item() for number in (0, 1, 5)] == [0.1, 0.2, 0.3]
    assert mixed.draw(1, 3, np.random.default_rng(1)) == np.random.default_rng(1).uniform(-1, 1, 1)


def test_only_the_opponent_observes_its_type() -> None:
    game = guard()
    task = torch.tensor([[0, 40], [61, 3]])
    one, other = (
        game.observe(game.reset(2, 2, CPU, torch.float32, task) | {"x": torch.zeros(2, 2, 2)}).obs for _ in range(2)
    )
    assert torch.equal(one[1][..., -6:], game.hidden_type(task).float())
    assert torch.equal(one[0], other[0])
    hidden = game.observe(game.reset(2, 2, CPU, torch.float32, task.flip(0)) | {"x": torch.zeros(2, 2, 2)}).obs
    assert torch.equal(hidden[0], one[0])
    assert not torch.equal(hidden[1], one[1])


def test_without_tasks_opponents_are_of_the_first_population() -> None:
    game = guard()
    found = game.reset(2, 500, CPU, torch.float64)["type"]
    assert len(found[0].unique(dim=0)) == 32
    known = torch.from_numpy(types_of(game, "training"))
    assert all((found[0, each] == known[0]).all(-1).any() for each in range(500))


@pytest.mark.parametrize(
    ("populations", "message"),
    [
        ({}, "populations: got none, expected at least one"),
        ({"a b": UniformTypes(0, 1, 2)}, "populations: got one called 'a b', expected letters, digits and _"),
        ({"all": 3}, "populations.all: got 3, expected types such as UniformTypes"),
        ({"all": UniformTypes([0, 0], 1, 2)}, "populations.all.low: got 2 numbers, expected 6"),
        (
            {"all": MixedTypes([ShellTypes(0, 1, 1), ListedTypes([[0, 0]])])},
            r"populations.all.parts\[1\].points: got 2 numbers, expected 6",
        ),
        ({"all": ListedTypes([[0, 0]])}, "populations.all.points: got 2 numbers, expected 6"),
        ({"all": UniformTypes(2, 2, 1)}, "populations.all: got types of numbers from 2 to 2, expected -1 to 1"),
        ({"a": UniformTypes(0, 1, 1), "b": ShellTypes(2, 3, 1)}, "populations.b: got types of numbers from"),
    ],
)
def test_refuses_populations(populations: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Guard(populations)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformTypes(1, 0, 3), "low: got 1 with high = 0, expected as many numbers, none above its high"),
        (lambda: UniformTypes([0, 0], [1, 1, 1], 3), "low: got"),
        (lambda: UniformTypes([], [], 3), "low: got"),
        (lambda: UniformTypes(0, 1, 0), "count: got 0, expected a positive integer"),
        (lambda: ShellTypes(1.0, 0.5, 3), "inner: got 1.0, expected at most outer = 0.5"),
        (lambda: DirichletTypes([1.0, 0.0], 3), r"concentration\[1\]: got 0.0, expected a positive number"),
        (lambda: ListedTypes([0.5]), r"points\[0\]: got 0.5, expected a list"),
        (lambda: ListedTypes([[0.5], [0.5, 1]]), "points: got 2 entries"),
        (lambda: ListedTypes([]), "points: got"),
        (lambda: MixedTypes([]), "parts: got none, expected at least one population"),
        (
            lambda: MixedTypes([UniformTypes(0, 1, 2), 3]),
            r"parts\[1\]: got 3, expected a population such as UniformTypes$",
        ),
        (lambda: MixedTypes(UniformTypes(0, 1, 2)), "parts: got UniformTypes, expected a list of populations$"),
    ],
)
def test_refuses_types(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_arms_of_an_ablation_meet_the_same_opponents() -> None:
    """They are not played as one, in which they would be replicates with other numbers."""
    populations: Mapping[str, Types] = {"training": DirichletTypes(1.0, 6)}
    arms = {name: [BayesOracle(concentration=size), PlaysItsType()] for name, size in (("a", 1.0), ("b", 2.0))}
    levels = {name: {"prior": name} for name in arms}
    made = Experiment(BayesianMatrixGame(RPS, populations, horizon=2), arms, replicates=3, levels=levels)  # type: ignore[arg-type]
    assert [len(each.arms) for each in together(made)] == [1, 1]


def test_a_game_paid_in_other_units_has_the_same_opponents() -> None:
    for game in (guard(), MatrixGame()):
        scaled = pickle.loads(pickle.dumps(Scaled(game, 2.0)))
        assert scaled.populations == game.populations
        for population in game.populations:
            assert (types_of(scaled, population) == types_of(game, population)).all()


# Repeated matrix games


def test_rounds_are_those_of_the_matrix_game() -> None:
    for payoff, stochastic in (("stag_hunt", False), (RPS, False), ([[[1.0, 2, 3]], [[4, 5, 6]]], False)):
        populations: Mapping[str, Types] = {"all": DirichletTypes(1.0, 4)}
        game = BayesianMatrixGame(payoff, populations, horizon=3, stochastic=stochastic)
        sizes = [range(space.features) for space in game.action_spaces]
        state = game.reset(2, 3, CPU, torch.float64)
        for cell in itertools.product(*sizes):
            step = game.step(state, [torch.full((2, 3), action) for action in cell])
            assert (step.rewards == game.expected_payoff[(slice(None), *cell)]).all()
            assert not step.terminated.any()
            assert torch.equal(step.state["type"], state["type"])
        assert game.observe(state).obs[0].unique().tolist() == [0]


def test_what_varies_is_kept_for_a_whole_trial() -> None:
    """Over episodes, and seen in every transition's task."""
    game = BayesianMatrixGame(RPS, {"training": DirichletTypes(1.0, 6), "other": DirichletTypes(1.0, 5)}, horizon=2)
    experiment = Experiment(
        game,
        {"a": [Stationary(), Stationary()]},
        replicates=2,
        environments=3,
        tasks=Tasks(population="other", episodes=3),
    )
    steps = Collector(GameSimulator(game, 2, 3), experiment.bind("a"), tasks=experiment.tasks).collect(30).stacked
    assert steps.task.min() >= 6
    trials = steps.obs[1].unflatten(0, (5, 6))
    assert (trials == trials[:, :1]).all()
    assert torch.equal(steps.obs[1][0], game.hidden_type(steps.task[0]).float())


@pytest.mark.parametrize(
    ("payoff", "types", "message"),
    [
        ([[[[1, 0]] * 2] * 2] * 3, DirichletTypes(1.0, 2), "payoff: got one of 3 agents, expected one of two"),
        (RPS, DirichletTypes([1.0, 1.0], 2), "populations.all.concentration: got 2 numbers, expected 3"),
        (RPS, UniformTypes(0, 1, 2), "populations.all: got types of numbers whose sums are from"),
        (RPS, ListedTypes([[1.5, -0.5, 0]]), "populations.all: got types of numbers from -0.5 to 1.5, expected 0 to 1"),
    ],
)
def test_refuses_matrix_games(payoff: Any, types: Types, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        BayesianMatrixGame(payoff, {"all": types})


def test_the_base_is_only_a_base() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BayesianGame({"all": UniformTypes(0, 1, 2)}, 0, 1, 2)  # type: ignore[abstract]
