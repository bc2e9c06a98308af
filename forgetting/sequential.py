"""The sequential-tasks study: one net, one binary task after another, round and round.

Chen et al., arXiv 1811.11212, Figure 3. The tasks are a stream's (forgetting/streams): a class
against all others, or real images against recorded generators' fakes. What an arm does against
forgetting is its methods' (forgetting/methods); the paper's are `vanilla`, which is none, and
`rotation`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from forgetting import measures, methods, probes
from forgetting.data import Dataset
from forgetting.devices import all_to_device, evaluation_batch
from forgetting.graphs import iteration
from forgetting.learner import PLAYERS, Batch, Learner
from forgetting.networks import Classifier, build
from forgetting.planting import plant
from forgetting.relearning import updates_to_relearn
from forgetting.seeding import derived_seed, generator
from forgetting.similarity import Drift
from forgetting.streams import Schedule, fakes, one_vs_all, resolved_order, uniform

# The climb after a switch is steep, and recovery is measured on it: evaluate there, too.
EVALUATE_AFTER_SWITCH = (1, 10, 20, 50, 100)


class SequentialTasks:
    """The study as a state that steps. Weights, stream and methods have generators of their own, so
    that one seed gives every arm the same start and the same images.

    dataset: on `device` already. autocast: a context manager's maker for the forward passes.
    method_settings: those of the arm's methods that are not the default, as {"ewc.weight": 10}.
    plant_updates: of the net on the images' classes, before the stream (forgetting/planting.py).
    fresh: whether it begins anew; else `load_state_dict` follows, and nothing is planted.
    recording: `gan.recordings.Recording`, whose generators are the opponents; None: one_vs_all.
    The other arguments are the experiment's settings (experiments/sequential_tasks.py); order,
    switch, blend and omit those of the stream (forgetting/streams).
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        autocast,
        *,
        method: str,
        seed: int,
        iterations_per_task: int,
        cycles: int,
        batch_size: int,
        width: int,
        lr: float,
        adam_betas: tuple[float, float],
        graphs: str = "auto",
        rotation_weight: float,
        rotated_images: int,
        head: str,
        balanced: bool,
        spectral_norm: bool,
        eval_every: int,
        eval_images: int,
        probe_images: int,
        probe_features: int,
        loss: str = "bce",
        plant_updates: int = 0,
        eval_after_switch: bool = True,
        relearning: bool = True,
        fresh: bool = True,
        method_settings: Mapping | None = None,
        recording=None,
        order: str | Sequence[int] | None = None,
        switch: str = "abrupt",
        blend: float = 0.5,
        omit: Sequence[int] = (),
    ):
        self.dataset, self.device, self.autocast = dataset, device, autocast
        self.arm, self.of_fakes = methods.parse(method), recording is not None
        self.per_task_head, self.omit = head == "per_task", list(omit)
        self.eval_every, self.probe_features = eval_every, probe_features
        self.after_switch = EVALUATE_AFTER_SWITCH if eval_after_switch else ()
        self.relearning = relearning
        self.info: dict = dict(self.arm.record)
        self.tasks = len(recording.nets) if recording else len(dataset.classes)
        task_order = resolved_order(order, self.tasks, seed)
        if recording:
            fakes.require_one_head(head)
            met = fakes.met(self.tasks, omit)
            task_order = [met[task] for task in task_order]
            self.info["recording"] = recording.record
        else:
            one_vs_all.require_heads(switch, head)
        self.schedule = Schedule(task_order, iterations_per_task, cycles, switch, blend)
        self.info["task_order"] = task_order
        self.total_steps, self.position = self.schedule.steps, 0

        of_stream = (self.schedule, batch_size)
        draws = generator(seed, "stream")
        self.without_tasks = any(method.uniform for method in self.arm.methods)
        if recording:
            pool, held_out = (images.to(device) for images in recording.pools())
            self.stream = fakes.Fakes(dataset, pool, *of_stream, draws)
            self.held_out = fakes.HeldOut(dataset, pool, held_out, eval_images)
        else:
            self.stream = one_vs_all.OneVsAll(dataset, *of_stream, balanced, draws)
            self.held_out = one_vs_all.HeldOut(dataset, eval_images, device)
            if cut := dataset.cut_evaluation("eval_images", eval_images):
                print(f"warning: {cut}")
        if self.without_tasks:
            self.stream = uniform.Uniform(dataset, batch_size, draws)
        self.info["evaluation_images"] = len(self.held_out)
        self.probe_indices = dataset.training_subset(probe_images).to(device)
        self.drift = Drift(dataset)
        self.boundary_draws = generator(seed, "boundary")
        self.untrained = partial(
            build,
            derived_seed(seed, "weights"),
            Classifier,
            size=dataset.train_images.shape[-1],
            width=width,
            binary_outputs=self.tasks if self.per_task_head else 1,
            spectral_norm=spectral_norm,
        )
        self.net = self.untrained().to(device)
        self.plant_updates = plant_updates
        if plant_updates and fresh:
            plant(
                self.net,
                dataset,
                plant_updates,
                seed=seed,
                batch_size=batch_size,
                lr=lr,
                adam_betas=adam_betas,
                autocast=autocast,
            )
        rotation = {"rotation_weight": rotation_weight, "rotated_images": rotated_images}
        rotation |= {"beta": rotation_weight, "alpha": 0.0, "alpha_end": 0.0}  # a discriminator's
        self.learner = Learner(
            self.net,
            None if self.arm.replaces else OBJECTIVES[loss],
            self.arm.make(seed, self.arm.checked(method_settings or {}), rotation),
            device,
            autocast,
            player=self.stream.player,
            seed=seed,
            steps=self.total_steps,
            updates=self.total_steps,
            batch_size=self.stream.rows,
            image_size=dataset.train_images.shape[-1],
            spectral_norm=spectral_norm,
            lr=lr,
            adam_betas=adam_betas,
            classes=len(dataset.classes),
            one_for_all=not (recording or self.per_task_head),
        )
        self.iterate = iteration(self._compute, self.learner, graphs)

    # ---- training ----

    def step(self) -> dict[str, torch.Tensor]:
        """One training iteration, and what methods do where a task ends; the losses as scalar
        tensors."""
        self.learner.train()
        losses = self.iterate(self._draw())
        self.position += 1
        if self.schedule.changes(self.position):
            self.learner.boundary(self._batches_of_the_task)
        return losses

    def _draw(self) -> dict:
        """All that is random in an iteration, on the CPU."""
        drawn = self.stream.draw(self.position)
        of_methods = self.learner.draw(self.stream.player, self.stream.rows, self.position)
        return {"stream": drawn, "methods": of_methods}

    def _compute(self, drawn: dict) -> dict[str, torch.Tensor]:
        """What is left of it, on the device."""
        batch = self.stream.batch(drawn["stream"], self.position)
        losses = self.learner.update(batch, drawn["methods"])
        # There is one player here, whichever it is.
        return {k.removesuffix(PLAYERS[batch.player]): v for k, v in losses.items()}

    def _batches_of_the_task(self) -> Iterator[Batch]:
        """Batches of the task just trained on, drawn for themselves."""
        last = self.position - 1
        while True:
            drawn = self.stream.draw(last, self.boundary_draws)
            yield self.stream.batch(all_to_device(drawn, self.device), last)

    # ---- what to log, and when ----

    def evaluation_due(self) -> bool:
        """Whether to evaluate after the updates done so far."""
        into_task = self.schedule.into(self.position)
        return into_task == 0 or into_task in self.after_switch or into_task % self.eval_every == 0

    def current_task(self) -> int:
        """The task just trained on (the first one before any update)."""
        return self.schedule.task(max(0, self.position - 1))

    def evaluate(self) -> dict[str, float]:
        """The net on held-out images of every task; at the start and at a task's end on all of
        them, with probes of the frozen features. Leaves the training state as it is."""
        between_tasks = self.schedule.into(self.position) == 0
        ended, values = self.schedule.ends(self.position), {}
        pooled = ended and not (self.of_fakes or self.without_tasks)
        logits, vectors, maps = self._read(self.held_out.images(between_tasks), pooled=pooled)
        if not self.without_tasks:
            values |= self.held_out.score(logits, between_tasks)
        for kind in ("accuracy", "auc"):
            if f"{kind}/task_0" in values:
                values[f"{kind}/current"] = values[f"{kind}/task_{self.current_task()}"]
        values |= self.learner.evaluate(self.held_out.of_methods)
        if between_tasks:
            values |= self._probe_final_layer(vectors)
        if pooled:
            values |= self._probe_maps(maps)
        if self.of_fakes and not self.without_tasks:
            values |= self.held_out.probe(self._read, vectors) if ended else {}
            at_the_end = self.position == self.total_steps
            values |= self._relearn() if at_the_end and self.relearning else {}
        return values

    def _probe_final_layer(self, vectors: torch.Tensor) -> dict[str, float]:
        """A linear probe, for the image's class, of the vector that the heads read: its accuracy
        and, where a task is a class, its recall of each. Keeps the features for `drift.csv`."""
        hits, labels, features = self._final_layer(vectors)
        tested = self.held_out.of_classes
        self.drift.add(self.position, self.drift.of_tested(features, tested))
        values = {"probe/final_layer": float(hits.mean())}
        if not (self.of_fakes or self.without_tasks):
            for task in range(self.tasks):
                values[f"probe/task_{task}"] = float(hits[labels == task].mean())
        return values

    def _final_layer(
        self, vectors: torch.Tensor, learner: Learner | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which labelled test images the probe gets right (M,) as 1 or 0, their labels (M,) and
        features (M, width).

        vectors: of all held-out images; learner: another one than this study's.
        """
        read, chosen = partial(self._read, learner=learner), self.probe_indices
        train = read(self.dataset.train_images[chosen])[1]
        test, labels = self.held_out.labelled(read, vectors)
        of_training = self.dataset.train_labels[chosen]
        hits, _ = probes.probe_hits(train, of_training, test, labels, probes.FINAL_LAYER_C)
        return hits, labels.to(hits.device), test

    def _probe_maps(self, maps: torch.Tensor) -> dict[str, float]:
        """The same of the last block's map, pooled: (N, D) of all test images."""
        data, chosen = self.dataset, self.probe_indices
        train = self._read(data.train_images[chosen], pooled=True)[2]
        labels = data.train_labels[chosen]
        accuracy, converged = probes.linear_probe(train, labels, maps, data.test_labels)
        return {"probe/final": accuracy, "probe/converged": float(converged)}

    def _relearn(self) -> dict[str, float]:
        """Updates until what the net has lost is back, of the generators that it never met, or of
        all but the last: what it saves to have met one (Ebbinghaus' measure of memory)."""
        found = {}
        for j in [number - 1 for number in self.omit] or self.schedule.order[:-1]:
            draws = generator(self.learner.seed, f"relearning {j}")
            found[f"relearning/task_{j}"] = updates_to_relearn(
                self.learner,
                self.stream.of_task(j, draws),
                lambda again, j=j: self.held_out.auc(partial(self._read, learner=again), j),
                self.schedule.iterations_per_task,
            )
        return found

    def _read(
        self, images, learner: Learner | None = None, pooled: bool = False
    ) -> tuple[np.ndarray, torch.Tensor, torch.Tensor | None]:
        """Logits (N, outputs), the vectors (N, width) that the heads read, and the last map pooled
        for a probe (N, D) where asked for; of this net, or of another learner's."""
        learner = learner or self.learner

        def of(scaled):
            last = learner.net.backbone.map_of(-1, scaled)
            vectors = last.mean((2, 3))
            if learner.stands_in:
                logits = learner.score(vectors, None)[:, None].cpu()
            else:  # those of all heads
                logits = learner.net.binary_head(vectors).float().cpu()
            # The map is 16 times the vector: kept only where it is probed.
            maps = probes.pool_map(last, self.probe_features) if pooled else None
            return logits, vectors.float(), maps

        batches = images.split(evaluation_batch(images, self.device))
        logits, vectors, maps = zip(*learner.read(batches, of), strict=True)
        maps = torch.cat(maps) if pooled else None
        return torch.cat(logits).numpy(), torch.cat(vectors), maps

    def artifacts(self) -> dict[str, bytes]:
        """Files to keep of the latest evaluation. drift.csv: how alike the features are of each two
        probes so far."""
        return self.drift.file(last=self.position == self.total_steps)

    def status(self, latest: Mapping[str, float]) -> str:
        """A few words for the progress bar, given the latest evaluation."""
        if self.without_tasks:
            return ""
        task = self.current_task()
        name = f"generator {task + 1}" if self.of_fakes else f"task {self.dataset.classes[task]}"
        return f"{name}, accuracy {latest['accuracy/current']:.2f}"

    def summary(self, logged: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """The run's measures, from all it logged: metric -> (steps, values)."""
        turn, cycles = self.schedule.iterations_per_task, self.schedule.cycles
        config = {"iterations_per_task": turn, "cycles": cycles}
        config["head"] = "per_task" if self.per_task_head else "shared"
        config["plant_updates"] = self.plant_updates
        name = "fakes" if self.of_fakes else "one_vs_all"
        config["stream"] = {"name": name, "order": self.schedule.order, "omit": self.omit}
        found = measures.of_run(measures.Logged(logged, config))
        data, chosen, tested = self.dataset, self.probe_indices, self.held_out.of_classes
        found["probe_pixels"] = probes.pixel_probe(
            data.train_images[chosen],
            data.train_labels[chosen],
            data.test_images[tested],
            data.test_labels[tested],
        )
        if self.plant_updates:  # what the curve begins at is planted
            bare = self.learner.bare(self.untrained().to(self.device))
            _, vectors, _ = self._read(self.held_out.images(whole=True), bare)
            hits, *_ = self._final_layer(vectors, bare)
            found["probe_final_layer_untrained"] = float(hits.mean())
        return found

    # ---- everything the next step depends on ----

    def state_dict(self) -> dict:
        return {
            "position": self.position,
            "learner": self.learner.state_dict(),
            "stream": self.stream.draws.get_state(),
            "boundary": self.boundary_draws.get_state(),
            "parts": self.drift.parts(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]
        self.iterate.forget()
        self.learner.load_state_dict(state["learner"])
        self.stream.draws.set_state(state["stream"])
        self.boundary_draws.set_state(state["boundary"])
        self.drift.restore(state["parts"])


def _bce(batch: Batch, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"loss/task": F.binary_cross_entropy_with_logits(logits, batch.targets)}


def _hinge(batch: Batch, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """arXiv 1802.05957, equation 16: the sum over real and fake of their means, as a balanced batch
    has it."""
    return {"loss/task": 2 * F.relu(1 - (2 * batch.targets - 1) * logits).mean()}


OBJECTIVES = {"bce": _bce, "hinge": _hinge}
