"""PettingZoo environments as games: what becomes of spaces, ends, masks, seeds and states."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.experiment import Experiment
from inference_marl.learners import Maddpg, Stationary
from inference_marl.play import Collector, Evaluation, simulate
from inference_marl.simulators import PettingZoo
from inference_marl.spaces import Box, Discrete
from inference_marl.types import Observed, Outcome, Simulator
from tests.simulators import small

R, E = 2, 3


def game(name: str = "Walk", arguments: dict[str, Any] | None = None, **more: Any) -> PettingZoo:
    return PettingZoo(f"{small.HERE}.{name}", arguments, **more)


def actions_of(played: PettingZoo, seed: int, shape: tuple[int, int] = (R, E)) -> list[Tensor]:
    torch.manual_seed(seed)
    return [space.uniform(torch.float32, torch.device("cpu")).sample(shape) for space in played.action_spaces]


def play(simulator: Simulator, played: PettingZoo, steps: Sequence[int]) -> list[tuple[Outcome, Observed]]:
    """Steps of these numbers, which say what is done; episodes begin as in a collector."""
    found = []
    for step in steps:
        outcome = simulator.step(actions_of(played, step, simulator.shape))
        found.append((outcome, simulator.observe()))
        if bool(outcome.ended.any()):
            simulator.reset(outcome.ended)
    return found


def assert_same(one: Sequence[tuple[Outcome, Observed]], other: Sequence[tuple[Outcome, Observed]]) -> None:
    for (mine, seen), (same, again) in zip(one, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine[:3], same[:3], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(seen.obs, again.obs, strict=True))


def environments_of(simulator: Any) -> list[Any]:
    return [env.env for host in simulator._hosts for env in host._copies.all]


def test_boxes_have_their_own_bounds_and_actions_arrive_unchanged() -> None:
    played = game("Asymmetric")
    assert played.action_spaces == (Box((-0.25, 3.0), (1.5, 7.0), 2),) * 2
    inf = float("inf")
    # Of 5 to 5 nothing can be said; what is observed outside of its bounds is passed on.
    assert played.observations == (Box((-1.0, 0.0, -inf, -inf), (1.0, 9.0, inf, inf), 4),) * 2
    with closing(simulate(played, R, E)) as simulator:
        simulator.reset()
        assert simulator.observe().obs[0][0, 0].tolist() == [0.5, 12.0, 3.0, 5.0]
        low, high = played.action_spaces[0].edges(torch.float32, torch.device("cpu"))  # type: ignore[union-attr]
        simulator.step([low.expand(R, E, 2), torch.nextafter(high, torch.tensor(9.0)).expand(R, E, 2)])
        for env in environments_of(simulator):
            said = env.received[-1]
            assert all(env.action_space(agent).contains(said[agent]) for agent in env.possible_agents)
            assert said["walker_0"].tolist() == [-0.25, 3.0]
            assert said["walker_1"].tolist() == [1.5, 7.0]


def test_a_collector_takes_observations_that_are_out_of_their_bounds() -> None:
    played = game("Asymmetric")
    actors = [Stationary().bind(seat) for seat in Experiment(played, {"a": Stationary()}, R, 3, E).seats()]
    with closing(simulate(played, R, E)) as simulator:
        assert Collector(simulator, actors).collect(3).stacked.obs[0].max() == 12


def test_discrete_values_begin_at_0_here() -> None:
    played = game("Asymmetric", {"kind": "discrete"})
    assert (played.observations[0], played.action_spaces[0]) == (Discrete(4), Discrete(3))
    with closing(simulate(played, R, E)) as simulator:
        simulator.reset()
        assert simulator.observe().obs[0].tolist() == [[0] * E] * R
        simulator.step([torch.tensor([[0, 1, 2]] * R), torch.zeros(R, E, dtype=torch.int64)])
        assert simulator.observe().obs[1].tolist() == [[1] * E] * R
        assert simulator.observe().obs[1].dtype == torch.int64
        assert [env.received[-1]["walker_0"] for env in environments_of(simulator)] == [-1, 0, 1] * R


def test_images_keep_their_shape() -> None:
    played = game("Asymmetric", {"kind": "image"})
    assert (played.observations[0], played.action_spaces[0]) == (Box(0.0, 255.0, (4, 5, 3)), Box(-1.0, 1.0, (2, 2)))
    with closing(simulate(played, R, E, dtype=torch.float64)) as simulator:
        simulator.reset()
        simulator.step([torch.zeros(R, E, 2, 2)] * 2)
        (first, _), *_ = [simulator.observe().obs]
        assert first.shape == (R, E, 4, 5, 3)
        assert first.dtype == torch.float64
        assert bool((first == 1).all())


@pytest.mark.parametrize("what", ["observation", "action"])
@pytest.mark.parametrize("which", ["MultiDiscrete", "MultiBinary", "Tuple", "Text", "empty"])
def test_other_spaces_are_refused(what: str, which: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^env: got .+ as the {what} space of agent walker_0 in .+\.Unsupported, ex"
    ) as e:
        game("Unsupported", {"what": what, "which": which})
    assert "expected Discrete, or Box of " in str(e.value)
    assert "\n" not in str(e.value)


def test_actions_that_are_boxes_of_integers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"as the action space of .+, expected Discrete, or Box of floating numbers"):
        game("Unsupported", {"what": "action", "which": "integers"})
    assert game(
        "Unsupported",
        {
            "what": "observation",
            "which": "integers",
        },
    ).observations[0] == Box(0.0, 3.0, 2)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        (
            "nowhere.Env",
            {},
            r"env: got nowhere.Env, which cannot be imported \(ModuleNotFoundError: No module named 'no",
        ),
        (f"{small.HERE}.Nothing", {}, "env: got .+, which cannot be imported .AttributeError"),
        (f"{small.HERE}.NUMBER", {}, "env: got .+NUMBER, a int, expected what makes a parallel environment"),
        (f"{small.HERE}.makes_nothing", {}, "env: got .+, which makes a NoneType, expected a ParallelEnv"),
        (f"{small.HERE}.Turns", {}, "arguments: got|env: got .+, which makes a Turns, expected a ParallelEnv"),
        (f"{small.HERE}.raises", {}, r"arguments: got \{\}, with which .+ raises ValueError \(not today\), expected"),
        (f"{small.HERE}.Walk", {"legs": 2}, r"arguments: got \{'legs': 2\}, with which .+ raises TypeError"),
        ("os.system", {"command": "exit 7"}, "env: got os.system, which has nothing to do with PettingZoo and was not"),
        ("builtins.exec", {}, r"env: got builtins\.exec, which has nothing to do with PettingZoo"),
        ("torch.load", {"f": "x"}, r"env: got torch\.load, which has nothing to do with PettingZoo"),
        ("Walk", {}, "env: got 'Walk', expected an import path such as"),
        ("a b.c", {}, "env: got 'a b.c', expected an import path such as"),
    ],
)
def test_what_makes_no_environment_is_refused(path: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error:
        PettingZoo(path, arguments)
    assert "\n" not in str(error.value)
    if path.startswith("os."):  # in the same words by a process of its own
        with pytest.raises(ValueError, match=f"^{message}"):
            PettingZoo(path, arguments, processes=1)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("horizon", [None, 2])
def test_time_limits_truncate_and_ends_terminate(ends: bool, horizon: int | None) -> None:
    played = game("Walk", {"length": 3, "ends": ends}, horizon=horizon)
    with closing(simulate(played, R, E)) as simulator:
        simulator.reset()
        outcomes = [outcome for outcome, _ in play(simulator, played, range(6))]
    length = horizon or 3
    assert [bool(outcome.ended.all()) for outcome in outcomes] == [(step + 1) % length == 0 for step in range(6)]
    assert [bool(outcome.ended.any()) for outcome in outcomes] == [(step + 1) % length == 0 for step in range(6)]
    by_end = ends and horizon is None
    assert all(torch.equal(outcome.terminated, outcome.ended & by_end) for outcome in outcomes)
    assert play_observed_alive_is_none(played)


def play_observed_alive_is_none(played: PettingZoo) -> bool:
    with closing(simulate(played, 1, 1)) as simulator:
        simulator.reset()
        return simulator.observe().alive is None and simulator.observe().masks is None


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("cut", [True, False])
def test_agents_that_leave(cut: bool, last: bool) -> None:
    if cut and not last:
        return  # whoever is cut off is bootstrapped, so it has to see: below
    played = game("Leaving", {"cut": cut, "last": last}, agents_leave=True)
    with closing(simulate(played, R, E)) as simulator:
        actors = [Stationary().bind(seat) for seat in Experiment(played, {"a": Stationary()}, R, 3, E).seats()]
        steps = Collector(simulator, actors).collect(6).steps
    for episode in (steps[:3], steps[3:]):
        assert [step.alive[0, 0].tolist() for step in episode if step.alive is not None] == [
            [True, True, True],
            [False, True, True],
            [False, False, True],
        ]
        assert [[bool(step.terminated_for(agent).all()) for agent in range(3)] for step in episode] == [
            [True, False, False],
            [True, True, False],
            [True, True, not cut],
        ]
        assert [step.rewards[0, 0].tolist() for step in episode] == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
        assert [bool(step.ended.all()) for step in episode] == [False, False, True]
        assert bool((episode[2].obs[0] == 0).all())


def test_who_is_cut_off_must_see() -> None:
    with pytest.raises(ValueError, match="step 3 of its episode, agent walker_2: got no observation, expected one for"):
        game("Leaving", {"cut": True, "last": False}, agents_leave=True)


def test_nobody_comes_back() -> None:
    with pytest.raises(ValueError, match="step 2 of its episode, agent walker_0: got an agent that was not there befo"):
        game("Returning", agents_leave=True)


def test_an_end_that_is_one_for_some_and_another_for_others() -> None:
    with pytest.raises(ValueError, match="agent walker_0: got an end that terminates it and cuts others off, expected"):
        game("Mixed", {"length": 2})
    played = game("Mixed", {"length": 2}, agents_leave=True)
    with closing(simulate(played, 1, 1)) as simulator:
        simulator.reset()
        (_, _), (outcome, seen) = play(simulator, played, [1, 2])[:2]
    assert (bool(outcome.terminated), bool(outcome.ended)) == (False, True)
    assert seen.alive is not None
    assert seen.alive.tolist() == [[[False, True]]]


def test_learners_that_know_of_leaving_accept_it_and_others_refuse_by_name() -> None:
    played = game("Leaving", agents_leave=True)
    from inference_marl.config.check import check

    check(Experiment(played, {"a": Maddpg(batch_size=4, warmup=1)}, steps=4, collect=4))
    from inference_marl.learners import Masql

    with pytest.raises(IncompatibleError, match=r"arms.a.*: \w+ got a game in which agents may be out"):
        check(Experiment(played, {"a": Masql()}, steps=1))


@pytest.mark.parametrize("where", ["infos", "observation"])
def test_masks(where: str) -> None:
    played = game("Masked", {"where": where})
    assert played.observations[0] == Box(shape=2)
    seats = Experiment(played, {"a": Stationary()}, R, 3, E).seats()
    with closing(simulate(played, R, E)) as simulator:
        found = Collector(simulator, Maddpg(batch_size=4).bind_all(seats)).collect(12)  # an illegal action raises
        for number, step in enumerate(found.steps):
            assert step.masks is not None
            mask = step.masks[1]
            assert mask is not None
            expected = [action in ((number % 5) % 4, (number % 5 + 1) % 4) for action in range(4)]
            assert mask[0, 0].tolist() == expected
    with closing(simulate(played, R, E)) as simulator:
        actors = [Stationary().bind(seat) for seat in seats]
        with pytest.raises(IncompatibleError, match="Stationary in seat 0 got a mask of legal actions"):
            Collector(simulator, actors).collect(1)


@pytest.mark.parametrize(
    ("trait", "message"),
    [
        ("none_left", "an action mask without a legal action, expected"),
        ("forgets", "no action mask, expected one at ev"),
    ],
)
@pytest.mark.parametrize("where", ["infos", "observation"])
def test_masks_that_cannot_be_used(where: str, trait: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"step 2 of its episode, agent walker_0: got {message}"):
        game("Masked", {"where": where, trait: True})


@pytest.mark.parametrize("processes", [1, 4, pytest.param(9, marks=pytest.mark.slow)])
def test_results_do_not_depend_on_processes(processes: int) -> None:
    found = []
    for number in (0, processes):
        played = game("Walk", {"length": 3}, processes=number)
        with closing(simulate(played, R, E, seed=7)) as simulator:
            simulator.reset()
            found.append(play(simulator, played, range(8)))
    assert_same(*found)


@pytest.mark.slow
def test_global_random_numbers_are_an_environments_own() -> None:
    """They repeat, do not depend on other copies, and nobody else's change."""
    found = []
    for number, environments in ((0, E), (2, E), (0, 1)):
        played = game("Careless", {"length": 3}, processes=number)
        assert played.resumable
        with closing(simulate(played, R, environments, seed=7)) as simulator:
            states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
            simulator.reset()
            simulator.step([torch.zeros(R, environments, 1)] * 2)
            after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
            assert states[:2] == after[:2]
            assert torch.equal(states[2], after[2])
            found.append(simulator.observe().obs[0])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0][:, :1], found[2])
    assert len(found[0].unique()) > R * E


def test_evaluations_play_other_episodes_than_training() -> None:
    small.Remembering.seeds.clear()
    played = game("Remembering", {"length": 3})
    actors = [Stationary().bind(seat) for seat in Experiment(played, {"a": Stationary()}, R, 3, E).seats()]
    small.Remembering.seeds.clear()
    with closing(simulate(played, R, E, seed=0)) as simulator:
        Collector(simulator, actors).collect(6)
    trained = set(small.Remembering.seeds)
    small.Remembering.seeds.clear()
    evaluation = Evaluation(every=1, steps=6, environments=E, seed=0)
    evaluation.play(played, evaluation.seated(actors))
    assert len(trained) == len(set(small.Remembering.seeds)) == 2 * R * E
    assert not trained & set(small.Remembering.seeds)


@pytest.mark.slow
def test_processes_play_slow_environments_at_once() -> None:
    took = []
    for processes in (0, 4):
        played = game("Slow", {"length": 9}, processes=processes)  # 20 ms per step
        with closing(simulate(played, 2, 4)) as simulator:
            simulator.reset()
            began = time.monotonic()
            play(simulator, played, range(3))
            took.append(time.monotonic() - began)
    assert took[0] > 3 * 8 * 0.02
    assert took[1] < took[0] / 2


def test_every_copy_and_every_episode_has_a_seed_of_its_own() -> None:
    def starts(replicates: int, environments: int, seed: int) -> Tensor:
        played = game("Walk", {"length": 1})
        with closing(simulate(played, replicates, environments, dtype=torch.float64, seed=seed)) as simulator:
            simulator.reset()
            found = [simulator.observe().obs[0][..., 0]]
            simulator.step(actions_of(played, 0, (replicates, environments)))
            simulator.reset()
            return torch.stack([*found, simulator.observe().obs[0][..., 0]])

    many = starts(3, 4, 1)
    assert len(many.unique()) == many.numel()
    assert torch.equal(starts(2, 3, 1), many[:, :2, :3])
    assert not torch.isin(starts(3, 4, 2), many).any()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_a_state_in_the_middle_of_an_episode_goes_on_to_the_bit(processes: int) -> None:
    played = game("Walk", {"length": 5}, processes=processes)
    assert played.resumable
    with closing(simulate(played, R, E, seed=3)) as first, closing(simulate(played, R, E, seed=3)) as second:
        first.reset()
        play(first, played, [1, 2])
        some = torch.zeros(R, E, dtype=torch.bool)
        some[0, 1] = True
        first.reset(some)  # so that episodes are of different ages
        play(first, played, [3])
        saved = first.state_dict()
        assert second.load_state_dict(saved) is None
        assert all(torch.equal(a, b) for a, b in zip(first.observe().obs, second.observe().obs, strict=True))
        assert_same(play(first, played, range(4, 16)), play(second, played, range(4, 16)))


def test_a_state_before_anything_was_played() -> None:
    played = game()
    with closing(simulate(played, R, E, seed=3)) as first, closing(simulate(played, R, E, seed=3)) as second:
        assert second.load_state_dict(first.state_dict()) is None
        for simulator in (first, second):
            simulator.reset()
        assert_same(play(first, played, [0, 1]), play(second, played, [0, 1]))


def test_the_first_episodes_begin_everywhere() -> None:
    with closing(simulate(game(), R, E, seed=3)) as simulator:
        simulator.reset(torch.eye(R, E, dtype=torch.bool))
        assert simulator.observe().obs[0].shape == (R, E, 2)


def test_playing_an_episode_again_may_take_as_long_as_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from inference_marl.simulators.processes import Here

    played, ask, patient = game("Walk", {"length": 9}), Here.ask, {}

    def asked(self: Here, what: str, *arguments: Any, patience: float = 1.0) -> None:
        patient[what] = patience
        ask(self, what, *arguments)

    with closing(simulate(played, R, E)) as first, closing(simulate(played, R, E)) as second:
        first.reset()
        play(first, played, range(5))
        monkeypatch.setattr(Here, "ask", asked)
        assert second.load_state_dict(first.state_dict()) is None
        play(second, played, [5])
    assert patient["again"] >= 6
    assert patient["step"] == 1


def test_where_the_seed_says_nothing_the_next_episodes_begin() -> None:
    played = game("Walk", {"seeded": False})
    assert not played.resumable
    with closing(simulate(played, R, E, seed=3)) as first, closing(simulate(played, R, E, seed=3)) as second:
        first.reset()
        play(first, played, [1])
        lost = second.load_state_dict(first.state_dict())
        assert lost is not None
        assert lost.all()
        second.reset(lost)
        play(second, played, [2])


def test_no_more_of_long_episodes_is_kept_than_can_be_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from inference_marl.simulators import parallel

    monkeypatch.setattr(parallel, "LONGEST", 3)
    played = game("Walk", {"length": 99})
    with closing(simulate(played, R, E)) as first, closing(simulate(played, R, E)) as second:
        first.reset()
        play(first, played, [1, 2, 3])
        assert second.load_state_dict(first.state_dict()) is None
        play(first, played, [4])
        saved = first.state_dict()
        assert len(saved["actions"][0]) == 3
        with pytest.warns(UserWarning, match="got other observations when its episodes were played again"):
            lost = second.load_state_dict(saved)
        assert lost is not None
        assert lost.all()


def test_a_replicate_that_has_failed_is_played_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from inference_marl.inference.failures import Failures

    played = game()
    with closing(simulate(played, R, E)) as simulator:
        simulator.reset()
        actions = actions_of(played, 1)
        actions[1][1] = float("nan")
        with pytest.raises(ValueError, match="agent 1: got an action that is not finite"):
            simulator.step(actions)
        failures = Failures(R)
        with failures.heeded():
            outcome = simulator.step(actions)
        assert list(failures.why) == [1]
        assert np.isfinite(outcome.rewards.numpy()).all()


def test_our_own_shape_of_a_box_without_dimensions() -> None:
    from gymnasium import spaces

    from inference_marl.simulators.parallel import _space

    assert _space(spaces.Box(-1.0, 1.0, ())) == Box(-1.0, 1.0, 1)
    uneven = spaces.Box(np.float32([[0.0, 1.0]]), np.float32([[2.0, 3.0]]))
    assert _space(uneven) == Box((0.0, 1.0), (2.0, 3.0), 2)
    assert _space(spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,))) == Box(shape=2)
