"""A replay buffer of trials: consecutive episodes against the same opponents."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from inference_marl.described import IncompatibleError
from inference_marl.inference.replay import Ring
from inference_marl.learners.latent.rows import Rows
from inference_marl.types import Seat, Trajectory


class Steps(NamedTuple):
    """Steps from the replay buffer.

    Attributes:
        rows: `replicates x tasks x steps x features`, see `Rows`.
        terminated, ended: bool, `replicates x tasks x steps`.
        there: in the same shape, false for padding; `None` without padding.
    """

    rows: Tensor
    terminated: Tensor
    ended: Tensor
    there: Tensor | None = None


class Table(NamedTuple):
    """Index of the stored trials, `replicates x trials`, by task and age, and of groups of trials with the same task.

    Attributes:
        environment, begin, length: environment of a trial, its first step, counted from the oldest one stored, and its
            number of steps; 0 for padding.
        passed: cumulative number of steps, up to and including this trial.
        task, first, trials, before, steps: for each group, `replicates x groups`: its task, its first trial, its number
            of trials, and the numbers of steps in the groups before it and in itself.
        groups: number of groups, `replicates x 1`.
    """

    environment: Tensor
    begin: Tensor
    length: Tensor
    passed: Tensor
    task: Tensor
    first: Tensor
    trials: Tensor
    before: Tensor
    steps: Tensor
    groups: Tensor


class Trials(Ring):
    """A replay buffer of every environment's last steps in order, which finds the trials among them.

    A trial continues over episodes until its task ends (`Transition.task_ended`); without tasks every episode is a
    trial, and all have the same task, 0. An unfinished trial is included as far as it has been played, so that only
    steps need to be stored.

    Args:
        seat: the learner's seat.
        capacity: steps kept per replicate, over all its environments; at least one of each.
        from_their_beginning: whether trials whose beginning may have been dropped are excluded, unless there are no
            others.
    """

    def __init__(self, seat: Seat, capacity: int, from_their_beginning: bool = False) -> None:
        self.from_their_beginning = from_their_beginning
        self.layout, self.seat_index, self.environments = Rows(seat), seat.index, seat.environments
        self.length = max(capacity // seat.environments, 1)
        flags: dict[str, tuple[tuple[int, ...], torch.dtype]]
        flags = dict.fromkeys(("terminated", "ended", "last"), ((), torch.bool))
        row = {"row": ((self.layout.features,), seat.dtype), "task": ((), torch.int64)}
        super().__init__(seat, self.length * seat.environments, {**row, **flags})
        self._table: Table | None = None

    def add(self, newest: Trajectory, seat: Seat) -> None:
        """Append a trajectory from the perspective of `seat`.

        Raises:
            IncompatibleError: if its number of environments is not the seat's.
        """
        environments = newest.steps[0].ended.shape[1]
        if environments != self.environments:
            raise IncompatibleError(f"got steps of {environments} environments, expected {self.environments}")
        flat = newest.flat
        seen = flat.seen_by(seat)
        last = flat.ended if flat.task_ended is None else flat.task_ended
        task = torch.zeros_like(flat.ended, dtype=torch.int64) if flat.task is None else flat.task
        flags = {"terminated": seen.terminated, "ended": seen.ended, "last": last}
        self.push({"row": self.layout.of(seen), "task": task, **flags})
        self._table = None

    def set_extra_state(self, state: Any) -> None:
        """See `Ring`."""
        super().set_extra_state(state)
        self._table = None

    @property
    def table(self) -> Table:
        """The index of the stored trials.

        Raises:
            IndexError: if no step is stored.
        """
        if self._table is None:
            if not self.ready(1):
                raise IndexError("table: got an empty replay, expected at least one step before it")
            self._table = self._looked_up()
        return self._table

    @property
    def _oldest(self) -> tuple[int, int]:
        """Position of the oldest step of an environment, and the number of its steps."""
        assert isinstance(self._position, int)  # nothing is omitted
        assert isinstance(self._size, int)
        full = self._size == self.capacity
        return self._position // self.environments if full else 0, self._size // self.environments

    def _streams(self, name: str) -> Tensor:
        """The stored values of a name, oldest first, `replicates x environments x steps`."""
        oldest, steps = self._oldest
        kept: Tensor = getattr(self, name)
        places = torch.arange(oldest, oldest + steps, device=kept.device) % self.length
        streams: Tensor = kept.unflatten(1, (self.length, self.environments))[:, places].transpose(1, 2)
        return streams

    def _looked_up(self) -> Table:
        last, tasks = self._streams("last").clone(), self._streams("task")
        last[..., -1] = True  # of unfinished trials
        last[..., :-1] |= tasks[..., 1:] != tasks[..., :-1]  # of trials that were lost when play was resumed
        replicate, environment, end = last.nonzero(as_tuple=True)
        stream = replicate * self.environments + environment
        follows = torch.zeros_like(end, dtype=torch.bool)
        follows[1:] = stream[1:] == stream[:-1]
        begin = torch.where(follows, end.roll(1) + 1, 0)
        task = tasks[replicate, environment, begin]
        each = torch.stack([replicate, task, begin, environment, end + 1 - begin])
        if self.from_their_beginning and (steps := last.shape[-1]) == self.length:
            each = each[:, (begin > 0) | (end == steps - 1)]
        for key in (2, 1, 0):
            each = each[:, each[key].argsort(stable=True)]
        return _table(each, self._shape[0])

    def draw_tasks(self, count: int) -> Tensor:
        """Draw groups of trials, `replicates x count`, each once before any is drawn again."""
        table = self.table
        draws = torch.rand(table.task.shape, device=table.task.device)
        absent = torch.arange(draws.shape[1], device=draws.device) >= table.groups
        order = draws.masked_fill(absent, 2.0).argsort(1)
        return order.gather(1, torch.arange(count, device=draws.device) % table.groups)

    def draw_steps(self, groups: Tensor, count: int) -> Steps:
        """Draw `count` steps of each group uniformly with replacement, `replicates x tasks x count`."""
        table = self.table
        within = _below(table.steps.gather(1, groups), count)
        wanted = (table.before.gather(1, groups).unsqueeze(-1) + within).flatten(1)
        trial = torch.searchsorted(table.passed, wanted, right=True)
        step = wanted - table.passed.gather(1, trial) + table.length.gather(1, trial)
        return self._steps(trial.view(within.shape), step.view(within.shape))

    def draw_trials(self, groups: Tensor, recent: int | None = None) -> Tensor:
        """Draw a trial of each group, `replicates x tasks`, from the last `recent` ones, or from all."""
        table = self.table
        first, count = table.first.gather(1, groups), table.trials.gather(1, groups)
        among = count if recent is None else count.clamp_max(recent)
        return first + count - 1 - _below(among, 1).squeeze(-1)

    def draw_sets(self, trials: Tensor, least: int, most: int) -> Steps:
        """Draw steps of each trial without replacement, `replicates x tasks x most`.

        Their number is uniform between `least` and `most`, and at most that of the trial.
        """
        lengths = self.table.length.gather(1, trials).unsqueeze(-1)
        longest = int(lengths.max())
        draws = torch.rand(*trials.shape, longest, device=trials.device)
        beyond = torch.arange(longest, device=trials.device) >= lengths
        step = draws.masked_fill(beyond, 2.0).argsort(-1)[..., :most]
        wanted = least + _below(torch.full_like(trials, most + 1 - least), 1)
        there = torch.arange(step.shape[-1], device=trials.device) < wanted.minimum(lengths)
        return self._steps(trials.unsqueeze(-1).expand_as(step), step.where(there, 0))._replace(there=there)

    def whole(self, trials: Tensor) -> Steps:
        """All steps of trials in order, `replicates x tasks x (steps of the longest)`."""
        lengths = self.table.length.gather(1, trials).unsqueeze(-1)
        step = torch.arange(int(lengths.max()), device=trials.device).expand(*trials.shape, -1)
        there = step < lengths
        return self._steps(trials.unsqueeze(-1).expand_as(step), step.where(there, 0))._replace(there=there)

    def _steps(self, trial: Tensor, step: Tensor) -> Steps:
        """Steps of trials, `replicates x tasks x steps`."""
        table, flat = self.table, trial.flatten(1)
        environment, begin = (each.gather(1, flat).view_as(trial) for each in (table.environment, table.begin))
        place = (begin + step + self._oldest[0]) % self.length * self.environments + environment
        rows = (torch.arange(len(trial), device=trial.device).view(-1, 1, 1) * self.capacity + place).flatten()

        def of(name: str) -> Tensor:
            kept: Tensor = getattr(self, name).flatten(0, 1).index_select(0, rows)
            return kept.view(*trial.shape, *kept.shape[1:])

        return Steps(of("row"), of("terminated"), of("ended"))


def _below(limits: Tensor, count: int) -> Tensor:
    """Draw `count` integers uniformly from 0 to below each limit, `replicates x tasks`, in a last dimension."""
    drawn = torch.rand(*limits.shape, count, device=limits.device, dtype=torch.float64)
    return (drawn * limits.unsqueeze(-1)).long()


def _table(each: Tensor, replicates: int) -> Table:
    """Build the index from sorted trials: replicate, task, begin, environment and length, `5 x trials`."""
    replicate, task, begin, environment, length = each
    column, counts = _numbered(replicate, replicates)
    passed = length.cumsum(0)
    starts = torch.ones_like(replicate, dtype=torch.bool)
    starts[1:] = (replicate[1:] != replicate[:-1]) | (task[1:] != task[:-1])
    number = starts.cumsum(0) - 1
    trials = torch.bincount(number)
    owner = replicate[starts]
    group, groups = _numbered(owner, replicates)
    zero = (passed - length)[torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])]  # steps of earlier replicates

    def padded(where: Tensor, at: Tensor, values: Tensor, filler: int = 0) -> Tensor:
        filled = values.new_full((replicates, int(at.max()) + 1), filler)
        filled[where, at] = values
        return filled

    most = int(passed[-1])
    of_trials = [padded(replicate, column, values) for values in (environment, begin, length)]
    before = (passed - length - zero[replicate])[starts]
    steps = torch.zeros_like(trials).index_add(0, number, length)
    of_groups = [padded(owner, group, values) for values in (task[starts], column[starts], trials, before, steps)]
    total = padded(replicate, column, passed - zero[replicate], most)
    return Table._make([*of_trials, total, *of_groups, groups.unsqueeze(-1)])


def _numbered(owner: Tensor, owners: int) -> tuple[Tensor, Tensor]:
    """Number elements that are sorted by owner, from 0 for each owner, and count those of each."""
    counts = torch.bincount(owner, minlength=owners)
    first = counts.cumsum(0) - counts
    return torch.arange(len(owner), device=owner.device) - first[owner], counts
