"""The small classifier whose features stand in for Inception's: the net, found or trained."""

import fcntl
import hashlib
import io
import math
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from forgetting.data import Dataset
from forgetting.files import write_atomically
from forgetting.networks import build, scale_images
from forgetting.rotation import rotation_labels, turned_copies
from forgetting.seeding import generator

SHIPPED = Path(__file__).parent / "extractors"
FEATURES = 64  # few enough for the covariance of the 364 digits of the test set
SEED = 0  # one extractor a data set, whatever a run's seed
EPOCHS = 10
IMAGES_SEEN = 350_000  # at most; a large data set is seen less often
BATCH = 128


class FeatureNet(nn.Module):
    """A small convolutional classifier; its features are averages over the last map.

    Three stages of 32, 64 and 128 channels, of which the last ones halve the resolution until it
    is 4x4; above 32 pixels, one more halving convolution in front for each doubling.
    """

    def __init__(self, size: int, classes: int):
        super().__init__()
        halvings = int(math.log2(size)) - 2
        layers, channels = [], 3
        for _ in range(halvings - 3):
            layers.append(_convolution(channels, 32, 3, stride=2))
            channels = 32
        for i, width in enumerate((32, 64, 128)):
            stride = 2 if i >= 3 - halvings else 1
            layers.append(_convolution(channels, width, 3, stride))
            layers.append(_convolution(width, width, 3))
            channels = width
        layers.append(_convolution(channels, FEATURES, 1))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, 3, S, S) -> float32 (N, FEATURES)."""
        return self.layers(scale_images(images)).mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (N, 3, S, S) -> logits (N, classes)."""
        return self.head(self.features(images))


def _convolution(channels_in: int, channels: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


@dataclass(frozen=True)
class Extractor:
    """A trained FeatureNet. `sha256`: of its file, the first 16 hex digits."""

    name: str
    sha256: str
    fingerprint: str
    test_accuracy: float
    net: FeatureNet

    @property
    def metric(self) -> str:
        """What the Fréchet distance on its features is called."""
        return f"fd_{self.name}"


def find_extractor(
    dataset_name: str, dataset: Dataset, cache: str | Path, device: torch.device | str
) -> Extractor:
    """The extractor for exactly this data: shipped, or in the folder `cache`, or trained now.

    A file belongs to the data by the fingerprint it holds. One trained here is called
    <dataset_name>_<size>px_cnn, with own_ before cnn where a shipped one of other images has that
    name; with rotation_ where there is one class, which leaves a classifier only the rotation to
    learn.
    """
    shipped = [read_extractor(path) for path in sorted(SHIPPED.glob("*.pt"))]
    for extractor in shipped:
        if extractor.fingerprint == dataset.fingerprint:
            return extractor
    learns = "rotation_cnn" if len(dataset.classes) == 1 else "cnn"
    of_data = f"{dataset_name}_{dataset.test_images.shape[-1]}px"
    name = f"{of_data}_{learns}"
    if name in [extractor.name for extractor in shipped]:
        name = f"{of_data}_own_{learns}"
    path = Path(cache) / f"{name}-{dataset.fingerprint}.pt"
    with _alone(path):  # else each run of a sweep trains one of its own
        with suppress(OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError):
            extractor = read_extractor(path)
            if extractor.fingerprint == dataset.fingerprint:
                return extractor
        print(f"{name}: no extractor for this data yet; training one, once")
        content = train_extractor(name, dataset, flip=dataset_name != "digits", device=device)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            print(f"{name}: not kept in {cache} ({error.strerror}): every start trains it again")
    return _extractor(content)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a file against other processes that want to make it, where its folder allows."""
    with ExitStack() as stack:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(path.with_suffix(".lock"), "wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_extractor(path: str | Path) -> Extractor:
    """An extractor from a file that `train_extractor` made."""
    return _extractor(Path(path).read_bytes())


def _extractor(content: bytes) -> Extractor:
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    net = FeatureNet(stored["size"], stored["classes"])
    net.load_state_dict(stored["weights"])  # float16 in the file, float32 in the net
    return Extractor(
        name=stored["name"],
        sha256=hashlib.sha256(content).hexdigest()[:16],
        fingerprint=stored["fingerprint"],
        test_accuracy=stored["test_accuracy"],
        net=net.to(memory_format=torch.channels_last).eval().requires_grad_(False),
    )


def train_extractor(
    name: str, dataset: Dataset, flip: bool, device: torch.device | str = "cpu"
) -> bytes:
    """Train an extractor on the training images with a fixed seed: the content of its file.

    flip: whether a mirrored image is of the same class (not so for digits). Images of one class are
    told apart by how they were rotated.
    """
    images, labels = dataset.train_images.to(device), dataset.train_labels.to(device)
    size, unlabelled = images.shape[-1], len(dataset.classes) == 1
    classes = 4 if unlabelled else len(dataset.classes)
    net = build(SEED, FeatureNet, size, classes).to(device)
    steps_per_epoch = math.ceil(len(images) / BATCH)
    steps = max(1, min(EPOCHS * steps_per_epoch, IMAGES_SEEN // BATCH))
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps + 1)
    rng = generator(SEED, "extractor")
    for step in tqdm(range(steps), desc=f"training {name}", disable=None, leave=False):
        if step % steps_per_epoch == 0:
            order = torch.randperm(len(images), generator=rng)
        start = step % steps_per_epoch * BATCH
        chosen = order[start : start + BATCH].to(device)
        batch = images[chosen]
        if flip:
            mirrored = (torch.rand(len(batch), generator=rng) < 0.5).to(device)
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        targets = labels[chosen]
        if unlabelled:
            upright = batch[: max(1, len(batch) // 4)]
            batch, targets = _in_all_rotations(upright)
        loss = F.cross_entropy(net(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    weights = {
        key: value.cpu().half() if value.is_floating_point() else value.cpu()
        for key, value in net.state_dict().items()
    }
    net.load_state_dict(weights)  # the accuracy is that of the weights as stored
    net.eval()
    correct = []
    parts = zip(dataset.test_images.split(500), dataset.test_labels.split(500), strict=True)
    for test, targets in parts:
        if unlabelled:
            test, targets = _in_all_rotations(test)
        with torch.no_grad():
            correct.append(net(test.to(device)).argmax(1) == targets.to(device))
    correct = torch.cat(correct)
    file = io.BytesIO()
    torch.save(
        {
            "name": name,
            "size": size,
            "classes": classes,
            "fingerprint": dataset.fingerprint,
            "test_accuracy": correct.float().mean().item(),
            "torch": str(torch.__version__),
            "weights": weights,
        },
        file,
    )
    return file.getvalue()


def _in_all_rotations(upright: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    turned = torch.cat([upright, turned_copies(upright)])
    return turned, rotation_labels(len(upright), upright.device)
