"""What all particle worlds share: agents who push bodies in a plane and send messages, and what they observe."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from inference_marl.games.actions import check_actions
from inference_marl.games.particles.physics import Body, Physics, Rules
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Game, Observed, State, Step

MOVES = {"stay": (0.0, 0.0), "left": (-1.0, 0.0), "right": (1.0, 0.0), "down": (0.0, -1.0), "up": (0.0, 1.0)}
"""The discrete moves, in order, as forces (x, y)."""

Actions = Literal["discrete", "continuous"]


class Agent(NamedTuple):
    """Who acts: by pushing its body, by sending a message, or both.

    Attributes:
        body: `None` for one that is nowhere, because its position would make no difference.
        words: numbers in its message, 0 for one that sends none. All agents of a world that send any send as many.
    """

    body: Body | None = Body()
    words: int = 0


class Constants(NamedTuple):
    """What a world computes with, in one dtype on one device.

    Attributes:
        tables: per agent, what each discrete action does: forces and messages, `actions x (2 + words)`.
        physics: how bodies move.
        observing: observations of all agents by features, `(sum of observations) x features`.
        never: false.
    """

    tables: tuple[Tensor, ...]
    physics: Physics
    observing: Tensor
    never: Tensor

    def like(self, some: Tensor) -> Constants:
        """The same in the dtype and on the device of a tensor."""
        tables = tuple(table.to(some) for table in self.tables)
        return Constants(tables, self.physics.like(some), self.observing.to(some), self.never.to(some.device))


class ParticleWorld(Game):
    """Agents with bodies in a plane, after the particle environments (MPE) of Lowe et al. (2017).

    'Multi-agent actor-critic for mixed cooperative-competitive environments'. With positions x, velocities v, forces a
    in `[-1, 1] ** 2` and contacts c, a step of time dt = 0.1 is::

        x <- x + v dt                                                      with the old velocity
        v <- (1 - 0.25) v + (acceleration a + c) dt,                       cut to the top speed
        c  = sum over overlapping bodies of 100 softplus_k(overlap) (x - x') / |x - x'|,  k = 0.001

    and rewards depend on where all are now. These are the rules of the package `mpe2`, 1.1.1, whose numbers these
    worlds reproduce; with `rules="openai"`, OpenAI's code for the paper, positions move with the new velocity. Bodies
    at one and the same point do not push each other. Messages are heard at the next step. Positions and goals are drawn
    uniformly, all velocities are 0 at first, and nothing keeps bodies in the square. No step terminates: `horizon` is a
    time limit. All else is deterministic, and differentiable in continuous actions.

    Continuous actions are a force (x, y) in `[-1, 1] ** 2`, of agents that move, and then a message in
    `[0, 1] ** words`, of agents that send one. In mpe2 a force is five numbers, of which the first does nothing: it
    is (a[2] - a[1], a[4] - a[3]). Discrete actions are numbered as there: action `k` is move `k % 5` of `MOVES` and
    word `k // 5`, and for who does not move word `k`.

    The state has, where a world has them, `position` and `velocity` of those who move, `landmarks`, each `replicates x
    environments x count x 2`, last (x, y); `message`, the words last said, `replicates x environments x senders x
    words`; what is drawn, one-hot, `replicates x environments [x count] x values`; what is counted since the episode
    began, `replicates x environments`.

    Inside, replicates and environments come last: what a subclass gets is the same state turned round, with `position`,
    for one, `count x 2 x replicates x environments`, below `count x 2 x ...`. It defines `sees`, `pays` and, if it has
    `episode_metrics`, `results`.

    Args:
        agents: who acts; a subclass sets what its methods need before it calls this.
        landmarks: bodies that never move.
        actions: `discrete` or `continuous`.
        rules: whose, `mpe2` or `openai`.
        horizon: steps per episode; `None` if unlimited.
        draws: what is drawn at the beginning of an episode, by name: the shape of it, one-hot in the last dimension.
        counts: names of what `pays` counts.

    Raises:
        TypeError: if `sees` is not linear.
    """

    terminates = False

    def __init__(
        self,
        agents: Sequence[Agent],
        landmarks: Sequence[Body] = (),
        actions: Actions = "discrete",
        rules: Rules = "mpe2",
        horizon: int | None = 25,
        *,
        draws: Mapping[str, tuple[int, ...]] | None = None,
        counts: Sequence[str] = (),
    ) -> None:
        self.rules, self.horizon, self.draws, self.counts = rules, horizon, dict(draws or {}), tuple(counts)
        self.bodies = [agent.body for agent in agents if agent.body is not None]
        self.places = list(landmarks)
        self.movers = [index for index, agent in enumerate(agents) if agent.body is not None]
        self.senders = [index for index, agent in enumerate(agents) if agent.words]
        self.discrete = actions == "discrete"
        self.action_spaces = tuple(_space(agent, self.discrete) for agent in agents)
        if self.discrete and not self.senders:
            self.action_names = tuple(MOVES)
        self._alike = len(set(self.action_spaces)) == 1
        shapes = {
            "position": (len(self.bodies), 2),
            "velocity": (len(self.bodies), 2),
            "landmarks": (len(landmarks), 2),
            "message": (len(self.senders), max(agent.words for agent in agents)),
            **self.draws,
        }
        self._shapes = {name: shape for name, shape in shapes.items() if shape[0]}
        self._made: dict[tuple[torch.dtype, torch.device], Constants] = {}
        tables = tuple(_table(agent) for agent in agents)
        physics = Physics.of(self.bodies, self.places)
        self._exact = Constants(tables, physics, self._observing(len(agents)), torch.tensor(False))
        self.observations = tuple(Box(shape=size) for size in self._sizes)

    def features(self, state: State) -> State:
        """What observations are linear in, by name, turned round: the state, and what a subclass adds."""
        return {name: state[name] for name in self._shapes}

    @abstractmethod
    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """What an agent observes, one after another, as linear functions of `features`, turned round as they are.

        It is called once; from then on all observations are one product with a constant matrix.
        """

    @abstractmethod
    def pays(self, state: State) -> tuple[Tensor, State]:
        """Rewards after a step, `agents x ...`, and what is added to each of the `counts`, `...`."""

    def others(self, agent: int) -> list[int]:
        """All agents but one."""
        return [other for other in range(self.agents) if other != agent]

    def results(self, state: State) -> State:
        """What `judge` returns, turned round."""
        return {}

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Draw uniformly random positions, and what else is drawn."""
        shape = (replicates, environments)
        within = torch.tensor([body.within for body in (*self.bodies, *self.places)], dtype=dtype, device=device)
        drawn = (2 * torch.rand(*shape, len(within), 2, dtype=dtype, device=device) - 1) * within.unsqueeze(-1)
        position, landmarks = drawn.split([len(self.bodies), len(self.places)], dim=2)
        state = {"position": position, "velocity": torch.zeros_like(position), "landmarks": landmarks}
        state = {name: value for name, value in state.items() if name in self._shapes}
        if self.senders:
            state["message"] = torch.zeros(*shape, *self._shapes["message"], dtype=dtype, device=device)
        for name, (*several, values) in self.draws.items():
            choice = torch.randint(values, (*shape, *several), device=device)
            state[name] = torch.eye(values, dtype=dtype, device=device)[choice]
        # In memory environments are last from the beginning, which saves turning numbers round in every step.
        state = {name: back(turned(value).contiguous()) for name, value in state.items()}
        return state | {name: torch.zeros(shape, dtype=dtype, device=device) for name in self.counts}

    def observe(self, state: State) -> Observed:
        """What each agent observes, `replicates x environments x event`; see the class."""
        seen = self.features({name: turned(value) for name, value in state.items()})
        every = torch.cat([seen[name].flatten(0, -3) for name in self._used])
        obs = (self._for(every).observing @ every.flatten(1)).unflatten(1, every.shape[1:])
        return Observed(back(obs).split(self._sizes, dim=-1))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Move, and pay for where all are now, see `Game.step`; beyond full force the formulas still apply.

        Raises:
            ValueError: if the number or the shapes of the actions do not fit.
            RuntimeError: if discrete actions are not integers.
            IndexError: on the CPU, if they are not among the actions.
        """
        some = next(iter(state.values()))
        batch = some.shape[:2]
        check_actions(self.action_spaces, actions, batch)
        constants, inside = self._for(some), {name: turned(value) for name, value in state.items()}
        forces, message = self._controls(actions, constants)
        new = {}
        if forces is not None:
            position, velocity, landmarks = inside["position"], inside["velocity"], inside.get("landmarks")
            moved = constants.physics.step(position, velocity, landmarks, forces, self.rules)
            new["position"], new["velocity"] = moved
        if message is not None:
            new["message"] = message
        inside |= new
        rewards, counted = self.pays(inside)
        after = state | {name: back(value) for name, value in new.items()}
        after |= {name: state[name] + number for name, number in counted.items()}
        return Step(after, back(rewards), constants.never.expand(batch))

    def judge(self, state: State) -> dict[str, Tensor]:
        """See `Game.judge`."""
        found = self.results({name: turned(value) for name, value in state.items()})
        return {name: back(value) for name, value in found.items()}

    def _controls(self, actions: Sequence[Tensor], constants: Constants) -> tuple[Tensor | None, Tensor | None]:
        """Forces of those who move, `movers x 2 x ...`, and messages of those who send any, `senders x words x ...`."""
        if self._alike:
            every = self._numbers(torch.stack(list(actions)), constants.tables[0]).permute(0, 3, 1, 2)
            if not self.senders:
                return every, None
            return (every[:, :2], every[:, 2:]) if self.movers else (None, every)
        each = [
            self._numbers(action, table).permute(2, 0, 1)
            for action, table in zip(actions, constants.tables, strict=True)
        ]
        forces = [each[index][:2] for index in self.movers]
        messages = [each[index][2 if index in self.movers else 0 :] for index in self.senders]
        return torch.stack(forces) if forces else None, torch.stack(messages) if messages else None

    def _numbers(self, action: Tensor, table: Tensor) -> Tensor:
        """What an action does, force and message, in numbers, `... x (2 + words)`."""
        return table.index_select(0, action.flatten()).view(*action.shape, -1) if self.discrete else action

    def _for(self, some: Tensor) -> Constants:
        """The constants for tensors like `some`."""
        key = (some.dtype, some.device)
        if key not in self._made:
            self._made[key] = self._exact.like(some)
        return self._made[key]

    def _observing(self, agents: int) -> Tensor:
        """The matrix of observations, read off what everybody sees of features that are 1 one at a time, else 0."""

        def seen_of(features: Tensor) -> list[Tensor]:
            parts = features.split([math.prod(shape) for shape in shapes.values()])
            named = {name: part.view(*shapes[name], 1, -1) for name, part in zip(shapes, parts, strict=True)}
            return [torch.cat([part.flatten(0, -3) for part in self.sees(agent, named)]) for agent in range(agents)]

        nothing = {name: torch.zeros(*shape, 1, 1, dtype=torch.float64) for name, shape in self._shapes.items()}
        shapes = {name: value.shape[:-2] for name, value in self.features(nothing).items()}
        size = sum(math.prod(shape) for shape in shapes.values())
        each = seen_of(torch.eye(size, dtype=torch.float64))
        matrix, probe = torch.cat(each).squeeze(1), torch.linspace(-1, 2, size, dtype=torch.float64).unsqueeze(1)
        if not torch.allclose(matrix @ probe, torch.cat(seen_of(probe)).squeeze(1)):
            raise TypeError(f"{type(self).__name__}.sees: got a function that is not linear, expected a linear one")
        self._sizes = [len(rows) for rows in each]
        columns = dict(zip(shapes, matrix.split([math.prod(shape) for shape in shapes.values()], dim=1), strict=True))
        self._used = [name for name, rows in columns.items() if rows.any()]
        return torch.cat([columns[name] for name in self._used], dim=1)


def turned(value: Tensor) -> Tensor:
    """Turn round: `replicates x environments x ...` to `... x replicates x environments`; a view."""
    dims = value.dim()
    return value.permute(2, 3, 0, 1) if dims == 4 else value.permute(*range(2, dims), 0, 1)


def back(value: Tensor) -> Tensor:
    """Undo `turned`; a view."""
    dims = value.dim()
    return value.permute(2, 3, 0, 1) if dims == 4 else value.permute(-2, -1, *range(dims - 2))


def pick(which: Tensor, places: Tensor) -> Tensor:
    """The places that are drawn, one-hot `[count x] places x ...`, of `places x 2 x ...`: `[count x] 2 x ...`."""
    return (which.unsqueeze(-3) * places).sum(-4)


def _space(agent: Agent, discrete: bool) -> Space:
    """What an agent chooses from."""
    moves = 0 if agent.body is None else 2
    if discrete:
        return Discrete((len(MOVES) if moves else 1) * max(agent.words, 1))
    return Box([-1.0] * moves + [0.0] * agent.words, [1.0] * (moves + agent.words), moves + agent.words)


def _table(agent: Agent) -> Tensor:
    """What each discrete action does, `actions x (2 + words)`."""
    moves, words = torch.tensor(list(MOVES.values()), dtype=torch.float64), torch.eye(agent.words, dtype=torch.float64)
    if agent.body is None:
        return words
    if not agent.words:
        return moves
    return torch.cat([moves.repeat(agent.words, 1), words.repeat_interleave(len(MOVES), dim=0)], dim=1)
