"""Where a second CPU thread begins to pay (`experiments.run.process.WORK_OF_A_THREAD`)."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from experiments.benchmarks import in_turn, learner, preset_settings, row, seconds
from experiments.run.beside import cores
from experiments.run.process import work
from experiments.run.study import studies
from forgetting.errors import UserError

# A study, its arm, and (width, side of the images): from those of `quick` on to `paper`'s.
SIZES = (
    ("sequential_tasks", "rotation", ((32, 8), (16, 16), (16, 32), (32, 32), (64, 32), (128, 32))),
    ("gan_probe", "ssgan", ((16, 8), (16, 16), (16, 32), (32, 32), (64, 32))),
)
ENOUGH = 0.5  # seconds of iterations in a row: to change the number of threads costs, too


def threads(rounds: int, device: torch.device) -> Iterator[dict]:
    """An iteration's time on two threads, of that on one, in turn, on a machine that does nothing
    else and beside one busy process. In the names: multiply-adds of the widest convolution."""
    if cores() < 2:
        raise UserError("bench: threads: there is but one core here")
    usual = torch.get_num_threads()
    try:
        for study, arm, sizes in SIZES:
            for width, side in sizes:
                yield from _of_a_size(rounds, device, study, arm, width, side)
    finally:
        torch.set_num_threads(usual)


def _of_a_size(
    rounds: int, device: torch.device, study: str, arm: str, width: int, side: int
) -> Iterator[dict]:
    widths = {"width": width, "discriminator_width": width, "generator_width": 2 * width}
    whole = preset_settings(study, "paper")
    chosen = {key: value for key, value in widths.items() if key in whole}
    chosen |= {"dataset.size": side, studies()[study].arm: arm}
    trained = learner(study, "paper", device, **chosen)
    multiply_adds = work(whole | chosen, studies()[study].widest(whole | chosen))
    name = f"{arm} {width} at {side} px, {multiply_adds:.1e}"

    def on(n: int):
        def iterate():
            torch.set_num_threads(n)
            for _ in range(steps):
                trained.step()

        return iterate

    steps = 1
    on(1)()
    steps = max(1, round(ENOUGH / seconds(on(1))))
    for label, beside in (
        ("two threads, of one's time", nullcontext()),
        ("the same beside a busy process", _busy_process()),
    ):
        with beside:
            one, two = in_turn(rounds, device, on(1), on(2))
        ratios = [b / a for a, b in zip(one, two, strict=True)]
        yield row(f"{name}: {label}", "cpu", ratios, "under 0.75 pays")


@contextmanager
def _busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
