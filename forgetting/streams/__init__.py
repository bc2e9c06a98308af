"""What moves: which task an update is for, asked of one `Schedule`; a file for each stream."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from forgetting.errors import UserError
from forgetting.seeding import generator
from forgetting.settings import Rule, Setting, choice, optional, share, text


def order_of_tasks() -> Rule:
    def accept(value):
        if value == "seeded":
            return value
        if sorted(value) != list(range(len(value))) or any(isinstance(c, bool) for c in value):
            raise ValueError
        return list(value)

    return Rule("seeded or a permutation of the tasks, as [2,0,1]", accept)


def recording() -> Rule:
    def accept(value):
        value = text().accept(value)
        # Of a file the absolute path, for workers elsewhere.
        return os.path.abspath(os.path.expanduser(value)) if value.endswith(".pt") else value

    return Rule("the name of a shipped recording, or a file that ends with .pt", accept)


def numbers() -> Rule:
    def accept(value):
        if not isinstance(value, list | tuple) or any(isinstance(n, bool) for n in value):
            raise ValueError
        if any(not isinstance(n, int) or n < 1 for n in value) or len(set(value)) < len(value):
            raise ValueError
        return sorted(value)

    return Rule("a list of generators by number, from 1, as [2,6]", accept)


def of_fakes(settings: Mapping[str, Any]) -> bool:
    """Whether the tasks are recorded generators. settings: flat, or some of them."""
    return settings.get("stream.name") == "fakes"


SETTINGS = {
    "stream.name": Setting(
        "one_vs_all",
        choice("one_vs_all", "fakes"),
        "one_vs_all, or fakes: real images against those of recorded generators in turn",
    ),
    "stream.recording": Setting(
        None,
        optional(recording(), "none"),
        "of stream.name=fakes: one of results/recordings by name, or a file",
        incidental=True,
    ),
    "stream.omit": Setting(
        [], numbers(), "generators that are never shown, by number from 1, as [2,6]", of_fakes
    ),
    "stream.order": Setting(
        None, optional(order_of_tasks(), "as they are numbered"), "in which the tasks come"
    ),
    "stream.switch": Setting(
        "abrupt",
        choice("abrupt", "gradual", "none"),
        "how one task follows another; none: all at once",
    ),
    "stream.blend": Setting(
        0.5,
        share(above=0),
        "of a task, the share over which a gradual next one mixes in",
        lambda settings: settings["stream.switch"] == "gradual",
    ),
}


def resolved_order(order: Any, tasks: int, seed: int) -> list[int]:
    """The tasks in the order in which they come. Raises UserError for another number of tasks."""
    if order is None:
        return list(range(tasks))
    if order == "seeded":
        return torch.randperm(tasks, generator=generator(seed, "order of tasks")).tolist()
    if len(order) != tasks:
        raise UserError(
            f"stream.order: it must have each of the {tasks} tasks once, from 0 to {tasks - 1}, "
            f"not {order}"
        )
    return list(order)


class Schedule:
    """When tasks change: `order` is gone through `cycles` times, each task for so many updates.

    switch: abrupt; gradual: over the last share `blend` of a task more and more rows are of the
    next one (the run's last task has none); none: every row is of any task, while tasks and
    boundaries are counted as in the moving stream, its stationary control.
    """

    def __init__(
        self,
        order: Sequence[int],
        iterations_per_task: int,
        cycles: int,
        switch: str = "abrupt",
        blend: float = 0.5,
    ):
        self.order, self.iterations_per_task = list(order), iterations_per_task
        self.cycles = cycles
        self.steps = cycles * len(self.order) * iterations_per_task
        self.switch, self.blend = switch, blend

    def task(self, step: int) -> int:
        """The task whose turn it is at update number `step` (from 0)."""
        return self.order[step // self.iterations_per_task % len(self.order)]

    def into(self, done: int) -> int:
        """How many of the `done` updates are of the turn at hand; 0: between two turns, or at the
        start."""
        return done % self.iterations_per_task

    def ends(self, done: int) -> bool:
        """Whether a task ends with update number `done` (counted from 1); 0: none has begun."""
        return done > 0 and self.into(done) == 0

    def changes(self, done: int) -> bool:
        """Whether another task follows on the one that ended."""
        return self.ends(done) and done < self.steps

    def share_of_next(self, step: int) -> float:
        """The share of an update's rows that are of the next task already, in [0, 1)."""
        left = self.iterations_per_task - self.into(step)  # this one included
        length = max(1, round(self.blend * self.iterations_per_task))
        if self.switch != "gradual" or left > length or step + left >= self.steps:
            return 0.0
        return (length + 1 - left) / (length + 1)

    def tasks(self, step: int, n: int, draws: torch.Generator) -> torch.Tensor:
        """The task of each of n rows, (n,) int64; an abrupt switch draws nothing."""
        if self.switch == "none":
            return torch.tensor(self.order)[torch.randint(len(self.order), (n,), generator=draws)]
        tasks = torch.full((n,), self.task(step))
        if share := self.share_of_next(step):
            following = self.task(step + self.iterations_per_task)
            tasks[torch.rand(n, generator=draws) < share] = following
        return tasks
