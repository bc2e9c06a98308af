"""What a discriminator remembers of a recorded generator: its run beside a twin that never met it.

A net that never met a generator may tell its fakes well: they resemble those of others. So memory
of generator j is the area under the ROC curve on its held-out fakes at the end, minus the same of
the omission twin, which met j's neighbour in its stead (`stream.omit`). It is what meeting j adds
over meeting more of its neighbour, with the other generators that the twin omits missing, too.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.run.identity import as_text
from experiments.run.stored import StoredRun
from experiments.run.study import studies
from forgetting.measures import MEMORY, SAVINGS, SHARE, meets_fakes


@dataclass(frozen=True)
class Remembered:
    """Of one run: seen and unseen (T - 1, turns), AUC on generator j after each turn of the last
    cycle, of the run and of the twin that never met it."""

    run: StoredRun
    seen: np.ndarray
    unseen: np.ndarray

    @property
    def memory(self) -> np.ndarray:
        """(T - 1,) of each generator but the last, at the end."""
        return (self.seen - self.unseen)[:, -1]

    def by_lag(self) -> list[tuple[int, float, float]]:
        """(turns since the generator's own, AUC of those who met it, of those who never did), means
        over generators; 0: it is at hand."""
        generators, turns = self.seen.shape
        found = []
        for lag in range(turns):
            of_lag = [
                (j, i) for j in range(generators) for i in range(turns) if (i - j) % turns == lag
            ]
            rows, columns = (list(index) for index in zip(*of_lag, strict=True))
            means = (float(auc[rows, columns].mean()) for auc in (self.seen, self.unseen))
            found.append((lag, *means))
        return found


def with_memory(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs; those that have omission twins among them with what they remember in their
    result."""
    joint = {_key(run, arm=False): run for run in runs if _is_joint(run)}
    found = {id(of.run): of for of in remembered(runs)}
    twins = _twins(runs)
    result = []
    for run in runs:
        if id(run) in found:
            values = {MEMORY.name: float(found[id(run)].memory.mean())}
            reference = joint.get(_key(run, arm=False))
            if reference is not None:
                reached = _at_the_end(reference, "auc") - found[id(run)].unseen[:, -1]
                share = found[id(run)].memory.sum() / reached.sum()
                values[SHARE.name] = float(share)
            saved = _savings(run, twins[_key(run)])
            values |= {} if saved is None else {SAVINGS.name: saved}
            run = replace(run, result=run.result | values)
        result.append(run)
    return result


def remembered(runs: Iterable[StoredRun]) -> list[Remembered]:
    """Of every run whose generators but the last have each a twin that never met it."""
    runs = list(runs)
    twins, found = _twins(runs), []
    for run in runs:
        if not _meets_all(run):
            continue
        of_run = [_twin(twins.get(_key(run), []), j) for j in range(_generators(run) - 1)]
        if of_run and all(of_run):
            seen = [_last_turns(run, j) for j in range(len(of_run))]
            unseen = [_last_turns(twin, j) for j, twin in enumerate(of_run)]
            found.append(Remembered(run, np.stack(seen), np.stack(unseen)))
    return found


def _meets_all(run: StoredRun) -> bool:
    return meets_fakes(run.config) and not run.identity.get("stream.omit")


def _is_joint(run: StoredRun) -> bool:
    """Whether it is plain training on all generators at once, the reference."""
    plain = run.arm == studies()[run.study].default_arms[0]
    return _meets_all(run) and plain and run.identity["stream.switch"] == "none"


def key_without(run: StoredRun, left_out: Collection[str]) -> str:
    """Equal for runs that compute alike in all but some settings."""
    return as_text({k: v for k, v in run.identity.items() if k not in left_out})


def _key(run: StoredRun, arm: bool = True) -> str:
    """Equal for a run and its twins, and, but for the arm, for those of other arms and the joint
    reference."""
    left_out = {"stream.omit"}
    if not arm:
        study = studies()[run.study]
        of_arm = {key for key, setting in study.settings.items() if setting.of_arm}
        own = run.identity.keys() - study.settings.keys() - {"study", "images", "recording"}
        left_out |= {study.arm, "stream.switch", "stream.blend", *of_arm, *own}
    return key_without(run, left_out)


def _twins(runs: Iterable[StoredRun]) -> dict[str, list[StoredRun]]:
    """The omission twins, those that omit the fewest first, by their key."""
    found: dict[str, list[StoredRun]] = {}
    for run in runs:
        if meets_fakes(run.config) and run.identity.get("stream.omit"):
            found.setdefault(_key(run), []).append(run)
    for those in found.values():
        those.sort(key=lambda run: len(run.identity["stream.omit"]))
    return found


def _twin(twins: Sequence[StoredRun], j: int) -> StoredRun | None:
    """The one that never met generator j (from 0)."""
    return next((run for run in twins if j + 1 in run.identity["stream.omit"]), None)


def _generators(run: StoredRun) -> int:
    return sum(name.startswith("auc/task_") for name in run.metrics)


def _last_turns(run: StoredRun, j: int) -> np.ndarray:
    """(T,) AUC on generator j after each turn of the last cycle."""
    steps, values = run.metrics[f"auc/task_{j}"]
    turn, turns = run.config["iterations_per_task"], _generators(run)
    ends = steps[-1] - turn * np.arange(turns - 1, -1, -1)
    return values[np.searchsorted(steps, ends)]


def _at_the_end(run: StoredRun, kind: str) -> np.ndarray:
    """(T - 1,) on each generator but the last."""
    return np.array([run.metrics[f"{kind}/task_{j}"][1][-1] for j in range(_generators(run) - 1)])


def _savings(run: StoredRun, twins: Sequence[StoredRun]) -> float | None:
    """Updates that the twins need more to learn their omitted generators than the run to learn them
    again; None where that was not measured."""
    saved = []
    for j in range(_generators(run) - 1):
        metrics: tuple[Mapping, ...] = (_twin(twins, j).metrics, run.metrics)
        name = f"relearning/task_{j}"
        if not all(name in of for of in metrics):
            return None
        saved.append(metrics[0][name][1][-1] - metrics[1][name][1][-1])
    return float(np.mean(saved))
