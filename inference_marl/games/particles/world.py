"""The base of particle worlds: agents that move bodies in a plane and send messages."""

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
    """An agent that moves its body, sends messages, or both.

    Attributes:
        body: the body; `None` for an agent without a position.
        words: length of its message, 0 for none. All agents of a world that send messages have the same length.
    """

    body: Body | None = Body()
    words: int = 0


class Constants(NamedTuple):
    """Constants of a world, in one dtype on one device.

    Attributes:
        tables: for each agent, the force and message of each discrete action, `actions x (2 + words)`.
        physics: constants of motion.
        observing: matrix from features to all agents' observations, `(sum of observations) x features`.
        never: the constant false.
    """

    tables: tuple[Tensor, ...]
    physics: Physics
    observing: Tensor
    never: Tensor

    def like(self, some: Tensor) -> Constants:
        """The constants in the dtype and on the device of a tensor."""
        tables = tuple(table.to(some) for table in self.tables)
        return Constants(tables, self.physics.like(some), self.observing.to(some), self.never.to(some.device))


class ParticleWorld(Game):
    """Base: a particle world after the multi-agent particle environments (MPE) of Lowe et al. (2017).

    See 'Multi-agent actor-critic for mixed cooperative-competitive environments'. With positions x, velocities v,
    forces a in `[-1, 1] ** 2` and contacts c, a step of time dt = 0.1 is::

        x <- x + v dt                                                      with the old velocity
        v <- (1 - 0.25) v + (acceleration a + c) dt,                       clipped to the top speed
        c  = sum over overlapping bodies of 100 softplus_k(overlap) (x - x') / |x - x'|,  k = 0.001

    and rewards depend on the new positions. These are the rules of the package `mpe2`, 1.1.1, whose numbers these
    worlds reproduce; with `rules="openai"`, OpenAI's code for the paper, positions move with the new velocity. Bodies
    at the same point do not push each other. Messages are observed at the next step. Initial positions and goals are
    uniform, initial velocities are 0, and bodies may leave the square. No step terminates: `horizon` is a time limit.
    Everything else is deterministic, and differentiable in continuous actions.

    Continuous actions are a force (x, y) in `[-1, 1] ** 2`, for agents that move, followed by a message in `[0, 1] **
    words`, for agents that send one. In mpe2 a force is five numbers, of which the first has no effect: it is (a[2] -
    a[1], a[4] - a[3]). Discrete actions are numbered as in mpe2: action `k` is move `k % 5` of `MOVES` and word `k //
    5`, or word `k` for agents that do not move.

    The state has, if they exist, `position` and `velocity` of movers, `landmarks`, each `replicates x environments x
    count x 2`, last (x, y); `message`, the last messages, `replicates x environments x senders x words`; one-hot draws,
    `replicates x environments [x count] x values`; and counts since the start of the episode, `replicates x
    environments`.

    Internally, replicates and environments are the last dimensions: methods of subclasses take the state transposed in
    this way, for instance `position` as `count x 2 x replicates x environments`, below `count x 2 x ...`. A subclass
    defines `sees`, `pays` and, if it has `episode_metrics`, `results`.

    Args:
        agents: the agents; a subclass sets the attributes that its methods need before it calls this.
        landmarks: bodies that never move.
        actions: `discrete` or `continuous`.
        rules: `mpe2` or `openai`, see above.
        horizon: steps per episode; `None` for no limit.
        draws: shapes, by name, of one-hot variables that are drawn at the start of an episode.
        counts: names of the counts of `pays`.

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
        """The features of which observations are linear functions, by name, transposed: by default the state."""
        return {name: state[name] for name in self._shapes}

    @abstractmethod
    def sees(self, agent: int, seen: State) -> Sequence[Tensor]:
        """The parts of an agent's observation, as linear functions of the transposed `features`.

        It is called once; afterwards all observations are one product with a constant matrix.
        """

    @abstractmethod
    def pays(self, state: State) -> tuple[Tensor, State]:
        """Rewards after a step, `agents x ...`, and increments of the `counts`, `...`."""

    def others(self, agent: int) -> list[int]:
        """All agents except one."""
        return [other for other in range(self.agents) if other != agent]

    def results(self, state: State) -> State:
        """The values of `judge`, transposed."""
        return {}

    def reset(
        self, replicates: int, environments: int, device: torch.device, dtype: torch.dtype, task: Tensor | None = None
    ) -> State:
        """Draw uniformly random positions and the variables of `draws`."""
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
        # Environments are last in memory from the start, which saves a copy in every step.
        state = {name: back(turned(value).contiguous()) for name, value in state.items()}
        return state | {name: torch.zeros(shape, dtype=dtype, device=device) for name in self.counts}

    def observe(self, state: State) -> Observed:
        """The observation of each agent, `replicates x environments x event`; see the class."""
        seen = self.features({name: turned(value) for name, value in state.items()})
        every = torch.cat([seen[name].flatten(0, -3) for name in self._used])
        obs = (self._for(every).observing @ every.flatten(1)).unflatten(1, every.shape[1:])
        return Observed(back(obs).split(self._sizes, dim=-1))

    def step(self, state: State, actions: Sequence[Tensor]) -> Step:
        """Move and compute rewards at the new positions, see `Game.step`; formulas also apply beyond full force.

        Raises:
            ValueError: if the number or the shapes of the actions do not fit.
            RuntimeError: if discrete actions are not integers.
            IndexError: on the CPU, if they are not valid actions.
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
        """Forces of movers, `movers x 2 x ...`, and messages of senders, `senders x words x ...`."""
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
        """The force and message of an action, `... x (2 + words)`."""
        return table.index_select(0, action.flatten()).view(*action.shape, -1) if self.discrete else action

    def _for(self, some: Tensor) -> Constants:
        """The constants for tensors like `some`."""
        key = (some.dtype, some.device)
        if key not in self._made:
            self._made[key] = self._exact.like(some)
        return self._made[key]

    def _observing(self, agents: int) -> Tensor:
        """The matrix of observations, computed by applying `sees` to unit vectors of features."""

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
    """Transpose `replicates x environments x ...` to `... x replicates x environments`; a view."""
    dims = value.dim()
    return value.permute(2, 3, 0, 1) if dims == 4 else value.permute(*range(2, dims), 0, 1)


def back(value: Tensor) -> Tensor:
    """Undo `turned`; a view."""
    dims = value.dim()
    return value.permute(2, 3, 0, 1) if dims == 4 else value.permute(-2, -1, *range(dims - 2))


def pick(which: Tensor, places: Tensor) -> Tensor:
    """Select places, `places x 2 x ...`, by one-hot variables, `[count x] places x ...`, as `[count x] 2 x ...`."""
    return (which.unsqueeze(-3) * places).sum(-4)


def _space(agent: Agent, discrete: bool) -> Space:
    """The action space of an agent."""
    moves = 0 if agent.body is None else 2
    if discrete:
        return Discrete((len(MOVES) if moves else 1) * max(agent.words, 1))
    return Box([-1.0] * moves + [0.0] * agent.words, [1.0] * (moves + agent.words), moves + agent.words)


def _table(agent: Agent) -> Tensor:
    """The force and message of each discrete action, `actions x (2 + words)`."""
    moves, words = torch.tensor(list(MOVES.values()), dtype=torch.float64), torch.eye(agent.words, dtype=torch.float64)
    if agent.body is None:
        return words
    if not agent.words:
        return moves
    return torch.cat([moves.repeat(agent.words, 1), words.repeat_interleave(len(MOVES), dim=0)], dim=1)
