"""The collector and the simulator of pure games, with toy games that end, cut off, kill and mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.games import MatrixGame, Rendezvous
from inference_marl.learners import Stationary
from inference_marl.play import Collector, GameSimulator
from inference_marl.spaces import Box, Discrete
from inference_marl.types import (
    Actor,
    Decision,
    Experience,
    Game,
    Memory,
    Observed,
    Outcome,
    Seat,
    Simulator,
    Start,
    State,
    Step,
)

CPU = torch.device("cpu")
R, E = 2, 3


class Countdown(Game):
    """Ends when a randomly drawn number has been counted down; agents observe it, and are paid for it."""

    observations = (Discrete(10), Discrete(10))
    action_spaces = (Discrete(2), Discrete(2))

    def __init__(self, most: int = 4, horizon: int | None = None, cut: int | None = None) -> None:
        self.most, self.horizon, self.cut = most, horizon, cut

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        left = torch.randint(1, self.most + 1, (replicates, environments), device=device)
        return {"left": left, "made": torch.zeros_like(left)}

    def observe(self, state: State) -> Observed:
        return Observed((state["left"],) * 2)

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        left, made = state["left"] - 1, state["made"] + 1
        rewards = state["left"].double().unsqueeze(-1).expand(-1, -1, 2)
        truncated = None if self.cut is None else made >= self.cut
        return Step({"left": left, "made": made}, rewards, left == 0, truncated)


class Counter(Actor):
    """Remembers how many steps it made in this episode, and in all; plays whether the first is odd."""

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        return {"made": torch.zeros(replicates, environments, dtype=torch.int64)}

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        return Decision(memory["made"] % 2, memory, info={"made": memory["made"]})

    def remember(self, memory: Memory, step: Experience) -> Memory:
        return {"made": memory["made"] + 1}


def seats(game: Game, environments: int = E) -> list[Seat]:
    return [
        Seat(i, game.observations, game.action_spaces, R, environments, dtype=torch.float64, game=game)
        for i in range(game.agents)
    ]


def collector(game: Game, *actors: Actor, environments: int = E) -> Collector:
    bound = [actor.bind(seat) for actor, seat in zip(actors, seats(game, environments), strict=True)]
    return Collector(GameSimulator(game, R, environments, CPU, torch.float64), bound)


def test_episodes_end_one_environment_at_a_time() -> None:
    game = Countdown()
    played = collector(game, Stationary(), Stationary()).collect(40).stacked
    left, following = played.obs[0], played.next_obs[0]
    assert left.shape == (40, R, E)
    assert torch.equal(following, left - 1)  # what follows is told before the reset
    assert torch.equal(played.terminated, left == 1)
    assert torch.equal(played.ended, played.terminated)
    assert not played.truncated.any()
    begins = left[1:][played.ended[:-1]]
    assert begins.unique().tolist() == [1, 2, 3, 4]  # each begins anew at random
    goes_on = ~played.ended[:-1]
    assert torch.equal(left[1:][goes_on], following[:-1][goes_on])


@pytest.mark.parametrize("game", [Countdown(9, horizon=3), Countdown(9, cut=3)], ids=["horizon", "cut by the game"])
def test_a_time_limit_ends_and_does_not_terminate(game: Game) -> None:
    played = collector(game, Stationary(), Stationary()).collect(30).stacked
    assert torch.equal(played.terminated, played.obs[0] == 1)
    assert bool(played.truncated.any())
    assert not (played.truncated & played.terminated).any()
    lasted = torch.zeros(R, E, dtype=torch.int64)
    for ended in played.ended:
        lasted += 1
        assert (lasted <= 3).all()
        lasted[ended] = 0


def test_memories_begin_anew_where_episodes_do() -> None:
    trajectory = collector(Countdown(), Counter(), Counter()).collect(30)
    made = torch.stack([step.infos[0]["made"] for step in trajectory.steps])
    expected = torch.zeros(R, E, dtype=torch.int64)
    for step, now in zip(trajectory.steps, made, strict=True):
        assert torch.equal(now, expected)
        expected = torch.where(step.ended, 0, expected + 1)
    assert torch.equal(trajectory.stacked.infos[1]["made"], made)


def test_a_trajectory_knows_the_memories_before_it() -> None:
    player = collector(MatrixGame("climbing", horizon=None), Counter(), Stationary())
    first, second = player.collect(3), player.collect(2)
    assert torch.equal(first.memories[0]["made"], torch.zeros(R, E, dtype=torch.int64))
    assert torch.equal(second.memories[0]["made"], torch.full((R, E), 3))
    assert second.memories[1] == {}


class Beginner(Counter):
    """Keeps the starts that it is told of."""

    def __init__(self) -> None:
        self.starts: list[Start] = []

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        self.starts.append(start)
        return super().begin(start, memory)


def test_episodes_begin_where_one_has_ended_and_without_tasks_every_one_is_a_task() -> None:
    player = collector(Countdown(), Beginner(), Stationary())
    trajectory = player.collect(12)
    first, *others = player.actors[0].starts
    assert first.episode.all()
    assert first.new_task.all()
    ends = [step.ended for step in trajectory.steps[:-1] if step.ended.any()]
    assert all(torch.equal(start.episode, ended) for start, ended in zip(others, ends, strict=True))
    assert all(torch.equal(start.new_task, start.episode) for start in others)


def test_what_was_decided_is_what_is_remembered() -> None:
    """The memory after deciding, and not the one before it."""

    class Doubling(Counter):
        def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
            return Decision(torch.zeros_like(obs), {"made": memory["made"] + 10})

    player = collector(MatrixGame("climbing", horizon=None), Doubling(), Stationary())
    player.collect(2)
    assert torch.equal(player.memories[0]["made"], torch.full((R, E), 22))


class Tally(Counter):
    """Counts in place, as `remember` may."""

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        return Decision(torch.zeros_like(obs), memory)

    def remember(self, memory: Memory, step: Experience) -> Memory:
        memory["made"] += 1
        return memory


def test_a_memory_changed_in_place_changes_no_trajectory_and_no_saved_state() -> None:
    player = collector(MatrixGame("climbing", horizon=None), Tally(), Stationary())
    first = player.collect(3)
    saved = player.state_dict()
    second = player.collect(2)
    assert torch.equal(first.memories[0]["made"], torch.zeros(R, E, dtype=torch.int64))
    assert torch.equal(second.memories[0]["made"], torch.full((R, E), 3))
    for _ in range(2):
        resumed = collector(MatrixGame("climbing", horizon=None), Tally(), Stationary())
        resumed.load_state_dict(saved)
        assert torch.equal(resumed.collect(2).memories[0]["made"], torch.full((R, E), 3))
        assert torch.equal(resumed.memories[0]["made"], torch.full((R, E), 5))


def test_a_trajectory_from_the_start_of_an_episode_begins_with_a_fresh_memory() -> None:
    player = collector(MatrixGame("climbing", horizon=3), Counter(), Stationary())
    player.collect(3)
    assert torch.equal(player.collect().memories[0]["made"], torch.zeros(R, E, dtype=torch.int64))


def test_steps_side_by_side_and_stacked_are_the_same_data() -> None:
    trajectory = collector(Countdown(), Stationary(), Stationary()).collect(4)
    flat, stacked = trajectory.flat, trajectory.stacked
    assert flat.rewards.shape == (R, 4 * E, 2)
    assert torch.equal(flat.rewards.unflatten(1, (4, E)).movedim(1, 0), stacked.rewards)
    assert torch.equal(flat.actions[1].unflatten(1, (4, E)).movedim(1, 0), stacked.actions[1])


def test_the_reset_is_drawn_after_learning() -> None:
    """A reset draws its random numbers just before the next step, or when somebody asks what is observed now."""
    game = Rendezvous(horizon=1)
    torch.manual_seed(0)
    player = collector(game, Stationary(), Stationary())
    player.collect()
    state = torch.get_rng_state()
    now = player.observe().obs[0]
    torch.set_rng_state(state)
    torch.testing.assert_close(now, 2 * torch.rand(R, E, 2, dtype=torch.float64) - 1)
    assert torch.equal(player.collect().steps[0].obs[0], now)


@pytest.mark.parametrize("horizon", [1, 3, None])
def test_stop_and_go_on(horizon: int | None) -> None:
    for game in (Countdown(horizon=horizon), Rendezvous(horizon=horizon), MatrixGame("chicken", horizon=horizon)):
        torch.manual_seed(1)
        unbroken = collector(game, Counter() if isinstance(game, Countdown) else Stationary(), Stationary())
        whole = [unbroken.collect() for _ in range(9)]
        torch.manual_seed(1)
        first = collector(game, Counter() if isinstance(game, Countdown) else Stationary(), Stationary())
        for _ in range(4):
            first.collect()
        kept, random = first.state_dict(), torch.get_rng_state()
        second = collector(game, Counter() if isinstance(game, Countdown) else Stationary(), Stationary())
        second.load_state_dict(kept)
        torch.set_rng_state(random)
        for expected in whole[4:]:
            got = second.collect().steps[0]
            assert torch.equal(got.rewards, expected.steps[0].rewards)
            assert torch.equal(got.obs[0], expected.steps[0].obs[0])
            assert torch.equal(got.actions[0], expected.steps[0].actions[0])


class Masked(Simulator):
    """One state in which agent 1 may only play action 2, and dies at its second step."""

    observations = (Discrete(1), Discrete(1))
    action_spaces = (Discrete(3), Discrete(3))
    shape = (R, E)

    def __init__(self) -> None:
        self.made = 0

    def reset(self, where: Tensor | None = None, task: Tensor | None = None) -> None:
        self.made = 0

    def observe(self) -> Observed:
        zero, mask = torch.zeros(R, E, dtype=torch.int64), torch.zeros(R, E, 3, dtype=torch.bool)
        mask[..., 2] = True
        alive = torch.ones(R, E, 2, dtype=torch.bool)
        alive[..., 1] = self.made < 2
        return Observed((zero, zero), alive, (None, mask))

    def step(self, actions: Sequence[Tensor]) -> Outcome:
        self.made += 1
        nowhere = torch.zeros(R, E, dtype=torch.bool)
        return Outcome(torch.ones(R, E, 2), nowhere, nowhere)

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.made = state["made"]


class Heedful(Actor):
    heeds_masks: ClassVar[bool] = True

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        return Decision(torch.zeros_like(obs) if mask is None else mask.int().argmax(-1), memory)


def masked(*actors: Actor) -> Collector:
    simulator = Masked()
    places = [Seat(i, simulator.observations, simulator.action_spaces, R, E) for i in range(2)]
    return Collector(simulator, [actor.bind(seat) for actor, seat in zip(actors, places, strict=True)])


def test_masks_are_passed_on_and_the_dead_are_told() -> None:
    steps = masked(Stationary(), Heedful()).collect(3).steps
    assert all((step.actions[1] == 2).all() for step in steps)
    assert [bool(step.terminated_for(1).all()) for step in steps] == [False, True, True]
    assert not any(step.terminated_for(0).any() for step in steps)
    assert [bool(step.alive[..., 1].any()) for step in steps if step.alive is not None] == [True, True, False]
    seen = steps[1].seen_by(Seat(1, Masked.observations, Masked.action_spaces, R, E))
    assert seen.terminated.all()  # nothing is bootstrapped for one that is out


@pytest.mark.parametrize("explore", [True, False])
def test_actors_are_told_whether_to_explore(explore: bool) -> None:
    told: list[bool] = []

    class Told(Heedful):
        def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
            told.append(explore)
            return super().act(obs, memory, explore, mask)

    for simulator in (Masked(), GameSimulator(MatrixGame("climbing"), R, E)):
        places = [Seat(i, simulator.observations, simulator.action_spaces, R, E) for i in range(2)]
        Collector(simulator, [Told().bind(seat) for seat in places], explore).collect()
    assert told == [explore] * 4


def test_masks_before_and_after_a_step_are_told_apart() -> None:
    class Moving(Masked):
        def observe(self) -> Observed:
            seen = super().observe()
            assert seen.masks is not None
            return seen._replace(masks=(None, torch.full((R, E, 3), True) if self.made else seen.masks[1]))

    simulator = Moving()
    places = [Seat(i, simulator.observations, simulator.action_spaces, R, E) for i in range(2)]
    (step,) = Collector(simulator, [Heedful().bind(seat) for seat in places]).collect().steps
    assert step.masks is not None
    assert step.next_masks is not None
    assert step.masks[1] is not None
    assert step.next_masks[1] is not None
    assert step.masks[1].sum(-1).unique().tolist() == [1]
    assert step.next_masks[1].sum(-1).unique().tolist() == [3]


def test_an_actor_that_does_not_heed_masks_is_refused() -> None:
    with pytest.raises(IncompatibleError, match="Stationary in seat 1 got a mask"):
        masked(Heedful(), Stationary()).collect()


class Says(Actor):
    """Does what it is told to."""

    def __init__(self, action: Tensor) -> None:
        self.action = action

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        return Decision(self.action, memory)


@pytest.mark.parametrize(
    ("game", "action", "complaint"),
    [
        (MatrixGame("climbing"), torch.zeros(R, E, 1).long(), "agent 1, step 1: got an action of shape (2, 3, 1)"),
        (MatrixGame("climbing"), torch.zeros(R, 1).long(), "agent 1, step 1: got an action of shape (2, 1)"),
        (MatrixGame("climbing"), torch.full((R, E), 3), "agent 1, step 1: got an action of numbers from 3 to 3"),
        (MatrixGame("climbing"), torch.full((R, E), -1), "agent 1, step 1: got an action of numbers from -1 to -1"),
        (MatrixGame("climbing"), torch.zeros(R, E), "agent 1, step 1: got an action of torch.float32"),
        (Rendezvous(), torch.full((R, E, 1), 1.5), "agent 1, step 1: got an action of numbers from 1.5 to 1.5"),
        (Rendezvous(), torch.full((R, E, 1), torch.nan), "agent 1, step 1: got an action of numbers from nan to nan"),
    ],
)
def test_actions_out_of_their_space_are_refused_by_name(game: Game, action: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"^agent 1") as error:
        collector(game, Stationary(), Says(action)).collect()
    assert complaint in str(error.value)


def test_a_late_action_that_breaks_the_game_is_named_too() -> None:
    says = Says(torch.zeros(R, E, dtype=torch.int64))
    player = collector(MatrixGame("climbing"), Stationary(), says)
    player.collect(60)
    player.actors[1].action = torch.full((R, E), 3)
    with pytest.raises(ValueError, match="agent 1, step 61: got an action of numbers from 3 to 3"):
        player.collect()


def test_values_are_looked_at_again_from_time_to_time() -> None:
    """A game that puts up with an action out of its space does not hide it for ever."""
    says = Says(torch.zeros(R, E, 1, dtype=torch.float64))
    player = collector(Rendezvous(), Stationary(), says)
    player.collect(60)
    player.actors[1].action = torch.full((R, E, 1), 1.5, dtype=torch.float64)
    player.collect(39)
    with pytest.raises(ValueError, match=r"agent 1, step 100: got an action of numbers from 1\.5 to 1\.5"):
        player.collect()


def test_a_collector_that_is_restored_counts_its_steps_on() -> None:
    player = collector(Rendezvous(), Stationary(), Says(torch.zeros(R, E, 1, dtype=torch.float64)))
    player.collect(60)
    other = collector(Rendezvous(), Stationary(), Says(torch.full((R, E, 1), 1.5, dtype=torch.float64)))
    other.load_state_dict(player.state_dict())
    other.collect(39)
    with pytest.raises(ValueError, match="agent 1, step 100: got an action"):
        other.collect()


def test_a_collector_that_has_not_begun_may_be_saved_too() -> None:
    unbegun = collector(Countdown(), Counter(), Stationary()).state_dict()
    player = collector(Countdown(), Counter(), Stationary())
    player.load_state_dict(unbegun)
    (step,) = player.collect().steps
    assert not step.infos[0]["made"].any()
    assert (step.obs[0] > 0).all()


class Misshapen(MatrixGame):
    def observe(self, state: State) -> Observed:
        return Observed((state["obs"], state["obs"].unsqueeze(-1)))


class OutOfRange(Rendezvous):
    def observe(self, state: State) -> Observed:
        return Observed((state["obs"], 3 + state["obs"]))


@pytest.mark.parametrize("game", [Misshapen(), OutOfRange()])
def test_observations_out_of_their_space_are_refused_by_name(game: Game) -> None:
    with pytest.raises(ValueError, match="agent 1, step 0: got an observation"):
        collector(game, Stationary(), Stationary()).collect()


def test_every_seat_is_taken() -> None:
    with pytest.raises(IncompatibleError, match="got 1 actors, expected one per agent: 2"):
        Collector(GameSimulator(MatrixGame(), R, E), [Stationary()])


def test_start_everywhere_begins_everything() -> None:
    start = Start.everywhere(R, E, CPU)
    assert start.episode.all()
    assert start.new_task.all()
    assert Box(0, 1, 2).features == 2


class Recurrent(Actor):
    """A policy whose memory is a function of its parameter, and which `remember` changes in place."""

    def setup(self) -> None:
        self.weight = torch.nn.Parameter(torch.ones(self.seat.replicates, 1))
        self.begun: list[Tensor] = []

    def initial_memory(self, replicates: int, environments: int) -> Memory:
        return {"h": torch.zeros(replicates, environments), "seen": torch.zeros(replicates, environments)}

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        return Decision(torch.zeros_like(obs), {**memory, "h": memory["h"] + self.weight})

    def remember(self, memory: Memory, step: Experience) -> Memory:
        memory["seen"] += 1
        return memory


def test_no_gradient_reaches_into_the_trajectory_before() -> None:
    player = collector(MatrixGame("climbing", horizon=None), Recurrent(), Stationary())
    for _ in range(3):
        player.collect(2)
        assert player.memories[0]["h"].requires_grad
        player.memories[0]["h"].sum().backward()  # twice through one graph is an error
    weight = next(player.actors[0].parameters())
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full_like(weight, 3 * 2 * E))


def test_the_memories_before_a_trajectory_are_not_changed_by_it() -> None:
    player = collector(MatrixGame("climbing", horizon=None), Recurrent(), Stationary())
    first, second = player.collect(4), player.collect(1)
    assert (first.memories[0]["seen"] == 0).all()
    assert (second.memories[0]["seen"] == 4).all()


class Begins(Actor):
    """Notices where episodes begin, without a memory."""

    def begin(self, start: Start, memory: Memory | None) -> Memory:
        self.__dict__.setdefault("times", []).append(start.episode.clone())
        return {}

    def act(self, obs: Tensor, memory: Memory, explore: bool = True, mask: Tensor | None = None) -> Decision:
        return Decision(torch.zeros_like(obs), memory)


def test_begin_is_called_where_it_is_defined_even_without_a_memory() -> None:
    player = collector(Countdown(), Begins(), Stationary())
    trajectory = player.collect(20)
    begun = torch.stack(player.actors[0].__dict__["times"][1:])
    ended = [step.ended for step in trajectory.steps[:-1] if step.ended.any()]
    assert torch.equal(begun, torch.stack(ended))


class Endless(Countdown):
    terminates = False


@pytest.mark.parametrize("game", [Endless(1, horizon=5), Endless(9, horizon=5, cut=2)], ids=["terminates", "truncates"])
def test_a_game_that_says_it_does_not_terminate_may_not(game: Game) -> None:
    with pytest.raises(ValueError, match=r"Endless\.terminates: got False, but an episode was over"):
        collector(game, Stationary(), Stationary()).collect(3)


class Misrewarded(MatrixGame):
    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        return super().step(state, actions)._replace(rewards=torch.zeros(R, E))


def test_rewards_of_another_shape_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"step 1: got shapes rewards \(2, 3\), .*, expected rewards \(2, 3, 2\) and flags \(2, 3\)"
    ):
        collector(Misrewarded(), Stationary(), Stationary()).collect()


def test_what_agents_of_different_kinds_did_is_told_to_each() -> None:
    """Opponents' actions are a tuple; they are one variable only for those that ask."""
    game = Rendezvous()
    places = Seat(0, (Discrete(1),) * 3, (Discrete(2), Discrete(3), Box(0, 1, 2)), R, E)
    step = collector(game, Stationary(), Stationary()).collect().steps[0]
    step.obs, step.next_obs = step.obs + step.obs[:1], step.next_obs + step.next_obs[:1]
    step.rewards = torch.zeros(R, E, 3)
    step.actions = (torch.ones(R, E).long(), torch.full((R, E), 2), torch.rand(R, E, 2))
    seen = step.seen_by(places)
    assert [action.shape for action in seen.opponent_actions] == [(R, E), (R, E, 2)]
    one = seen.of_environment(1)
    assert torch.equal(one.opponent_actions[1], step.actions[2][:, 1:2])
    with pytest.raises(RuntimeError):
        _ = seen.opponent_action
    alone = Seat(0, (Discrete(1),), (Discrete(2),), R, E)
    step.actions, step.rewards = step.actions[:1], torch.zeros(R, E, 1)
    assert torch.equal(step.seen_by(alone).opponent_action, torch.zeros(R, E, dtype=torch.int64))
