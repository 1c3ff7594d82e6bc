"""Forecasts that are judged while trials are played: by hand, of who is calibrated, and without any trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
import xarray as xr
import yaml
from torch import Tensor

from inference_marl.config.files import build, dump
from inference_marl.experiment import Experiment
from inference_marl.games import MatrixGame
from inference_marl.learners import Stationary
from inference_marl.play import Stranger, Tasks, TrialEvaluation
from inference_marl.play.trials import judged
from inference_marl.statistics.adaptation import DRAWS, NOMINAL
from inference_marl.types import LATENT_SD, Actor, Experience, Memory, Start, seed_streams
from tests.learners.boxes import ThreeBoxes
from tests.learners.latent.matching import E, Homebody, Matching, R, pearl, seated
from tests.runs.small_runs import dataset, run

FORECASTS = [f"forecast_{what}_after_{number}" for number in (0, 1) for what in ("coverage", "score")]
WIDTHS = ["posterior_sd_after_0", "posterior_sd_after_1"]


def trials(**changes: Any) -> TrialEvaluation:
    settings: dict[str, Any] = {
        "every": 6,
        "environments": 5,
        "tasks": Tasks([0, 1], episodes=2),
        "after": (0, 1),
        "forecasts": True,
    }
    return TrialEvaluation(**settings | changes)


class Foreseeing(Actor):
    """It is told where its opponent's home is, and thinks that it is so far from there as it says.

    Args:
        sd: how far, where `Homebody` is 0.3 from it.
    """

    reads_task = True

    def __init__(self, sd: float = 0.3) -> None:
        self.sd = sd

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        assert start.task is not None
        return {"home": 2.0 * start.task.to(self.seat.dtype).unsqueeze(-1) - 1}

    def policy(self, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> tuple[dist.Normal, Memory]:
        return dist.Normal(torch.zeros(*obs.shape[:2], 1), 0.1).to_event(1), memory

    def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
        home = memory["home"].unsqueeze(2).expand(-1, -1, draws, -1)
        expected = (home + self.sd * torch.randn_like(home)).clamp(-2, 2)
        widths = torch.tensor([0.5 * self.sd, 1.5 * self.sd]).expand(*obs.shape[:2], 2)
        return {"opponent_model": expected, LATENT_SD: widths}


def found(actor: Actor, **changes: Any) -> Mapping[str, Tensor]:
    evaluation, game = trials(**changes), Matching()
    seed_streams(0, torch.device("cpu"))
    actors = Experiment(game, {"it": [actor, Homebody()]}, replicates=R, environments=E).bind("it")
    return evaluation.measure(evaluation.play(game, evaluation.seated(actors)))


def test_who_is_calibrated_is_covered_as_often_as_promised() -> None:
    """The expected score of a normal that is right is its standard deviation over the root of pi."""
    right, sure = (found(Foreseeing(sd), environments=800) for sd in (0.3, 0.06))
    assert pytest.approx(0.9) == NOMINAL
    for number in (0, 1):
        assert right[f"forecast_coverage_after_{number}"].tolist() == pytest.approx([NOMINAL] * R, abs=0.02)
        assert right[f"forecast_score_after_{number}"].tolist() == pytest.approx([0.3 / math.pi**0.5] * R, abs=0.01)
        assert right[f"posterior_sd_after_{number}"].tolist() == pytest.approx([0.3] * R)
        assert (sure[f"forecast_coverage_after_{number}"] < 0.35).all()
        assert (sure[f"forecast_score_after_{number}"] > right[f"forecast_score_after_{number}"]).all()


class Echo(Foreseeing):
    """It expects just what its opponent did last."""

    def remember(self, memory: Memory, step: Experience) -> Memory:
        return {"home": step.opponent_actions[0].to(memory["home"])}


def test_a_learner_is_asked_before_it_sees() -> None:
    """Asked afterwards, it would always be right."""
    echoed = found(Echo(sd=0.01), environments=50)
    for number in (0, 1):
        assert (echoed[f"forecast_coverage_after_{number}"] < 0.3).all()


def test_asking_changes_nothing() -> None:
    """Neither what is played, nor is anything asked of a learner without an opponent model."""
    modelling = pearl(trained_by="opponents", renewed="step")
    asked, plain = found(modelling), found(modelling, forecasts=False)
    assert set(asked) - set(plain) == {*FORECASTS, *WIDTHS}
    for name, value in plain.items():
        assert torch.equal(value, asked[name]), name
    assert all(value.shape == (R,) and bool(value.isfinite().all()) for value in asked.values() if value.dim() == 1)
    assert (asked["posterior_sd_after_1"] < asked["posterior_sd_after_0"]).all()
    assert {name for name in found(pearl()) if "after" in name} == {"return_after_0", "return_after_1", *WIDTHS}
    assert {name for name in found(pearl("none")) if "after" in name} == {"return_after_0", "return_after_1"}


def test_missing_numbers_stay_missing() -> None:
    class Broken(Foreseeing):
        def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
            expected = dict(super().beliefs(obs, memory, draws))
            expected["opponent_model"][1, 2, 3] = math.nan
            return expected

    measured = found(Broken())
    for name in FORECASTS:
        assert measured[name].isnan().tolist() == [False, True, False]


def step_of(arm: Actor, game: Any, action: Tensor, others: tuple[Tensor, ...]) -> Experience:
    seat = Experiment(game, {"it": arm}, dtype="float64").bind("it")[0].seat
    nothing, no = torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool)
    return Experience(seat, nothing, action, others, nothing.double(), nothing, no, no)


def test_scores_by_hand() -> None:
    """Of discrete actions a log-probability; of several opponents' boxes the mean over all coordinates."""
    one = torch.tensor([[1]])
    step = step_of(Stationary(), MatrixGame("climbing"), one, (one,))
    scores = judged({"opponent_model": torch.tensor([[[0.2, 0.7, 0.1]]])}, step)
    assert {name: value.tolist() for name, value in scores.items()} == {"forecast_score": [[pytest.approx(-0.3566749)]]}
    boxes = tuple(torch.tensor([[each]], dtype=torch.float64) for each in ([2.0], [0.0, 4.0]))
    step = step_of(Stationary(), ThreeBoxes(), torch.zeros(1, 1, 2), boxes)
    draws = torch.linspace(-1, 1, DRAWS, dtype=torch.float64).view(1, 1, DRAWS, 1)  # 0.0 is covered; 2.0, 4.0 are not
    scores = judged({"opponent_model_0": draws, "opponent_model_1": draws.expand(-1, -1, -1, 2)}, step)
    assert scores["forecast_coverage"].tolist() == [[pytest.approx(1 / 3)]]
    from_each = torch.stack([(draws - value).abs().mean() for value in (2.0, 0.0, 4.0)])
    apart = (draws.flatten()[:, None] - draws.flatten()).abs().sum() / (DRAWS * (DRAWS - 1)) / 2
    assert scores["forecast_score"].tolist() == [[pytest.approx(float((from_each - apart).mean()))]]
    assert judged({"policy": draws}, step) == {}


@pytest.mark.slow
def test_nothing_of_it_reaches_training(tmp_path: Path) -> None:
    arm = [pearl(trained_by="both", actor_reads="draw"), Homebody()]
    settings: dict[str, Any] = {"replicates": 2, "environments": E, "steps": 12, "collect": 6, "draws": 2}
    plain = Experiment(Matching(), {"a": arm}, tasks=Tasks([0, 1], episodes=2), **settings)
    asked = plain.replace(evaluation={"new": trials()})
    watched = plain.replace(evaluation={"new": trials(forecasts=False)})
    folders = [run(each, tmp_path, f"{i}") for i, each in enumerate((plain, watched, asked))]
    for name in ("posterior.nc", "actions.nc"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name
    without, unasked, measured = (dataset(folder, "metrics.nc").drop_attrs() for folder in folders)
    xr.testing.assert_identical(without, measured[list(without)])
    xr.testing.assert_identical(unasked, measured[list(unasked)])
    assert {str(name) for name in measured} - {str(name) for name in unasked} == {
        f"{name}_new" for name in (*FORECASTS, *WIDTHS)
    }
    assert measured["forecast_score_after_1_new"].notnull().all()
    one, *others = (torch.load(next(folder.glob("checkpoints/*.pt")))["actors"] for folder in folders)
    for other in others:
        torch.testing.assert_close(other, one, rtol=0, atol=0)
    assert build(yaml.safe_load(dump(asked))).describe() == asked.describe()


def test_parameters_are_bitwise_the_same_after_it() -> None:
    game, evaluation = Matching(), trials()
    actors = seated(pearl(trained_by="opponents"))
    before = {name: value.clone() for name, value in actors[0].state_dict().items() if isinstance(value, Tensor)}
    stream = torch.get_rng_state()
    evaluation.measure(evaluation.play(game, evaluation.seated(actors)))
    after = actors[0].state_dict()
    assert before.keys() == {name for name, value in after.items() if isinstance(value, Tensor)}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), stream)


def test_a_stranger_says_what_it_believes() -> None:
    """Whoever sits there is asked, also the next replicate's learner."""

    class OfReplicate(Foreseeing):
        reads_task = False

        def begin(self, start: Start, memory: Memory | None) -> Memory:
            return {"home": torch.zeros(*start.episode.shape, 1)}

        def beliefs(self, obs: Tensor, memory: Memory, draws: int) -> Mapping[str, Tensor]:
            number = torch.arange(R).view(-1, 1, 1).expand(*obs.shape[:2], 1)
            return {**super().beliefs(obs, memory, draws), LATENT_SD: number.to(obs)}

    own, foreign = (found(OfReplicate(), seats=seats)["posterior_sd_after_0"] for seats in ({}, {0: Stranger()}))
    assert (own.tolist(), foreign.tolist()) == ([0, 1, 2], [1, 2, 0])


def test_refuses_what_cannot_be_forecast() -> None:
    class Mixed(ThreeBoxes):
        tasks = 2

        def __init__(self) -> None:
            super().__init__()
            self.action_spaces = (self.action_spaces[0], self.action_spaces[1], MatrixGame("climbing").action_spaces[0])

    with pytest.raises(ValueError, match=r"^forecasts: got opponents with actions Box and Discrete, expected some"):
        trials().check(Mixed())
    trials(forecasts=False).check(Mixed())
    trials(seat=2).check(Mixed())
    declared = {metric.name: metric for metric in trials().declared(Matching())}
    assert {*FORECASTS, *WIDTHS} <= declared.keys()
    discrete = {metric.name: metric for metric in trials(seat=1).declared(Matching(discrete=True))}
    assert "forecast_coverage_after_0" not in discrete
    score = discrete["forecast_score_after_1"]
    assert (score.label, score.unit) == ("log score of forecasts after an episode", "nats")
