"""The discriminator-probe study: what a discriminator knows, and forgets, while a GAN trains.

Chen et al., arXiv 1811.11212, Figure 2 and Table 3. Every `probe_every` generator updates the
discriminator is frozen and probed: a linear classifier reads the image's class off each block's
features, and it has to tell real images from the fakes of every earlier generator (is what it was
trained on itself forgotten? argued on toy data by Thanh-Tung & Tran, arXiv 1807.04015).
"""

import math
import time
from collections.abc import Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from forgetting import measures, probes
from forgetting.data import Dataset
from forgetting.devices import evaluation_batch, to_device
from forgetting.errors import UserError
from forgetting.networks import build, scale_images
from forgetting.rotation import rotation_labels, rotation_loss, turned_copies
from forgetting.seeding import derived_seed, generator
from gan import losses, past_fakes, samples
from gan.networks import LATENT, Discriminator, Generator

# Model -> modulation of the generator's batch norm; whether there is a rotation loss.
MODELS = {
    "uncond": ("plain", False),
    "cond": ("class", False),
    "ssgan": ("plain", True),
    "ssgan_sbn": ("latent", True),
    "rotation_only": (None, True),
}
FAKES = 1000
SAMPLES_IN_A_GRID = 64
IMAGES_IN_FIGURE_1 = 4  # real ones, and as many generated


class ProbeStudy:
    """The study as a state that steps; one step is one update of the generator.

    `rotation_only` has no generator: its discriminator's net learns rotation alone, the paper's
    control. dataset: on `device` already. autocast: a context manager's maker for the forward
    passes. quality: samples (N, 3, S, S) uint8 -> {"fid" or "fd_<extractor>": value, ...}, or None
    where nothing is to be measured; extractor: its name and hash, for the run's record.
    The other arguments are the experiment's settings (experiments/gan_probe.py).
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        autocast,
        quality,
        extractor,
        *,
        model: str,
        seed: int,
        steps: int,
        batch_size: int,
        generator_width: int,
        discriminator_width: int,
        spectral_norm: bool,
        loss: str,
        regularizer: str,
        gradient_penalty_weight: float,
        alpha: float,
        alpha_end: float,
        beta: float,
        d_steps: int,
        lr: float,
        adam_betas: tuple[float, float],
        probe_every: int,
        probe_images: int | None,
        probe_features: int,
        quality_every: int,
        quality_images: int,
    ):
        self.dataset, self.device, self.autocast = dataset, device, autocast
        self.quality = quality
        self.seconds = {"probe": 0.0, "past_fakes": 0.0, "quality": 0.0}  # spent evaluating
        self.probe_c: list[float] = []  # a block's C, chosen at the first probe
        self.extractor = dict(extractor)
        self.held_out = dataset.balanced_test_subset(FAKES).to(device)
        self.info = {
            **extractor,
            "held_out_real_images": len(self.held_out),
            "probe_c": self.probe_c,
            "evaluation_seconds": self.seconds,
        }
        modulation, self.self_supervised = MODELS[model]
        self.conditional = model == "cond"
        self.total_steps, self.position = steps, 0
        self.batch_size, self.d_steps = batch_size, d_steps
        self.loss, self.beta = loss, beta
        self.alpha, self.alpha_end = alpha, alpha_end
        self.penalty_weight = gradient_penalty_weight if regularizer == "gradient_penalty" else 0.0
        self.probe_every, self.probe_features = probe_every, probe_features
        self.quality_every, self.quality_images = quality_every, quality_images

        size, classes = dataset.train_images.shape[-1], len(dataset.classes)
        classes_if_conditional = classes if self.conditional else None
        self.discriminator = build(
            derived_seed(seed, "discriminator"),
            Discriminator,
            size=size,
            width=discriminator_width,
            spectral_norm=spectral_norm,
            classes=classes_if_conditional,
        ).to(device)
        self.d_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=lr, betas=tuple(adam_betas), fused=True
        )
        self.generator = None
        if modulation:
            self.generator = build(
                derived_seed(seed, "generator"),
                Generator,
                size=size,
                width=generator_width,
                modulation=modulation,
                classes=classes_if_conditional,
            ).to(device)
            self.g_optimiser = torch.optim.Adam(
                self.generator.parameters(), lr=lr, betas=tuple(adam_betas), fused=True
            )
        self.draws = {
            name: generator(seed, name) for name in ("images", "latent", "labels", "penalty")
        }

        self.fixed = samples.latents_and_labels(FAKES, classes, generator(seed, "fixed latents"))
        self.fakes: dict[int, torch.Tensor] = {}  # step -> fakes (1000, 3, S, S) uint8
        self.past_fakes: list[dict[str, float]] = []  # the matrix, a row a pair of t and s <= t
        self.labelled = classes > 1
        if self.labelled:
            self.probe_indices = dataset.training_subset(probe_images).to(device)

    # ---- training ----

    def step(self) -> dict[str, torch.Tensor]:
        """`d_steps` updates of the discriminator and one of the generator; losses as scalars."""
        self.discriminator.train()
        if self.generator is None:
            return self._rotation_only_step()
        self.generator.train()
        for _ in range(self.d_steps):
            logged = self._discriminator_step()
        logged |= self._generator_step()
        self.position += 1
        return {name: value.detach() for name, value in logged.items()}

    def discriminator_losses(
        self,
        real: torch.Tensor,
        fake: torch.Tensor,
        real_labels: torch.Tensor | None = None,
        fake_labels: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """-V and the rotation loss of real images, from one batch through the discriminator.

        Upright first, then the last quarter of the real images by 90, 180 and 270 degrees, which
        with their upright originals are the rotation loss's batch: the authors' scheme.
        """
        n = len(real)
        batch = [real, fake]
        if self.self_supervised:
            batch.append(turned_copies(real[-self._quarter(n) :]))
        labels = None if real_labels is None else torch.cat([real_labels, fake_labels])
        with self.autocast():
            features = self.discriminator(torch.cat(batch))
            logits = self.discriminator.logits(features[: 2 * n], labels)
            result = {"loss/d": losses.discriminator_loss(logits[:n], logits[n:], self.loss)}
            if self.self_supervised:
                result["loss/rotation_d"] = self._rotation_loss(features[:n], features[2 * n :])
        return result

    def generator_losses(
        self, fake: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """V for the generator and the rotation loss of its images, in one batch likewise."""
        n = len(fake)
        batch = [fake]
        if self.self_supervised:
            batch.append(turned_copies(fake[-self._quarter(n) :]))
        with self.autocast():
            features = self.discriminator(torch.cat(batch))
            logits = self.discriminator.logits(features[:n], labels)
            result = {"loss/g": losses.generator_loss(logits, self.loss)}
            if self.self_supervised:
                result["loss/rotation_g"] = self._rotation_loss(features[:n], features[n:])
        return result

    def _discriminator_step(self) -> dict[str, torch.Tensor]:
        real, real_labels = self._real_images()
        with torch.no_grad(), self.autocast():
            fake, fake_labels = self._fake_images()
        result = self.discriminator_losses(real, fake.float(), real_labels, fake_labels)
        total = result["loss/d"] + self.beta * result.get("loss/rotation_d", 0.0)
        if self.penalty_weight:
            penalty = losses.gradient_penalty(
                lambda x: self.discriminator.logits(self.discriminator(x), real_labels),
                real,
                fake.float(),
                self.draws["penalty"],
            )
            total = total + self.penalty_weight * penalty
        _update(self.d_optimiser, total)
        return result

    def _generator_step(self) -> dict[str, torch.Tensor]:
        # The discriminator's weights take no gradient here: a third of its backward pass saved.
        self.discriminator.requires_grad_(False)
        with self.autocast():
            fake, labels = self._fake_images()
        result = self.generator_losses(fake.float(), labels)
        alpha = losses.annealed(self.alpha, self.alpha_end, self.position, self.total_steps)
        _update(self.g_optimiser, result["loss/g"] + alpha * result.get("loss/rotation_g", 0.0))
        self.discriminator.requires_grad_(True)
        return result

    def _rotation_only_step(self) -> dict[str, torch.Tensor]:
        real, _ = self._real_images()
        upright = real[-self._quarter(len(real)) :]
        with self.autocast():
            features = self.discriminator(torch.cat([upright, turned_copies(upright)]))
            loss = rotation_loss(
                self.discriminator.rotation(features), rotation_labels(len(upright), self.device)
            )
        _update(self.d_optimiser, loss)
        self.position += 1
        return {"loss/rotation_d": loss.detach()}

    @staticmethod
    def _quarter(n: int) -> int:
        return max(1, n // 4)

    def _rotation_loss(self, upright: torch.Tensor, turned: torch.Tensor) -> torch.Tensor:
        quarter = len(turned) // 3
        logits = self.discriminator.rotation(torch.cat([upright[-quarter:], turned]))
        return rotation_loss(logits, rotation_labels(quarter, self.device))

    def _real_images(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        indices = torch.randint(
            len(self.dataset.train_labels), (self.batch_size,), generator=self.draws["images"]
        )
        indices = to_device(indices, self.device)
        labels = self.dataset.train_labels[indices] if self.conditional else None
        return scale_images(self.dataset.train_images[indices]), labels

    def _fake_images(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        z = torch.randn(self.batch_size, LATENT, generator=self.draws["latent"])
        labels = None
        if self.conditional:
            labels = torch.randint(
                len(self.dataset.classes), (self.batch_size,), generator=self.draws["labels"]
            )
            labels = to_device(labels, self.device)
        return self.generator(to_device(z, self.device), labels), labels

    # ---- what to log, and when ----

    def evaluation_due(self) -> bool:
        """Whether to probe after the updates done so far."""
        return self.position % self.probe_every == 0 or self.position == self.total_steps

    def evaluate(self) -> dict[str, float]:
        """Probe the frozen nets; leaves the training state as it is."""
        for name, net in self._nets().items():
            net.eval()
            if not all(torch.isfinite(p).all() for p in net.parameters()):
                return {f"weights/{name}": math.nan}  # which ends the run as diverged
        values = {}
        if self.labelled:
            with self._timed("probe"):
                values = self._probe_blocks()
        if self.self_supervised:
            values["accuracy/rotation"] = self._rotation_accuracy()
        if self.generator is not None:
            with self._timed("past_fakes"):
                self.fakes[self.position] = self.sample(*self.fixed)
                values |= self._score_past_fakes()
            # At the first probe at or after every multiple.
            due = self.position % self.quality_every < self.probe_every
            if due or self.position == self.total_steps:
                with self._timed("quality"):
                    values |= self.quality(self._samples_for_quality())
        return values

    @contextmanager
    def _timed(self, what: str):
        start = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - start

    def _probe_blocks(self) -> dict[str, float]:
        data, chosen = self.dataset, self.probe_indices
        train, test = data.train_labels[chosen], data.test_labels
        everything = torch.arange(len(test), device=chosen.device)
        values = {}
        # One block at a time: the features of one may take gigabytes.
        for i in range(len(self.discriminator.backbone.blocks)):
            train_features = self._features(i, data.train_images, chosen)
            test_features = self._features(i, data.test_images, everything)
            if len(self.probe_c) == i:
                self.probe_c.append(probes.choose_c(train_features, train))
            accuracy, converged = probes.linear_probe(
                train_features, train, test_features, test, self.probe_c[i]
            )
            values[f"probe/block_{i + 1}"] = accuracy
            values[f"probe/converged_{i + 1}"] = float(converged)
        values["probe/best"] = max(v for k, v in values.items() if k.startswith("probe/block_"))
        return values

    @torch.inference_mode()
    def _features(self, block: int, images, indices: torch.Tensor) -> torch.Tensor:
        """The map of one block (from 0) for some of `images`, pooled: (N, D) float32."""
        pooled = []
        for some in indices.split(evaluation_batch(images, self.device)):
            with self.autocast():
                feature_map = self.discriminator.backbone.map_of(block, scale_images(images[some]))
            pooled.append(probes.pool_map(feature_map, self.probe_features))
        return torch.cat(pooled)

    @torch.inference_mode()
    def rotation_probabilities(self, images: torch.Tensor) -> np.ndarray:
        """Q_D (N, 4) for images (N, 3, S, S) uint8 as they are given."""
        self.discriminator.eval()
        parts = []
        for batch in images.split(evaluation_batch(images, self.device)):
            with self.autocast():
                logits = self.discriminator.rotation(self.discriminator(scale_images(batch)))
            parts.append(logits.float().softmax(1).cpu())
        return torch.cat(parts).numpy()

    def _rotation_accuracy(self) -> float:
        upright = self.dataset.test_images[self.held_out]
        probabilities = self.rotation_probabilities(torch.cat([upright, turned_copies(upright)]))
        return float((probabilities.argmax(1) == rotation_labels(len(upright)).numpy()).mean())

    def sample(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The generator's images (N, 3, S, S) uint8, on the CPU, with its running statistics."""
        at_once = evaluation_batch(self.dataset.test_images, self.device)
        return samples.sample(self.generator, latents, labels, self.autocast, at_once)

    def _samples_for_quality(self) -> torch.Tensor:
        # Fixed latents, the same at every evaluation: differences are the generator's.
        draws = torch.Generator().manual_seed(0)
        classes = len(self.dataset.classes)
        return self.sample(*samples.latents_and_labels(self.quality_images, classes, draws))

    @torch.inference_mode()
    def _logits(self, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
        parts, n = [], evaluation_batch(images, self.device)
        for x, y in zip(images.split(n), labels.split(n), strict=True):
            with self.autocast():
                features = self.discriminator(scale_images(x.to(self.device)))
                parts.append(self.discriminator.logits(features, y.to(self.device)).cpu())
        return torch.cat(parts).numpy()

    def _score_past_fakes(self) -> dict[str, float]:
        """Held-out real images against every generator's fakes so far."""
        images, labels = self.dataset.test_images, self.dataset.test_labels
        real = self._logits(images[self.held_out], labels[self.held_out])
        fakes = {step: self._logits(x, self.fixed[1]) for step, x in self.fakes.items()}
        rows = past_fakes.scores(self.position, real, fakes)
        self.past_fakes += rows
        return past_fakes.current_and_past(rows)

    def artifacts(self) -> dict[str, bytes]:
        """Files to keep of the latest evaluation: name -> content.

        past_fakes.csv: the matrix so far. samples-<step>.png: the same 64 latents every time.
        rotations.png and .csv: real images, then fakes, and Q_D of each in its four rotations.
        """
        files = {}
        if self.generator is not None:
            files["past_fakes.csv"] = samples.table(self.past_fakes)
            latest = self.fakes[self.position][:SAMPLES_IN_A_GRID]
            files[f"samples-{self.position:06d}.png"] = samples.image_grid(latest)
        if self.self_supervised and self.position == self.total_steps:
            images, kinds = self._images_of_figure_1()
            rows = samples.predicted_rotations(images, kinds, self.rotation_probabilities)
            files["rotations.png"] = samples.image_grid(images.cpu())
            files["rotations.csv"] = samples.table(rows)
        return files

    def _images_of_figure_1(self) -> tuple[torch.Tensor, list[str]]:
        """A few real images and as many fakes (N, 3, S, S) uint8, and which are which."""
        # Spread over the held-out images, which may go by class.
        spread = max(1, len(self.held_out) // IMAGES_IN_FIGURE_1)
        images = self.dataset.test_images[self.held_out[::spread][:IMAGES_IN_FIGURE_1]]
        kinds = ["real"] * len(images)
        if self.generator is not None:
            fakes = self.fakes[self.position][:IMAGES_IN_FIGURE_1].to(self.device)
            images, kinds = torch.cat([images, fakes]), kinds + ["generated"] * len(fakes)
        return images, kinds

    def status(self, latest: Mapping[str, float]) -> str:
        """A few words for the progress bar, given the latest evaluation."""
        shown = ("probe/best", "past_fakes/auc")
        return ", ".join(f"{name} {latest[name]:.3f}" for name in shown if name in latest)

    def summary(self, logged: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """The run's measures, from all it logged: metric -> (steps, values)."""
        return measures.of_run(measures.Logged(logged, {}, self.past_fakes))

    # ---- everything the next step depends on ----

    def _nets(self) -> dict[str, nn.Module]:
        nets = {"discriminator": self.discriminator, "generator": self.generator}
        return {name: net for name, net in nets.items() if net is not None}

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        optimisers = {"discriminator": self.d_optimiser}
        return optimisers | ({"generator": self.g_optimiser} if self.generator else {})

    def state_dict(self) -> dict:
        return {
            "position": self.position,
            "nets": {name: net.state_dict() for name, net in self._nets().items()},
            "optimisers": {name: o.state_dict() for name, o in self._optimisers().items()},
            "draws": {name: g.get_state() for name, g in self.draws.items()},
            "parts": {f"fakes-{step}": fakes for step, fakes in self.fakes.items()},
            "extractor": self.extractor,
            "past_fakes": list(self.past_fakes),
            "probe_c": list(self.probe_c),
            "seconds": dict(self.seconds),
        }

    def load_state_dict(self, state: dict) -> None:
        """Raises UserError where the samples' quality was measured by another extractor."""
        if self.quality and self.extractor != state["extractor"]:
            raise UserError(
                f"resume: the run began with the features of {_named(state['extractor'])}, and "
                f"here are those of {_named(self.extractor)}; their distances do not compare"
            )
        self.position = state["position"]
        for name, net in self._nets().items():
            net.load_state_dict(state["nets"][name])
        for name, optimiser in self._optimisers().items():
            optimiser.load_state_dict(state["optimisers"][name])
        for name, draws in self.draws.items():
            draws.set_state(state["draws"][name])
        self.fakes = {
            int(name.removeprefix("fakes-")): fakes for name, fakes in state["parts"].items()
        }
        self.past_fakes = list(state["past_fakes"])
        self.probe_c[:] = state["probe_c"]
        self.seconds.update(state["seconds"])


def _named(extractor: Mapping[str, str]) -> str:
    return " ".join(extractor.values())


def _update(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
