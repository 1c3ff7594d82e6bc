"""Arms that differ in numbers only form groups, and a group is an experiment of one arm."""

from pathlib import Path
from typing import Any

import pytest

from inference_marl.config.check import check
from inference_marl.config.factors import ablation
from inference_marl.config.files import build, dump, load
from inference_marl.config.together import Together, together
from inference_marl.config.tournament import tournament
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.guides import Empirical, OpponentFirst, Optimal
from inference_marl.inference.reward_range import OfRange
from inference_marl.inference.schedules import ByReplicate, ExponentialDecay, Linear
from inference_marl.learners import Rommeo, Stationary
from inference_marl.learners.tabular import Boltzmann, EpsilonGreedy, IndependentQ
from inference_marl.models import EmpiricalFrequency, TabularCritic, Uniform
from inference_marl.types import Actor
from tests.config.small_files import base, described


def rommeo(**changes: Any) -> Rommeo:
    parts: dict[str, Any] = {
        "opponent_prior": EmpiricalFrequency(window=5),
        "guide": OpponentFirst(Optimal(), Optimal()),
        "critic": TabularCritic(),
        "temperature": 1.0,
    }
    return Rommeo(**parts | changes)


def crossed(*arms: Actor | list[Actor], **settings: Any) -> Experiment:
    """An ablation of one factor, whose levels are the arms: a, b and so on."""
    named = dict(zip("abcdefgh", arms, strict=False))
    return Experiment(
        MatrixGame("climbing"),
        named,
        **{"replicates": 3, "steps": 5, "levels": {name: {"factor": name} for name in named}} | settings,
    )


def names(found: list[Together]) -> list[str]:
    return ["".join(group.arms) for group in found]


def test_arms_that_differ_in_a_number_are_one_with_more_replicates() -> None:
    experiment = crossed(rommeo(kl_weight=1.0), rommeo(kl_weight=0.1), rommeo(kl_weight=Linear(1.0, 0.5, 9)), seed=7)
    (group,) = together(experiment)
    assert group.arms == ("a", "b", "c")
    merged = group.experiment
    assert list(merged.arms) == ["a"]
    assert (merged.replicates, merged.steps, merged.seed) == (9, 5, 7)
    assert (merged.levels, merged.published) == ({}, {})
    weights = ByReplicate([1.0, 0.1, Linear(1.0, 0.5, 9)])
    assert described(merged, "arms", "a") == rommeo(kl_weight=weights).describe()
    check(merged)
    assert experiment.replicates == 3


def test_numbers_may_differ_in_several_places_and_kinds() -> None:
    arms = [
        rommeo(temperature=1.0, critic=TabularCritic(rate=0.5), discount=0.9),
        rommeo(temperature=ExponentialDecay(5.0, 0.1, 1), critic=TabularCritic(rate=1), discount=0.9),
    ]
    (group,) = together(crossed(*arms))
    expected = rommeo(
        temperature=ByReplicate([1.0, ExponentialDecay(5.0, 0.1, 1)]),
        critic=TabularCritic(rate=ByReplicate([0.5, 1])),
        discount=0.9,
    )
    assert described(group.experiment, "arms", "a") == expected.describe()


def test_arms_stay_alone_where_replicates_could_be_taken_for_draws() -> None:
    arms = [rommeo(kl_weight=1.0), rommeo(kl_weight=0.1)]
    assert names(together(crossed(*arms, draws=6))) == ["a", "b"]
    assert names(together(crossed(*arms, draws=3))) == ["ab"]
    arms = [rommeo(kl_weight=weight, particles=6) for weight in (1.0, 0.1)]
    assert names(together(crossed(*arms))) == ["a", "b"]


def test_arms_that_are_equal_are_one_too() -> None:
    (group,) = together(crossed(rommeo(), rommeo()))
    assert group.experiment.replicates == 6
    assert described(group.experiment, "arms", "a") == rommeo().describe()


@pytest.mark.parametrize(
    "other",
    [
        rommeo(opponent_prior=Uniform()),
        rommeo(opponent_prior=EmpiricalFrequency(window=6)),
        rommeo(guide=OpponentFirst(Empirical(), Optimal())),
        rommeo(critic=TabularCritic(initial=2.0)),
        rommeo(replay=5),
        rommeo(warmup=1),
        rommeo(max_gradient_norm=1.0),
        rommeo(critic=TabularCritic(target_rate=0.5)),
        rommeo(temperature=ByReplicate([1.0, 2.0, 3.0])),
        IndependentQ(exploration=Boltzmann()),
        [rommeo(), rommeo()],
    ],
    ids=lambda other: repr(other)[:1],
)
def test_arms_that_differ_in_more_are_alone(other: Any) -> None:
    experiment = crossed(rommeo(), other)
    found = together(experiment)
    assert names(found) == ["a", "b"]
    assert all(group.experiment is experiment for group in found)


def test_what_differs_by_replicate_already_is_alone() -> None:
    arm = rommeo(temperature=ByReplicate([1.0, 2.0, 3.0]))
    assert names(together(crossed(arm, arm))) == ["a", "b"]


def test_explorations_of_another_class_are_apart() -> None:
    arms = [IndependentQ(exploration=each) for each in (Boltzmann(), EpsilonGreedy(), Boltzmann(2.0), EpsilonGreedy(1))]
    found = together(crossed(*arms))
    assert names(found) == ["ac", "bd"]
    merged = IndependentQ(exploration=EpsilonGreedy(ByReplicate([0.1, 1])))
    assert described(found[1].experiment, "arms", "b") == merged.describe()


def test_groups_come_in_the_order_of_their_first_arms() -> None:
    priors = [EmpiricalFrequency(window=5), Uniform(), EmpiricalFrequency(window=5), Uniform(), EmpiricalFrequency()]
    arms = [rommeo(opponent_prior=prior, kl_weight=0.1 * (i + 1)) for i, prior in enumerate(priors)]
    found = together(crossed(*arms))
    assert names(found) == ["ac", "bd", "e"]
    assert [described(group.experiment, "arms", group.arms[0], "kl_weight") for group in found] == [
        *(ByReplicate([0.1 * (i + 1), 0.1 * (j + 1)]).describe() for i, j in ((0, 2), (1, 3))),
        0.1 * 5,
    ]


def test_lists_of_learners_are_merged_seat_by_seat() -> None:
    script = Stationary(probabilities=[1, 2, 3])
    arms = [[rommeo(kl_weight=weight), script] for weight in (1.0, 0.1)]
    other = [rommeo(), Stationary(probabilities=[3, 2, 1])]
    found = together(crossed(*arms, other))
    assert names(found) == ["ab", "c"]
    expected = [rommeo(kl_weight=ByReplicate([1.0, 0.1])), script]
    assert described(found[0].experiment, "arms", "a") == [each.describe() for each in expected]


def test_only_ablations_are_grouped() -> None:
    arms = {"a": rommeo(), "b": rommeo(kl_weight=0.1)}
    experiment = Experiment(MatrixGame("climbing"), arms, 3, 5)
    assert names(together(experiment)) == ["a", "b"]
    pairs = tournament(experiment)
    assert names(together(pairs)) == list(pairs.arms)


def test_published_numbers_stay_with_the_whole() -> None:
    experiment = crossed(rommeo(), rommeo(kl_weight=0.1), published={"b": {"reward": 1.0}}, source="a paper")
    assert together(experiment)[0].experiment.published == {}


def test_a_merged_experiment_can_be_written_and_read(tmp_path: Path) -> None:
    variants = {"full": {}, "uniform": {"opponent_prior": "Uniform"}}
    experiment = build(base() | {"factors": {"kl_weight": [1.0, 0.1], "variant": variants}, "replicates": 2})
    found = together(experiment)
    assert [group.arms for group in found] == [
        ("kl_weight_1-full", "kl_weight_0p1-full"),
        ("kl_weight_1-uniform", "kl_weight_0p1-uniform"),
    ]
    for group in found:
        (tmp_path / "merged.yaml").write_text(dump(group.experiment))
        assert load(tmp_path / "merged.yaml").describe() == group.experiment.describe()


def test_ablations_made_in_python_are_grouped() -> None:
    experiment = Experiment(MatrixGame("climbing"), {"a": rommeo()}, 3, 5)
    found = together(ablation(experiment, {"temperature": [1.0, 2.0], "warmup": [0, 2]}))
    assert [len(group.arms) for group in found] == [2, 2]


def test_fractions_of_the_range_differ_within_their_description() -> None:
    """Of the default's own temperature, and of one that is given."""
    factors = {"temperature.fraction": [0.001, 0.01]}
    (group,) = together(ablation(Experiment(MatrixGame("climbing"), {"a": Rommeo()}, 2, 3), factors))
    (merged,) = group.experiment.arms.values()
    assert isinstance(merged, Rommeo)
    assert isinstance(merged.temperature, OfRange)
    assert isinstance(merged.temperature.fraction, ByReplicate)
