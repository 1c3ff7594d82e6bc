"""Experiments as data: a game, the arms to compare in it, and how long to play them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Annotated, Any, Literal

import torch

from inference_marl.described import Count, Described, In, arguments, settle, within
from inference_marl.play import Evaluation, Stranger, Tasks
from inference_marl.statistics.metrics import OF_AGENTS
from inference_marl.statistics.summary import PUBLISHABLE
from inference_marl.types import Actor, ForeignGame, Game, Metric, Seat, Team
from inference_marl.types.team import seats_taken

LONGEST_NAME = 200
"""Maximum length of a name, which becomes part of file names."""
MOST_THREADS = 1024
"""Maximum number of CPU threads."""

Levels = Mapping[str, Mapping[str, str]]
"""The level of each factor, by arm and factor."""


class Experiment(Described):
    """A game, the arms to compare in it, and how long to play them: the content of an experiment file.

    Args:
        game: the game to play.
        arms: the arms to compare, by name (letters, digits, `_` and `-`): one learner, which then fills every seat, or
            a list with one per seat.
        replicates: number of independent seeds, trained in parallel.
        steps: joint actions per environment.
        environments: copies of the game that each replicate plays in parallel.
        seed: random seed. All arms start from the same random stream, and each of their parts has a stream of its own:
            replicate `r` of two arms has the same initial values where both draw them, so replicates can be compared in
            pairs. Arms of an ablation that differ in numbers only are played as one, and draw what they would draw
            alone.
        evaluation: how learned policies are evaluated; `None` for no evaluation. Several evaluations by name (letters,
            digits and `_`) have separate metrics, `evaluation_reward_<name>`.
        tasks: what varies between episodes: the variant of the game, the hidden type of the opponents, or the member of
            a population; nothing if `None`.
        collect: joint actions per environment before each round of learning; `steps` and the intervals between records
            are multiples of it.
        updates: updates of every learner per round of learning.
        record_every: steps between records of metrics; `collect` if `None`. In games that run in lockstep, a multiple
            of the horizon puts whole episodes into every record.
        beliefs_every: steps between records of beliefs, 0 for none; `record_every` if `None`, but 0 in games with both
            discrete and continuous actions.
        record_actions: whether to record all actions, at every step.
        draws: samples per recorded belief and replicate, for continuous actions.
        success_window: records over which the reward is averaged before success is judged, in games that define success
            by reward.
        checkpoint_every: steps between checkpoints; one is always written at the end of an arm.
        device: where tensors live; `auto` means CUDA if the machine that plays the arm has it. A `torch.device` works,
            too.
        dtype: floating-point type. A `torch.dtype` works, too.
        threads: torch's CPU threads. A second one helps large networks on an idle machine, but not tables; on shared
            cores it is much slower.
        published: results reported by a paper for the last step, by arm and metric, printed beside the measured ones.
            Instead of an arm, a level shared by several stands for their average, e.g. a learner of a tournament.
            `reward_0` and `return_0` are those of agent 0, and so on. The game's own scores are allowed as well.
        source: the source of the published numbers.
        levels: the level of each factor, by arm and factor, for tables and figures; see `ablation`.

    Attributes:
        evaluations: the evaluations, by the suffix of their metrics' names, such as `_held_out`.
        metrics: the metrics that its runs may measure, by name: those of every run, and those that the game and the
            actors declare.

    Raises:
        ValueError: if a number is out of range, the name of an arm is invalid, or a metric is declared in two ways.
    """

    def __init__(
        self,
        game: Game,
        arms: Mapping[str, Actor | list[Actor]],
        replicates: Count = 1,
        steps: Count = 1000,
        environments: Count = 1,
        seed: Annotated[int, In("an integer that is not negative and below 2**64")] = 0,
        record_every: Count | None = None,
        draws: Count = 16,
        success_window: Count = 1,
        checkpoint_every: Count = 1000,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        threads: Count = 1,
        published: dict[str, dict[str, float]] | None = None,
        source: str = "",
        levels: dict[str, dict[str, str]] | None = None,
        beliefs_every: Annotated[int | None, In("an integer that is not negative", ", 0 to record none")] = None,
        record_actions: bool = True,
        collect: Count = 1,
        updates: Count = 1,
        evaluation: Evaluation | dict[str, Evaluation] | None = None,
        tasks: Tasks | None = None,
    ) -> None:
        self.game = game
        self.arms = dict(arms)
        self.replicates, self.steps, self.environments, self.seed = replicates, steps, environments, seed
        self.record_every: int = collect if record_every is None else record_every
        settle(self, arms=self.arms, record_every=self.record_every)  # what is added to arms is described as well
        self.draws, self.success_window = draws, success_window
        self.beliefs_every = self._beliefs_every(beliefs_every)
        self.record_actions = record_actions
        self.collect, self.updates, self.evaluation = collect, updates, evaluation
        self.checkpoint_every, self.threads = checkpoint_every, threads
        self.device: str = arguments(self)["device"]
        self.published, self.source, self.levels = published or {}, source, levels or {}
        self._check_numbers()
        self.evaluations = self._checked_evaluations()
        self.tasks = None if tasks is None else tasks.of(game)
        self.check_names(arms)
        for name, actor in self._actors():
            if not isinstance(actor, Actor):
                got = type(actor).__name__
                raise ValueError(f"arms.{name}: got a {got}, expected a learner or other actor, or a list of them")
        self.metrics = self._declared()
        self._check_published()
        self._check_levels()
        self.dtype = torch.float32 if arguments(self)["dtype"] == "float32" else torch.float64

    def _beliefs_every(self, given: int | None) -> int:
        """The given interval or, where beliefs can be recorded, `record_every`."""
        recordable = len({type(space) for space in self.game.action_spaces}) == 1
        if given and not recordable:
            raise ValueError(
                f"beliefs_every: got {given} in a game with discrete and continuous actions, where beliefs are not "
                "recorded, expected 0"
            )
        return (self.record_every if recordable else 0) if given is None else given

    def _actors(self) -> Iterator[tuple[str, Any]]:
        """Iterate over all actors, with the names of their arms."""
        return ((name, actor) for name, arm in self.arms.items() for actor in (arm if isinstance(arm, list) else [arm]))

    def _check_numbers(self) -> None:
        counts = ("replicates", "steps", "environments", "record_every", "draws", "success_window", "checkpoint_every")
        rhythm = ("threads", "collect", "updates")
        for name in (*counts, *rhythm, "seed", "beliefs_every"):
            setattr(self, name, int(getattr(self, name)))  # NumPy integers as well
        if self.threads > MOST_THREADS:
            raise ValueError(f"threads: got {self.threads}, expected at most {MOST_THREADS}")
        for name in ("record_every", "beliefs_every"):
            if self.steps < (number := getattr(self, name)):
                raise ValueError(f"{name}: got {number}, expected at most steps = {self.steps}")
        for name in ("steps", "record_every", "beliefs_every"):
            if (number := getattr(self, name)) % self.collect:
                raise ValueError(f"{name}: got {number}, expected a multiple of collect = {self.collect}")

    def _checked_evaluations(self) -> dict[str, Evaluation]:
        """The evaluations, by the suffix of their metrics' names."""
        given, found = self.evaluation, {}
        several = given if isinstance(given, dict) else {} if given is None else {"": given}
        for name, evaluation in several.items():
            if isinstance(given, dict) and not re.fullmatch(r"\w+", str(name)):
                raise ValueError(f"evaluation: got one called {name!r}, expected letters, digits and _ only")
            key = f"evaluation.{name}" if name else "evaluation"
            with within(key):
                evaluation.check(self.game)
            for seat, guest in evaluation.guests.items():
                if isinstance(guest, Stranger) and self.replicates < 2:
                    raise ValueError(
                        f"{key}.seats.{seat}: got a Stranger and 1 replicate, expected at least two replicates"
                    )
            if self.steps % (every := evaluation.every) or every % self.record_every:
                raise ValueError(
                    f"{key}.every: got {every}, expected a divisor of steps = {self.steps} and a multiple of "
                    f"record_every = {self.record_every}"
                )
            found[f"_{name}" if name else ""] = evaluation
        return found

    def _declared(self) -> dict[str, Metric]:
        """The metrics that its runs may measure, by name."""
        found = {metric.name: metric for metric in (*PUBLISHABLE, *self.game.metrics, *self.game.episode_metrics)}
        for suffix, evaluation in self.evaluations.items():
            for metric in evaluation.declared(self.game):
                label = f"{metric.label}: {suffix[1:]}" if suffix else metric.label
                own = replace(metric, name=metric.name + suffix, label=label)
                if found.setdefault(own.name, own) != own:
                    raise ValueError(f"evaluation: got another {own.name} than is declared elsewhere, expected one")
        for name, actor in self._actors():
            for metric in actor.metrics:
                if metric.dims != ("agent",):
                    raise ValueError(f"arms.{name}: got {metric.name} with dims {metric.dims}, expected ('agent',)")
                if found.setdefault(metric.name, metric) != metric:
                    raise ValueError(f"arms.{name}: got another {metric.name} than is declared elsewhere, expected one")
        return found

    def _check_published(self) -> None:
        known_levels = {level for at in self.levels.values() for level in at.values()}
        for name, numbers in self.published.items():
            if name not in self.arms and name not in known_levels:
                raise ValueError(f"published: got {name}, expected one of the arms: {', '.join(self.arms)}")
            for metric in numbers:
                if metric not in (known := reported(self)):
                    raise ValueError(f"published.{name}: got {metric}, expected one of {', '.join(known)}")

    def _check_levels(self) -> None:
        factors = {tuple(at) for at in self.levels.values()}
        if self.levels and (set(self.levels) != set(self.arms) or len(factors) > 1):
            known = ", ".join(self.arms)
            raise ValueError(f"levels: got {self.levels}, expected the same factors for every one of the arms: {known}")

    @staticmethod
    def check_names(names: Iterable[object], key: str = "arms", what: str = "an arm") -> None:
        """Check that names, of arms by default, consist of letters, digits, `_` and `-`.

        They become parts of file names and of dotted keys.

        Raises:
            ValueError: if a name has other characters, or more than `LONGEST_NAME`.
        """
        for name in names:
            if not (isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name)):
                raise ValueError(f"{key}: got {what} called {name!r}, expected letters, digits, _ and - only")
            if len(name) > LONGEST_NAME:
                raise ValueError(f"{key}: got {what} called {name[:20]}..., expected at most {LONGEST_NAME} characters")

    def _repr_html_(self) -> str:
        """Representation in notebooks: the arms, and how long they are played."""
        classes: dict[str, list[str]] = {}
        for name, actor in self._actors():
            classes.setdefault(name, []).append(type(actor).__name__)
        facts = f"{type(self.game).__name__}, {self.replicates} replicates, {self.steps:,} steps, seed {self.seed}"
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(', '.join(of))}</td></tr>" for name, of in classes.items())
        return f"<p>{escape(facts)}</p><table>{''.join(rows)}</table>"

    def replace(self, **changes: Any) -> Experiment:
        """This experiment with some constructor arguments replaced."""
        return Experiment(**{**arguments(self), **changes})

    def seats(self, replicates: int | None = None, device: torch.device = torch.device("cpu")) -> list[Seat]:
        """One seat per agent of the game, by default for the experiment's number of replicates."""
        return [
            Seat(
                index=agent,
                observations=self.game.observations,
                action_spaces=self.game.action_spaces,
                replicates=replicates or self.replicates,
                environments=self.environments,
                device=device,
                dtype=self.dtype,
                game=None if isinstance(self.game, ForeignGame) else self.game,
            )
            for agent in range(self.game.agents)
        ]

    def players(self, arm: str) -> list[Actor]:
        """The arm's unbound actor for each seat; a team appears in every seat that it takes.

        Raises:
            ValueError: if the actors do not take every seat exactly once.
        """
        by_seat = {index: actor for _, actor, its in self._seating(arm) for index in its}
        return [by_seat[index] for index in range(self.game.agents)]

    def bind(self, arm: str, replicates: int | None = None, device: torch.device = torch.device("cpu")) -> list[Actor]:
        """Bind the arm's actors: one working copy per seat, in the order of `seats`.

        Raises:
            IncompatibleError: if a part does not fit the game or another part; the message names its key.
        """
        seats = self.seats(replicates, device)
        bound: dict[int, Actor] = {}
        for key, actor, its in self._seating(arm):
            here = [seats[index] for index in its]
            with within(key):
                copies = actor.bind_all(here) if isinstance(actor, Team) else [actor.bind(here[0])]
            bound |= zip(its, copies, strict=True)
        return [bound[index] for index in range(len(seats))]

    def _seating(self, arm: str) -> list[tuple[str, Actor, list[int]]]:
        """Key, actor and seats for each of the arm's actors; an actor outside a list is repeated for every seat."""
        described, key, every = self.arms[arm], f"arms.{arm}", list(range(self.game.agents))
        if isinstance(described, Team):
            return [(key, described, every)]
        if isinstance(described, Actor):
            return [(key, described, [seat]) for seat in every]
        with within(key):
            taken = seats_taken(described, len(every))
        return [(f"{key}[{number}]", *each) for number, each in enumerate(zip(described, taken, strict=True))]


class Suite:
    """Several experiments, played and tabulated together: the content of a file with the key `runs`.

    Args:
        runs: the experiments, by name (letters, digits, `_` and `-`).
        show: metrics or game scores to tabulate for all runs; if empty, the most informative ones for the games.

    Raises:
        ValueError: if there are no runs, a name is invalid, or a metric is unknown.
    """

    def __init__(self, runs: Mapping[str, Experiment], show: Sequence[str] = ()) -> None:
        if not runs:
            raise ValueError("runs: got none, expected at least one")
        Experiment.check_names(runs, "runs", "a run")
        for metric in show:
            if metric not in (known := reported(*runs.values())):
                raise ValueError(f"show: got {metric}, expected one of {', '.join(known)}")
        self.runs, self.show = dict(runs), list(show)

    def describe(self) -> dict[str, Any]:
        """The suite as plain data, in the format of an experiment file."""
        return {
            "runs": {name: experiment.describe()["init_args"] for name, experiment in self.runs.items()},
            "show": list(self.show),
        }


def reported(*experiments: Experiment) -> list[str]:
    """Names that results of these experiments may have; those of one of two agents end in its number."""
    names = dict.fromkeys(name for experiment in experiments for name in experiment.metrics)
    return [*names, *(f"{name}_{agent}" for name in OF_AGENTS for agent in range(2))]


def is_tournament(levels: Levels | None) -> bool:
    """Whether the levels of a run's arms describe the pairs of a tournament."""
    return bool(levels and all(list(at) == ["row", "column"] for at in levels.values()))


def entrants(experiment: Experiment) -> list[str]:
    """The compared names: the arms or, in a tournament, the learners paired in them."""
    return learners(experiment.levels) if is_tournament(experiment.levels) else list(experiment.arms)


def learners(levels: Levels) -> list[str]:
    """The names of a tournament's learners, in order."""
    return list(dict.fromkeys(at["row"] for at in levels.values()))
