"""The physics that all particle worlds share: bodies in a plane, which agents push, and messages that agents send."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from inference_marl.games.actions import check_actions
from inference_marl.spaces import Box, Discrete, Space
from inference_marl.types import Game, Observed, State, Step

MOVES = {"stay": (0.0, 0.0), "left": (-1.0, 0.0), "right": (1.0, 0.0), "down": (0.0, -1.0), "up": (0.0, 1.0)}
"""The discrete moves, in order, as forces (x, y)."""
DT = 0.1
"""Time per step."""
DAMPING = 0.25
"""Share of its velocity that a body loses per step."""
STIFFNESS = 100.0
"""Acceleration of bodies in contact, per unit of position by which they overlap."""
SOFTNESS = 1e-3
"""The distance, in units of position, over which contact begins."""
CLOSEST = 1e-9
"""Bodies that are nearer to each other, in units of position, do not push: there is no direction to push in."""

Actions = Literal["discrete", "continuous"]
Rules = Literal["mpe2", "openai"]


class Body(NamedTuple):
    """Something round in the plane; all have mass 1.

    Attributes:
        size: radius, in units of position.
        solid: whether it and other solid bodies push each other away.
        acceleration: at full force, in units of position per squared unit of time.
        top_speed: in units of position per unit of time.
        within: its initial coordinates are uniform in `[-within, within]`.
    """

    size: float = 0.05
    solid: bool = False
    acceleration: float = 5.0
    top_speed: float = math.inf
    within: float = 1.0


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
        kick: what a step at full force adds to the velocity, `movers x 1 x 1 x 1`.
        top_speed: its square, `movers x 1 x 1`.
        differences: of the positions of solid bodies that may touch, `pairs x (movers + landmarks)`, 1 and -1.
        impulses: what the velocities get of each pair's contact, `movers x pairs`.
        reach: how far apart the pairs are when they touch, `pairs x 1 x 1`, in units of `-SOFTNESS`.
        observing: observations of all agents by features, `(sum of observations) x features`.
        keep: share of a velocity that is left after a step.
        never: false.
    """

    tables: tuple[Tensor, ...]
    kick: Tensor
    top_speed: Tensor
    differences: Tensor
    impulses: Tensor
    reach: Tensor
    observing: Tensor
    keep: Tensor
    never: Tensor


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
        draws: what is drawn at the beginning of an episode, by name: the shape of it, one-hot in the last dimension.
        counts: names of what `pays` counts.
        actions: `discrete` or `continuous`.
        rules: whose, `mpe2` or `openai`.
        horizon: steps per episode; `None` if unlimited.

    Raises:
        TypeError: if `sees` is not linear.
    """

    terminates = False

    def __init__(
        self,
        agents: Sequence[Agent],
        landmarks: Sequence[Body] = (),
        *,
        draws: Mapping[str, tuple[int, ...]] | None = None,
        counts: Sequence[str] = (),
        actions: Actions,
        rules: Rules,
        horizon: int | None,
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
        self._exact = self._constants(agents)
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
        new = {} if forces is None else self._moved(inside, forces, constants)
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

    def _moved(self, state: State, forces: Tensor, constants: Constants) -> State:
        """Positions and velocities after a step."""
        position, old = state["position"], state["velocity"]
        velocity = torch.addcmul(constants.keep * old, constants.kick, forces)
        if len(constants.reach):
            velocity = velocity + self._contacts(state, constants)
        if self._limited:
            square = squared(velocity) / constants.top_speed
            velocity = velocity / square.clamp_min(1).sqrt().unsqueeze(1)
        position = torch.add(position, velocity if self.rules == "openai" else old, alpha=DT)
        return {"position": position, "velocity": velocity}

    def _contacts(self, state: State, constants: Constants) -> Tensor:
        """What solid bodies that touch add to each other's velocity, `movers x 2 x ...`."""
        position = state["position"]
        bodies = torch.cat([position, state["landmarks"]]) if self._obstacles else position
        apart = (constants.differences @ bodies.flatten(1)).view(-1, *position.shape[1:])
        square = squared(apart)
        length = square.masked_fill(square < CLOSEST**2, math.inf).sqrt()
        overlap = logsigmoid(torch.add(constants.reach, length, alpha=1 / SOFTNESS))  # -softplus, without a threshold
        pushes = apart * (overlap / length).unsqueeze(1)
        return (constants.impulses @ pushes.flatten(1)).view_as(position)

    def _for(self, some: Tensor) -> Constants:
        """The constants for tensors like `some`."""
        key = (some.dtype, some.device)
        if key not in self._made:
            self._made[key] = Constants._make(_like(part, some) for part in self._exact)
        return self._made[key]

    def _constants(self, agents: Sequence[Agent]) -> Constants:
        """The constants in double precision, and which features are used."""
        count = len(self.bodies)
        every = [*self.bodies, *self.places]
        solid = [index for index, body in enumerate(every) if body.solid]
        pairs = [(one, other) for one, other in combinations(solid, 2) if one < count]
        self._obstacles = any(other >= count for _, other in pairs)
        self._limited = any(body.top_speed < math.inf for body in self.bodies)
        differences = torch.zeros(len(pairs), len(every) if self._obstacles else count, dtype=torch.float64)
        for row, (one, other) in enumerate(pairs):
            differences[row, one], differences[row, other] = 1.0, -1.0
        reach = [-(every[one].size + every[other].size) / SOFTNESS for one, other in pairs]
        double = torch.float64
        return Constants(
            tuple(_table(agent) for agent in agents),
            torch.tensor([body.acceleration * DT for body in self.bodies], dtype=double).view(-1, 1, 1, 1),
            torch.tensor([body.top_speed**2 for body in self.bodies], dtype=double).view(-1, 1, 1),
            differences,
            -STIFFNESS * SOFTNESS * DT * differences[:, :count].mT,
            torch.tensor(reach, dtype=double).view(-1, 1, 1),
            self._observing(len(agents)),
            torch.tensor(1 - DAMPING, dtype=double),
            torch.tensor(False),
        )

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


def squared(difference: Tensor) -> Tensor:
    """Its squared length, `[... x] 2 x replicates x environments` to `[... x] replicates x environments`."""
    x, y = difference.unbind(-3)
    return torch.addcmul(x * x, y, y)


def distance(difference: Tensor) -> Tensor:
    """Its length, as `squared`; the gradient is 0 where it is (rounded to) 0."""
    return squared(difference).clamp_min(1e-30).sqrt()


def pick(which: Tensor, places: Tensor) -> Tensor:
    """The places that are drawn, one-hot `[count x] places x ...`, of `places x 2 x ...`: `[count x] 2 x ...`."""
    return (which.unsqueeze(-3) * places).sum(-4)


def _like(part: Tensor | tuple[Tensor, ...], some: Tensor) -> Tensor | tuple[Tensor, ...]:
    """A constant, or each of several, of the floating type and on the device of a tensor."""
    if isinstance(part, tuple):
        return tuple(table.to(some) for table in part)
    return part.to(some) if part.is_floating_point() else part.to(some.device)


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
