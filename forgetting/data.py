"""Images as uint8 tensors: digits, CIFAR-10, or folders of the user's own."""

import http.client
import importlib.util
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from forgetting.errors import UserError
from forgetting.mapped import MappedImages, fingerprint, memory_here
from forgetting.names import printable
from forgetting.online import answers

SIZES = (8, 16, 32, 64, 128, 256)
SECONDS_TO_LOOK_ONLINE = 10


@dataclass(frozen=True)
class Dataset:
    """Images (N, 3, S, S) uint8 and labels (N,) int64 below len(classes), for training and test.

    The images are tensors, or read from disk as they are asked for where they are too many.
    `label` is what figures call it; `fingerprint` changes when any pixel or label does. `notes`:
    what was left out of a folder and what became of its images, in words.
    """

    label: str
    classes: tuple[str, ...]
    train_images: torch.Tensor | MappedImages
    train_labels: torch.Tensor
    test_images: torch.Tensor | MappedImages
    test_labels: torch.Tensor
    fingerprint: str
    notes: tuple[str, ...] = ()

    def account(self) -> str:
        """In one line, how many images of how many classes these are, and what was left out."""
        n, classes = len(self.train_labels), len(self.classes)
        taken = f"{n:,} training and {len(self.test_labels):,} test images"
        return "; ".join([f"{taken} of {classes:,} class{'es' * (classes > 1)}", *self.notes])

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set with all tensors on `device`."""
        tensors = ("train_images", "train_labels", "test_images", "test_labels")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    def drawn(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """What to keep of drawn rows (B,) int64 of the training images, on the CPU: the rows and,
        of images that lie in a file, those, too (B, 3, S, S): read by the host before a GPU is
        asked, which then waits for none of it."""
        if isinstance(self.train_images, MappedImages):
            return {"rows": rows, "images": self.train_images.to("cpu")[rows]}
        return {"rows": rows}

    def images_of(self, drawn: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The training images (B, 3, S, S) uint8 that `drawn` keeps, all of it on this device."""
        return drawn["images"] if "images" in drawn else self.train_images[drawn["rows"]]

    def balanced_test_subset(self, n: int) -> torch.Tensor:
        """Indices (M,) int64 of fixed test images, equally many of every class.

        M is about `n`: one of each class at least, and no more of each than the rarest class has.
        The same ones in every run: chosen by a fixed seed, not by the run's.
        """
        labels = self.test_labels.cpu()
        per_class = min(max(1, n // len(self.classes)), int(torch.bincount(labels).min()))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = [order[labels[order] == c][:per_class] for c in range(len(self.classes))]
        return torch.cat(chosen).sort().values

    def cut_evaluation(self, setting: str, n: int) -> str | None:
        """A warning, in one line, where a rare class leaves `balanced_test_subset(n)` less than was
        asked for by `setting`; else None."""
        counts = torch.bincount(self.test_labels.cpu(), minlength=len(self.classes))
        rarest = int(counts.argmin())
        if counts[rarest] >= n // len(self.classes):
            return None
        return (
            f"{setting}: {len(self.balanced_test_subset(n)):,} test images are used, not {n:,}: "
            f"equally many of each class, and '{self.classes[rarest]}' has {int(counts[rarest]):,}"
        )

    def require_test_images(self, at_least: int, purpose: str) -> None:
        """Raise UserError, for what cannot be done with fewer test images: `purpose`."""
        n = len(self.test_labels)
        if n < at_least:
            raise UserError(
                f"dataset.root: {purpose} needs {at_least:,} test images or more, and "
                f"{self.label} has {n:,}"
            )

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
    None: half of this machine's or its container's.
    Raises UserError with one line naming the setting or file that is wrong.
    """
    if name == "digits":
        dataset = _digits(size)
    elif name == "cifar10":
        dataset = _cifar10(Path(root), size)
    elif name == "image_folder":
        dataset = _image_folder(Path(root), size or 32, least_classes, memory)
    else:
        raise UserError(
            f"dataset.name: unknown data set {name!r}; it is auto, digits, cifar10 or image_folder"
        )
    return replace(dataset, label=label) if label else dataset


def _image_folder(root: Path, size: int, least_classes: int, memory: int | None) -> Dataset:
    from forgetting.image_folder import read_image_folder

    folder = read_image_folder(root, size, least_classes, memory or memory_here() // 2)
    n, images = folder.n_train, folder.images
    if isinstance(images, MappedImages):
        train, test = images.part(0, n), images.part(n, len(images))
    else:
        train, test = images[:n], images[n:]
    return Dataset(
        label=printable(root.resolve().name),
        classes=folder.classes,
        train_images=train,
        train_labels=folder.labels[:n],
        test_images=test,
        test_labels=folder.labels[n:],
        fingerprint=folder.fingerprint,
        notes=folder.notes,
    )


def choose(root: str | Path, fetch: bool = True) -> tuple[str, str]:
    """What `dataset.name=auto` means here: ("cifar10", "image_folder" or "digits", the reason in
    words). fetch: whether CIFAR-10 may be downloaded."""
    from torchvision.datasets import CIFAR10

    shown = printable(root)
    try:
        CIFAR10(root, train=False)
        return "cifar10", f"CIFAR-10 is in {shown}"
    except OSError as error:
        return "digits", f"CIFAR-10 in {shown} cannot be read ({error.strerror})"
    except RuntimeError:
        pass  # not there, or not whole
    if all((Path(root) / split).is_dir() for split in ("train", "test")):
        return "image_folder", f"{shown} holds train and test"
    if fetch and _can_be_fetched():
        return "cifar10", "CIFAR-10 can be downloaded"
    return "digits", f"CIFAR-10 is not in {shown}" + " and cannot be downloaded" * fetch


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
    except OSError as error:
        place = printable(error.filename or root)
        raise UserError(f"dataset.root: cannot read {place}: {error.strerror}") from None
    except RuntimeError:  # torchvision: not found or corrupted
        if not _can_be_fetched():
            raise UserError(
                f"dataset.name: CIFAR-10 is not in dataset.root={printable(root)} and cannot be "
                f"downloaded; put cifar-10-batches-py there, or use dataset.name=image_folder "
                f"dataset.root=DIR"
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
    # Its file alone: importing scikit-learn takes as long as a third of a command's start.
    sklearn = Path(importlib.util.find_spec("sklearn").origin).parent
    digits = np.loadtxt(sklearn / "datasets/data/digits.csv.gz", np.uint8, delimiter=",")
    grey = digits[:, :-1].reshape(-1, 1, 8, 8)
    images = torch.from_numpy(np.round(grey * (255 / 16)).astype(np.uint8)).repeat(1, 3, 1, 1)
    labels = torch.from_numpy(digits[:, -1]).long()
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
        fingerprint=fingerprint(
            train_images.numpy(), train_labels.numpy(), test_images.numpy(), test_labels.numpy()
        ),
    )


def _resize(images: torch.Tensor, size: int) -> torch.Tensor:
    resized = torch.nn.functional.interpolate(
        images.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized.round().clamp(0, 255).to(torch.uint8)
