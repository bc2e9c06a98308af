"""How good generated images are: FID, KID and Inception Score, or a Fréchet distance of our own.

torch-fidelity measures all of them. Where Inception's weights cannot be had, its Fréchet distance
is taken on the features of a small classifier that this suite trains on the same data. That number
is always called fd_<extractor>, never FID: the two have neither scale nor meaning in common.
"""

import copy
import fcntl
import hashlib
import io
import math
import os
import pickle
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from forgetting.data import SECONDS_TO_LOOK_ONLINE, Dataset
from forgetting.files import write_atomically
from forgetting.networks import build, scale_images
from forgetting.online import answers
from forgetting.rotation import rotation_labels, turned_copies
from forgetting.seeding import generator

SHIPPED = Path(__file__).parent / "extractors"
FEATURES = 64  # few enough for the covariance of the 364 digits of the test set
SEED = 0  # one extractor a data set, whatever a run's seed
EPOCHS = 10
IMAGES_SEEN = 350_000  # at most; a large data set is seen less often
BATCH = 128


# ------------------------------------------------------------------ the extractor


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


def choose_extractor(
    dataset_name: str, dataset: Dataset, cache: str | Path, device: torch.device | str
) -> Extractor | None:
    """None, which means Inception, where its weights are at hand; else the data set's own."""
    if inception_available() and _fetch_inception():
        return None
    return find_extractor(dataset_name, dataset, cache, device)


def find_extractor(
    dataset_name: str, dataset: Dataset, cache: str | Path, device: torch.device | str
) -> Extractor:
    """The extractor for exactly this data: shipped, or in the folder `cache`, or trained now.

    A file belongs to the data by the fingerprint it holds. One trained here is called
    <dataset_name>_<size>px_cnn, so that it is not taken for a shipped one; with rotation_ before
    cnn where there is one class, which leaves a classifier only the rotation to learn.
    """
    for path in sorted(SHIPPED.glob("*.pt")):
        extractor = read_extractor(path)
        if extractor.fingerprint == dataset.fingerprint:
            return extractor
    learns = "rotation_cnn" if len(dataset.classes) == 1 else "cnn"
    name = f"{dataset_name}_{dataset.test_images.shape[-1]}px_{learns}"
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
            lock = stack.enter_context(open(path.with_suffix(".lock"), "w"))
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


# ------------------------------------------------------------------ the measures


def quality(
    samples: torch.Tensor,
    reference: torch.Tensor,
    extractor: Extractor | None,
    device: torch.device | str,
) -> dict[str, float]:
    """Measures of generated images (N, 3, S, S) uint8 against real ones (M, 3, S, S) uint8.

    extractor None: {"fid", "kid", "inception_score"}, by Inception. Else {"fd_<name>"}, by it.
    On a CPU equal images give equal numbers, and no global random numbers are used.
    """
    for name, images in (("samples", samples), ("reference", reference)):
        if images.dtype != torch.uint8 or len(images.shape) != 4 or len(images) < 2:
            raise ValueError(f"{name}: two or more images, (N, 3, S, S) uint8, are needed")
    import torch_fidelity

    if extractor is None:
        subset = min(1000, len(samples), len(reference))  # 1,000 is torch-fidelity's own
        wanted = {"fid": True, "kid": True, "isc": True, "kid_subset_size": subset}
    else:
        wanted = {"fid": True, "feature_extractor": _register(extractor)}
    kind = torch.device(device).type
    # The data loader inside draws a seed from the global generator: give it a copy.
    with torch.random.fork_rng(devices=[]), torch.autocast(kind, enabled=False):
        found = torch_fidelity.calculate_metrics(
            input1=_Images(samples.to("cpu")),
            input2=_Images(reference.to("cpu")),
            cuda=kind == "cuda",
            batch_size=BATCH,
            save_cpu_ram=True,  # no worker processes
            cache=False,
            verbose=False,
            **wanted,
        )
    distance = found[torch_fidelity.KEY_METRIC_FID]
    if extractor is not None:
        return {extractor.metric: distance}
    return {
        "fid": distance,
        "kid": found[torch_fidelity.KEY_METRIC_KID_MEAN],
        "inception_score": found[torch_fidelity.KEY_METRIC_ISC_MEAN],
    }


class _Images(torch.utils.data.Dataset):
    """What torch-fidelity takes: a data set of single uint8 images."""

    def __init__(self, images: torch.Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def _register(extractor: Extractor) -> str:
    """Make the extractor known to torch-fidelity; returns its name there."""
    from torch_fidelity import FeatureExtractorBase, register_feature_extractor
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Registered(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_):
            super().__init__(name, features_list)
            self.net = copy.deepcopy(extractor.net)  # torch-fidelity moves it to the device

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return (str(FEATURES),)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return str(FEATURES)

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            # float64: torch-fidelity takes the mean in the features' own precision.
            return (self.net.features(images).double(),)

    name = f"{extractor.name}-{extractor.sha256}"
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(name, Registered)
    return name


# ------------------------------------------------------------------ Inception's weights


def inception_available(seconds: float = SECONDS_TO_LOOK_ONLINE) -> bool:
    """Whether Inception's weights are on disk, or their server answers within `seconds`."""
    # Path.is_file() raises where the home folder cannot be read.
    return os.path.isfile(_inception_file()) or answers(_inception_url(), seconds)


def _inception_url() -> str:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return URL_INCEPTION_V3


def _inception_file() -> Path:
    """Where torch-fidelity, by torch.hub, looks for the weights."""
    return Path(torch.hub.get_dir(), "checkpoints", _inception_url().rsplit("/", 1)[1])


def _fetch_inception() -> bool:
    """Download Inception's weights (91 MB) unless they are on disk; whether they are there now."""
    file, url = _inception_file(), _inception_url()
    if os.path.isfile(file):
        return True
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_TO_LOOK_ONLINE)  # a stalled download ends
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        checksum = file.stem.rsplit("-", 1)[1]  # torch.hub's way: the hash ends the file's name
        torch.hub.download_url_to_file(url, str(file), checksum, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        print(f"Inception's weights could not be downloaded: {error}")
    finally:
        socket.setdefaulttimeout(before)
    return os.path.isfile(file)
