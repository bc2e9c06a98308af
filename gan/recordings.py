"""Recordings: the successive generators of one GAN in one small file, to be met again in turn."""

import functools
import hashlib
import io
import pickle
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgetting.accuracy import roc_auc
from forgetting.errors import UserError
from forgetting.files import write_atomically
from forgetting.names import printable
from forgetting.seeding import generator
from gan import samples
from gan.models import MODELS
from gan.networks import Generator

VERSION = 1
SHIPPED = Path(__file__).resolve().parents[1] / "results/recordings"
TO_TRAIN, HELD_OUT = 5000, 1000  # fakes of each generator
AT_ONCE = 500  # fakes of a forward pass: what it takes stays in a core's cache


@dataclass(frozen=True)
class Recording:
    """name: its file's; sha256: of the file, in hex; label: of the images its GAN was trained on,
    fingerprint: theirs, size: their side in pixels; settings: of the GAN's run, flat; steps: its
    generator updates at each generator; colour: (T, T), see `colour_auc`."""

    name: str
    sha256: str
    label: str
    fingerprint: str
    size: int
    settings: Mapping[str, Any]
    steps: tuple[int, ...]
    nets: tuple[Mapping[str, torch.Tensor], ...]
    of_net: Mapping[str, Any]
    colour: tuple[tuple[float, ...], ...]

    @property
    def content(self) -> str:
        """What tells it from others of its name."""
        return f"{self.name} {self.sha256[:16]}"

    @property
    def record(self) -> dict[str, Any]:
        """What a run that meets it keeps of it."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "label": self.label,
            "steps": list(self.steps),
            "model": self.settings["model"],
            "seed": self.settings["seed"],
            "colour_auc": [list(row) for row in self.colour],
        }

    def require(self, dataset) -> None:
        """Raise UserError where these are not the images that its GAN was trained on, or where a
        single generator makes no stream."""
        if len(self.nets) < 2:
            raise UserError(
                f"stream.recording: {self.name} has {len(self.nets)} generator, and a stream needs "
                f"two; record more with a smaller record_every"
            )
        size = dataset.train_images.shape[-1]
        if size != self.size:
            raise UserError(
                f"stream.recording: {self.name} is of {self.label} at {self.size} pixels, and this "
                f"is {dataset.label} at {size}; set dataset.size={self.size}, or of other images "
                f"record a GAN trained on them, as docs/streams.md shows"
            )
        if dataset.fingerprint != self.fingerprint:
            raise UserError(
                f"stream.recording: {self.name} is of other images ({self.label}) than "
                f"{dataset.label}; record a GAN trained on these, as docs/streams.md shows"
            )

    def pools(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Fakes to train on (T, 5000, 3, S, S) and held-out ones (T, 1000, 3, S, S), uint8 on the
        CPU; drawn with the recording's seed, so that every run has the same."""
        fakes = torch.stack([self._fakes(net, i) for i, net in enumerate(self.nets)])
        return fakes[:, :TO_TRAIN], fakes[:, TO_TRAIN:]

    def _fakes(self, net: Mapping[str, torch.Tensor], number: int) -> torch.Tensor:
        made = Generator(**self.of_net)
        made.load_state_dict({name: value.float() for name, value in net.items()})
        return _fakes(made, number, self.settings["seed"], self.of_net["classes"] or 1)


def _fakes(net: Generator, number: int, seed: int, classes: int) -> torch.Tensor:
    draws = generator(seed, f"recorded fakes {number}")
    latents, labels = samples.latents_and_labels(TO_TRAIN + HELD_OUT, classes, draws)
    return samples.sample(net, latents, labels, nullcontext, AT_ONCE)


def write(study, settings: Mapping[str, Any], path: Path) -> str:
    """Put the generators that a `ProbeStudy` kept into the file `path`; what it wrote, in words.

    settings: of its run, flat. Weights are kept in half precision where that changes no pixel of
    its fakes by more than one. Raises UserError where there are none.
    """
    if not study.recorded:
        raise UserError("resume: the run kept no generator yet; train it on, or set record_every")
    of_net = {
        "size": study.dataset.train_images.shape[-1],
        "width": settings["generator_width"],
        "modulation": MODELS[study.arm.model].kind,
        "classes": len(study.dataset.classes) if study.gan.conditional else None,
    }
    steps = sorted(study.recorded)
    nets, fakes = [], []
    for number, step in enumerate(steps):
        kept, images = _halved(study.recorded[step], of_net, number, settings["seed"])
        nets.append(kept)
        fakes.append(images)
    content = {
        "version": VERSION,
        "label": study.dataset.label,
        "fingerprint": study.dataset.fingerprint,
        "settings": {k: v for k, v in settings.items() if k not in ("results_dir", "dataset.root")},
        "steps": steps,
        "of_net": of_net,
        "nets": nets,
        "colour": colour_auc(study.dataset, torch.stack(fakes)).tolist(),
    }
    file = io.BytesIO()
    torch.save(content, file)
    write_atomically(path, file.getvalue())
    halves = sum(v.dtype == torch.float16 for net in nets for v in net.values())
    floats = sum(v.dtype.is_floating_point for net in nets for v in net.values())
    return (
        f"{len(steps)} generators, {steps[0]:,} to {steps[-1]:,} updates, "
        f"{len(file.getvalue()) / 1e6:.2f} MB, {halves} of {floats} tensors in half precision"
    )


def _halved(state, of_net, number, seed) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A generator's state in half precision as far as no pixel of its fakes changes by more than
    one, and those fakes."""
    net = Generator(**of_net)
    net.load_state_dict(state)
    exact = _fakes(net, number, seed, of_net["classes"] or 1)

    def fakes_of(kept) -> torch.Tensor:
        net.load_state_dict({name: value.float() for name, value in kept.items()})
        return _fakes(net, number, seed, of_net["classes"] or 1)

    half = {
        name: value.half() if value.dtype == torch.float32 else value
        for name, value in state.items()
    }
    # The largest stay halves as long as possible: smaller ones are made whole before them.
    for name in [None, *sorted(half, key=lambda name: half[name].numel())]:
        if name:
            half[name] = state[name]
        images = fakes_of(half)
        if (images.short() - exact.short()).abs().max() <= 1:
            return half, images
    return dict(state), exact


def shipped() -> str:
    """The names of the recordings that are shipped, for a message."""
    return ", ".join(sorted(path.stem for path in SHIPPED.glob("*.pt"))) or "none shipped"


@functools.lru_cache(maxsize=2)
def read(text: str) -> Recording:
    """The recording that `stream.recording=TEXT` names: a shipped one, or a file.

    Raises UserError in one line where there is none, or it is damaged or no recording.
    """
    of_project = SHIPPED / f"{text}.pt"
    path = of_project if of_project.exists() else Path(text)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"stream.recording: {printable(text)} cannot be read ({error.strerror}); there are "
            f"{shipped()}, or name a file that `gan_probe.py record` made"
        ) from None
    try:
        # weights_only: opening someone's recording must not be able to run code.
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if found["version"] != VERSION:
            raise UserError(
                f"stream.recording: {printable(path)} is of another version of this program "
                f"({found['version']}, not {VERSION})"
            )
        recording = Recording(
            name=path.stem,
            sha256=hashlib.sha256(content).hexdigest(),
            label=found["label"],
            fingerprint=found["fingerprint"],
            size=found["of_net"]["size"],
            settings=found["settings"],
            steps=tuple(found["steps"]),
            nets=tuple(found["nets"]),
            of_net=found["of_net"],
            colour=tuple(map(tuple, found["colour"])),
        )
        for net in recording.nets:
            Generator(**recording.of_net).load_state_dict({k: v.float() for k, v in net.items()})
        return recording
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError):
        raise UserError(
            f"stream.recording: {printable(path)} is no recording, or damaged; "
            f"`gan_probe.py record with resume=ID` makes one"
        ) from None


def colour_auc(dataset, fakes: torch.Tensor) -> np.ndarray:
    """(T, T): how far colour alone tells real images from fakes, with no net at all.

    fakes (T, 6000, 3, S, S) uint8. Logistic regression on the mean and deviation of each colour
    channel, fitted on real images against fakes of generator i; area under the ROC curve on
    held-out ones of generator j.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draws = generator(0, "real images for colour")
    some = torch.randperm(len(dataset.train_labels), generator=draws)[:TO_TRAIN]
    real = _colours(dataset.train_images[some.to(dataset.train_labels.device)].cpu())
    held_out = dataset.balanced_test_subset(HELD_OUT).to(dataset.test_labels.device)
    real_held_out = _colours(dataset.test_images[held_out].cpu())
    of_fakes = [_colours(some) for some in fakes]
    auc = np.empty((len(fakes), len(fakes)))
    for i, trained in enumerate(of_fakes):
        shown = trained[:TO_TRAIN]
        fit = make_pipeline(StandardScaler(), LogisticRegression())
        fit.fit(np.concatenate([real, shown]), np.repeat([1, 0], [len(real), len(shown)]))
        for j, tested in enumerate(of_fakes):
            unseen = tested[TO_TRAIN:]
            auc[i, j] = roc_auc(fit.decision_function(real_held_out), fit.decision_function(unseen))
    return auc


def _colours(images: torch.Tensor) -> np.ndarray:
    """Mean and deviation of each channel: (N, 6), for images (N, 3, S, S) uint8."""
    pixels = images.float().flatten(2)
    return torch.cat([pixels.mean(2), pixels.std(2)], 1).numpy()
