"""A run for TensorBoard, while it goes on: its metrics and its pictures, in the run's folder."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image
from sacred.observers import RunObserver

from experiments.run.observer import RunFolder
from experiments.run.other_observers import measured, missing
from forgetting.errors import UserError
from forgetting.names import natural

FOLDER = "tensorboard"
GRID = re.compile(r"(.+)-(\d+)\.png")  # samples-000400.png, after 400 updates


def require() -> None:
    """UserError where TensorBoard's package is missing."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError(f"tensorboard: {missing(error)}") from None


class LiveView(RunObserver):
    """Writes scalars, and the grids of samples as images, by the updates done.

    What a run that goes on had before is written anew, up to its checkpoint: a process that was
    killed may have written more, or less.
    """

    def __init__(self, recorder: RunFolder):
        self.recorder = recorder
        self.written: dict[str, int] = {}  # how many values of each metric

    def started_event(self, **_) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.written = {}
        folder = Path(self.recorder.dir, FOLDER)
        former = list(folder.glob("events.out.*"))
        # What a TensorBoard that is open has read of the former files, it drops by purge_step.
        self.writer = SummaryWriter(folder, purge_step=0 if former else None)
        if self.recorder.resuming:
            last = self._catch_up()
            for path in sorted(folder.parent.glob("*.png"), key=lambda path: natural(path.name)):
                if (grid := GRID.fullmatch(path.name)) and int(grid[2]) <= last:
                    self._show(path)
        self.writer.flush()
        for path in former:
            path.unlink()

    def log_metrics(self, metrics_by_name, info) -> None:
        for name, new in metrics_by_name.items():
            self._write(name, new, [time.isoformat() for time in new["timestamps"]])

    def artifact_event(self, name, filename, metadata=None, content_type=None) -> None:
        if GRID.fullmatch(name):
            self._show(Path(filename))

    def heartbeat_event(self, **_) -> None:
        self.writer.flush()

    def completed_event(self, **_) -> None:
        self._close()

    def interrupted_event(self, **_) -> None:
        self._close()

    def failed_event(self, **_) -> None:
        self._close()

    def _close(self) -> None:
        self._catch_up()  # Sacred's last heartbeat may not have come
        self.writer.close()

    def _catch_up(self) -> int:
        """Write what the run's folder has and TensorBoard's not yet; the last step there is."""
        metrics = measured(Path(self.recorder.dir))
        for name, columns in metrics.items():
            n = self.written.get(name, 0)
            rest = {key: column[n:] for key, column in columns.items()}
            self._write(name, rest, rest["timestamps"])
        return max((columns["steps"][-1] for columns in metrics.values()), default=0)

    def _write(self, name: str, columns: Mapping[str, list], times: list[str]) -> None:
        for step, value, time in zip(columns["steps"], columns["values"], times, strict=True):
            at = datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()
            self.writer.add_scalar(name, value, step, walltime=at)
        self.written[name] = self.written.get(name, 0) + len(times)

    def _show(self, path: Path) -> None:
        name, step = GRID.fullmatch(path.name).groups()
        pixels = np.asarray(Image.open(path).convert("RGB"))
        at = path.stat().st_mtime
        self.writer.add_image(name, pixels, int(step), walltime=at, dataformats="HWC")
