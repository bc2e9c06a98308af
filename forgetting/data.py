"""Images as uint8 tensors, all of them at once: digits, CIFAR-10, or folders of the user's own."""

import hashlib
import http.client
import json
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from forgetting.errors import UserError
from forgetting.online import answers

SIZES = (8, 16, 32, 64, 128, 256)
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
SECONDS_TO_LOOK_ONLINE = 10


@dataclass(frozen=True)
class Dataset:
    """Images (N, 3, S, S) uint8 and labels (N,) int64 below len(classes), for training and test.

    `label` is what figures call it; `fingerprint` changes when any pixel or label does.
    """

    label: str
    classes: tuple[str, ...]
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
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
) -> Dataset:
    """Load `digits`, `cifar10` or `image_folder`.

    size: side in pixels; None keeps digits at 8 and CIFAR-10 at 32, and means 32 for a folder.
    label: what figures call the data; None means the data's own name (a folder's: its name).
    least_classes: how many class folders there must be; with one, the images count as unlabelled.
    Raises UserError with one line naming the setting or file that is wrong.
    """
    if name == "digits":
        dataset = _digits(size)
    elif name == "cifar10":
        dataset = _cifar10(Path(root), size)
    elif name == "image_folder":
        dataset = _image_folder(Path(root), size or 32, least_classes)
    else:
        raise UserError(
            f"dataset.name: unknown data set {name!r}; it is auto, digits, cifar10 or image_folder"
        )
    return replace(dataset, label=label) if label else dataset


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
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------ folders of images


def _image_folder(root: Path, size: int, least_classes: int) -> Dataset:
    """root/train/<class>/* and root/test/<class>/*, resized and cropped once, then cached.

    The cache is root/.cache-<size>px.npy (all images, uint8) beside a .json that says what it was
    made from: the path, length and time of every file. Any change there rebuilds it.
    """
    try:
        return _read_image_folder(root, size, least_classes)
    except OSError as error:
        raise UserError(
            f"dataset.root: cannot read {error.filename or root}: {error.strerror}"
        ) from None


def _read_image_folder(root: Path, size: int, least_classes: int) -> Dataset:
    train_files, classes = _list_class_folders(root, "train", least_classes)
    test_files, test_classes = _list_class_folders(root, "test", least_classes)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))[0]
        raise UserError(
            f"dataset.root: class {odd!r} is in only one of {root}/train and {root}/test; "
            f"both need the same class folders"
        )
    listing = hashlib.sha256()
    for path, _ in train_files + test_files:
        stat = path.stat()
        entry = f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        listing.update(entry.encode("utf-8", "surrogateescape"))
    images, fingerprint = _cached_images(root, size, train_files + test_files, listing.hexdigest())
    n_train = len(train_files)
    return Dataset(
        label=root.resolve().name,
        classes=tuple(classes),
        train_images=images[:n_train],
        train_labels=torch.tensor([label for _, label in train_files]),
        test_images=images[n_train:],
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


def _cached_images(root: Path, size: int, files: list, listing: str) -> tuple[torch.Tensor, str]:
    array_file = root / f".cache-{size}px.npy"
    about_file = array_file.with_suffix(".json")
    shape = (len(files), 3, size, size)
    try:
        about = json.loads(about_file.read_text())
        images = np.load(array_file)
        if (about["listing"], images.shape, images.dtype) == (listing, shape, np.uint8):
            return torch.from_numpy(images), about["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        pass  # no cache, or a damaged one: make it

    images = np.empty(shape, np.uint8)
    for i, (path, _) in enumerate(tqdm(files, desc=f"reading {root}", disable=None, leave=False)):
        images[i] = _read_image(path, size)
    labels = np.array([label for _, label in files])
    fingerprint = _fingerprint(images, labels)
    try:
        # Array first, description last: a description never speaks of an older array.
        about_file.unlink(missing_ok=True)
        unfinished = root / f".cache-{size}px.{os.getpid()}.tmp.npy"
        np.save(unfinished, images)
        os.replace(unfinished, array_file)
        unfinished = unfinished.with_suffix(".json")
        unfinished.write_text(json.dumps({"listing": listing, "fingerprint": fingerprint}))
        os.replace(unfinished, about_file)
    except OSError as error:
        print(f"dataset.root: no cache kept in {root} ({error.strerror}): every start reads again")
    return torch.from_numpy(images), fingerprint


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
