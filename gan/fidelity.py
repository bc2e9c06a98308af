"""How good generated images are: FID, KID and Inception Score, or a Fréchet distance of our own.

torch-fidelity measures all of them. Where Inception's weights cannot be had, its Fréchet distance
is taken on the features of a small classifier that this suite trains on the same data. That number
is always called fd_<extractor>, never FID: the two have neither scale nor meaning in common.
"""

import copy
import os
import socket
import sys
from pathlib import Path

import torch

from forgetting.data import SECONDS_TO_LOOK_ONLINE, Dataset
from forgetting.online import answers
from gan.extractor import FEATURES, Extractor, find_extractor

BATCH = 128


def choose_extractor(
    dataset_name: str, dataset: Dataset, cache: str | Path, device: torch.device | str
) -> Extractor | None:
    """None, which means Inception, where its weights are at hand; else the data set's own."""
    if inception_available() and _fetch_inception():
        return None
    return find_extractor(dataset_name, dataset, cache, device)


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
