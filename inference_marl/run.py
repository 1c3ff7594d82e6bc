"""Experiments and runs: play, learn, record, checkpoint; a run is a folder."""

from __future__ import annotations

import copy
import re
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from inference_marl.recording import Recorder
from inference_marl.results import datasets, write_atomically, write_results
from inference_marl.statistics import METRICS
from inference_marl.svi import NonFiniteError
from inference_marl.types import Described, Game, Learner, Seat, State, Transition, within


class RunError(RuntimeError):
    """A run cannot go on, or a folder is not one; the message says what to do."""


class Experiment(Described):
    """A game, the arms to compare on it, and how long: the content of an experiment file.

    Args:
        game: what is played.
        arms: what is compared, by name (letters, digits, `_` and `-`): one learner, which then fills every seat, or
            a list with one per seat.
        replicates: independent seeds, trained side by side.
        steps: joint actions per environment.
        environments: copies of the game each replicate plays at once.
        seed: of the random numbers; each arm draws its own stream from it and from the arm's name.
        record_every: steps between records of metrics and beliefs.
        draws: draws per recorded belief and replicate, for continuous actions.
        success_window: records over which the reward is averaged before success is judged, in games whose success
            is a matter of reward.
        checkpoint_every: steps between checkpoints; there is one at the end of each arm in any case.
        device: where tensors live; `auto` takes CUDA if there is any.
        dtype: floating type.
        threads: of torch on the CPU. A second one helps large networks on an idle machine; tables it does not help,
            and where cores are shared it loses much.
        published: what a paper reports at the last step, by arm and metric, printed beside what was measured.
        source: where the published numbers are from.

    Raises:
        ValueError: if a number is out of its range, or an arm cannot be called so.
    """

    def __init__(
        self,
        game: Game,
        arms: Mapping[str, Learner | list[Learner]],
        replicates: int = 1,
        steps: int = 1000,
        environments: int = 1,
        seed: int = 0,
        record_every: int = 1,
        draws: int = 16,
        success_window: int = 1,
        checkpoint_every: int = 1000,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        threads: int = 1,
        published: dict[str, dict[str, float]] | None = None,
        source: str = "",
    ) -> None:
        for name, number in [
            ("replicates", replicates),
            ("steps", steps),
            ("environments", environments),
            ("record_every", record_every),
            ("draws", draws),
            ("success_window", success_window),
            ("checkpoint_every", checkpoint_every),
            ("threads", threads),
        ]:
            if number < 1:
                raise ValueError(f"{name}: got {number}, expected a positive integer")
        if seed < 0:
            raise ValueError(f"seed: got {seed}, expected an integer that is not negative")
        if steps < record_every:
            raise ValueError(f"record_every: got {record_every}, expected at most steps = {steps}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: got cuda, but torch sees none here; expected cpu or auto")
        self.check_names(arms)
        self.game, self.arms = game, dict(arms)
        self.published, self.source = published or {}, source
        for name, numbers in self.published.items():
            if name not in self.arms:
                raise ValueError(f"published: got {name}, expected one of the arms: {', '.join(self.arms)}")
            for metric in numbers:
                if metric not in METRICS:
                    raise ValueError(f"published.{name}: got {metric}, expected one of {', '.join(METRICS)}")
        self.replicates, self.steps, self.environments, self.seed = replicates, steps, environments, seed
        self.record_every, self.draws, self.success_window = record_every, draws, success_window
        self.checkpoint_every, self.threads = checkpoint_every, threads
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if cuda else "cpu")
        self.dtype = torch.float32 if dtype == "float32" else torch.float64
        if device == "auto":
            self.__dict__["_given"]["device"] = self.device.type  # a run's file says what was used

    @staticmethod
    def check_names(arms: Iterable[object]) -> None:
        """Refuse names of arms that cannot be part of a file name and of a dotted key.

        Raises:
            ValueError: if a name is not of letters, digits, `_` and `-`.
        """
        for name in arms:
            if not (isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name)):
                raise ValueError(f"arms: got an arm called {name!r}, expected letters, digits, _ and - only")

    def seats(self, replicates: int | None = None) -> list[Seat]:
        """One seat per agent of the game."""
        return [
            Seat(
                index=agent,
                observation=observation,
                action_spaces=self.game.action_spaces,
                replicates=replicates or self.replicates,
                environments=self.environments,
                device=self.device,
                dtype=self.dtype,
                game=self.game,
            )
            for agent, observation in enumerate(self.game.observations)
        ]

    def bind(self, arm: str, replicates: int | None = None) -> list[Learner]:
        """The arm's learners, one working copy per seat.

        Raises:
            IncompatibleError: if a part does not fit the game or another part, with its key.
        """
        described, seats = self.arms[arm], self.seats(replicates)
        with within(f"arms.{arm}"):
            if not isinstance(described, list):
                return [described.bind(seat) for seat in seats]
            if len(described) != len(seats):
                raise ValueError(f"got {len(described)} learners, expected one per seat: {len(seats)}")
        bound = []
        for learner, seat in zip(described, seats, strict=True):
            with within(f"arms.{arm}[{seat.index}]"):
                bound.append(learner.bind(seat))
        return bound

    def check(self) -> None:
        """Build every arm for one replicate and play one step, so that what does not fit is found now.

        Raises:
            IncompatibleError: as for `bind`.
            ValueError: if there is no arm, or a part fails on its first step.
        """
        if not self.arms:
            raise ValueError("arms: got none, expected at least one")
        with torch.random.fork_rng(devices=[]):
            for name in self.arms:
                arm = _Arm.start(self, name, replicates=1)
                with within(f"arms.{name}"):
                    arm.advance()
                    if not arm.recorder.made:
                        arm.record()
                datasets(self, {name: arm.recorder})

    def run(self, out: str | Path = "runs", name: str = "experiment", progress: bool = True) -> Path:
        """Run every arm and write the run's folder.

        Args:
            out: where run folders go.
            name: of the folder; a number is added if it exists.
            progress: show a bar with the time left.

        Returns:
            The folder.
        """
        from inference_marl.spec import dump

        self.check()
        described = dump(self)
        folder = _new_folder(Path(out), name)
        write_atomically(folder / "spec.yaml", lambda path: path.write_text(described))
        return complete(self, folder, progress)


def _new_folder(out: Path, name: str) -> Path:
    for number in range(1, 1_000_000):
        folder = out / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"{out}: got no folder to write to ({error.strerror}), expected one for runs") from error
        return folder
    raise RunError(f"{out}: got too many runs called {name}, expected room for one more")


@dataclass
class _Arm:
    """One arm while it runs; everything that changes is here."""

    experiment: Experiment
    name: str
    learners: list[Learner]
    recorder: Recorder
    state: State
    since_record: Tensor
    clock: Tensor
    step: int = 0

    @classmethod
    def start(cls, experiment: Experiment, name: str, replicates: int | None = None) -> _Arm:
        """Seed the arm's random numbers and make its learners."""
        torch.manual_seed(zlib.crc32(f"{experiment.seed}/{name}".encode()))
        seats = experiment.seats(replicates)
        shape = (seats[0].replicates, experiment.environments)
        records = experiment.steps // experiment.record_every
        return cls(
            experiment,
            name,
            experiment.bind(name, replicates),
            Recorder(experiment.game, seats, records, experiment.draws),
            experiment.game.reset(*shape, experiment.device, experiment.dtype),
            torch.zeros(shape[0], len(seats), device=experiment.device, dtype=experiment.dtype),
            torch.zeros(shape, dtype=torch.int64, device=experiment.device),
        )

    def advance(self) -> None:
        """Play one joint action in every environment, and learn from it.

        Raises:
            RunError: if a loss is not finite, naming arm, seat, replicate and step.
        """
        game = self.experiment.game
        obs = game.observe(self.state)
        actions = tuple(learner.act(seen) for learner, seen in zip(self.learners, obs, strict=True))
        state, rewards, terminated = game.step(self.state, actions)
        self.clock += 1
        ended = terminated if game.horizon is None else terminated | (self.clock >= game.horizon)
        batch = Transition(obs, actions, rewards, game.observe(state), terminated, ended)
        read = any(learner.reads_peers for learner in self.learners)
        peers = copy.deepcopy(self.learners) if read else []
        for seat, learner in enumerate(self.learners):
            try:
                learner.update(batch, peers)
            except NonFiniteError as error:
                raise RunError(
                    f"arms.{self.name}, agent {seat}, step {self.step + 1}: {error}. The last checkpoint is kept; "
                    "expected finite losses: lower the learning rate, clip gradients, or use dtype float64"
                ) from error
        self.step += 1
        self.since_record += rewards.mean(1)
        self.state = self._next(state, ended)
        if self.step % self.experiment.record_every == 0:
            self.record()

    def record(self) -> None:
        """Keep the metrics since the last record, and the beliefs of now."""
        reward = self.since_record / self.experiment.record_every
        self.recorder.record(self.experiment.game.observe(self.state), self.learners, reward)
        self.since_record = torch.zeros_like(self.since_record)

    def _next(self, state: State, over: Tensor) -> State:
        """Start a new episode where one is over."""
        game = self.experiment.game
        if not bool(over.any()):
            return state
        self.clock = torch.where(over, torch.zeros_like(self.clock), self.clock)
        replicates, environments = over.shape
        fresh = game.reset(replicates, environments, self.experiment.device, self.experiment.dtype)
        if bool(over.all()):
            return fresh
        return {
            key: torch.where(over.view(*over.shape, *[1] * (value.dim() - 2)), fresh[key], value)
            for key, value in state.items()
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint: tensors, numbers and strings only."""
        content = {
            "step": self.step,
            "learners": [learner.state_dict() for learner in self.learners],
            "recorder": self.recorder.state_dict(),
            "state": self.state,
            "since_record": self.since_record,
            "clock": self.clock,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.experiment.device.type == "cuda" else None,
        }
        write_atomically(path, partial(torch.save, content))

    def restore(self, path: Path) -> None:
        """Undo `save`. Only tensors and plain containers are read: loading executes no code.

        Raises:
            RunError: if the file does not hold this arm's checkpoint.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            device = self.experiment.device
            for learner, saved in zip(self.learners, content["learners"], strict=True):
                learner.load_state_dict(saved)
            self.recorder.load_state_dict(content["recorder"])
            self.step = content["step"]
            self.state = {key: value.to(device) for key, value in content["state"].items()}
            self.since_record, self.clock = content["since_record"].to(device), content["clock"].to(device)
            torch.set_rng_state(content["rng"])
            if content["cuda_rng"] is not None:
                torch.cuda.set_rng_state(content["cuda_rng"])
        except Exception as error:
            raise _no_checkpoint(path, error) from error


def _no_checkpoint(path: Path, error: Exception) -> RunError:
    return RunError(
        f"{path}: got a file that is not a checkpoint of this experiment ({type(error).__name__}: "
        f"{first_line(error)}), expected one written by this run: delete it to start the arm anew"
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _refresh() -> float:
    """Seconds between updates of the progress bar: rare where they pile up, as in a log file."""
    return 0.2 if sys.stderr.isatty() else 10.0


def complete(experiment: Experiment, folder: Path, progress: bool = True) -> Path:
    """Run what is missing of a run and write its results.

    Args:
        experiment: as in the folder's `spec.yaml`.
        folder: a run's folder.
        progress: show a bar with the time left.

    Returns:
        `folder`.
    """
    try:
        return _complete(experiment, folder, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(str(folder)) from None


def _complete(experiment: Experiment, folder: Path, progress: bool) -> Path:
    started = time.monotonic()
    recorders: dict[str, Recorder] = {}
    total = experiment.steps * len(experiment.arms)
    with (
        pyro.validation_enabled(False),
        _threads(experiment.threads),
        tqdm(total=total, unit="step", disable=not progress, dynamic_ncols=True, mininterval=_refresh()) as bar,
    ):
        for name in experiment.arms:
            bar.set_description(name)
            arm = _Arm.start(experiment, name)
            checkpoint = folder / "checkpoints" / f"{name}.pt"
            if checkpoint.exists():
                arm.restore(checkpoint)
                total -= arm.step  # so that the time left is that of the steps to come
                bar.total = total
            while arm.step < experiment.steps:
                step = arm.step + 1
                try:
                    arm.advance()
                except ValueError as error:  # a part that refuses what the game has led to
                    raise RunError(f"arms.{name}, step {step}: {first_line(error)}") from error
                bar.update()
                if arm.step % experiment.checkpoint_every == 0 or arm.step == experiment.steps:
                    arm.save(checkpoint)
            recorders[name] = arm.recorder
    write_results(experiment, folder, recorders, time.monotonic() - started)
    _slim(folder)
    return folder


def _slim(folder: Path) -> None:
    """Take the records out of a finished run's checkpoints: the results hold them, and they are most of the size."""
    for checkpoint in (folder / "checkpoints").glob("*.pt"):
        try:
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
            recorded = content.pop("recorder", None)
        except Exception as error:
            raise _no_checkpoint(checkpoint, error) from error
        if recorded is not None:
            write_atomically(checkpoint, partial(torch.save, content))


def resume(folder: str | Path, progress: bool = True) -> Path:
    """Go on with a run from its last checkpoints; a finished run is left as it is.

    Raises:
        RunError: if the folder is not a run.
    """
    from inference_marl.spec import load

    folder = Path(folder)
    if not (folder / "spec.yaml").is_file():
        raise RunError(f"{folder}: got no spec.yaml there, expected the folder of a run")
    if (folder / "summary.json").exists():
        _slim(folder)
        return folder
    return complete(load(folder / "spec.yaml"), folder, progress)


def first_line(error: Exception) -> str:
    """The message without what Pyro and torch add below it (shapes, values)."""
    return (str(error).splitlines() or [""])[0]
