"""The cache of a folder's images: a file that says whether it is whole, read at once or as needed.

An .npy file of images (N, 3, S, S) uint8. Behind them: the CRC-32 (N,) of each image, and a
description in JSON.
"""

import hashlib
import json
import math
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from forgetting.errors import UserError

# A page that is read brings its neighbours along, by the kernel's default up to 64 KiB.
READ_AROUND = 1 << 16
CHECK = np.dtype("<u4")


def memory_here(root: str | Path = "/") -> int:
    """Bytes of memory that this process may come to use: the machine's, or its container's where
    that has less (Linux control groups, version 1 and 2). root: where /proc and /sys are."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        groups = Path(root, "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        groups = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, file = Path(root, "sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            top, file = Path(root, "sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        # Every group above counts, too. In a container the path may be the host's: then the
        # container's own group is the top.
        group = top / path.lstrip("/")
        for folder in (group, *group.parents[: len(group.parts) - len(top.parts)]):
            with suppress(OSError, ValueError):  # no such group here, or no limit ("max")
                limits.append(int((folder / file).read_text(encoding="utf-8")))
    return min(limits)


def fingerprint(*arrays: np.ndarray) -> str:
    """16 hex digits that change when any value or shape of the arrays does."""
    digest = hashlib.sha256()
    for array in arrays:
        _digest(digest, array)
    return digest.hexdigest()[:16]


def _digest(digest, array: np.ndarray) -> None:
    digest.update(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)


# ------------------------------------------------------------------ the file


def write_cache(
    file: BinaryIO, shape: tuple, images: Iterable[np.ndarray], labels: np.ndarray
) -> str:
    """Write the images (shape[1:] each, uint8) one by one, so that they need not fit in memory;
    `describe` must follow. Returns the fingerprint of images and labels."""
    digest, checks = hashlib.sha256(str(shape).encode()), []
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for image in images:
        content = image.tobytes()
        digest.update(content)
        checks.append(zlib.crc32(content))
        file.write(content)
    file.write(np.array(checks, CHECK).tobytes())
    _digest(digest, labels)
    return digest.hexdigest()[:16]


def describe(file: BinaryIO, about: dict) -> None:
    """End the file with a description of what it was made from."""
    file.write(json.dumps(about).encode())
    file.flush()


def read_description(path: str | Path) -> dict:
    """What `describe` wrote. Raises ValueError or OSError where the file is not whole."""
    with open(path, "rb") as file:
        shape, start = _read_header(file)
        file.seek(start + math.prod(shape) + shape[0] * CHECK.itemsize)
        about = json.loads(file.read())
    if not isinstance(about, dict):
        raise ValueError(f"{path} is no cache of images")
    return about


def read_cache(path: str | Path) -> np.ndarray:
    """All images of the file, in memory."""
    with open(path, "rb") as file:
        shape, _ = _read_header(file)
        return np.fromfile(file, np.uint8, math.prod(shape)).reshape(shape)


def cache_fingerprint(path: str | Path, labels: np.ndarray) -> str:
    """The fingerprint of the images in the file and of `labels`, without the memory for them."""
    with open(path, "rb") as file:
        shape, _ = _read_header(file)
        digest, left = hashlib.sha256(str(shape).encode()), math.prod(shape)
        while left and (content := file.read(min(left, 1 << 20))):
            digest.update(content)
            left -= len(content)
    _digest(digest, labels)
    return digest.hexdigest()[:16]


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], int]:
    """The shape of the images, and where they start in the file."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{file.name} is no cache of images")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran_order or dtype != np.uint8 or len(shape) != 4:
        raise ValueError(f"{file.name} is no cache of images")
    return shape, file.tell()


# ------------------------------------------------------------------ its images, as needed


class MappedImages:
    """Images (N, 3, S, S) uint8 of a cache's file: what a study does with a tensor of them.

    An index, a slice or a tensor of indices copies those images to `device`. Pages that were read
    count as the process's memory until they are given back, which is done before they exceed
    `memory` bytes. Raises ValueError or OSError where the file is not whole, and UserError where
    an image is not what was written.
    """

    dtype = torch.uint8

    def __init__(self, path: str | Path, memory: int):
        with open(path, "rb") as file:
            shape, start = _read_header(file)
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # A file cut short ends here.
        n = math.prod(shape)
        self._all = np.frombuffer(self._pages, np.uint8, n, start).reshape(shape)
        self._checks = np.frombuffer(self._pages, CHECK, shape[0], start + n).tolist()
        self._pages.madvise(mmap.MADV_RANDOM)
        self._path = path
        self._memory = memory
        self._read = [0]  # bytes since they were given back, by all parts together
        self._first, self._last = 0, shape[0]
        self.device = torch.device("cpu")

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self._all.shape[1:]))

    def __len__(self) -> int:
        return self._last - self._first

    def part(self, first: int, last: int) -> "MappedImages":
        """The images from `first` to before `last`."""
        return self._copy(_first=self._first + first, _last=self._first + last)

    def to(self, device: torch.device | str) -> "MappedImages":
        """The same images, which arrive on `device` when they are read."""
        return self._copy(device=torch.device(device))

    def split(self, n: int) -> Iterator[torch.Tensor]:
        """All images, `n` at a time."""
        return (self[start : start + n] for start in range(0, len(self), n))

    def __getitem__(self, index: int | slice | torch.Tensor) -> torch.Tensor:
        if isinstance(index, slice):
            wanted = np.arange(*index.indices(len(self)))
        else:
            wanted = np.asarray(index.cpu() if isinstance(index, torch.Tensor) else index)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError("image index out of range")
        # One at a time, so that what is given back between them counts.
        found = np.empty((wanted.size, *self._all.shape[1:]), np.uint8)
        for i, k in enumerate(wanted.flat):
            found[i] = self._all[self._first + k]
            if zlib.crc32(found[i]) != self._checks[self._first + k]:
                raise UserError(
                    f"dataset.root: {self._path} is not what was written; remove it and start again"
                )
            self._count(found[i].nbytes)
        return torch.from_numpy(found).reshape(*wanted.shape, *found.shape[1:]).to(self.device)

    def _count(self, size: int) -> None:
        self._read[0] += size + 2 * READ_AROUND
        if self._read[0] > self._memory // 2:  # the other half is for the copies
            self._pages.madvise(mmap.MADV_DONTNEED)  # it stays in the kernel's cache while it can
            self._read[0] = 0

    def _copy(self, **changes) -> "MappedImages":
        other = object.__new__(MappedImages)
        other.__dict__.update(self.__dict__, **changes)
        return other
