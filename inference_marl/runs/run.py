"""Experiments and runs: play, learn, record, checkpoint; a run is a folder."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from inference_marl.described import Described, first_line, within
from inference_marl.runs.arm import Arm, ArmError, Report, RunError, play_in_processes, play_in_turn, slim
from inference_marl.runs.results import datasets, write_atomically, write_results
from inference_marl.spaces import Discrete
from inference_marl.statistics.summary import METRICS
from inference_marl.types import Game, Learner, Seat

__all__ = ["ArmError", "Experiment", "RunError", "complete", "resume", "start_or_go_on"]


class Experiment(Described):
    """A game, the arms to compare on it, and how long: the content of an experiment file.

    Args:
        game: what is played.
        arms: what is compared, by name (letters, digits, `_` and `-`): one learner, which then fills every seat, or
            a list with one per seat.
        replicates: independent seeds, trained side by side.
        steps: joint actions per environment.
        environments: copies of the game each replicate plays at once.
        seed: of the random numbers. Every arm starts from the same stream, and each part of it from its own: replicate
            `r` of two arms has the same initial values where both draw them, so replicates can be compared in pairs.
        record_every: steps between records of metrics and beliefs.
        draws: draws per recorded belief and replicate, for continuous actions.
        success_window: records over which the reward is averaged before success is judged, in games whose success
            is a matter of reward.
        checkpoint_every: steps between checkpoints; there is one at the end of each arm in any case.
        device: where tensors live; `auto` takes CUDA if there is any.
        dtype: floating type.
        threads: of torch on the CPU. A second one helps large networks on an idle machine; tables it does not help,
            and where cores are shared it loses much.
        published: what a paper reports at the last step, by arm and metric, printed beside what was measured. In the
            place of an arm there may be a level that several have, for an average over them: of a tournament a learner.
            `reward_0` and `return_0` are what agent 0 has by itself, and so on. Scores of the game's own count as well.
        source: where the published numbers are from.
        levels: which level of each factor an arm has, by arm and factor, for tables and figures; see `ablation`.

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
        levels: dict[str, dict[str, str]] | None = None,
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
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed: got {seed}, expected an integer that is not negative and below 2**64")
        if steps < record_every:
            raise ValueError(f"record_every: got {record_every}, expected at most steps = {steps}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: got cuda, but torch sees none here; expected cpu or auto")
        self.check_names(arms)
        self.game, self.arms = game, dict(arms)
        self.published, self.source = published or {}, source
        self.levels = levels or {}
        known_levels = {level for at in self.levels.values() for level in at.values()}
        for name, numbers in self.published.items():
            if name not in self.arms and name not in known_levels:
                raise ValueError(f"published: got {name}, expected one of the arms: {', '.join(self.arms)}")
            for metric in numbers:
                if not is_metric(metric, game):
                    known = ", ".join(metric_names(game))
                    raise ValueError(f"published.{name}: got {metric}, expected one of {known}")
        if self.levels and (
            set(self.levels) != set(self.arms) or len({tuple(each) for each in self.levels.values()}) > 1
        ):
            known = ", ".join(self.arms)
            raise ValueError(f"levels: got {self.levels}, expected the same factors for every one of the arms: {known}")
        self.replicates, self.steps, self.environments, self.seed = replicates, steps, environments, seed
        self.record_every, self.draws, self.success_window = record_every, draws, success_window
        self.checkpoint_every, self.threads = checkpoint_every, threads
        self._checked = False
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if cuda else "cpu")
        self.dtype = torch.float32 if dtype == "float32" else torch.float64
        if device == "auto":
            self.__dict__["_given"]["device"] = self.device.type  # a run's file says what was used

    @staticmethod
    def check_names(names: Iterable[object], key: str = "arms", what: str = "an arm") -> None:
        """Refuse names of arms, or of what else, that cannot be part of a file name and of a dotted key.

        Raises:
            ValueError: if a name is not of letters, digits, `_` and `-`.
        """
        for name in names:
            if not (isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name)):
                raise ValueError(f"{key}: got {what} called {name!r}, expected letters, digits, _ and - only")

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
        if self._checked:
            return
        with torch.random.fork_rng(devices=[]):
            for name in self.arms:
                arm = Arm.start(self, name, replicates=1)
                with within(f"arms.{name}"):
                    arm.advance()
                    if not arm.recorder.made:
                        arm.record()
                datasets(self, {name: arm.recorder})
        self._checked = True

    def ablation(self, factors: Mapping[str, Any], design: Literal["grid", "one_at_a_time"] = "grid") -> Experiment:
        """This experiment with, in the place of its arms, what becomes of them at the levels of some factors.

        The Python twin of a file's keys `factors` and `design`::

            factors = {
                "prior": {"empirical": {}, "uniform": {"opponent_prior": Uniform()}},
                "kl_weight": [1.0, 0.1],  # short for levels that set this one key
            }

        Args:
            factors: by name of the factor and of the level, what differs there: values by dotted key, as in arms that
                are `like` another. A list is short for levels that give its items to the key that names the factor.
            design: `grid` makes an arm of every combination of levels, the last factor's changing fastest;
                `one_at_a_time` one of the first levels together, and one of every other level with the other factors at
                their first. Either way the first arm is the one that the others are compared with.

        Returns:
            A new experiment, whose `levels` say what each arm is.

        Raises:
            SpecError: if a factor is malformed, or an arm cannot be built; the message begins with the key.
        """
        from inference_marl.config.files import expanded

        return expanded(self, factors, design)

    def tournament(self) -> Experiment:
        """This experiment with, in the place of its arms, every learner against every learner, itself included.

        Returns:
            A new experiment, with an arm for each pair: the `row`'s learner in seat 0, the `column`'s in seat 1, as its
            `levels` say. Where the game is symmetric, one seating of each pair will do.

        Raises:
            ValueError: if the game is not one of two agents, or an arm is a list of learners.
        """
        from inference_marl.config.tournament import pairs

        return pairs(self)

    def run(self, out: str | Path = "runs", name: str = "experiment", progress: bool = True, jobs: int = 1) -> Path:
        """Run every arm and write the run's folder.

        Args:
            out: where run folders go.
            name: of the folder; a number is added if it exists.
            progress: show a bar with the time left.
            jobs: arms that are played at once, each in a process of its own if there is more than one. A script must
                then guard what it does with `if __name__ == "__main__":`, since processes import it.

        Returns:
            The folder.

        Raises:
            ArmError: as for `complete`.
        """
        check_jobs(jobs)
        self.check()
        return complete(self, begin(self, out, name), progress, jobs)


def is_metric(name: str, game: Game) -> bool:
    """Whether runs of a game may report a metric of that name."""
    return name in METRICS or name in metric_names(game)


def metric_names(*games: Game) -> list[str]:
    """What runs of some games may report: what `summarise` does, and the games' own scores."""
    names = dict.fromkeys(METRICS)
    for game in games:
        spaces = list(zip(game.observations, game.action_spaces, strict=True))
        if game.shared_observation and all(isinstance(space, Discrete) for pair in spaces for space in pair):
            uniform = [torch.full((1, obs.features, action.features), 1 / action.features) for obs, action in spaces]
            names |= dict.fromkeys(game.scores(uniform))
    return list(names)


def start_or_go_on(
    experiment: Experiment, out: str | Path, name: str, progress: bool = True, jobs: int = 1
) -> tuple[Path, bool]:
    """As `Experiment.run`, but in the newest folder of that name in which this very experiment was begun, if any.

    Returns:
        The folder, and whether it was finished before.
    """
    folder = begun(experiment, out, name)
    if folder is None:
        return experiment.run(out, name, progress, jobs), False
    before = is_finished(folder)
    return complete(experiment, folder, progress, jobs), before


def begin(experiment: Experiment, out: str | Path, name: str) -> Path:
    """A new run's folder, with `spec.yaml` in it and nothing played yet; a number is added to `name` if it exists.

    Raises:
        RunError: if there is no folder to write to.
    """
    from inference_marl.config.files import dump

    described = dump(experiment)
    folder = _new_folder(Path(out), name)
    write_atomically(folder / "spec.yaml", lambda path: path.write_text(described))
    return folder


def begun(experiment: Experiment, out: str | Path, name: str) -> Path | None:
    """The newest folder of that name, with or without a number, in which this very experiment was begun, if any."""
    from inference_marl.config.files import dump

    described = dump(experiment).encode()
    for folder in reversed(_folders(Path(out), name)):
        if (folder / "spec.yaml").is_file() and (folder / "spec.yaml").read_bytes() == described:
            return folder
    return None


def _folders(out: Path, name: str) -> list[Path]:
    """The folders that runs of one name have, oldest first."""
    numbered = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    found = [(int(match.group(1) or 1), path) for path in out.glob("*") if (match := numbered.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


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


def _refresh() -> float:
    """Seconds between updates of the progress bar: rare where they pile up, as in a log file."""
    return 0.2 if sys.stderr.isatty() else 10.0


def complete(experiment: Experiment, folder: Path, progress: bool = True, jobs: int = 1) -> Path:
    """Run what is missing of a run and write its results.

    Args:
        experiment: as in the folder's `spec.yaml`.
        folder: a run's folder.
        progress: show a bar with the time left.
        jobs: as for `Experiment.run`.

    Returns:
        `folder`.

    Raises:
        ArmError: if arms could not be played to their end; the results of the others are written then.
        RunError: if what is in a checkpoint's place is none, or another process is at work on the run.
    """
    try:
        failed = complete_all({folder: experiment}, progress, jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"resume {folder}") from None
    if failed:
        raise failed[folder]
    return folder


def complete_all(runs: Mapping[Path, Experiment], progress: bool = True, jobs: int = 1) -> dict[Path, ArmError]:
    """Run what is missing of several runs, and write each one's results as soon as its last arm is done.

    Finished runs are left as they are; failed arms are tried again.

    Args:
        runs: the experiments by their folders, as in each one's `spec.yaml`.
        progress: show one bar for all, with the time left.
        jobs: arms that are played at once, of whichever run, as for `Experiment.run`.

    Returns:
        What became of the runs whose arms could not all be played to their end.

    Raises:
        RunError: as for `complete`.
    """
    check_jobs(jobs)
    todo = {}
    for folder, experiment in runs.items():
        if is_finished(folder):
            slim(folder)  # in case the run was cut off just before
        else:
            todo[folder] = experiment
    if not todo:
        return {}
    with ExitStack() as locks:
        for folder in todo:
            locks.enter_context(_locked(folder))
        return _complete(todo, progress, jobs)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from working on a run; a lock whose process is gone counts for nothing.

    Raises:
        RunError: if another process is at work on the run.
    """
    lock = folder / ".lock"
    if lock.exists() and not _is_held(lock):
        lock.unlink(missing_ok=True)
    try:
        with lock.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        raise RunError(
            f"{folder}: got a run that another process is at work on, expected one that nobody plays; wait until it is "
            f"done, or delete {lock} if there is no such process"
        ) from None
    try:
        for left in (
            *folder.glob(".*.partial"),
            *folder.glob("checkpoints/.*.partial"),
        ):  # by a process that was killed
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.unlink(missing_ok=True)


def _is_held(lock: Path) -> bool:
    """Whether the process that made a lock is still there; one that does not say yet which it was counts as held."""
    try:
        process = int(lock.read_text())
        if process == os.getpid():  # numbers come again, in containers at once
            return False
        os.kill(process, 0)
    except (ProcessLookupError, FileNotFoundError, OverflowError):
        return False
    except (PermissionError, ValueError):  # somebody else's; not yet written
        return True
    return True


def check_jobs(jobs: int) -> None:
    if jobs < 1:
        raise RunError(f"jobs: got {jobs}, expected a positive integer")


def _complete(runs: Mapping[Path, Experiment], progress: bool, jobs: int) -> dict[Path, ArmError]:
    started = {next(iter(runs)): time.monotonic()}
    left = {folder: list(experiment.arms) for folder, experiment in runs.items()}
    failed: dict[Path, dict[str, str]] = {folder: {} for folder in runs}
    errors = {}
    with _bar(runs, left, progress) as advance:

        def report(folder: Path, name: str, before: int, since: int) -> None:
            started.setdefault(folder, time.monotonic())
            advance(folder, name, before, since)

        jobs = min(jobs, sum(map(len, left.values())))
        playing = play_in_turn(runs, report) if jobs == 1 else play_in_processes(runs, jobs, report)
        with closing(playing):
            for folder, name, why in playing:
                left[folder].remove(name)
                if why is not None:
                    failed[folder][name] = why
                if not left[folder]:
                    seconds = time.monotonic() - started.get(folder, time.monotonic())
                    error = _conclude(runs[folder], folder, failed[folder], seconds)
                    if error is not None:
                        errors[folder] = error
    return errors


def _conclude(experiment: Experiment, folder: Path, why: Mapping[str, str], seconds: float) -> ArmError | None:
    """Write the results of the arms that did not fail; returns what to say of those that did."""
    failed = {name: why[name] for name in experiment.arms if name in why}
    recorders = {name: Arm.kept(experiment, name, folder).recorder for name in experiment.arms if name not in failed}
    if recorders:
        write_results(experiment, folder, recorders, seconds, failed)
    if not failed:
        slim(folder)
        return None
    first, *others = failed.values()
    also = f"; {len(others)} more failed: {', '.join(list(failed)[1:])}" if others else ""
    error = ArmError(f"{first}{also}")
    error.folder = folder if recorders else None
    return error


@contextmanager
def _bar(runs: Mapping[Path, Experiment], left: Mapping[Path, list[str]], progress: bool) -> Iterator[Report]:
    """One bar for all arms of all runs, by what they report; `left` are those that have not ended."""
    steps = sum(experiment.steps * len(experiment.arms) for experiment in runs.values())
    arms = sum(len(experiment.arms) for experiment in runs.values())
    made: dict[tuple[Path, str], int] = {}
    over: set[tuple[Path, str]] = set()
    with tqdm(total=steps, unit="step", disable=not progress, dynamic_ncols=True, mininterval=_refresh()) as bar:

        def report(folder: Path, name: str, before: int, since: int) -> None:
            arm = folder, name
            if arm not in made:
                bar.total = (bar.total or 0) - before  # so that the time left is that of the steps to come
            if before + since == runs[folder].steps:
                over.add(arm)
            at = next((f"{each.name}, " for each, names in left.items() if names), "") if len(runs) > 1 else ""
            bar.set_description(f"{at}{len(over)} of {arms} arms done", refresh=False)
            bar.update(since - made.get(arm, 0))
            made[arm] = since

        yield report


def is_finished(folder: Path) -> bool:
    """Whether a run's folder has the results of every arm.

    Raises:
        RunError: if its summary cannot be read.
    """
    summary = folder / "summary.json"
    if not summary.is_file():
        return False
    try:
        return not json.loads(summary.read_text())["failed"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{summary}: got a file that cannot be read ({first_line(error)}), expected the summary of a run: put it "
            "back, or start a new run"
        ) from error


def resume(folder: str | Path, progress: bool = True, jobs: int = 1) -> Path:
    """Go on with a run from its last checkpoints; a finished run is left as it is, failed arms are tried again.

    Raises:
        ArmError: as for `complete`.
        RunError: if the folder is not a run.
    """
    from inference_marl.config.files import load

    folder = Path(folder)
    if not (folder / "spec.yaml").is_file():
        raise RunError(f"{folder}: got no spec.yaml there, expected the folder of a run")
    return complete(load(folder / "spec.yaml"), folder, progress, jobs)
