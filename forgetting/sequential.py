"""The sequential-tasks study: one classifier, one binary task after another, round and round.

Chen et al., arXiv 1811.11212, Figure 3. Three arms that differ in what becomes of rotated copies
of some images of the batch:
    vanilla    there are none
    rotation   they and their upright originals are the batch of the rotation loss, added with
               weight `rotation_weight`
    augment    they join the binary loss with their originals' targets: the control that sees the
               same extra images without self-supervision
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from forgetting import measures, probes
from forgetting.accuracy import one_vs_all_accuracy
from forgetting.data import Dataset
from forgetting.devices import evaluation_batch, to_device
from forgetting.networks import Classifier, build, scale_images
from forgetting.rotation import rotation_labels, rotation_loss, turned_copies
from forgetting.seeding import derived_seed, generator
from forgetting.tasks import OneVsAllStream

# The climb after a switch is steep, and recovery is measured on it: evaluate there, too.
EVALUATE_AFTER_SWITCH = (1, 10, 20, 50, 100)


class SequentialTasks:
    """The study as a state that steps. Weights, stream and rotation have generators of their own,
    so that one seed gives every arm the same start and the same images.

    dataset: on `device` already. autocast: a context manager's maker for the forward passes.
    The other arguments are the experiment's settings (experiments/sequential_tasks.py).
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
        rotation_weight: float,
        rotated_images: int,
        head: str,
        balanced: bool,
        spectral_norm: bool,
        eval_every: int,
        eval_images: int,
        probe_images: int,
        probe_features: int,
    ):
        self.dataset, self.device, self.autocast = dataset, device, autocast
        self.info: dict = {}  # nothing to record beside what the runner does
        self.method, self.per_task_head = method, head == "per_task"
        self.rotation_weight, self.rotated_images = rotation_weight, rotated_images
        self.iterations_per_task, self.cycles = iterations_per_task, cycles
        self.eval_every, self.probe_features = eval_every, probe_features
        self.tasks = len(dataset.classes)
        self.total_steps = cycles * self.tasks * iterations_per_task
        self.position = 0

        self.stream = OneVsAllStream(
            dataset.train_labels,
            self.tasks,
            batch_size,
            iterations_per_task,
            balanced,
            generator(seed, "stream"),
        )
        self.rotation_draws = generator(seed, "rotation")
        self.net = build(
            derived_seed(seed, "weights"),
            Classifier,
            size=dataset.train_images.shape[-1],
            width=width,
            binary_outputs=self.tasks if self.per_task_head else 1,
            spectral_norm=spectral_norm,
        ).to(device)
        # fused: one pass over the weights instead of a dozen.
        self.optimiser = torch.optim.Adam(
            self.net.parameters(), lr=lr, betas=tuple(adam_betas), fused=True
        )
        self.eval_indices = dataset.balanced_test_subset(eval_images).to(device)
        self.probe_indices = dataset.training_subset(probe_images).to(device)

    # ---- training ----

    def step(self) -> dict[str, torch.Tensor]:
        """One training iteration; the losses as scalar tensors."""
        self.net.train()
        indices, targets = self.stream.batch(self.position)
        task = self.stream.task(self.position)
        images = self.dataset.train_images[to_device(indices, self.device)]
        targets = to_device(targets, self.device)
        n = len(images)
        if self.method != "vanilla":
            # Any of the batch: a balanced batch is laid out positives first.
            chosen = torch.randperm(n, generator=self.rotation_draws)[: self.rotated_images]
            chosen = to_device(chosen, self.device)
            images = torch.cat([images, turned_copies(images[chosen])])
        if self.method == "augment":
            targets = torch.cat([targets, targets[chosen].repeat(3)])

        with self.autocast():
            _, features = self.net(scale_images(images))
            logits = self.net.binary_head(features[: len(targets)])
            if self.method == "rotation":
                rotated = torch.cat([features[:n][chosen], features[n:]])
                rotation_logits = self.net.rotation_head(rotated)
        logits = logits[:, task if self.per_task_head else 0].float()
        losses = {"loss/task": F.binary_cross_entropy_with_logits(logits, targets)}
        loss = losses["loss/task"]
        if self.method == "rotation":
            labels = rotation_labels(len(chosen), self.device)
            losses["loss/rotation"] = rotation_loss(rotation_logits, labels)
            loss = loss + self.rotation_weight * losses["loss/rotation"]

        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.position += 1
        return {name: value.detach() for name, value in losses.items()}

    # ---- what to log, and when ----

    def evaluation_due(self) -> bool:
        """Whether to evaluate after the updates done so far."""
        into_task = self.position % self.iterations_per_task
        return (
            into_task == 0 or into_task in EVALUATE_AFTER_SWITCH or into_task % self.eval_every == 0
        )

    def current_task(self) -> int:
        """The task just trained on (the first one before any update)."""
        return self.stream.task(max(0, self.position - 1))

    def evaluate(self) -> dict[str, float]:
        """Balanced test accuracy of every task; at the start and at a task's end on all test
        images, at the latter with a probe of the frozen features. Leaves the training state as it
        is."""
        self.net.eval()
        between_tasks = self.position % self.iterations_per_task == 0
        task_ended = between_tasks and self.position > 0
        test = self.dataset
        images, labels = test.test_images, test.test_labels
        if not between_tasks:
            images, labels = images[self.eval_indices], labels[self.eval_indices]

        logits, features = self._forward(images, self.net.binary_head, task_ended)
        accuracy = one_vs_all_accuracy(logits, labels.cpu().numpy(), self.tasks)
        values = {f"accuracy/task_{c}": float(a) for c, a in enumerate(accuracy)}
        values["accuracy/current"] = values[f"accuracy/task_{self.current_task()}"]
        if self.method == "rotation":
            values["accuracy/rotation"] = self._rotation_accuracy()
        if task_ended:
            chosen = self.probe_indices
            _, train_features = self._forward(test.train_images[chosen], self.net.binary_head, True)
            values["probe/final"], converged = probes.linear_probe(
                train_features,
                test.train_labels[chosen],
                features,
                labels,
            )
            values["probe/converged"] = float(converged)
        return values

    def _rotation_accuracy(self) -> float:
        """Of a quarter of the evaluation images, each in all four rotations."""
        upright = self.dataset.test_images[self.eval_indices[::4]]
        logits, _ = self._forward(
            torch.cat([upright, turned_copies(upright)]), self.net.rotation_head, False
        )
        return float((logits.argmax(1) == rotation_labels(len(upright)).numpy()).mean())

    @torch.inference_mode()
    def _forward(self, images, head, with_features: bool) -> tuple[np.ndarray, torch.Tensor | None]:
        """Logits (N, outputs) of one head and the last map, pooled for a probe (N, D) or None."""
        logits, features = [], []
        for batch in images.split(evaluation_batch(images, self.device)):
            with self.autocast():
                last, averaged = self.net(scale_images(batch))
                logits.append(head(averaged).float().cpu())
            if with_features:
                features.append(probes.pool_map(last, self.probe_features))
        return torch.cat(logits).numpy(), torch.cat(features) if features else None

    def artifacts(self) -> dict[str, bytes]:
        """Files to keep of the latest evaluation: none."""
        return {}

    def status(self, latest: Mapping[str, float]) -> str:
        """A few words for the progress bar, given the latest evaluation."""
        task = self.current_task()
        return f"task {self.dataset.classes[task]}, accuracy {latest['accuracy/current']:.2f}"

    def summary(self, logged: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """The run's measures, from all it logged: metric -> (steps, values)."""
        config = {"iterations_per_task": self.iterations_per_task, "cycles": self.cycles}
        config["head"] = "per_task" if self.per_task_head else "shared"
        return measures.of_run(measures.Logged(logged, config))

    # ---- everything the next step depends on ----

    def state_dict(self) -> dict:
        return {
            "position": self.position,
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "stream": self.stream.generator.get_state(),
            "rotation": self.rotation_draws.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.stream.generator.set_state(state["stream"])
        self.rotation_draws.set_state(state["rotation"])
