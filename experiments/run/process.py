"""What makes every step of a process faster, set once."""

import ctypes
import os
from collections.abc import Mapping
from typing import Any

import torch

from experiments.run.beside import cores

# Multiply-adds of a net's widest 3x3 convolution, at the images' size and of a whole batch, that a
# CPU thread must have to be worth it. `bench.py --only threads` measured on two idle cores: with
# 3.8e7 of them (the preset `quick`) a second thread takes 15 % off an iteration's time, with 1.5e8
# (`cpu`) 28 to 35 %, with more up to 44 %. It is dear where another process is busy: each of a
# step's hundreds of operations waits for the slower thread, and it takes 4 to 24 times as long.
WORK_OF_A_THREAD = 5e7

_usual = torch.get_num_threads()  # PyTorch's own choice, or OMP_NUM_THREADS


def threads(settings: Mapping[str, Any], width: int, at_once: int = 1) -> int:
    """How many CPU threads a run with these flat settings, resolved, takes: as many as its net has
    work for, but of PyTorch's own choice at most its share. An explicit OMP_NUM_THREADS is kept.

    width: the most channels of a net that it trains. at_once: the runs that share the cores.
    """
    if settings["device"] != "cpu" or os.environ.get("OMP_NUM_THREADS"):
        return _usual
    return max(1, min(_usual // at_once, int(work(settings, width) / WORK_OF_A_THREAD)))


def threads_beside(settings: Mapping[str, Any], width: int, arms: int) -> int:
    """How many threads each of several arms takes beside the others; 0 where they are to run one
    after another: on a GPU, or where there are fewer cores than that makes."""
    each = threads(settings, width, arms)
    return each if settings["device"] == "cpu" and arms * each <= cores() else 0


def work(settings: Mapping[str, Any], width: int) -> int:
    """Multiply-adds of a 3x3 convolution of `width` channels, of a whole batch."""
    return 9 * settings["batch_size"] * settings["dataset.size"] ** 2 * width**2


def prepare(device: torch.device, precision: str) -> None:
    """For a process that trains on `device`, in this precision (not "auto")."""
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes are few: look for the fastest way once
        # PyTorch's own choice is TF32, of 10 bits where a CPU has 23.
        torch.backends.cudnn.allow_tf32 = precision != "fp32"


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
