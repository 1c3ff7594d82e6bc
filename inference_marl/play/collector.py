"""Play actors in a simulator: the package's only interaction loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.inference.failures import heeded
from inference_marl.play.tasks import Tasks
from inference_marl.spaces import Space
from inference_marl.types import Actor, Decision, Memory, Observed, Outcome, Simulator, Start, Trajectory, Transition

LOOKED_AT = 50
"""Initial steps in which all values are checked, and the interval of these checks from then on."""


class Collector:
    """Plays actors in a simulator and returns trajectories; never learns.

    Episodes end independently in each environment. The next one begins just before its first step, or when the current
    observations are requested, so learning from a step draws its random numbers before the subsequent reset.

    Args:
        simulator: where they play.
        actors: one per agent, bound to their seats.
        explore: whether they act as during learning.
        tasks: what varies between episodes, if anything. The collector alone draws tasks: the rules get them, and those
            actors that set `reads_task`.
        seed: random seed of tasks, on which nothing else depends.

    Raises:
        IncompatibleError: if there is not one actor per agent.
    """

    def __init__(
        self,
        simulator: Simulator,
        actors: Sequence[Actor],
        explore: bool = True,
        tasks: Tasks | None = None,
        seed: int = 0,
    ) -> None:
        agents = len(simulator.action_spaces)
        if len(actors) != agents:
            raise IncompatibleError(f"got {len(actors)} actors, expected one per agent: {agents}")
        self.simulator, self.actors, self.explore = simulator, list(actors), explore
        self.tasks, self.seed = tasks, seed
        shape = simulator.shape
        self._action_shapes = [(*shape, *space.event_shape) for space in simulator.action_spaces]
        self._observation_shapes = [(*shape, *space.event_shape) for space in simulator.observations]
        self.memories: list[Memory] = []
        self.steps = 0
        self._seen: Observed | None = None
        self._over: Tensor | None = None  # where an episode has ended and the next one has not begun
        self._task: Tensor | None = None
        self._left: Tensor | None = None  # episodes of each task that are not over
        self._draws = 0  # of tasks
        self._remember = [
            None if type(actor).remember is Actor.remember else (actor.remember, actor.seat) for actor in self.actors
        ]

    def observe(self) -> Observed:
        """The current observations of all agents; begins new episodes where the last ones have ended.

        Raises:
            ValueError: if they do not have the shapes and types that the simulator declares.
        """
        if self._seen is None:
            self._start()
        elif self._over is not None:
            self._restart(self._over)
        assert self._seen is not None
        return self._seen

    def collect(self, steps: int = 1) -> Trajectory:
        """Play `steps` joint actions in every environment.

        Raises:
            ValueError: if an action or an observation is outside its space, naming agent and step.
            IncompatibleError: if the simulator has masks and an actor does not heed them.
        """
        self.observe()
        before = tuple(self.memories)
        if any(before):
            # No gradient reaches from one trajectory into the one before.
            self.memories = [{name: value.detach() for name, value in memory.items()} for memory in before]
            before = tuple(  # copied where `remember`, which may modify memories in place, is called
                memory if remember is None else {name: value.clone() for name, value in memory.items()}
                for memory, remember in zip(self.memories, self._remember, strict=True)
            )
        return Trajectory([self._step() for _ in range(steps)], before)

    def _step(self) -> Transition:
        before = self.observe()
        decisions = self._decide(before)
        actions = tuple(decision.action for decision in decisions)
        self.steps += 1
        rewards, terminated, ended, judged = self._play(actions)
        after = self.simulator.observe()
        step = Transition(
            before.obs,
            actions,
            rewards,
            after.obs,
            terminated,
            ended,
            tuple([decision.log_prob for decision in decisions]),
            tuple([decision.info for decision in decisions]),
            before.alive,
            after.alive,
            before.masks,
            after.masks,
            self._task,
            judged,
            None if self._left is None else ended & (self._left <= 1),
        )
        self.memories = [
            decision.memory if remember is None else remember[0](decision.memory, step.seen_by(remember[1]))
            for remember, decision in zip(self._remember, decisions, strict=True)
        ]
        self._look(after)
        self._over = ended if bool(ended.any()) else None
        return step

    def _decide(self, seen: Observed) -> list[Decision]:
        if seen.masks is None:
            return [
                self._act(agent, actor, obs, memory)
                for agent, (actor, obs, memory) in enumerate(zip(self.actors, seen.obs, self.memories, strict=True))
            ]
        for agent, (actor, mask) in enumerate(zip(self.actors, seen.masks, strict=True)):
            if mask is not None and not actor.heeds_masks:
                raise IncompatibleError(
                    f"{type(actor).__name__} in seat {agent} got a mask of legal actions, which it does not heed; "
                    "choose an actor that does, or a game in which every action is legal"
                )
        return [
            self._act(agent, actor, obs, memory, mask)
            for agent, (actor, obs, memory, mask) in enumerate(
                zip(self.actors, seen.obs, self.memories, seen.masks, strict=True)
            )
        ]

    def _act(self, agent: int, actor: Actor, obs: Tensor, memory: Memory, mask: Tensor | None = None) -> Decision:
        """An actor's decision; uniform in replicates that fail because its probabilities are NaN."""
        try:
            return actor.act(obs, memory, self.explore, mask)
        except Exception:
            failures = heeded()
            if failures is None:
                raise
            distribution, memory = actor.policy(obs, memory, mask)
            if not isinstance(distribution, dist.Categorical) or bool(distribution.probs.isfinite().all()):
                raise
            failures.look("policy", distribution.probs, agent)
            probabilities = distribution.probs.index_fill(0, torch.tensor(list(failures.why), device=obs.device), 1.0)
            sound = dist.Categorical(probs=probabilities.expand(*obs.shape[:2], -1))
            action = sound.sample()
            return Decision(action, memory, sound.log_prob(action))

    def _play(self, actions: tuple[Tensor, ...]) -> Outcome:
        self._check("an action", self._action_shapes, self.simulator.action_spaces, actions)
        try:
            outcome = self.simulator.step(actions)
        except Exception:
            self._check_values("an action", self.simulator.action_spaces, actions)  # which may be why
            raise
        shape = self.simulator.shape
        if (
            outcome.rewards.shape != (*shape, len(actions))
            or not outcome.terminated.shape == outcome.ended.shape == shape
        ):
            got = ", ".join(
                f"{name} {tuple(value.shape)}" for name, value in zip(outcome._fields, outcome[:3], strict=False)
            )
            expected = f"rewards {(*shape, len(actions))} and flags {shape}"
            raise ValueError(f"step {self.steps}: got shapes {got}, expected {expected}")
        return outcome

    def _start(self) -> None:
        everywhere = Start.everywhere(*self.simulator.shape, self.simulator.device)
        self._begin_tasks(everywhere.episode)
        self.simulator.reset(task=self._task)
        self._look(self.simulator.observe())
        self.memories = [
            actor.begin(everywhere._replace(task=self._task if actor.reads_task else None), None)
            for actor in self.actors
        ]

    def _restart(self, ended: Tensor) -> None:
        self._over = None
        new_task = self._begin_tasks(ended)
        self.simulator.reset(ended, self._task)
        self._look(self.simulator.observe())
        start = Start(ended, new_task)
        self.memories = [
            actor.begin(start._replace(task=self._task) if actor.reads_task else start, memory)
            if memory or type(actor).begin is not Actor.begin
            else memory
            for actor, memory in zip(self.actors, self.memories, strict=True)
        ]

    def _begin_tasks(self, begins: Tensor) -> Tensor:
        """Draw new tasks where the last ones have ended; returns where, which is `begins` without tasks."""
        if self.tasks is None:
            return begins
        if self._left is None:
            due = begins
        else:
            self._left = self._left - begins.long()
            due = begins & (self._left <= 0)
        drawn = self.tasks.draw(*self.simulator.shape, begins.device, [self.seed, self._draws], self._task)
        kept = torch.full_like(drawn, self.tasks.episodes)
        self._task = drawn if self._task is None else torch.where(due, drawn, self._task)
        self._left = kept if self._left is None else torch.where(due, kept, self._left)
        self._draws += 1
        return due

    def _look(self, seen: Observed) -> None:
        """Check and keep new observations."""
        if not self.simulator.checks_itself:
            self._check("an observation", self._observation_shapes, self.simulator.observations, seen.obs)
        self._seen = seen

    def _check(
        self, what: str, shapes: Sequence[tuple[int, ...]], spaces: Sequence[Space], values: Sequence[Tensor]
    ) -> None:
        """Check shapes at every step, and values at the first steps and then every `LOOKED_AT` steps.

        Checking every value of every step would take as long as playing a small game.
        """
        got = [value.shape for value in values]
        if got != shapes:
            for agent, (shape, expected) in enumerate(zip(got, shapes, strict=True)):
                if shape != expected:
                    raise ValueError(
                        f"agent {agent}, step {self.steps}: got {what} of shape {tuple(shape)}, expected {expected}: "
                        "replicates x environments x event"
                    )
        if self.steps < LOOKED_AT or self.steps % LOOKED_AT == 0:
            self._check_values(what, spaces, values)

    def _check_values(self, what: str, spaces: Sequence[Space], values: Sequence[Tensor]) -> None:
        for agent, (space, value) in enumerate(zip(spaces, values, strict=True)):
            wrong = space.misfit(value)
            if wrong is not None and value.is_floating_point() and (failures := heeded()) is not None:
                failures.look(what.rsplit(maxsplit=1)[-1], value, agent)
                wrong = space.misfit(value[[row for row in range(len(value)) if row not in failures.why]])
            if wrong is not None:
                raise ValueError(f"agent {agent}, step {self.steps}: got {what} of {wrong}")

    def state_dict(self) -> dict[str, Any]:
        """The state of play, as tensors and plain containers."""
        return {
            "simulator": self.simulator.state_dict(),
            "memories": [{name: value.clone() for name, value in memory.items()} for memory in self.memories],
            "steps": self.steps,
            "started": self._seen is not None,
            "over": self._over,
            "tasks": {"task": self._task, "left": self._left, "draws": self._draws},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore from `state_dict`."""
        lost = self.simulator.load_state_dict(state["simulator"])
        self.steps = state["steps"]
        self._seen = self.simulator.observe() if state["started"] else None
        device = self._seen.obs[0].device if self._seen is not None else torch.device("cpu")
        # Copied, because `remember` may modify memories in place.
        self.memories = [
            {name: value.to(device, copy=True) for name, value in memory.items()} for memory in state["memories"]
        ]
        self._over = None if state["over"] is None else state["over"].to(device)
        if lost is not None and state["started"]:
            self._over = lost if self._over is None else self._over | lost
        self._task, self._left = (
            None if (value := state["tasks"][name]) is None else value.to(device) for name in ("task", "left")
        )
        self._draws = state["tasks"]["draws"]
