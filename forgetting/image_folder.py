"""Folders of the user's own images: root/train/<class>/* and root/test/<class>/*.

They are resized and cropped once, into root/.cache-<size>px.npy (see `mapped`), which says what it
was made from: the path, length, times and inode of every file. Any change there rebuilds it.
"""

import hashlib
import math
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import features
from tqdm import tqdm

from forgetting.errors import UserError
from forgetting.files import A_DAY, publish, remove_leftovers, temporary_beside
from forgetting.mapped import (
    MappedImages,
    cache_fingerprint,
    describe,
    fingerprint,
    read_cache,
    read_description,
    write_cache,
)
from forgetting.names import printable, same_form
from forgetting.pixels import NeedsScale, Picture, Scale, as_one, find_scale, read_picture

READER = 2  # of what pixels a file gives: another one's cache is not read
PATIENCE = 60  # seconds for which another process may write nothing before it is waited for no more
ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".qoi"),
}
# What systems lay beside files; macOS, on foreign disks, a ._NAME for every NAME.
LITTER = re.compile(r"\._.*|\.DS_Store|__MACOSX|Thumbs\.db|desktop\.ini", re.DOTALL)


class ImageFile(NamedTuple):
    path: str
    label: int
    stat: os.stat_result


@dataclass(frozen=True)
class ImageFolder:
    """Images (N, 3, S, S) uint8 and labels (N,) int64, those for training first (`n_train`).

    notes: what was left out and what became of the images, in words.
    """

    classes: tuple[str, ...]
    images: torch.Tensor | MappedImages
    labels: torch.Tensor
    n_train: int
    fingerprint: str
    notes: tuple[str, ...]


def read_image_folder(root: Path, size: int, least_classes: int, memory: int) -> ImageFolder:
    """Images of `size` pixels a side; of more than `memory` bytes, read from the cache as needed.

    Raises UserError with one line naming the setting or file that is wrong.
    """
    try:
        left_out = _LeftOut(root)
        train, classes = _list_split(root, "train", least_classes, left_out)
        test, test_classes = _list_split(root, "test", least_classes, left_out)
        if classes != test_classes:
            odd = min(set(classes) ^ set(test_classes))
            raise UserError(
                f"dataset.root: class '{odd}' is in only one of {printable(root)}/train and "
                f"{printable(root)}/test; both need the same class folders"
            )
        images, about = _images_of(root, size, train + test, memory)
    except OSError as error:
        place = printable(os.fsdecode(error.filename or root))
        raise UserError(f"dataset.root: cannot read {place}: {error.strerror}") from None
    labels = torch.from_numpy(_labels(train + test))
    notes = (*left_out.words(), *about["notes"])
    return ImageFolder(classes, images, labels, len(train), about["fingerprint"], notes)


# ------------------------------------------------------------------ which files, of which classes


class _LeftOut:
    """Files that are not taken, by why not: how many, and one of them."""

    def __init__(self, root: Path):
        self.root = root
        self.found: dict[str, tuple[int, str]] = {}

    def add(self, why: str, path: str) -> None:
        count, example = self.found.get(why, (0, path))
        self.found[why] = (count + 1, example)

    def words(self) -> list[str]:
        return [
            f"left out: {count:,} {why} (as {printable(os.path.relpath(example, self.root))})"
            for why, (count, example) in sorted(self.found.items())
        ]


def _list_split(
    root: Path, split: str, least_classes: int, left_out: _LeftOut
) -> tuple[list[ImageFile], tuple[str, ...]]:
    shown = printable(root)
    wanted = f"{shown}/{split}/<class>/<images>"
    if not root.is_dir():
        raise UserError(f"dataset.root: there is no folder {shown}; it should hold {wanted}")
    folder = root / split
    if not folder.is_dir():
        raise UserError(f"dataset.root: {shown} has no folder {split!r}; it should hold {wanted}")
    folders = _class_folders(folder, left_out)
    if len(folders) < least_classes:
        raise UserError(
            f"dataset.root: {printable(folder)} has {len(folders)} class folders; it should hold "
            f"{least_classes} or more, each with images"
        )
    files = []
    for label, path in enumerate(folders.values()):
        before = dict(left_out.found)
        found = list(_images_below(path, (), left_out))
        if not found:
            others = sorted(k for k in left_out.found if left_out.found[k] != before.get(k))
            why = f" ({', '.join(others)} alone)" if others else ""
            raise UserError(
                f"dataset.root: no images in {printable(path)}{why}; every class needs some"
            )
        files += [ImageFile(path, label, about) for _, path, about in sorted(found)]
    return files, tuple(folders)


def _class_folders(folder: Path, left_out: _LeftOut) -> dict[str, str]:
    """Class -> its folder, in the order of labels."""
    found: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = same_form(printable(entry.name))
            if LITTER.fullmatch(entry.name):
                continue
            if entry.name.startswith("."):
                left_out.add("hidden", entry.path)
                continue
            if not entry.is_dir():
                left_out.add("outside the class folders", entry.path)
                continue
            if name in found:
                other = os.path.basename(found[name])
                raise UserError(
                    f"dataset.root: in {printable(folder)}, {other!a} and {entry.name!a} are one "
                    f"name in two Unicode forms; make them one folder"
                )
            found[name] = entry.path
    return {name: found[name] for name in in_order(found)}


def in_order(names: Sequence[str]) -> list[str]:
    """Names sorted as people count: 2 before 10, also within a name. Numbers go by their value."""
    names = sorted(names)
    if all(re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", name) for name in names):
        return sorted(names, key=float)
    # Texts and numbers take turns, a text first.
    return sorted(
        names,
        key=lambda name: [
            int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))
        ],
    )


def _images_below(
    folder: str, above: tuple, left_out: _LeftOut
) -> Iterator[tuple[tuple[str, ...], str, os.stat_result]]:
    """Images in a folder and the folders within: (path's parts below the class, path, status)."""
    about = os.stat(folder)
    here = (about.st_dev, about.st_ino)
    if here in above:  # a link to a folder around it
        left_out.add("folders that hold themselves", folder)
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            ending = os.path.splitext(name)[1].lower()
            if LITTER.fullmatch(name):
                continue
            if name[0] == ".":
                left_out.add("hidden", entry.path)
            elif entry.is_dir():
                for parts, path, status in _images_below(entry.path, (*above, here), left_out):
                    yield (name, *parts), path, status
            elif ending not in ENDINGS or (ending == ".avif" and not _avif()):
                left_out.add(ending or "without an ending", entry.path)
            elif stat.S_ISREG((status := entry.stat()).st_mode):
                yield (name,), entry.path, status
            else:
                left_out.add("neither file nor folder", entry.path)


def _avif() -> bool:
    return features.check("avif")


# ------------------------------------------------------------------ the images and their cache


def _images_of(
    root: Path, size: int, files: Sequence[ImageFile], memory: int
) -> tuple[torch.Tensor | MappedImages, dict]:
    """All images and the description of their cache, which is made where there is none."""
    listing, labels = _listing(root, files), _labels(files)
    cache = root / f".cache-{size}px.npy"
    shape = (len(files), 3, size, size)
    fits = math.prod(shape) <= memory

    def cached():
        return _read(cache, listing, labels, shape, None if fits else memory)

    _clear(root)
    if found := cached():
        return found
    _wait_for_others(cache)
    if found := cached():
        return found
    try:
        return _make(cache, root, listing, labels, shape, None if fits else memory, files)
    except OSError as error:
        reason = error.strerror or str(error)
        if not fits:
            raise UserError(
                f"dataset.root: {math.prod(shape) / 1e9:.1f} GB of images do not fit in memory, "
                f"and {printable(root)} cannot take their cache ({reason}); make room there"
            ) from None
        place = printable(root)
        print(f"dataset.root: no cache kept in {place} ({reason}): every start reads again")
    reading = _Reading(root, size, files)
    images = np.empty(shape, np.uint8)
    for i, pixels in enumerate(reading.images()):
        images[i] = pixels
    about = {"fingerprint": fingerprint(images, labels), "notes": reading.notes()}
    return torch.from_numpy(images), about


def _labels(files: Sequence[ImageFile]) -> np.ndarray:
    return np.array([file.label for file in files])


def _listing(root: Path, files: Sequence[ImageFile]) -> str:
    """A digest of all that tells whether a file is another one now."""
    digest = hashlib.sha256(f"reader {READER}\n".encode())
    start = len(str(root / "x")) - 1
    for path, label, s in files:
        now = (label, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
        digest.update(f"{path[start:]}\0{now}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read(
    path: Path, listing: str, labels: np.ndarray, shape: tuple, memory: int | None
) -> tuple[torch.Tensor | MappedImages, dict] | None:
    """The images of a cache and its description, if it is whole and of this listing.

    memory: bytes for images that are read as needed; None: all are read here, and the fingerprint
    is that of what was read.
    """
    try:
        about = read_description(path)
        if about["listing"] != listing or not isinstance(about["notes"], list):
            return None
        if memory:
            images = MappedImages(path, memory)
            return (
                (images, about) if tuple(images.shape) == shape and about["fingerprint"] else None
            )
        pixels = read_cache(path)
        if pixels.shape == shape and fingerprint(pixels, labels) == about["fingerprint"]:
            return torch.from_numpy(pixels), about
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        pass  # no cache, or a damaged one
    return None


def _make(cache, root, listing, labels, shape, memory, files):
    """Write the cache under a name that no other process uses, read it back, and only then give it
    its name. What is returned is what was read back, whatever others do with that name."""
    before = _inode(cache)
    reading = _Reading(root, shape[-1], files)
    with temporary_beside(cache) as file:
        digest = write_cache(file, shape, reading.images(), labels)
        describe(file, {"listing": listing, "fingerprint": digest, "notes": reading.notes()})
        found = _read(file.name, listing, labels, shape, memory)
        if not found or (memory and cache_fingerprint(file.name, labels) != digest):
            raise OSError("it does not hold what is written to it")
        # Another process may have been faster: over NFS, its file may be in use elsewhere.
        if _inode(cache) == before or not _is_of(cache, listing):
            cache.with_suffix(".json").unlink(missing_ok=True)  # of the reader before this one
            publish(file, cache)
    return found


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _is_of(cache: Path, listing: str) -> bool:
    try:
        return read_description(cache).get("listing") == listing
    except (OSError, ValueError):
        return False


def _clear(root: Path) -> list[Path]:
    """Remove what killed processes left; return what others may be writing."""
    try:
        for path in root.glob(".cache-*px.[0-9]*.tmp"):  # of the reader before this one
            if time.time() - path.stat().st_mtime > A_DAY:
                path.unlink()
        return remove_leftovers(root)
    except OSError:
        return []


def _wait_for_others(cache: Path) -> None:
    """Until no other process is at work on this cache. It only saves doing the work twice."""
    told, start = False, f".{cache.name.lstrip('.')}."
    while any(_at_work(path) for path in _clear(cache.parent) if path.name.startswith(start)):
        if not told:
            print(f"dataset.root: another process reads {printable(cache.parent)}; waiting for it")
        told = True
        time.sleep(0.2)


def _at_work(path: Path) -> bool:
    try:
        return abs(time.time() - path.stat().st_mtime) < PATIENCE
    except OSError:
        return False  # it has just ended


class _Reading:
    """All files of a folder, read one by one, and what is to be said of them afterwards."""

    def __init__(self, root: Path, size: int, files: Sequence[ImageFile]):
        self.root, self.size, self.files = root, size, files
        self.scale: Scale | None = None
        self.several = 0

    def images(self) -> Iterator[np.ndarray]:
        """(3, size, size) uint8 each. Raises UserError where a file has changed meanwhile, and at
        the end where some cannot be read."""
        refused: list[tuple[str, UserError]] = []
        for path, _, listed in self._watched("reading"):
            try:
                picture = self._picture(path)
            except UserError as error:
                refused.append((path, error))  # the others are looked at, to be named as well
                continue
            read = picture.stat
            if (read.st_size, read.st_mtime_ns) != (listed.st_size, listed.st_mtime_ns):
                raise UserError(
                    f"dataset.root: {printable(path)} changed while it was read; start again when "
                    f"it is complete"
                )
            self.several += picture.several
            yield picture.pixels
        if refused:
            raise as_one(refused)

    def _picture(self, path: str) -> Picture:
        try:
            return read_picture(path, self.size, self.scale)
        except NeedsScale:
            # Rare enough for a look at all files; those before this one have 8 bits.
            self.scale = find_scale(file.path for file in self._watched("looking for white in"))
            return read_picture(path, self.size, self.scale)

    def _watched(self, doing: str) -> Iterable[ImageFile]:
        title = f"{doing} {printable(self.root)}"
        return tqdm(self.files, desc=title, disable=None, leave=False)

    def notes(self) -> list[str]:
        notes = [f"{self.scale}"] if self.scale else []
        if self.several:
            notes.append(f"of {self.several:,} files with several pictures, the first one is taken")
        return notes
