from __future__ import annotations

import math

import numpy as np
import pytest

from inference_marl.statistics.certainty import agreement, certainty
from tests import run_folder
from tests.run_folder import beliefs


def test_entropy_and_favourite_by_hand() -> None:
    nan = math.nan
    model = [[[[[0.5, 0.5, nan]], [[1.0, 0.0, 0.0]]]], [[[[0.25, 0.75, nan]], [[1 / 3] * 3]]]]
    found = certainty(beliefs("discrete", opponent_model=model), "it")
    assert found is not None
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert found.entropy == pytest.approx([math.log(2) / 2, (quarter + math.log(3)) / 2])
    assert found.favourite == pytest.approx([0.75, (0.75 + 1 / 3) / 2])
    assert np.isnan(found.spread).all()


def test_entropy_of_draws_is_that_of_a_normal() -> None:
    model = [[[[[[-0.5], [0.5]]]]]]  # standard deviation 0.5
    found = certainty(beliefs("continuous", opponent_model=model), "it")
    assert found is not None
    assert found.spread == pytest.approx([0.5])
    assert found.entropy == pytest.approx([math.log(0.5 * math.sqrt(2 * math.pi * math.e))])


def test_seeds_agree_by_hand() -> None:
    # Agent 0: three seeds of four favour the first action; agent 1: all favour the second.
    first, second = [0.9, 0.1], [0.3, 0.7]
    model = [[[[one], [second]]] for one in (first, first, first, second)]
    found = agreement(beliefs("discrete", opponent_model=model), "it")
    assert found is not None
    assert found.share == pytest.approx((3 / 4 + 1) / 2)
    # The mean belief of agent 0 is 0.75: three seeds are 0.15 from it, one 0.45; agent 1 has no spread.
    assert found.spread == pytest.approx([0.075, 0.075, 0.075, 0.225])


def test_a_uniform_belief_favours_nothing() -> None:
    noise = 1e-7 * np.random.default_rng(0).standard_normal((8, 1, 2, 1, 3))
    found = agreement(beliefs("discrete", opponent_model=1 / 3 + noise), "it")
    assert found is not None
    assert found.share == pytest.approx(1 / 3)
    tied = agreement(beliefs("discrete", opponent_model=[[[[[0.5, 0.5, 0]]]], [[[[0, 1, 0]]]]]), "it")
    assert tied is not None
    assert tied.share == pytest.approx(1.5 / 2)


def test_agreement_by_chance_is_that_of_the_most_common_of_random_favourites() -> None:
    found = agreement(beliefs("discrete", opponent_model=np.full((2, 1, 1, 1, 2), 0.5)), "it")
    assert found is not None
    # Two seeds agree with probability 1/2: (1 + 1/2) / 2. 10,000 draws with deviation 1/4, five standard errors.
    assert found.chance == pytest.approx(0.75, abs=5 * 0.25 / 100)


def test_agreement_of_draws_is_about_their_means() -> None:
    model = [[[[[[0.0], [0.2]]]]], [[[[[0.4], [0.6]]]]]]
    found = agreement(beliefs("continuous", opponent_model=model), "it")
    assert found is not None
    assert math.isnan(found.share)
    assert found.spread == pytest.approx([0.2, 0.2])


def test_learners_without_a_model() -> None:
    posterior = run_folder.discrete(3, 4)["posterior"]
    assert certainty(posterior, "wolf_phc") is None
    assert agreement(posterior, "wolf_phc") is None
    assert certainty(posterior.drop_vars("opponent_prior"), "rommeo_q", "opponent_prior") is None
