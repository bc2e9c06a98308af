"""What a run logged so far, on its way to Sacred and into the checkpoints."""

import math
import time
from collections.abc import Mapping

import numpy as np
import torch


class Diverged(Exception):
    """A loss is no number any more."""


class Log:
    """Metrics, and losses summed up since the last evaluation."""

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
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        for name, value in {**values, **means}.items():
            _require_finite(name, value, step)
            self.run.log_scalar(name, value, step)
            columns = self.metrics.setdefault(name, {"steps": [], "values": [], "timestamps": []})
            columns["steps"].append(step)
            columns["values"].append(value)
            columns["timestamps"].append(now)

    def curves(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Metric -> (steps, values)."""
        return {k: (np.array(v["steps"]), np.array(v["values"])) for k, v in self.metrics.items()}

    def state(self) -> dict:
        """How many values of each metric there are, and sums of losses, for a checkpoint."""
        self.look()
        logged = {name: len(columns["steps"]) for name, columns in self.metrics.items()}
        return {"logged": logged, "loss_sums": dict(self.loss_sums)}


def _require_finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        # At the first update the net is as it was drawn: it cannot be the learning rate's.
        hint = "; a lower lr may help" if step > 1 else ""
        raise Diverged(f"{name} is {value} at step {step}{hint}")
