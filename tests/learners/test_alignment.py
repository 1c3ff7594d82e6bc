"""Advantage Alignment and LOQA: their weights against objectives, by hand, and what is learnt on the coin game."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.games import CoinGame, MatrixGame, Rendezvous, StochasticGame
from inference_marl.inference.failures import NonFiniteError
from inference_marl.inference.objectives import discounted
from inference_marl.inference.schedules import ByReplicate, Linear
from inference_marl.learners.alignment import AdvantageAlignment, RecurrentAlignment, TabularAlignment
from inference_marl.learners.alignment.base import Values, gathered
from inference_marl.learners.scripts import CoinTaker
from inference_marl.play import Collector, Evaluation, Functional, GameSimulator, update
from inference_marl.runs.run import resume
from inference_marl.types import Actor, Game, Trajectory
from tests.runs.small_runs import assert_same, cut_after, run

CASES: dict[str, Callable[[], AdvantageAlignment]] = {
    "TabularAlignment": TabularAlignment,
    "TabularAlignment, of LOQA": lambda: TabularAlignment(weight="loqa", past_trace_decay=0.95),
    "RecurrentAlignment": lambda: RecurrentAlignment(hidden=4),
    "RecurrentAlignment, of LOQA": lambda: RecurrentAlignment(hidden=4, weight="loqa", critic_steps=2),
}
LEARNERS: dict[str, tuple[str, Callable[[], Actor]]] = {
    name: ("known, two agents", make) for name, make in CASES.items()
}
"""Cases that tests/test_contract.py drives through the contract."""

R, E = 3, 4


def coins(**changes: Any) -> CoinGame:
    return CoinGame(**{"size": 2, "horizon": 6} | changes)


def pair(make: Callable[[], Actor], game: Game, replicates: int = R) -> list[Actor]:
    torch.manual_seed(0)
    return Experiment(game, {"a": make()}, replicates=replicates, environments=E, dtype="float64").bind("a")


def collector(actors: list[Actor], game: Game) -> Collector:
    return Collector(GameSimulator(game, actors[0].seat.replicates, E, dtype=torch.float64), actors)


class Spied(TabularAlignment):
    """Keeps the weights that it follows, and draws its critic's values and its policy at random."""

    def setup(self) -> None:
        super().setup()
        for table in (self.actor.table, *self.buffers()):
            table.copy_(torch.randn_like(table))

    def values(self, newest: Trajectory) -> Values:
        self.__dict__["said"] = said = super().values(newest)
        return said

    def follow(self, newest: Trajectory, weights: Tensor) -> None:
        self.__dict__["weights"] = weights


Spied.__module__ = "tests.learners.test_alignment"


def spied(game: Game, steps: int, **changes: Any) -> tuple[Spied, Trajectory]:
    """The second agent, which has learnt from some steps."""
    actors = pair(lambda: Spied(**changes), game)
    newest = collector(actors, game).collect(steps)
    learner = actors[1]
    assert isinstance(learner, Spied)
    learner.learn(newest, [])
    return learner, newest


def errors(learner: Spied, newest: Trajectory, of: int) -> Tensor:
    """Of temporal differences, `time x replicates x environments`."""
    played, said = newest.stacked, learner.said
    now, after = (said.own, said.own_next) if of == 1 else (said.other, said.other_next)
    going = (~played.terminated).double()
    return played.rewards[..., of] + learner.discount * going * after - now  # type: ignore[operator]


def policy_gradient(learner: Spied, newest: Trajectory) -> Tensor:
    """Of the sum of w_k log pi(a_k | o_k), in the logits."""
    logits = learner.actor.table.detach().clone().requires_grad_()
    played = newest.stacked
    log_policy = logits.log_softmax(-1)[learner.seat.rows, played.obs[1]]
    chosen = log_policy.gather(-1, played.actions[1].unsqueeze(-1)).squeeze(-1)
    (found,) = torch.autograd.grad((learner.weights * chosen).sum(), logits)
    return found


@pytest.mark.parametrize("past", [0.9, 0.0])
def test_loqa_is_the_gradient_of_its_objective(past: float) -> None:
    """Own value by the score function, and the opponent's policy as the softmax of its returns, by loaded DiCE."""
    learner, newest = spied(coins(), 6, weight="loqa", beta=1.0, past_trace_decay=past, trace_decay=0.9, discount=0.8)
    played, steps, decay = newest.stacked, 6, 0.9 * 0.8
    rows = [[decay ** (k - t) if k >= t else 0.0 for k in range(steps)] for t in range(steps)]
    weight = torch.tensor(rows, dtype=torch.float64)
    own, other = (torch.einsum("tk,k...->t...", weight, errors(learner, newest, of)) for of in (1, 0))
    gains = own if past else errors(learner, newest, 1)

    logits = learner.actor.table.detach().clone().requires_grad_()
    log_policy = logits.log_softmax(-1)[learner.seat.rows, played.obs[1]]
    log_prob = log_policy.gather(-1, played.actions[1].unsqueeze(-1)).squeeze(-1)
    total = (own * log_prob).sum()
    values = learner.said.other_actions
    assert values is not None
    for t in range(steps):
        through = log_prob[t + 1 :].cumsum(0)
        before = torch.cat([torch.zeros_like(through[:1]), through[:-1]]) if t + 1 < steps else through
        loaded = ((through - through.detach()).exp() - (before - before.detach()).exp()) * other[t + 1 :]
        ahead = 0.8 * decay ** torch.arange(steps - t - 1).double().view(-1, 1, 1)
        chosen = torch.nn.functional.one_hot(played.actions[0][t], 4).bool()
        returned = (ahead * loaded).sum(0).unsqueeze(-1)  # 0, with a gradient
        log_q = (values[t] + torch.where(chosen, returned, 0.0)).log_softmax(-1)
        total = total + (gains[t] * log_q[chosen].view(R, E)).sum()
    (expected,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(policy_gradient(learner, newest), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("past", [0.9, 0.4, 0.0])
def test_weights_by_hand(past: float) -> None:
    """Sums written out; a trajectory of an episode and a half, of which nothing reaches from one into the other."""
    learner, newest = spied(coins(horizon=3), 5, beta=0.7, past_trace_decay=past, trace_decay=0.9, discount=0.8)
    own, other = errors(learner, newest, 1), errors(learner, newest, 0)
    parts = [(0, 3), (3, 5)]
    for first, last in parts:
        steps = range(first, last)

        def advantage(error: Tensor, k: int, decay: float = 0.72, steps: range = steps) -> Tensor:
            return sum((decay ** (n - k) * error[n] for n in steps if n >= k), torch.zeros(R, E).double())

        for k in steps:
            gains = {t: advantage(own, t, 0.8 * past) for t in steps if t < k}
            before = sum((0.72 ** (k - t - 1) * gain for t, gain in gains.items()), torch.zeros(R, E).double())
            expected = advantage(own, k) + 0.7 * 0.8 * advantage(other, k) * before
            torch.testing.assert_close(learner.weights[k], expected)


def test_without_alignment_it_is_an_actor_critic() -> None:
    """Whose weights are generalised advantages; and none of the opponent's rewards counts."""
    learner, newest = spied(coins(), 6, beta=0.0)
    within = (~newest.stacked.ended).double()
    expected = discounted(errors(learner, newest, 1), 0.96 * 0.95 * within)
    torch.testing.assert_close(learner.weights, expected)


def test_values_are_bootstrapped_at_a_time_limit_and_not_after_termination() -> None:
    """Of two copies of one state the second ends the game, so that what follows is worth nothing."""
    rules = torch.zeros(2, 2, 2, 2).double()
    rules[0, :, :, 1] = 1.0
    game = StochasticGame([1.0, 0.0], rules, torch.ones(2, 2, 2, 2).double(), horizon=5, discount=0.9)
    learner, newest = spied(game, 3, beta=0.0, trace_decay=0.0)
    played, said = newest.stacked, learner.said
    assert played.terminated[1].all()
    torch.testing.assert_close(learner.weights[1], 1 - said.own[1])
    torch.testing.assert_close(learner.weights[2], 1 + 0.96 * said.own_next[2] - said.own[2])


def test_sums_over_past_and_future() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(4, 1, 1)
    within = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(4, 1, 1)
    assert gathered(values, 0.5, within).flatten().tolist() == [0.0, 1.0, 0.0, 4.0]
    assert discounted(values, 0.5 * within).flatten().tolist() == [2.0, 2.0, 8.0, 8.0]


def test_a_tabular_step_is_the_mean_gradient_of_each_state() -> None:
    game = coins()
    actors = pair(lambda: TabularAlignment(step_size=0.3, entropy=0.1), game)
    newest = collector(actors, game).collect(6)
    learner = actors[0]
    assert isinstance(learner, TabularAlignment)
    torch.nn.init.normal_(learner.actor.table)
    logits = learner.actor.table.detach().clone().requires_grad_()
    weights, obs = torch.randn(6, R, E).double(), newest.stacked.obs[0]
    log_policy = logits.log_softmax(-1)[learner.seat.rows, obs]
    chosen = log_policy.gather(-1, newest.stacked.actions[0].unsqueeze(-1)).squeeze(-1)
    visits = torch.stack([obs[:, r].flatten().bincount(minlength=logits.shape[1]) for r in range(R)])
    share = 1 / visits[learner.seat.rows, obs]
    gain = weights * chosen - 0.1 * (log_policy.exp() * log_policy).sum(-1)
    (gradient,) = torch.autograd.grad((share * gain).sum(), logits)
    learner.follow(newest, weights)
    torch.testing.assert_close(learner.actor.table, logits.detach() + 0.3 * gradient)


def test_the_critic_follows_mean_returns() -> None:
    game = MatrixGame("prisoners_dilemma", horizon=3, memory=1)
    learner, newest = pair(lambda: TabularAlignment(weight="loqa", critic_rate=0.5), game)[0], None
    newest = collector([learner, pair(TabularAlignment, game)[1]], game).collect(3)
    assert isinstance(learner, TabularAlignment)
    own, other = torch.randn(3, R, E).double(), torch.randn(3, R, E).double()
    learner.fit(newest, learner.values(newest), own, other)
    obs, actions = newest.stacked.obs, newest.stacked.actions
    for r in range(R):
        for state in range(5):
            seen = obs[0][:, r] == state
            expected = 0.5 * own[:, r][seen].mean() if seen.any() else torch.zeros(()).double()
            torch.testing.assert_close(learner.own_values[r, state], expected)
            for action in range(2):
                chosen = (obs[1][:, r] == state) & (actions[1][:, r] == action)
                expected = 0.5 * other[:, r][chosen].mean() if chosen.any() else torch.zeros(()).double()
                torch.testing.assert_close(learner.other_action_values[r, state, action], expected)


def recurrent(**changes: Any) -> Callable[[], RecurrentAlignment]:
    return lambda: RecurrentAlignment(**{"hidden": 5} | changes)


def test_along_a_trajectory_networks_do_what_they_did_in_play() -> None:
    """Also where episodes begin in the middle of it; and what is observed after a step is what is observed next."""
    game = coins(observation="relative", horizon=4)
    actors = pair(recurrent(), game)
    playing = collector(actors, game)
    playing.collect(3)
    newest = playing.collect(6)
    learner, played = actors[0], newest.stacked
    assert isinstance(learner, RecurrentAlignment)
    encoded = learner.actor.encoded(played.obs[0])
    found, states = learner.actor.along(encoded, newest.memories[0]["hidden"], played.ended)
    memory = newest.memories[0]
    for step in range(6):
        if step in (1, 5):
            memory = learner.initial_memory(R, E)
        logits, memory = learner.actor.logits(played.obs[0][step], memory)
        torch.testing.assert_close(found[step], logits)
    after = learner.actor.after(learner.actor.encoded(played.next_obs[0]), states)
    torch.testing.assert_close(after[[1, 2, 3]], found[[2, 3, 4]])


@pytest.mark.parametrize("weight", ["alignment", "loqa"])
def test_recurrent_gradients_against_finite_differences(weight: Any) -> None:
    """Of the standardised weights' mean and the entropy; the optimiser is told its negative."""
    game = coins(observation="relative", horizon=3)
    learner = pair(recurrent(weight=weight, entropy=0.3), game, 1)[0]
    assert isinstance(learner, RecurrentAlignment)
    newest = collector([learner, pair(recurrent(), game, 1)[1]], game).collect(3)
    losses: list[Tensor] = []
    learner.actor_optimiser.step = losses.append  # type: ignore[method-assign]
    weights, parameter = torch.randn(3, 1, E).double(), learner.actor.unit.recall.weight
    learner.follow(newest, weights)
    (gradient,) = torch.autograd.grad(losses[0].sum(), parameter)
    for place in ((0, 0, 0), (0, 3, 9), (0, 4, 14)):
        around = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter[place] += step
            learner.follow(newest, weights)
            with torch.no_grad():
                parameter[place] -= step
            around.append(losses[-1].item())
        assert (around[0] - around[1]) / 2e-5 == pytest.approx(gradient[place].item(), rel=1e-5, abs=1e-9)
    standard = (weights - weights.mean()) / weights.std(correction=0)
    logits, _ = learner.actor.along(learner.actor.encoded(newest.stacked.obs[0]), *_start(learner, newest))
    expected = torch.distributions.Categorical(logits=logits)
    gain = standard * expected.log_prob(newest.stacked.actions[0]) + 0.3 * expected.entropy()
    assert losses[0].item() == pytest.approx(-gain.mean().item(), rel=1e-6)


def _start(learner: RecurrentAlignment, newest: Trajectory) -> tuple[Tensor, Tensor]:
    return newest.memories[learner.seat.index]["hidden"], newest.stacked.ended


def learnt(make: Callable[[], Actor], change: bool, game: Game) -> list[Mapping[str, Tensor]]:
    """Everybody's tensors after some updates; where the second replicate is paid otherwise, if `change`."""
    actors = pair(make, game)
    playing = collector(actors, game)
    torch.manual_seed(1)
    for _ in range(2):
        newest = playing.collect(6)
        if change:
            for step in newest.steps:
                step.rewards = step.rewards.clone()
                step.rewards[1] += torch.randn(E, 2).double().cos()
        update(actors, newest)
        torch.manual_seed(2)  # so that it does not matter what was drawn above
    return [{name: value.clone() for name, value in [*a.named_parameters(), *a.named_buffers()]} for a in actors]


@pytest.mark.parametrize("name", CASES)
def test_replicates_know_nothing_of_each_other(name: str) -> None:
    game = coins(observation="history" if name.startswith("Tabular") else "relative")
    one, other = learnt(CASES[name], False, game), learnt(CASES[name], True, game)
    differ = False
    for mine, theirs in zip(one, other, strict=True):
        for key, value in mine.items():
            torch.testing.assert_close(value[[0, 2]], theirs[key][[0, 2]], rtol=0, atol=0)
            differ |= not torch.equal(value[1], theirs[key][1])
    assert differ


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_cut_goes_on_to_the_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = coins(observation="history" if name.startswith("Tabular") else "relative")
    evaluation = {"defector": Evaluation(every=12, environments=2, explore=True, seats={1: CoinTaker(coins="all")})}
    experiment = Experiment(
        game,
        {"a": CASES[name]()},
        2,
        24,
        3,
        collect=6,
        checkpoint_every=6,
        evaluation=evaluation,  # type: ignore[arg-type]
    )
    whole = run(experiment, tmp_path, "run")
    folder = tmp_path / "cut" / "run"
    cut_after(2, monkeypatch, experiment, folder)
    assert not (folder / "summary.json").exists()
    assert resume(folder, progress=False) == folder
    assert_same(folder, whole)


def test_a_snapshot_plays_with_its_own_memory() -> None:
    game = coins(observation="relative")
    actors = pair(recurrent(), game)
    snapshots = [actor.snapshot() for actor in actors]  # type: ignore[attr-defined]
    assert all(isinstance(each, Functional) for each in snapshots)
    played = []
    for playing in (actors, snapshots):
        torch.manual_seed(4)
        evaluation = Evaluation(every=1, environments=E)
        played.append(evaluation.play(game, playing).stacked.actions)
    assert all(map(torch.equal, *played))


def test_numbers_may_be_schedules() -> None:
    game, beta = coins(), Linear(1.0, 0.0, 2)
    found = []
    for first in (beta, ByReplicate([beta, beta, beta]), 1.0):
        actors = pair(lambda first=first: TabularAlignment(beta=first), game)  # type: ignore[misc]
        playing = collector(actors, game)
        torch.manual_seed(1)
        for _ in range(2):
            update(actors, playing.collect(6))
        found.append(actors[0].actor.table.detach().clone())  # type: ignore[union-attr]
    torch.testing.assert_close(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_rewards_that_are_not_finite_are_refused() -> None:
    game = coins()
    learner, newest = spied(game, 6)
    broken = copy.deepcopy(newest.steps)
    broken[2].rewards[1, 0, 1] = torch.nan
    before = {name: value.clone() for name, value in learner.named_buffers()}
    with pytest.raises(NonFiniteError, match="reward is not finite in replicate 1"):
        learner.learn(Trajectory(broken, newest.memories), [])
    assert all(torch.equal(value, before[name]) for name, value in learner.named_buffers())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta: got -1.0, expected a number that is not negative"),
        ({"weight": "dice"}, "weight: got 'dice', expected alignment or loqa"),
        ({"past_trace_decay": 2.0}, r"past_trace_decay: got 2.0, expected a number in \[0, 1\]"),
        ({"trace_decay": 1.5}, r"trace_decay: got 1.5, expected a number in \[0, 1\]"),
        ({"discount": 1.0}, r"discount: got 1.0, expected a number in \[0, 1\)"),
        ({"critic_rate": 0.0}, r"critic_rate: got 0.0, expected a number in \(0, 1\]"),
    ],
)
def test_refuses_numbers_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularAlignment(**arguments)


@pytest.mark.parametrize(
    ("make", "game", "message"),
    [
        (TabularAlignment, coins(observation="relative"), "TabularAlignment got observations .*, expected Discrete"),
        (TabularAlignment, Rendezvous(), "TabularAlignment got actions .*, expected Discrete"),
        (
            RecurrentAlignment,
            MatrixGame([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [1.0, 0.0]]], common=True),
            "RecurrentAlignment got 3 agents, expected 2",
        ),
        (CoinTaker, MatrixGame(), "CoinTaker got MatrixGame, expected CoinGame itself"),
    ],
)
def test_refuses_games_that_do_not_fit(make: Callable[[], Actor], game: Game, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message):
        pair(make, game)


def test_the_scripts_of_the_league() -> None:
    """Two who cooperate earn a third each, two who defect nothing, and one who defects lives at the other's cost."""
    game, cooperate, defect = CoinGame(observation="absolute"), CoinTaker(), CoinTaker(coins="all")
    for arm, expected in [
        ([cooperate, cooperate], [0.335, 0.335]),
        ([defect, defect], [0.0, 0.0]),
        ([cooperate, defect], [-0.26, 0.62]),
    ]:
        actors = Experiment(game, {"a": list(arm)}).bind("a")
        played = Evaluation(every=1, environments=512).play(game, actors)
        found = played.stacked.rewards.mean((0, 1, 2)).tolist()
        assert found == pytest.approx(expected, abs=0.025)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"beta": 0.0}, {}, {"weight": "loqa", "beta": 1.0}])
def test_tables_cooperate_and_retaliate_on_the_coin_game(settings: dict[str, Any]) -> None:
    """As in experiments/coin_game.yaml, with other seeds; without alignment they take every coin."""
    game = CoinGame()
    torch.manual_seed(11)
    actors = Experiment(game, {"a": TabularAlignment(**settings)}, replicates=4, environments=64).bind("a")
    playing = Collector(GameSimulator(game, 4, 64), actors)
    for _ in range(300):
        update(actors, playing.collect(50))

    def met(guest: Actor | None) -> tuple[float, float, float]:
        """Mean reward of the learners, in either seat, and of the guest; the learners' share of own coins."""
        found = []
        for seat in (0, 1):
            seats = {} if guest is None else {1 - seat: guest}
            evaluation = Evaluation(every=1, environments=128, explore=True, seats=seats, seed=3)
            said = evaluation.measure(evaluation.play(game, evaluation.seated(actors)))
            reward, own = said["evaluation_reward"].mean(0), said["evaluation_own_coins"].mean(0)
            found.append(torch.stack([reward[seat], reward[1 - seat], own[seat]]))
        own_reward, others, share = torch.stack(found).mean(0).tolist()
        return own_reward, others, share

    alone, defector, cooperator = met(None), met(CoinTaker(coins="all")), met(CoinTaker())
    print(settings, alone, defector, cooperator)
    if settings == {"beta": 0.0}:
        assert alone[0] <= 0.05
        return
    assert alone[0] >= 0.28
    assert alone[2] >= 0.9
    assert defector[0] >= -0.08
    assert defector[1] <= 0.12
    assert 0.3 <= cooperator[0] <= 0.37
