"""Images as uint8 tensors: digits, CIFAR-10, or folders of the user's own."""

import hashlib
import http.client
import json
import math
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from forgetting.errors import UserError
from forgetting.files import write_atomically
from forgetting.mapped import MappedImages
from forgetting.online import answers

SIZES = (8, 16, 32, 64, 128, 256)
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
SECONDS_TO_LOOK_ONLINE = 10


@dataclass(frozen=True)
class Dataset:
    """Images (N, 3, S, S) uint8 and labels (N,) int64 below len(classes), for training and test.

    The images are tensors, or read from disk as they are asked for where they are too many.
    `label` is what figures call it; `fingerprint` changes when any pixel or label does.
    """

    label: str
    classes: tuple[str, ...]
    train_images: torch.Tensor | MappedImages
    train_labels: torch.Tensor
    test_images: torch.Tensor | MappedImages
    test_labels: torch.Tensor
    fingerprint: str

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with all tensors on `device`."""
        tensors = ("train_images", "train_labels", "test_images", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    def balanced_test_subset(self, n: int) -> torch.Tensor:
        """Indices (<= n,) int64 of fixed test images, equally many of every class.

        The same ones in every run: chosen by a fixed seed, not by the run's.
        """
        labels = self.test_labels.cpu()
        per_class = min(
            max(1, n // len(self.classes)), int(torch.bincount(labels, minlength=1).min())
        )
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = [order[labels[order] == c][:per_class] for c in range(len(self.classes))]
        return torch.cat(chosen).sort().values

    def training_subset(self, n: int | None) -> torch.Tensor:
        """Indices (n,) int64 of fixed training images for a probe, drawn from all; None: all.

        The same ones in every run. Raises UserError where a class has none among them.
        """
        order = torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(0))[
            :n
        ]
        counts = torch.bincount(self.train_labels.cpu()[order], minlength=len(self.classes))
        if counts.min() == 0:
            missing = self.classes[int(counts.argmin())]
            raise UserError(
                f"probe_images: it must be more: none of the {n} is of class {missing!r}"
            )
        return order


def load(
    name: str,
    root: str | Path,
    size: int | None = None,
    label: str | None = None,
    least_classes: int = 2,
    memory: int | None = None,
) -> Dataset:
    """Load `digits`, `cifar10` or `image_folder`.

    size: side in pixels; None keeps digits at 8 and CIFAR-10 at 32, and means 32 for a folder.
    label: what figures call the data; None means the data's own name (a folder's: its name).
    least_classes: how many class folders there must be; with one, the images count as unlabelled.
    memory: bytes that a folder's images may take; more are read from its cache as they are needed.
    None: half of this machine's.
    Raises UserError with one line naming the setting or file that is wrong.
    """
    if name == "digits":
        dataset = _digits(size)
    elif name == "cifar10":
        dataset = _cifar10(Path(root), size)
    elif name == "image_folder":
        dataset = _image_folder(Path(root), size or 32, least_classes, memory or _half_of_all())
    else:
        raise UserError(
            f"dataset.name: unknown data set {name!r}; it is auto, digits, cifar10 or image_folder"
        )
    return replace(dataset, label=label) if label else dataset


def _half_of_all() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def choose(root: str | Path) -> tuple[str, str]:
    """What `dataset.name=auto` means here: ("cifar10" or "digits", the reason in words)."""
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(root, train=False)
        return "cifar10", f"CIFAR-10 is in {root}"
    except (RuntimeError, OSError):
        pass  # not there, or not whole
    if _can_be_fetched():
        return "cifar10", "CIFAR-10 can be downloaded"
    return "digits", f"CIFAR-10 is not in {root} and cannot be downloaded"


def _can_be_fetched() -> bool:
    """Whether CIFAR-10's server answers in time."""
    from torchvision.datasets import CIFAR10

    return answers(CIFAR10.url, SECONDS_TO_LOOK_ONLINE)


def _cifar10(root: Path, size: int | None) -> Dataset:
    from torchvision.datasets import CIFAR10

    def read() -> tuple:
        return CIFAR10(root, train=True), CIFAR10(root, train=False)

    try:
        train, test = read()
    except RuntimeError:  # torchvision: not found or corrupted
        if not _can_be_fetched():
            raise UserError(
                f"dataset.name: CIFAR-10 is not in dataset.root={root} and cannot be downloaded; "
                f"put cifar-10-batches-py there, or use dataset.name=image_folder dataset.root=DIR"
            ) from None
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SECONDS_TO_LOOK_ONLINE)  # a stalled download ends
        try:
            CIFAR10(root, download=True)
            train, test = read()
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise UserError(f"dataset.name: downloading CIFAR-10 failed: {error}") from None
        finally:
            socket.setdefaulttimeout(before)

    def images(part) -> torch.Tensor:
        return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()

    return _dataset(
        "CIFAR-10",
        train.classes,
        (images(train), torch.tensor(train.targets)),
        (images(test), torch.tensor(test.targets)),
        size,
    )


def _digits(size: int | None) -> Dataset:
    """1,797 real handwritten digits of 8x8 pixels; every fifth of a class is a test image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))
    images = images[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(digits.target).long()
    test = torch.zeros(len(labels), dtype=torch.bool)
    for c in range(10):
        test[(labels == c).nonzero()[::5, 0]] = True
    return _dataset(
        "handwritten digits (scikit-learn)",
        [str(c) for c in range(10)],
        (images[~test], labels[~test]),
        (images[test], labels[test]),
        size,
    )


def _dataset(label: str, classes, train: tuple, test: tuple, size: int | None) -> Dataset:
    (train_images, train_labels), (test_images, test_labels) = train, test
    if size is not None and size != train_images.shape[-1]:
        train_images, test_images = _resize(train_images, size), _resize(test_images, size)
    return Dataset(
        label=label,
        classes=tuple(classes),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        fingerprint=_fingerprint(
            train_images.numpy(), train_labels.numpy(), test_images.numpy(), test_labels.numpy()
        ),
    )


def _resize(images: torch.Tensor, size: int) -> torch.Tensor:
    resized = torch.nn.functional.interpolate(
        images.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized.round().clamp(0, 255).to(torch.uint8)


def _fingerprint(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        _digest(digest, array)
    return digest.hexdigest()[:16]


def _digest(digest, array: np.ndarray) -> None:
    digest.update(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)


# ------------------------------------------------------------------ folders of images


def _image_folder(root: Path, size: int, least_classes: int, memory: int) -> Dataset:
    """root/train/<class>/* and root/test/<class>/*, resized and cropped once, then cached.

    The cache is root/.cache-<size>px.npy (all images, uint8) beside a .json that says what it was
    made from: the path, length and time of every file. Any change there rebuilds it.
    """
    try:
        return _read_image_folder(root, size, least_classes, memory)
    except OSError as error:
        raise UserError(
            f"dataset.root: cannot read {error.filename or root}: {error.strerror}"
        ) from None


def _read_image_folder(root: Path, size: int, least_classes: int, memory: int) -> Dataset:
    train_files, classes = _list_class_folders(root, "train", least_classes)
    test_files, test_classes = _list_class_folders(root, "test", least_classes)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))[0]
        raise UserError(
            f"dataset.root: class {odd!r} is in only one of {root}/train and {root}/test; "
            f"both need the same class folders"
        )
    files = train_files + test_files
    listing = hashlib.sha256()
    for path, _ in files:
        stat = path.stat()
        entry = f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        listing.update(entry.encode("utf-8", "surrogateescape"))
    images, fingerprint = _images_of(root, size, files, listing.hexdigest(), memory)
    n_train = len(train_files)
    if isinstance(images, MappedImages):
        train, test = images.part(0, n_train), images.part(n_train, len(files))
    else:
        train, test = images[:n_train], images[n_train:]
    return Dataset(
        label=root.resolve().name,
        classes=tuple(classes),
        train_images=train,
        train_labels=torch.tensor([label for _, label in train_files]),
        test_images=test,
        test_labels=torch.tensor([label for _, label in test_files]),
        fingerprint=fingerprint,
    )


def _list_class_folders(
    root: Path, split: str, least_classes: int
) -> tuple[list[tuple[Path, int]], list[str]]:
    wanted = f"{root}/{split}/<class>/<images>"
    if not root.is_dir():
        raise UserError(f"dataset.root: there is no folder {root}; it should hold {wanted}")
    folder = root / split
    if not folder.is_dir():
        raise UserError(f"dataset.root: {root} has no folder {split!r}; it should hold {wanted}")
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if len(classes) < least_classes:
        raise UserError(
            f"dataset.root: {folder} has {len(classes)} class folders; it should hold "
            f"{least_classes} or more, each with images"
        )
    files = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise UserError(f"dataset.root: no images in {folder / name}; every class needs some")
        files += [(path, label) for path in found]
    return files, classes


def _images_of(
    root: Path, size: int, files: list, listing: str, memory: int
) -> tuple[torch.Tensor | MappedImages, str]:
    """All images and their fingerprint: by the cache, which is made where there is none."""
    shape = (len(files), 3, size, size)
    fits = math.prod(shape) <= memory
    cached = _read_cache(root, size, shape, listing, memory)
    if cached:
        return cached
    try:
        _write_cache(root, size, shape, files, listing)
    except OSError as error:
        if not fits:
            raise UserError(
                f"dataset.root: {math.prod(shape) / 1e9:.1f} GB of images do not fit in memory, "
                f"and {root} cannot take their cache ({error.strerror}); make room there"
            ) from None
        print(f"dataset.root: no cache kept in {root} ({error.strerror}): every start reads again")
    else:
        cached = _read_cache(root, size, shape, listing, memory)
        if cached:
            return cached
    images = np.stack(list(_read_images(root, size, files)))
    return torch.from_numpy(images), _fingerprint(images, _labels(files))


def _cache_file(root: Path, size: int) -> Path:
    return root / f".cache-{size}px.npy"


def _read_cache(
    root: Path, size: int, shape: tuple, listing: str, memory: int
) -> tuple[torch.Tensor | MappedImages, str] | None:
    """The cached images and their fingerprint, if they are of this very listing."""
    array_file = _cache_file(root, size)
    try:
        about = json.loads(array_file.with_suffix(".json").read_text())
        if about["listing"] != listing:
            return None
        if math.prod(shape) > memory:
            images = MappedImages(array_file, memory)
        else:
            images = torch.from_numpy(np.load(array_file))
        if (tuple(images.shape), images.dtype) == (shape, torch.uint8):
            return images, about["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        pass  # no cache, or a damaged one
    return None


def _write_cache(root: Path, size: int, shape: tuple, files: list, listing: str) -> None:
    """Write the images one by one, so that they need not fit in memory."""
    array_file = _cache_file(root, size)
    about_file = array_file.with_suffix(".json")
    unfinished = root / f".cache-{size}px.{os.getpid()}.tmp"
    digest = hashlib.sha256(str(shape).encode())
    try:
        with open(unfinished, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for image in _read_images(root, size, files):
                content = image.tobytes()
                digest.update(content)
                file.write(content)
        _digest(digest, _labels(files))
        about = {"listing": listing, "fingerprint": digest.hexdigest()[:16]}
        # Array first, description last: a description never speaks of an older array.
        about_file.unlink(missing_ok=True)
        os.replace(unfinished, array_file)
        write_atomically(about_file, json.dumps(about).encode())
    finally:
        unfinished.unlink(missing_ok=True)


def _labels(files: list) -> np.ndarray:
    return np.array([label for _, label in files])


def _read_images(root: Path, size: int, files: list) -> Iterator[np.ndarray]:
    for path, _ in tqdm(files, desc=f"reading {root}", disable=None, leave=False):
        yield _read_image(path, size)


def _read_image(path: Path, size: int) -> np.ndarray:
    """(3, size, size) uint8: the shorter side resized to `size`, the middle cut out."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":  # 16 or 32 bits a pixel: convert() would clip at 255
                values = np.asarray(image, np.float64)
                scale = 255 / (65535 if image.mode != "F" or values.max() > 1 else 1)
                image = Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))
            image = image.convert("RGB")
            if image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
            return np.asarray(image).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"dataset.root: {path} is not a whole image ({reason}); replace or remove it"
        ) from None
