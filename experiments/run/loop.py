"""One run: step, evaluate, log, checkpoint, and stop in good order."""

import os
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch

from experiments.run import checkpoints, process, progress
from experiments.run.locks import sole_user
from experiments.run.log import Log
from experiments.run.observer import RunFolder
from experiments.run.stopping import Interrupted, Stop, StoppedNow
from forgetting import data
from forgetting.errors import UserError
from forgetting.files import write_atomically
from forgetting.seeding import restore_shared_draws, shared_draws


def run_to_the_end(run, study, settings, dataset, checkpoint, stop: Stop) -> dict[str, float]:
    """One run from its start, or its checkpoint, to its summary."""
    recorder = next((o for o in run.observers if isinstance(o, RunFolder)), None)
    folder = Path(recorder.dir) if recorder else None
    # A run that is taken up again is held already; another process holds a fresh one for no longer
    # than it takes to look whether somebody does.
    with sole_user(folder, wait=True) if folder and not checkpoint else nullcontext():
        return _loop(run, recorder, study, settings, dataset, checkpoint, stop)


def _loop(run, recorder, study, settings, dataset, checkpoint, stop) -> dict[str, float]:
    device = torch.device(settings["device"])
    threads = process.threads(settings, study.widest(settings))
    # Sums of floats depend on how many threads share them, and so does every bit after.
    torch.set_num_threads(checkpoint["threads"] if checkpoint else threads)
    arm = study.parse(settings[study.arm]).name
    title = f"run {run._id}: {arm}" if run._id else arm
    progress.has_begun(title)
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=settings["precision"] == "bf16"
    )
    try:
        with stop.at_once():  # it may train an extractor
            learner = study.build(settings, dataset, device, autocast, fresh=checkpoint is None)
    except StoppedNow:
        step = checkpoint["study"]["position"] if checkpoint else 0
        raise Interrupted(step, stop.exit_code()) from None
    training = _Training(run, recorder, learner, dataset, device, stop)
    if checkpoint:
        training.restore(checkpoint)
        print(f"resumed at step {learner.position}")
    run.info.update(_about(dataset, device), **learner.info, seconds=training.seconds)
    if recorder:  # at once, for the next kill may come before Sacred's first heartbeat
        with writing(recorder):
            recorder.save_json(run.info, "info.json")

    print(f"{title}, seed {settings['seed']}, {learner.total_steps} iterations")
    if not checkpoint or not checkpoint["evaluated"]:
        training.evaluate()
        training.save(training.state(evaluated=True))
    with progress.bar(title, learner.position, learner.total_steps) as bar:
        while learner.position < learner.total_steps:
            training.step()
            if learner.evaluation_due():
                bar.set_postfix_str(learner.status(training.evaluate()), refresh=False)
            bar.update()
            if recorder:
                require_written(recorder)
            last = learner.position == learner.total_steps
            stopped = stop.exit_code() and not last
            if stopped or last or learner.position % settings["checkpoint_every"] == 0:
                training.save(training.state(evaluated=True))
            if stopped:
                raise Interrupted(learner.position, stop.exit_code())
    result = learner.summary(training.log.curves())
    if recorder:
        require_written(recorder)
        with writing(recorder):
            recorder.write_all(training.log.metrics, run.info)
    where = f", stored in {os.path.relpath(recorder.dir)}" if recorder else ""
    print(f"{title} done in {sum(training.seconds.values()):.0f} s{where}")
    return result


class _Training:
    """A run under way: the study as it steps, what is logged of it, and what it spends."""

    def __init__(self, run, recorder, learner, dataset, device, stop):
        self.run, self.recorder, self.learner, self.stop = run, recorder, learner, stop
        self.folder = Path(recorder.dir) if recorder else None
        self.dataset, self.device = dataset, device
        self.log = Log(run)
        self.seconds = {"training": 0.0, "evaluation": 0.0, "checkpoints": 0.0}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # another arm's before it

    @contextmanager
    def timed(self, what: str):
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    def step(self) -> None:
        with self.timed("training"):
            try:
                losses = self.learner.step()
            except Exception as error:
                error.add_note(f"at step {self.learner.position + 1}")
                raise
            self.log.losses(losses, self.learner.position)

    def evaluate(self) -> dict[str, float]:
        """Evaluate and log; where a signal breaks it off, keep the state from before it."""
        before = self.state(evaluated=False)
        try:
            with self.timed("evaluation"), self.stop.at_once():
                values = self.learner.evaluate()
        except StoppedNow:
            self.save(before)
            raise Interrupted(self.learner.position, self.stop.exit_code()) from None
        self.log.evaluation(values, self.learner.position)
        if self.recorder:  # before any checkpoint counts them
            with self.timed("checkpoints"), writing(self.recorder):
                self.recorder.add_metrics(self.log.metrics)
        self.run.info.update(self.learner.info)
        for name, content in self.learner.artifacts().items() if self.folder else ():
            write_atomically(self.folder / name, content)
            self.run.add_artifact(self.folder / name, name)
        return values

    def state(self, evaluated: bool) -> dict:
        """All that the next step depends on. evaluated: whether that is done at this step."""
        with self.timed("training"):  # a GPU may not be through with the last steps
            self.log.look()
        if self.recorder and self.learner.position:
            self.recorder.empty = False
        return {
            "study": self.learner.state_dict(),
            **self.log.state(),
            "evaluated": evaluated,
            "fingerprint": self.dataset.fingerprint,
            "threads": torch.get_num_threads(),
            "shared_draws": shared_draws(),
            "seconds": dict(self.seconds),
        }

    def restore(self, state: dict) -> None:
        self.learner.load_state_dict(state["study"])
        self.log.restore(state["metrics"], state["loss_sums"])
        self.seconds.update(state["seconds"])
        if "shared_draws" in state:  # else it is older than these, and no method drew from them
            restore_shared_draws(state["shared_draws"])

    def save(self, state: dict) -> None:
        if self.device.type == "cuda":
            self.run.info["peak_device_bytes"] = torch.cuda.max_memory_allocated()
        if self.folder is None:
            return
        complete = self.learner.position == self.learner.total_steps and state["evaluated"]
        with self.timed("checkpoints"), writing(self.recorder):
            keep = 1 if complete else checkpoints.KEEP
            checkpoints.save(self.folder, self.learner.position, state, keep)


@contextmanager
def writing(recorder: RunFolder):
    """UserError where what is written in it cannot be."""
    try:
        yield
    except OSError as error:
        recorder.failure = error
    require_written(recorder)


def require_written(recorder: RunFolder) -> None:
    """UserError if a file of the run could not be written, which Sacred would pass over."""
    if recorder.failure and not recorder.whole:
        raise UserError(
            f"results_dir: cannot write to {recorder.dir}: {recorder.failure.strerror}; make room"
            f"{checkpoints.how_to_go_on(Path(recorder.dir))}"
        )


def _about(dataset: data.Dataset, device: torch.device) -> dict:
    """Facts about the data and the machine, for Sacred's info."""
    return {
        "data": {
            "classes": list(dataset.classes),
            "train_images": len(dataset.train_labels),
            "test_images": len(dataset.test_labels),
            "fingerprint": dataset.fingerprint,
            "notes": list(dataset.notes),
        },
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "peak_device_bytes": None,
    }
