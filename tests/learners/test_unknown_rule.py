"""LOLA against opponents of unknown rules: rules beside learners that have them, the limit of LOLA, and detection."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import xarray as xr
from torch import Tensor

from inference_marl import Experiment, run
from inference_marl.config import files as spec
from inference_marl.described import IncompatibleError, hyperparameters
from inference_marl.games import MatrixGame
from inference_marl.inference.returns import best_response_return, expected_return
from inference_marl.learners import Scripted, Stationary
from inference_marl.learners.lola import (
    LearningRule,
    Lola,
    LolaRule,
    LolaUnknownRule,
    NaiveGradient,
    NaiveRule,
    StaticRule,
    UnsteadyGradient,
)
from inference_marl.learners.lola.derivatives import ClosedForm, Derivatives, free_logits
from inference_marl.learners.lola.unknown_rule import RULES
from inference_marl.play import Collector, GameSimulator, update
from inference_marl.types import Actor, Game, Seat, Trajectory, seed_streams

LEARNERS = {
    "LolaUnknownRule": ("known, two agents", LolaUnknownRule),
    "LolaUnknownRule, of two rules": (
        "known, two agents",
        lambda: LolaUnknownRule(rules=[StaticRule(), LolaRule(step_size=0.5)], gate="step_size", update_every=2),
    ),
    "UnsteadyGradient": ("known, two agents", lambda: UnsteadyGradient(noise=0.5, after=1, until=3)),
    "Scripted": ("memory one", lambda: Scripted(probabilities=[[1, 0], [1, 0], [1, 3], [0, 1], [0, 1]])),
}
"""Cases that tests/test_contract.py drives through the contract."""

IPD = MatrixGame("prisoners_dilemma", horizon=50, memory=1, discount=0.96)
ROCK_PAPER_SCISSORS = [[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]
ZERO_SUM = [ROCK_PAPER_SCISSORS, [[-pays for pays in row] for row in ROCK_PAPER_SCISSORS]]
THREE = MatrixGame(ZERO_SUM, common=False, memory=1, horizon=10, discount=0.9)
CPU = torch.device("cpu")


def played(
    game: Game, players: Sequence[Actor], updates: int, replicates: int, seed: int = 0, steps: int = 50
) -> tuple[list[Actor], list[Tensor], Tensor]:
    """Who has played, both policies before every update, `updates x replicates x states x actions`, and the rules."""
    seed_streams(seed, CPU)
    spaces = (game.observations, game.action_spaces, replicates, 4)
    actors = [p.bind(Seat(i, *spaces, dtype=torch.float64, game=game)) for i, p in enumerate(players)]
    collector = Collector(GameSimulator(game, replicates, 4, dtype=torch.float64), actors)
    states = torch.arange(game.observations[0].features).expand(replicates, -1)
    seen: list[list[Tensor]] = [[], []]
    rules = []
    for _ in range(updates):
        for policies, actor in zip(seen, actors, strict=True):
            distribution, _ = actor.policy(states, {})
            assert distribution is not None
            policies.append(distribution.expand(states.shape).probs.detach().clone())
        update(actors, collector.collect(steps))
        if isinstance(actors[0], LolaUnknownRule):
            rules.append(actors[0].believed.weights.clone())
    return actors, [torch.stack(policies) for policies in seen], torch.stack(rules) if rules else torch.zeros(0)


def learner(actors: Sequence[Actor]) -> LolaUnknownRule:
    assert isinstance(actors[0], LolaUnknownRule)
    return actors[0]


def derivatives(game: Game, *logits: Tensor) -> Derivatives:
    dynamics = game.dynamics()
    assert dynamics is not None
    return ClosedForm(dynamics, game.discount, (free_logits, free_logits), (logits[0], logits[1]))


@pytest.mark.parametrize(
    ("rule", "make"),
    [
        (StaticRule(), lambda: NaiveGradient(step_size=0.0)),
        (NaiveRule(step_size=0.3), lambda: NaiveGradient(step_size=0.3)),
        (LolaRule(step_size=0.5, opponent_step_size=2.0), lambda: Lola(step_size=0.5, opponent_step_size=2.0)),
    ],
)
@pytest.mark.parametrize("game", [IPD, THREE])
@pytest.mark.parametrize("seat", [0, 1])
def test_a_rule_predicts_the_learner_that_has_it(
    rule: LearningRule, make: Callable[[], NaiveGradient], game: Game, seat: int
) -> None:
    seed_streams(3, CPU)
    spaces = (game.observations, game.action_spaces, 3)
    both = [make().bind(Seat(i, *spaces, dtype=torch.float64, game=game)) for i in (0, 1)]
    before = [each.logits.detach().clone() for each in both]
    expected = rule.change(derivatives(game, *before), seat)
    update(both, Collector(GameSimulator(game, 3, 1, dtype=torch.float64), both).collect(1))
    torch.testing.assert_close(both[seat].logits.detach() - before[seat], expected)


@pytest.mark.parametrize("game", [IPD, THREE])
def test_of_one_rule_and_known_logits_it_is_lola(game: Game) -> None:
    seed_streams(1, CPU)
    spaces = (game.observations, game.action_spaces, 4, 1)
    seats = [Seat(i, *spaces, dtype=torch.float64, game=game) for i in (0, 1)]
    unknown = LolaUnknownRule(rules=[NaiveRule()], opponent_step_size=0.7, max_change=None).bind(seats[0])
    lola, other = Lola(opponent_step_size=0.7).bind(seats[0]), NaiveGradient().bind(seats[1])
    lola.logits.data.copy_(unknown.logits)
    unknown.believed.mean = other.logits.detach().unsqueeze(1).clone()
    unknown.believed.covariance.mul_(1e-12)
    newest = Collector(GameSimulator(game, 4, 1, dtype=torch.float64), [unknown, other]).collect(5)
    update([lola, other], newest)
    before = other.logits.detach().clone()
    unknown.learn(newest, [])
    torch.testing.assert_close(unknown.logits, lola.logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(unknown.believed.mean[:, 0], before, rtol=0, atol=1e-6)  # it foresaw the step


def test_it_reads_no_opponent_and_shapes_as_far_as_it_believes_in_learning() -> None:
    seed_streams(0, CPU)
    gates = {"open": 1.0, "learning": 0.75, "step_size": 0.55}
    rules = [StaticRule(), NaiveRule(step_size=0.6), LolaRule()]
    change = torch.ones(2, 5, 1, dtype=torch.float64)
    for gate, share in gates.items():
        one = LolaUnknownRule(rules=rules, gate=gate, opponent_step_size=4.0)  # type: ignore[arg-type]
        bound = one.bind(Seat(0, IPD.observations, IPD.action_spaces, 2, dtype=torch.float64, game=IPD))
        bound.believed.log_weights = torch.tensor([[0.25, 0.5, 0.25]] * 2, dtype=torch.float64).log()
        torch.testing.assert_close(bound.ahead(change), 4 * share * change)
    assert not one.reads_peers


@hyperparameters
class Forgetful(LearningRule):
    """A rule of a user's: half of every logit is forgotten."""

    def __post_init__(self) -> None:
        self.step_size = 0.5

    def change(self, at: Derivatives, agent: int) -> Tensor:
        return -self.step_size * at.parameters[agent]


@hyperparameters
class Forgets(NaiveGradient):
    """The learner that has it."""

    def direction(self, at: Derivatives) -> Tensor:
        return -0.5 * at.parameters[self.seat.index]


def test_a_rule_of_a_users_is_found() -> None:
    rules = [StaticRule(), NaiveRule(step_size=0.3), Forgetful()]
    unknown = LolaUnknownRule(rules=rules)
    assert unknown.describe()["init_args"]["rules"][2]["class_path"].endswith("Forgetful")
    _, _, found = played(IPD, [unknown, Forgets(init_scale=2.0)], 4, 20)
    assert (found[-1].argmax(1) == 2).double().mean() > 0.9


def test_any_number_of_actions() -> None:
    for opponent, learns in [(Stationary(), False), (NaiveGradient(step_size=3.0), True)]:
        unknown = LolaUnknownRule(rules=[StaticRule(), NaiveRule(step_size=3.0)])
        _, _, found = played(THREE, [unknown, opponent], 8, 8)
        assert ((found[-1, :, 0] < 0.5) == learns).all()


def test_replicates_do_not_touch_each_other() -> None:
    """What one has seen and does is the same if another has seen something else."""
    spaces = (IPD.observations, IPD.action_spaces, 3, 4)
    seed_streams(0, CPU)
    one = LolaUnknownRule().bind(Seat(0, *spaces, dtype=torch.float64, game=IPD))
    other, opponent = copy.deepcopy(one), NaiveGradient().bind(Seat(1, *spaces, dtype=torch.float64, game=IPD))
    for _ in range(3):
        newest = Collector(GameSimulator(IPD, 3, 4, dtype=torch.float64), [one, opponent]).collect(50)
        one.learn(newest, [])
        for step in newest.steps:
            step.actions[1][2] = 0
        other.learn(Trajectory(newest.steps), [])
    for name, value in one.state_dict().items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value[:2], other.state_dict()[name][:2], rtol=0, atol=1e-12)
    assert not torch.equal(one.believed.weights[2], other.believed.weights[2])


def test_a_trajectory_is_counted_once() -> None:
    actors, _, _ = played(IPD, [LolaUnknownRule(), Stationary()], 1, 2)
    unknown = learner(actors)
    newest = Collector(GameSimulator(IPD, 2, 4, dtype=torch.float64), actors).collect(50)
    assert unknown.believed.counted(newest).sum((1, 2)).tolist() == [200.0] * 2
    seen = []
    unknown.believed.condition = seen.append  # type: ignore[method-assign, assignment]
    update(actors, newest, updates=3)
    assert len(seen) == 1
    assert unknown.updates == 4


def test_it_resumes_to_the_bit() -> None:
    def going_on(actors: list[Actor]) -> dict[str, Tensor]:
        seed_streams(5, CPU)
        collector = Collector(GameSimulator(IPD, 2, 4, dtype=torch.float64), actors)
        for _ in range(2):
            update(actors, collector.collect(50))
        return {name: value for name, value in actors[0].state_dict().items() if isinstance(value, Tensor)}

    first, _, _ = played(IPD, [LolaUnknownRule(), NaiveGradient()], 3, 2)
    again, _, _ = played(IPD, [LolaUnknownRule(), NaiveGradient()], 1, 2, seed=9)
    for source, sink in zip(first, again, strict=True):
        sink.load_state_dict(copy.deepcopy(source.state_dict()))
    one, other = going_on(first), going_on(again)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_beliefs_are_the_rules_and_the_opponents_policy() -> None:
    actors, policies, rules = played(IPD, [LolaUnknownRule(), NaiveGradient(step_size=0.0)], 6, 10)
    states = torch.arange(5).expand(10, -1)
    belief = learner(actors).beliefs(states, {}, 1)
    torch.testing.assert_close(belief["opponent_type"][:, 3], rules[-1])
    assert (belief["opponent_model"] - policies[1][-1]).abs().mean() < 0.08


@pytest.mark.parametrize(
    ("banks", "names"),
    [
        ([RULES[:2], RULES[:3]], ["StaticRule", "NaiveRule(step_size=0.1)", "NaiveRule(step_size=0.3)"]),
        ([RULES[:2], RULES[2:]], ["0", "1", "2", "3"]),
        ([[RULES[0], RULES[0]]], ["0", "1"]),
    ],
    ids=["one bank begins another", "different banks", "a rule twice"],
)
def test_runs_call_the_rules_by_their_names(banks: list[list[LearningRule]], names: list[str], tmp_path: Path) -> None:
    arms = {f"bank_{number}": [LolaUnknownRule(rules=rules), NaiveGradient()] for number, rules in enumerate(banks)}
    folder = run(Experiment(IPD, arms, replicates=2, steps=2), tmp_path, "run")
    posterior = xr.open_dataset(folder / "posterior.nc", engine="h5netcdf")
    assert posterior["type"].to_numpy().tolist() == names


def test_an_unsteady_learner_learns_when_it_says() -> None:
    _, policies, _ = played(IPD, [Stationary(), UnsteadyGradient(after=2, until=4)], 7, 3)
    moved = (policies[1][1:] - policies[1][:-1]).abs().amax((1, 2, 3)) > 0
    assert moved.tolist() == [False, False, True, True, False, False]
    _, noisy, _ = played(IPD, [Stationary(), UnsteadyGradient(step_size=0.01, noise=20.0)], 2, 2000)
    logits = torch.logit(noisy[1][..., 0])
    assert (logits[1] - logits[0]).std().item() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LolaUnknownRule(rules=[]), "rules: got none, expected at least one learning rule"),
        (lambda: LolaUnknownRule(switching=1.5), r"switching: got 1.5, expected a number in \[0, 1\]"),
        (lambda: LolaUnknownRule(process_noise=0.0), "process_noise: got 0.0, expected a positive number"),
        (lambda: LolaUnknownRule(opponent_scale=0.0), "opponent_scale: got 0.0, expected a positive number"),
        (lambda: LolaUnknownRule(max_change=0.0), "max_change: got 0.0, expected a positive number, or null"),
        (lambda: LolaUnknownRule(gate="shut"), "gate: got 'shut', expected learning or step_size or open"),
        (lambda: NaiveRule(step_size=-1.0), "step_size: got -1.0"),
        (lambda: UnsteadyGradient(noise=-1.0), "noise: got -1.0"),
        (lambda: Scripted(probabilities=[[1, 0], [0, 0]]), r"probabilities: got \[0, 0\] in state 1"),
    ],
)
def test_refuses_numbers_out_of_range(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("rows", [[[1, 0]], [[1, 0]] * 4 + [[1]], [[1, 0, 0]] * 5])
def test_refuses_a_script_of_another_game(rows: list[list[float]]) -> None:
    with pytest.raises(
        IncompatibleError, match=r"^probabilities: got rows and numbers in each .* expected one row per"
    ):
        Scripted(probabilities=rows).bind(Seat(0, IPD.observations, IPD.action_spaces, 1))


def test_a_file_can_say_it() -> None:
    rules = ["StaticRule", {"class_path": "NaiveRule", "init_args": {"step_size": 0.5}}]
    arm = {"class_path": "LolaUnknownRule", "init_args": {"rules": rules}}
    game = {"class_path": "MatrixGame", "init_args": IPD.describe()["init_args"]}
    experiment = spec.build({"game": game, "steps": 2, "arms": {"a": [arm, "NaiveGradient"]}})
    assert isinstance(experiment, Experiment)
    (made, _) = experiment.arms["a"]  # type: ignore[misc]
    assert made.describe() == LolaUnknownRule(rules=[StaticRule(), NaiveRule(step_size=0.5)]).describe()


@pytest.mark.slow
def test_detects_learning_and_responds_nearly_best_to_opponents_that_do_not() -> None:
    """Of opponents that move 6 times: 40 seeds a kind, which were not used for anything else.

    With twice 48 others of each of six kinds, 97 and 94 % were told, and 0.075 and 0.065 lost to best responses; the
    bounds are three standard errors away.
    """
    dynamics, told = IPD.dynamics(), []
    assert dynamics is not None
    for eta in (0.0, 0.1, 0.3, 1.0, 3.0):
        updates = 100 if eta == 0 else 7
        _, policies, rules = played(IPD, [LolaUnknownRule(), NaiveGradient(step_size=eta)], updates, 40, seed=77)
        told.append(((rules[6, :, 0] > 0.5) == (eta == 0)).double().mean())
        if eta == 0:
            worth = torch.stack([expected_return(dynamics, pair, 0.96)[:, 0] for pair in zip(*policies, strict=True)])
            best = best_response_return(dynamics, [each[0] for each in policies], 0.96)[:, 0]
            assert (best - worth.mean(0)).mean() < 0.12
            assert (best - worth[-1]).mean() < 0.03
    assert torch.stack(told).mean() > 0.9
