"""The sequential-tasks study: one classifier, one binary task after another, round and round.

Chen et al., arXiv 1811.11212, Figure 3. What an arm does against forgetting is its methods'
(forgetting/methods); the paper's are `vanilla`, which is none, and `rotation`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from forgetting import measures, methods, probes
from forgetting.accuracy import one_vs_all_accuracy
from forgetting.data import Dataset
from forgetting.devices import all_to_device, evaluation_batch
from forgetting.graphs import iteration
from forgetting.learner import Batch, Learner
from forgetting.networks import Classifier, build
from forgetting.seeding import derived_seed, generator
from forgetting.streams import Schedule, one_vs_all, resolved_order

# The climb after a switch is steep, and recovery is measured on it: evaluate there, too.
EVALUATE_AFTER_SWITCH = (1, 10, 20, 50, 100)


class SequentialTasks:
    """The study as a state that steps. Weights, stream and methods have generators of their own, so
    that one seed gives every arm the same start and the same images.

    dataset: on `device` already. autocast: a context manager's maker for the forward passes.
    method_settings: those of the arm's methods that are not the default, as {"ewc.weight": 10}.
    The other arguments are the experiment's settings (experiments/sequential_tasks.py); order,
    switch and blend those of the stream (forgetting/streams).
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
        method_settings: Mapping | None = None,
        order: str | Sequence[int] | None = None,
        switch: str = "abrupt",
        blend: float = 0.5,
    ):
        self.dataset, self.device, self.autocast = dataset, device, autocast
        self.arm = methods.parse(method)
        self.per_task_head = head == "per_task"
        one_vs_all.require_heads(switch, head)
        self.iterations_per_task, self.cycles = iterations_per_task, cycles
        self.eval_every, self.probe_features = eval_every, probe_features
        self.tasks = len(dataset.classes)
        task_order = resolved_order(order, self.tasks, seed)
        self.schedule = Schedule(task_order, iterations_per_task, cycles, switch, blend)
        self.info: dict = {"task_order": task_order, **self.arm.record}
        self.total_steps, self.position = self.schedule.steps, 0

        self.stream = one_vs_all.OneVsAll(
            dataset, self.schedule, batch_size, balanced, generator(seed, "stream")
        )
        self.boundary_draws = generator(seed, "boundary")
        self.net = build(
            derived_seed(seed, "weights"),
            Classifier,
            size=dataset.train_images.shape[-1],
            width=width,
            binary_outputs=self.tasks if self.per_task_head else 1,
            spectral_norm=spectral_norm,
        ).to(device)
        of_study = {"rotation_weight": rotation_weight, "rotated_images": rotated_images}
        self.learner = Learner(
            self.net,
            _objective,
            self.arm.make(seed, self.arm.checked(method_settings or {}), of_study),
            device,
            autocast,
            player="classifier",
            seed=seed,
            steps=self.total_steps,
            updates=self.total_steps,
            batch_size=batch_size,
            image_size=dataset.train_images.shape[-1],
            spectral_norm=spectral_norm,
            lr=lr,
            adam_betas=adam_betas,
            one_for_all=not self.per_task_head,
        )
        self.iterate = iteration(self._compute, self.learner, graphs)
        self.eval_indices = dataset.balanced_test_subset(eval_images).to(device)
        self.info["evaluation_images"] = len(self.eval_indices)
        if cut := dataset.cut_evaluation("eval_images", eval_images):
            print(f"warning: {cut}")
        self.probe_indices = dataset.training_subset(probe_images).to(device)

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
        of_methods = self.learner.draw("classifier", len(drawn["rows"]), self.position)
        return {"stream": drawn, "methods": of_methods}

    def _compute(self, drawn: dict) -> dict[str, torch.Tensor]:
        """What is left of it, on the device."""
        batch = self.stream.batch(drawn["stream"], self.position)
        return self.learner.update(batch, drawn["methods"])

    def _batches_of_the_task(self) -> Iterator[Batch]:
        """Batches of the task just trained on, drawn for themselves."""
        last = self.position - 1
        while True:
            drawn = self.stream.draw(last, self.boundary_draws)
            yield self.stream.batch(all_to_device(drawn, self.device), last)

    # ---- what to log, and when ----

    def evaluation_due(self) -> bool:
        """Whether to evaluate after the updates done so far."""
        into_task = self.position % self.iterations_per_task
        return (
            into_task == 0 or into_task in EVALUATE_AFTER_SWITCH or into_task % self.eval_every == 0
        )

    def current_task(self) -> int:
        """The task just trained on (the first one before any update)."""
        return self.schedule.task(max(0, self.position - 1))

    def evaluate(self) -> dict[str, float]:
        """Balanced test accuracy of every task; at the start and at a task's end on all test
        images, at the latter with a probe of the frozen features. Leaves the training state as it
        is."""
        between_tasks = self.position % self.iterations_per_task == 0
        task_ended = between_tasks and self.position > 0
        test = self.dataset
        images, labels = test.test_images, test.test_labels
        if not between_tasks:
            images, labels = images[self.eval_indices], labels[self.eval_indices]

        logits, features = self._forward(images, task_ended)
        accuracy = one_vs_all_accuracy(logits, labels.cpu().numpy(), self.tasks)
        values = {f"accuracy/task_{c}": float(a) for c, a in enumerate(accuracy)}
        values["accuracy/current"] = values[f"accuracy/task_{self.current_task()}"]
        # A quarter, for a method may look at each in four rotations.
        values |= self.learner.evaluate(test.test_images[self.eval_indices[::4]])
        if task_ended:
            chosen = self.probe_indices
            _, train_features = self._forward(test.train_images[chosen], True)
            values["probe/final"], converged = probes.linear_probe(
                train_features,
                test.train_labels[chosen],
                features,
                labels,
            )
            values["probe/converged"] = float(converged)
        return values

    def _forward(self, images, with_features: bool) -> tuple[np.ndarray, torch.Tensor | None]:
        """Logits (N, outputs) and the last map, pooled for a probe (N, D) or None."""

        def of(scaled):
            last = self.net.backbone.map_of(-1, scaled)
            logits = self.net.binary_head(last.mean((2, 3))).float().cpu()
            return logits, probes.pool_map(last, self.probe_features) if with_features else None

        batches = images.split(evaluation_batch(images, self.device))
        logits, features = zip(*self.learner.read(batches, of), strict=True)
        return torch.cat(logits).numpy(), torch.cat(features) if with_features else None

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
        config["stream"] = {"order": self.schedule.order}
        return measures.of_run(measures.Logged(logged, config))

    # ---- everything the next step depends on ----

    def state_dict(self) -> dict:
        return {
            "position": self.position,
            "learner": self.learner.state_dict(),
            "stream": self.stream.draws.get_state(),
            "boundary": self.boundary_draws.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]
        self.iterate.forget()
        self.learner.load_state_dict(state["learner"])
        self.stream.draws.set_state(state["stream"])
        self.boundary_draws.set_state(state["boundary"])


def _objective(batch: Batch, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"loss/task": F.binary_cross_entropy_with_logits(logits, batch.targets)}
