"""Images that do not fit in memory, read from the cache of a folder as they are asked for."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

# A page that is read brings its neighbours along, by the kernel's default up to 64 KiB.
READ_AROUND = 1 << 16


class MappedImages:
    """Images (N, 3, S, S) uint8 of an .npy file: what a study does with a tensor of them.

    An index, a slice or a tensor of indices copies those images to `device`. Pages that were read
    count as the process's memory until they are given back, which is done before they exceed
    `memory` bytes. Raises ValueError or OSError where the file is not whole.
    """

    dtype = torch.uint8

    def __init__(self, path: str | Path, memory: int):
        with open(path, "rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{path} is no cache of images")
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if fortran_order or dtype != np.uint8:
            raise ValueError(f"{path} is no cache of images")
        flat = np.frombuffer(self._pages, np.uint8, offset=offset)
        self._all = flat.reshape(shape)  # a file cut short ends here
        self._pages.madvise(mmap.MADV_RANDOM)
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
