"""The loop of one run: step, evaluate, log, checkpoint, and stop in good order."""

import ctypes
import fcntl
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sacred.utils import SacredInterrupt
from tqdm import tqdm

from experiments.run import checkpoints
from experiments.run.observer import RunFolder
from forgetting import data
from forgetting.errors import UserError
from forgetting.files import write_atomically
from forgetting.settings import seconds

TRY_LATER = 75  # the exit code of sysexits.h: stopped by the clock, or held by another process


class Interrupted(SacredInterrupt):
    """The run stopped where it can be taken up again."""

    STATUS = "INTERRUPTED"

    def __init__(self, step: int, exit_code: int):
        super().__init__(f"interrupted at step {step}")
        self.step, self.exit_code = step, exit_code


class StoppedNow(KeyboardInterrupt):
    """A signal came where the work at hand is long and can be done again; no library catches it."""


class Diverged(Exception):
    """A loss is no number any more."""


class Held(UserError):
    """Another process is working on a run."""


@contextmanager
def sole_user(run: Path, wait: bool = False):
    """Hold a run's folder, which ends with the process, whatever. Raises Held if another process
    does (or waits for it), UserError where a lock cannot be had at all."""
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(open(run / ".lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Held(f"resume: another process is working on {run}") from None
        except OSError as error:
            raise UserError(f"results_dir: {run} cannot be locked: {error.strerror}") from None
        yield


def require_written(observer: RunFolder) -> None:
    """UserError if a file of the run could not be written, which Sacred would pass over."""
    if observer.failure and not observer.whole:
        raise UserError(
            f"results_dir: cannot write to {observer.dir}: {observer.failure.strerror}; make room "
            f"and go on with resume={Path(observer.dir).name}"
        )


def run_to_the_end(run, study, settings, dataset, checkpoint, stop) -> dict[str, float]:
    """One run from its start, or its checkpoint, to its summary."""
    recorders = [observer for observer in run.observers if isinstance(observer, RunFolder)]
    recorder = recorders[0] if recorders else None
    folder = Path(recorder.dir) if recorder else None
    # A run that is taken up again is held already; another process holds a fresh one for no longer
    # than it takes to look whether somebody does.
    with sole_user(folder, wait=True) if folder and not checkpoint else nullcontext():
        return _loop(run, recorder, study, settings, dataset, checkpoint, stop)


def _loop(run, recorder, study, settings, dataset, checkpoint, stop) -> dict[str, float]:
    prepare(torch.device(settings["device"]))
    folder = Path(recorder.dir) if recorder else None
    device = torch.device(settings["device"])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # another arm's before it
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=settings["precision"] == "bf16"
    )
    try:
        with stop.at_once():  # it may train an extractor
            learner = study.build(settings, dataset, device, autocast)
    except StoppedNow:
        step = checkpoint["study"]["position"] if checkpoint else 0
        raise Interrupted(step, stop.exit_code()) from None
    log = _Log(run)
    seconds_spent = {"training": 0.0, "evaluation": 0.0, "checkpoints": 0.0}
    if checkpoint:
        # Sums of floats depend on how many threads share them, and so does every bit after.
        torch.set_num_threads(checkpoint["threads"])
        learner.load_state_dict(checkpoint["study"])
        log.restore(checkpoint["metrics"], checkpoint["loss_sums"])
        seconds_spent = checkpoint["seconds"]
        print(f"resumed at step {learner.position}")
    run.info.update(_about(dataset, device), **learner.info, seconds=seconds_spent)

    @contextmanager
    def timed(what):
        start = time.perf_counter()
        yield
        seconds_spent[what] += time.perf_counter() - start

    def everything(evaluated: bool) -> dict:
        with timed("training"):  # a GPU may not be through with the last steps
            log.look()
        return {
            "study": learner.state_dict(),
            **log.state(),
            "evaluated": evaluated,
            "fingerprint": dataset.fingerprint,
            "threads": torch.get_num_threads(),
            "seconds": dict(seconds_spent),
        }

    def save(state):
        if device.type == "cuda":
            run.info["peak_device_bytes"] = torch.cuda.max_memory_allocated()
        if folder is None:
            return
        complete = learner.position == learner.total_steps and state["evaluated"]
        keep = 1 if complete else checkpoints.KEEP
        with timed("checkpoints"):
            try:
                checkpoints.save(folder, learner.position, state, keep)
            except OSError as error:
                recorder.failure = error
                require_written(recorder)

    def evaluate() -> dict[str, float]:
        before = everything(evaluated=False)
        try:
            with timed("evaluation"), stop.at_once():
                values = learner.evaluate()
        except StoppedNow:
            save(before)
            raise Interrupted(learner.position, stop.exit_code()) from None
        log.evaluation(values, learner.position)
        run.info.update(learner.info)
        for name, content in learner.artifacts().items() if folder else ():
            write_atomically(folder / name, content)
            run.add_artifact(folder / name, name)
        return values

    name = settings[study.arm]
    title = f"run {run._id}: {name}" if run._id else name
    print(f"{title}, seed {settings['seed']}, {learner.total_steps} iterations")
    if not checkpoint or not checkpoint["evaluated"]:
        evaluate()
        save(everything(evaluated=True))
    # stderr itself, not Sacred's capture of it; and silent where nobody watches.
    bar = tqdm(
        total=learner.total_steps,
        initial=learner.position,
        desc=title,
        file=sys.__stderr__,
        disable=not sys.__stderr__.isatty(),
        dynamic_ncols=True,
    )
    with bar:
        while learner.position < learner.total_steps:
            with timed("training"):
                log.losses(learner.step(), learner.position)
            if learner.evaluation_due():
                bar.set_postfix_str(learner.status(evaluate()), refresh=False)
            bar.update()
            if recorder:
                require_written(recorder)
            last = learner.position == learner.total_steps
            if stop.exit_code() and not last:
                save(everything(evaluated=True))
                raise Interrupted(learner.position, stop.exit_code())
            if last or learner.position % settings["checkpoint_every"] == 0:
                save(everything(evaluated=True))
    result = learner.summary(
        {k: (np.array(v["steps"]), np.array(v["values"])) for k, v in log.metrics.items()}
    )
    if recorder:
        require_written(recorder)
        try:
            recorder.write_all(log.metrics, run.info)
        except OSError:
            require_written(recorder)
    where = f", stored in {os.path.relpath(folder)}" if folder else ""
    print(f"{title} done in {sum(seconds_spent.values()):.0f} s{where}")
    return result


class _Log:
    """What a run logged so far, on its way to Sacred and into the checkpoints."""

    def __init__(self, run):
        self.run = run
        self.metrics: dict[str, dict[str, list]] = {}
        self.loss_sums: dict[str, tuple[int, float]] = {}
        self.unseen: list[tuple[int, list[str], torch.Tensor, torch.cuda.Event | None]] = []

    def restore(self, metrics: dict, loss_sums: dict) -> None:
        self.metrics = {
            name: {key: list(column) for key, column in columns.items()}
            for name, columns in metrics.items()
        }
        self.loss_sums = dict(loss_sums)

    def losses(self, losses: Mapping[str, torch.Tensor], step: int) -> None:
        """Take the losses of the update that led to `step`; Diverged when one is no number.

        On a GPU it is looked at two updates later, when it has come over by itself: to wait for it
        would leave the GPU idle.
        """
        values, arrived = torch.stack([value.double() for value in losses.values()]), None
        if values.is_cuda:
            here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = here.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self.unseen.append((step, list(losses), values, arrived))
        self.look(but=2 if arrived else 0)

    def look(self, but: int = 0) -> None:
        """Diverged if a loss is no number, of all taken since the last look `but` the latest."""
        while len(self.unseen) > but:
            step, names, values, arrived = self.unseen.pop(0)
            if arrived:
                arrived.synchronize()
            for name, value in zip(names, values.tolist(), strict=True):
                _require_finite(name, value, step)
                n, total = self.loss_sums.get(name, (0, 0.0))
                self.loss_sums[name] = (n + 1, total + value)

    def evaluation(self, values: Mapping[str, float], step: int) -> None:
        """Log `values` and the mean of each loss since the last evaluation; Diverged on a NaN."""
        self.look()
        means = {name: total / n for name, (n, total) in self.loss_sums.items()}
        self.loss_sums = {}
        for name, value in {**values, **means}.items():
            _require_finite(name, value, step)
            self.run.log_scalar(name, value, step)
            columns = self.metrics.setdefault(name, {"steps": [], "values": [], "timestamps": []})
            columns["steps"].append(step)
            columns["values"].append(value)
            columns["timestamps"].append(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()))

    def state(self) -> dict:
        """Metrics and sums of losses, for a checkpoint."""
        self.look()
        return {"metrics": self.metrics, "loss_sums": dict(self.loss_sums)}


def _require_finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Diverged(f"{name} is {value} at step {step}; a lower lr may help")


class Stop:
    """Whether to stop after the step at hand: SIGINT or SIGTERM came (a second one ends at once),
    or `stop_after` is over, counted from here."""

    interrupts = False  # whether a signal ends what is being done

    def __init__(self, stop_after: str | None):
        self.end = time.monotonic() + seconds(stop_after) if stop_after else math.inf
        self.by_signal = 0

    def exit_code(self) -> int:
        """0: go on."""
        return self.by_signal or (TRY_LATER if time.monotonic() >= self.end else 0)

    def __enter__(self):
        self.before = {s: signal.signal(s, self._caught) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self):
        """Raise StoppedNow in the middle of this, when a signal comes or has come. `stop_after`
        waits: a slice shorter than this would never get beyond it."""
        if self.by_signal:
            raise StoppedNow
        self.interrupts = True
        try:
            yield
        finally:
            self.interrupts = False

    def _caught(self, number, _frame):
        if self.by_signal:
            raise KeyboardInterrupt
        self.by_signal = 128 + number
        if self.interrupts:
            raise StoppedNow


def _about(dataset: data.Dataset, device: torch.device) -> dict:
    """Facts about the data and the machine, for Sacred's info."""
    return {
        "data": {
            "classes": list(dataset.classes),
            "train_images": len(dataset.train_labels),
            "test_images": len(dataset.test_labels),
            "fingerprint": dataset.fingerprint,
        },
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "peak_device_bytes": None,
    }


def prepare(device: torch.device) -> None:
    """What makes every step of a process faster, set once."""
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes are few: look for the fastest way once


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of giving them back to the kernel.

    Else every activation map is mapped and zeroed anew at each step: 6,800 page faults a step and
    1.2 times the time, measured on the CPU at width 32.
    """
    trim_threshold, mmap_threshold = -1, -3
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
    except (OSError, AttributeError):
        pass  # another C library: only slower
