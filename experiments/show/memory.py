"""What a discriminator remembers of a recorded generator: its run beside a twin that never met it.

A net that never met a generator may tell its fakes well: they resemble those of others. So memory
of generator j is the area under the ROC curve on its held-out fakes at the end, minus the same of
the omission twin, which met j's neighbour in its stead (`stream.omit`). It is what meeting j adds
over meeting more of its neighbour, with the other generators that the twin omits missing, too.
"""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.run.identity import on_any_device
from experiments.run.stored import StoredRun
from experiments.run.study import studies
from forgetting.measures import MEMORY, SAVINGS, SHARE, Logged, meets_fakes

Twins = dict[str, list[StoredRun]]  # of a run, by `_key`
REACHABLE = "memory_reachable"  # in a run's result: what joint training reaches above its twins


@dataclass(frozen=True)
class Remembered:
    """Of one run: its generators but the last, by number from 1, as they come; seen and unseen
    (T - 1, turns), AUC on each after every turn of the last cycle, of the run and of the twin that
    never met it; joint (T - 1,), that of joint training at the end, None where it was not run;
    savings, updates, None where they were not measured."""

    run: StoredRun
    generators: Sequence[int]
    seen: np.ndarray
    unseen: np.ndarray
    joint: np.ndarray | None
    savings: float | None

    @property
    def memory(self) -> np.ndarray:
        """(T - 1,) of each generator but the last, at the end."""
        return (self.seen - self.unseen)[:, -1]

    @property
    def reachable(self) -> np.ndarray | None:
        """(T - 1,) what joint training reaches above the twins."""
        return None if self.joint is None else self.joint - self.unseen[:, -1]

    @property
    def share(self) -> float | None:
        """Memory as a share of what is reachable, a ratio of sums; None where that is nothing."""
        if self.reachable is None or self.reachable.sum() <= 0:
            return None
        return float(self.memory.sum() / self.reachable.sum())

    def by_lag(self) -> list[tuple[int, float, float]]:
        """(turns since the generator's own, AUC of those who met it, of those who never did), means
        over generators; 0: it is at hand. In a first cycle those to come have no lag yet."""
        generators, turns = self.seen.shape
        first = self.run.config["cycles"] == 1
        found = []
        for lag in range(turns):
            of_lag = [
                (j, i)
                for j in range(generators)
                for i in range(j if first else 0, turns)
                if (i - j) % turns == lag
            ]
            rows, columns = (list(index) for index in zip(*of_lag, strict=True))
            means = (float(auc[rows, columns].mean()) for auc in (self.seen, self.unseen))
            found.append((lag, *means))
        return found


def with_memory(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs; those that have omission twins among them with what they remember in their
    result."""
    twins, joint = _twins(runs), joint_runs(runs)
    result = []
    for run in runs:
        try:
            of = _remembered(run, twins, joint)
            run = run if of is None else replace(run, result=run.result | _values(of))
        except (LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            print(f"memory: passed over {run.folder}: {reason}", file=sys.stderr)
        result.append(run)
    return result


def _values(of: Remembered) -> dict[str, float]:
    values = {
        MEMORY.name: float(of.memory.mean()),
        SHARE.name: of.share,
        REACHABLE: None if of.reachable is None else float(of.reachable.mean()),
        SAVINGS.name: of.savings,
    }
    return {name: value for name, value in values.items() if value is not None}


def remembered(runs: Iterable[StoredRun]) -> list[Remembered]:
    """Of every run whose generators but the last have each a twin that never met it."""
    runs = list(runs)
    twins, joint = _twins(runs), joint_runs(runs)
    return [of for run in runs if (of := _remembered(run, twins, joint))]


def _remembered(run: StoredRun, twins: Twins, joint: Mapping[str, StoredRun]) -> Remembered | None:
    if not _meets_all(run) or _key(run) not in twins:
        return None
    *past, _ = _order(run)
    of_run = [_twin(twins[_key(run)], j) for j in past]
    if not all(of_run):
        return None
    reference = joint.get(key_of_all(run))
    return Remembered(
        run,
        generators=[j + 1 for j in past],
        seen=np.stack([_last_turns(run, j) for j in past]),
        unseen=np.stack([_last_turns(twin, j) for twin, j in zip(of_run, past, strict=True)]),
        joint=np.array([_at_the_end(reference, "auc", j) for j in past]) if reference else None,
        savings=_savings(run, of_run, past),
    )


def joint_runs(runs: Iterable[StoredRun]) -> dict[str, StoredRun]:
    """The runs of the joint reference by `key_of_all`."""
    return {key_of_all(run): run for run in runs if is_joint(run)}


def twins_of(some: Iterable[StoredRun], runs: Iterable[StoredRun]) -> list[StoredRun]:
    """The omission twins, among `runs`, of some."""
    twins, keys = _twins(runs), {_key(run) for run in some if _meets_all(run)}
    return [twin for key, those in twins.items() if key in keys for twin in those]


def that_tell(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs whose memory can be told, and those that tell it: twins and the joint reference."""
    own = [of.run for of in remembered(runs)]
    return list({run.folder: run for run in (*own, *that_tell_of(own, runs))}.values())


def that_tell_of(some: Sequence[StoredRun], runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Those among `runs` that tell of the memory of some: twins and the joint reference."""
    keys = {key_of_all(run) for run in some if _meets_all(run)}
    joint = [run for key, run in joint_runs(runs).items() if key in keys]
    return [*twins_of(some, runs), *joint]


def _meets_all(run: StoredRun) -> bool:
    return meets_fakes(run.config) and not run.identity.get("stream.omit")


def is_joint(run: StoredRun) -> bool:
    """Whether it is plain training on all generators at once, the reference."""
    plain = run.arm == studies()[run.study].default_arms[0]
    return _meets_all(run) and plain and run.identity["stream.switch"] == "none"


def key_without(run: StoredRun, left_out: Collection[str]) -> str:
    """Equal for runs that compute alike in all but some settings, on whichever device."""
    return on_any_device({k: v for k, v in run.identity.items() if k not in left_out})


def _key(run: StoredRun) -> str:
    """Equal for a run and its twins."""
    return key_without(run, {"stream.omit"})


def key_of_all(run: StoredRun) -> str:
    """Equal for the runs of all arms, and for their joint reference."""
    study = studies()[run.study]
    of_arm = {key for key, setting in study.settings.items() if setting.of_arm}
    own = run.identity.keys() - study.settings.keys() - {"study", "images", "recording"}
    left_out = {study.arm, "stream.omit", "stream.switch", "stream.blend", *of_arm, *own}
    return key_without(run, left_out)


def _twins(runs: Iterable[StoredRun]) -> Twins:
    """The omission twins, those that omit the fewest first, by their key."""
    found: Twins = {}
    for run in runs:
        if meets_fakes(run.config) and run.identity.get("stream.omit"):
            found.setdefault(_key(run), []).append(run)
    for those in found.values():
        those.sort(key=lambda run: len(run.identity["stream.omit"]))
    return found


def _twin(twins: Sequence[StoredRun], j: int) -> StoredRun | None:
    """The one that never met generator j (from 0)."""
    return next((run for run in twins if j + 1 in run.identity["stream.omit"]), None)


def _order(run: StoredRun) -> list[int]:
    """The generators, from 0, as they come."""
    return Logged(run.metrics, run.config).order


def _last_turns(run: StoredRun, j: int) -> np.ndarray:
    """(T,) AUC on generator j after each turn of the last cycle."""
    steps, values = run.metrics[f"auc/task_{j}"]
    turn, turns = run.config["iterations_per_task"], len(_order(run))
    ends = steps[-1] - turn * np.arange(turns - 1, -1, -1)
    return values[np.searchsorted(steps, ends)]


def _at_the_end(run: StoredRun, kind: str, j: int) -> float:
    return run.metrics[f"{kind}/task_{j}"][1][-1]


def _savings(run: StoredRun, twins: Sequence[StoredRun], generators: Sequence[int]) -> float | None:
    """Updates that the twins need more to learn a generator that they never met than the run to
    learn it again, mean over generators (from 0), a twin each. None where it was not measured, and
    where most were not through within a turn, after which it is given up: of those little shows."""
    pairs = [(twin, f"relearning/task_{j}") for twin, j in zip(twins, generators, strict=True)]
    if not all(name in of.metrics for twin, name in pairs for of in (twin, run)):
        return None
    updates = np.array([[of.metrics[name][1][-1] for of in (twin, run)] for twin, name in pairs])
    given_up = updates == run.config["iterations_per_task"]
    return None if given_up.mean() > 0.5 else float((updates[:, 0] - updates[:, 1]).mean())
