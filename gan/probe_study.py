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
from itertools import islice

import numpy as np
import torch

from forgetting import measures, probes
from forgetting.data import Dataset
from forgetting.devices import evaluation_batch
from forgetting.errors import UserError
from forgetting.files import table
from forgetting.learner import Learner
from forgetting.rotation import rotation_logits
from forgetting.seeding import generator
from forgetting.similarity import Drift
from forgetting.streams import Schedule
from gan import past_fakes, samples
from gan.losses import GradientPenalty
from gan.models import ALONE, MODELS, parse_model
from gan.training import GAN

FAKES = 1000  # that are kept of each probed generator
SAMPLES_IN_A_GRID = 64
MOST_BYTES = 10**9  # of several blocks' features at once
IMAGES_IN_FIGURE_1 = 4  # real ones, and as many generated


class ProbeStudy:
    """The study as a state that steps; one step is one update of the generator.

    `rotation_only` has no generator: its discriminator's net learns rotation alone, the paper's
    control. dataset: on `device` already. autocast: a context manager's maker for the forward
    passes. quality: samples (N, 3, S, S) uint8 -> {"fid" or "fd_<extractor>": value, ...}, or None
    where nothing is to be measured; extractor: its name and hash, for the run's record.
    boundary_every: generator updates between what methods do where a task ends; None: never.
    record_every: generator updates between the generators that are kept; None: as it is probed.
    method_settings: those of the arm's methods that are not the default, as {"ewc.weight": 10}.
    The other arguments are the experiment's settings (experiments/gan_probe.py); what is not named
    here is `gan.training.GAN`'s.
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
        regularizer: str,
        gradient_penalty_weight: float,
        alpha: float,
        alpha_end: float,
        beta: float,
        probe_every: int,
        probe_images: int | None,
        probe_features: int,
        quality_every: int,
        quality_images: int,
        record_every: int | None = None,
        plant_updates: int = 0,
        boundary_every: int | None = None,
        method_settings: Mapping | None = None,
        **of_gan,
    ):
        self.dataset, self.device, self.autocast = dataset, device, autocast
        self.quality = quality
        self.seconds = {"probe": 0.0, "past_fakes": 0.0, "quality": 0.0}  # spent evaluating
        self.probe_c: list[float] = []  # a block's C, chosen at the first probe
        self.extractor = dict(extractor)
        self.held_out = dataset.balanced_test_subset(FAKES).to(device)
        self.arm = parse_model(model)
        self.info = {
            **extractor,
            "held_out_real_images": len(self.held_out),
            "probe_c": self.probe_c,
            "evaluation_seconds": self.seconds,
            **self.arm.record,
        }
        # Its one task moves with every update; a turn of it ends where methods are told so.
        turn = boundary_every or steps
        self.total_steps, self.schedule = steps, Schedule([0], turn, math.ceil(steps / turn))
        self.probe_every, self.probe_features = probe_every, probe_features
        self.record_every = record_every or probe_every
        self.quality_every, self.quality_images = quality_every, quality_images

        kind = MODELS[self.arm.model].kind
        rotated = max(1, batch_size // 4)  # the authors' quarter
        rotation = {"alpha": alpha, "alpha_end": alpha_end, "beta": beta}
        rotation["rotated_images"] = rotated
        of_arm = self.arm.make(seed, self.arm.checked(method_settings or {}), rotation)
        if regularizer == "gradient_penalty" and kind != ALONE:
            of_arm.append(GradientPenalty({"weight": gradient_penalty_weight}, seed))
        self.gan = GAN(
            dataset,
            device,
            autocast,
            kind,
            of_arm,
            # The paper's control sees what the others turn.
            batch_size if any(method.uniform for method in self.arm.methods) else rotated,
            seed=seed,
            steps=steps,
            batch_size=batch_size,
            plant_updates=plant_updates,
            **of_gan,
        )
        waiting = self.gan.at_boundaries() if steps <= turn else []
        if waiting:
            often = "boundary_every says how often there is one"
            print(f"warning: {', '.join(waiting)}: no boundary in {steps} updates; {often}")
        self.plant_updates = plant_updates
        self.discriminator, self.generator = self.gan.discriminator, self.gan.generator
        self.learner = self.gan.learner

        classes = len(dataset.classes)
        self.fixed = samples.latents_and_labels(FAKES, classes, generator(seed, "fixed latents"))
        self.fakes: dict[int, torch.Tensor] = {}  # step -> fakes (1000, 3, S, S) uint8
        self.recorded: dict[int, dict[str, torch.Tensor]] = {}  # step -> the generator's state then
        self.past_fakes: list[dict[str, float]] = []  # the matrix, a row a pair of t and s <= t
        self.labelled, self.drift = classes > 1, Drift(dataset)
        if self.labelled:
            self.probe_indices = dataset.training_subset(probe_images).to(device)

    @property
    def position(self) -> int:
        """Updates of the generator so far."""
        return self.gan.position

    @position.setter
    def position(self, position: int) -> None:
        self.gan.position = position

    def step(self) -> dict[str, torch.Tensor]:
        """`d_steps` updates of the discriminator and one of the generator, and what methods do at a
        boundary; the losses as scalars."""
        logged = self.gan.step()
        at_the_end = self.position == self.total_steps
        if self.generator and (self.position % self.record_every == 0 or at_the_end):
            state = self.generator.state_dict()
            self.recorded[self.position] = {k: v.detach().cpu().clone() for k, v in state.items()}
        if self.schedule.changes(self.position):
            self.gan.boundary()
        return logged

    # ---- what to log, and when ----

    def evaluation_due(self) -> bool:
        """Whether to probe after the updates done so far."""
        return self.position % self.probe_every == 0 or self.position == self.total_steps

    def evaluate(self) -> dict[str, float]:
        """Probe the frozen nets; leaves the training state as it is."""
        for name, net in (("discriminator", self.discriminator), ("generator", self.generator)):
            if net and not all(torch.isfinite(p).all() for p in net.parameters()):
                return {f"weights/{name}": math.nan}  # which ends the run as diverged
        values = {}
        if self.labelled:
            with self._timed("probe"):
                values = self._probe_blocks()
        values |= self.learner.evaluate(self.dataset.test_images[self.held_out])
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
        # The features of one block may take gigabytes; of many together they never do.
        blocks = range(len(self.discriminator.backbone.blocks))
        of_one = 4 * self.probe_features * (len(chosen) + len(test))
        at_once = max(1, MOST_BYTES // of_one)
        for some in (blocks[i : i + at_once] for i in blocks[::at_once]):
            of_train = self._features(some, data.train_images, chosen)
            of_test = self._features(some, data.test_images, everything)
            for i, (of_block, _), (tested, _) in zip(some, of_train, of_test, strict=True):
                if len(self.probe_c) == i:
                    of_bare = self._bare_maps(i) if self.plant_updates else of_block
                    self.probe_c.append(probes.choose_c(of_bare, train))
                accuracy, converged = probes.linear_probe(
                    of_block, train, tested, test, self.probe_c[i]
                )
                values[f"probe/block_{i + 1}"] = accuracy
                values[f"probe/converged_{i + 1}"] = float(converged)
        values["probe/best"] = max(v for k, v in values.items() if k.startswith("probe/block_"))
        (_, train_vectors), (_, test_vectors) = of_train[-1], of_test[-1]  # of the last block
        values["probe/final_layer"], _ = probes.linear_probe(
            train_vectors, train, test_vectors, test, probes.FINAL_LAYER_C
        )
        self.drift.add(self.position, self.drift.of_tested(test_vectors, everything))
        return values

    def _features(
        self, blocks: range, images, indices: torch.Tensor, learner: Learner | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The maps of some blocks (from 0) for some of `images`: pooled (N, D), and averaged
        (N, width), which is what the heads read of the last. Of this net, or of another
        learner's."""
        learner = learner or self.learner

        def of(scaled):
            maps = islice(learner.net.backbone.maps(scaled), blocks.start, blocks.stop)
            return [(probes.pool_map(m, self.probe_features), m.mean((2, 3)).float()) for m in maps]

        parts = indices.split(evaluation_batch(images, self.device))
        found = learner.read((images[some] for some in parts), of)
        return [tuple(map(torch.cat, zip(*part, strict=True))) for part in zip(*found, strict=True)]

    def _bare(self) -> Learner:
        """The net as it was before anything was planted."""
        return self.learner.bare(self.gan.untrained().to(self.device))

    def _bare_maps(self, block: int) -> torch.Tensor:
        """Its features of the probe's images, so that a planted run's probes have the C of its
        twin's."""
        some = range(block, block + 1)
        ((maps, _),) = self._features(
            some, self.dataset.train_images, self.probe_indices, self._bare()
        )
        return maps

    def _untrained_final_layer(self) -> float:
        """The final layer's probe of the net as it was before anything was planted."""
        bare = self._bare()
        data, chosen = self.dataset, self.probe_indices
        everything = torch.arange(len(data.test_labels), device=chosen.device)
        blocks = len(self.discriminator.backbone.blocks)
        last = range(blocks - 1, blocks)
        ((_, train),) = self._features(last, data.train_images, chosen, bare)
        ((_, test),) = self._features(last, data.test_images, everything, bare)
        labels = data.train_labels[chosen]
        return probes.linear_probe(train, labels, test, data.test_labels, probes.FINAL_LAYER_C)[0]

    def rotation_probabilities(self, images: torch.Tensor) -> np.ndarray:
        """Q_D (N, 4) for images (N, 3, S, S) uint8 as they are given."""
        return rotation_logits(self.learner, images).softmax(1).numpy()

    def sample(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The generator's images (N, 3, S, S) uint8, on the CPU, with its running statistics."""
        at_once = evaluation_batch(self.dataset.test_images, self.device)
        return samples.sample(self.generator, latents, labels, self.autocast, at_once)

    def _samples_for_quality(self) -> torch.Tensor:
        # Fixed latents, the same at every evaluation: differences are the generator's.
        draws = torch.Generator().manual_seed(0)
        classes = len(self.dataset.classes)
        return self.sample(*samples.latents_and_labels(self.quality_images, classes, draws))

    def _logits(self, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
        n = evaluation_batch(images, self.device)
        conditions = iter(labels.to(self.device).split(n))

        def of(scaled):
            return self.learner.score(self.discriminator(scaled), next(conditions)).cpu()

        return torch.cat(self.learner.read(images.split(n), of)).numpy()

    def _score_past_fakes(self) -> dict[str, float]:
        """Held-out real images against every generator's fakes so far."""
        rows = self.scores(self.fakes)
        self.past_fakes += rows
        return past_fakes.current_and_past(rows)

    def scores(self, fakes: Mapping[int, torch.Tensor]) -> list[dict[str, float]]:
        """How well the discriminator tells held-out real images from fakes, as `past_fakes.scores`
        gives it. fakes: a generator's step -> its images of `self.fixed`, (1000, 3, S, S) uint8."""
        images, labels = self.dataset.test_images, self.dataset.test_labels
        real = self._logits(images[self.held_out], labels[self.held_out])
        logits = {step: self._logits(x, self.fixed[1]) for step, x in fakes.items()}
        return past_fakes.scores(self.position, real, logits)

    def artifacts(self) -> dict[str, bytes]:
        """Files to keep of the latest evaluation: name -> content.

        past_fakes.csv: the matrix so far. samples-<step>.png: the same 64 latents every time.
        drift.csv: how alike the final layer's features are of each two probes so far.
        rotations.png and .csv: real images, then fakes, and Q_D of each in its four rotations.
        """
        files = self.drift.file(last=self.position == self.total_steps)
        if self.generator is not None:
            files["past_fakes.csv"] = table(self.past_fakes)
            latest = self.fakes[self.position][:SAMPLES_IN_A_GRID]
            files[f"samples-{self.position:06d}.png"] = samples.image_grid(latest)
        if "rotation" in self.learner.methods and self.position == self.total_steps:
            images, kinds = self._images_of_figure_1()
            rows = samples.predicted_rotations(images, kinds, self.rotation_probabilities)
            files["rotations.png"] = samples.image_grid(images.cpu())
            files["rotations.csv"] = table(rows)
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
        config = {"plant_updates": self.plant_updates}
        found = measures.of_run(measures.Logged(logged, config, self.past_fakes))
        if self.labelled:
            data, chosen = self.dataset, self.probe_indices
            everything = torch.arange(len(data.test_labels), device=chosen.device)
            found["probe_pixels"] = probes.pixel_probe(
                data.train_images[chosen],
                data.train_labels[chosen],
                data.test_images[everything],
                data.test_labels,
            )
        if self.plant_updates:  # what the curve begins at is planted
            found["probe_final_layer_untrained"] = self._untrained_final_layer()
        return found

    # ---- everything the next step depends on ----

    def state_dict(self) -> dict:
        return {
            "position": self.position,
            **self.gan.state_dict(),
            "parts": {
                **{f"fakes-{step}": fakes for step, fakes in self.fakes.items()},
                **{f"generator-{step}": state for step, state in self.recorded.items()},
                **self.drift.parts(),
            },
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
        self.gan.load_state_dict(state, state["position"])
        self.fakes, self.recorded = {}, {}
        kept = {"fakes": self.fakes, "generator": self.recorded}
        for name, part in state["parts"].items():
            kind, _, step = name.partition("-")
            if kind in kept:
                kept[kind][int(step)] = part
        self.drift.restore(state["parts"])
        self.past_fakes = list(state["past_fakes"])
        self.probe_c[:] = state["probe_c"]
        self.seconds.update(state["seconds"])


def _named(extractor: Mapping[str, str]) -> str:
    return " ".join(extractor.values())
