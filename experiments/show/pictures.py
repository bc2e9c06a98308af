"""Every figure from stored runs: its name, what a reader must know, and of which runs it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from experiments.show import cures as cure_figures
from experiments.show import drift, in_short, kept_and_taught
from experiments.show import gan as gan_figures
from experiments.show import opponents as opponent_figures
from experiments.show import remembers_live as remembers
from experiments.show import sequential as sequential_figures
from experiments.show.groups import Group


@dataclass(frozen=True)
class Drawing:
    """A figure: of which studies, in which words, of which of their runs, and how it is drawn."""

    studies: Sequence[str]
    title: str
    shows: str
    draw: Callable[[Sequence[Group]], Figure]
    select: Callable[[Sequence[Group]], Sequence[Group]] = list
    made_by: str = ""  # the command that makes such runs; "": the study's own
    with_twins: bool = False  # whether omission twins, which no group holds, tell some of it
    live: bool = False  # whether it can show runs that are not complete, too
    on_the_page: bool = True  # or else as a file alone


SEQUENTIAL, GAN = ("sequential_tasks",), ("gan_probe",)
FIGURES = {
    "cures": Drawing(
        SEQUENTIAL + GAN,
        "What each method does against forgetting, and what it costs",
        "A method a row, minus the first arm of the same seeds and recordings (dotted). Recorded "
        "generators of one GAN, met one after another: memory is the area under the ROC curve on a "
        "generator's fakes at the end, minus that of a twin that never met it. Planted: what a net "
        "keeps of the classes that it knew, and what training teaches it of them. Live GAN: the "
        "same area on past fakes of all methods' GANs of a seed, and the distance of its samples. "
        "Dashed: joint training, on all generators at once. Costs are of results/bench.json: the "
        "median of its rounds, the smallest and the largest.",
        cure_figures.cures,
        cure_figures.with_cures,
        "python experiments/sweep.py cures_opponents --preset cpu",
        with_twins=True,
    ),
    "cures_in_short": Drawing(
        SEQUENTIAL + GAN,
        "The cures at a glance",
        "Of the figure `cures` the columns of memory, the best method first.",
        in_short.cures_in_short,
        in_short.with_answer,
        "python experiments/sweep.py cures_opponents --preset cpu",
        with_twins=True,
        on_the_page=False,
    ),
    "figure1": Drawing(
        GAN,
        "Figure 1: rotations and what the discriminator makes of them",
        "Real and generated images in four rotations, below each the trained discriminator's "
        "predicted probabilities; the paper has a drawing here.",
        gan_figures.figure1,
        gan_figures.with_rotations,
    ),
    "figure2": Drawing(
        GAN,
        "Figure 2: what the discriminator knows of the classes while the GAN trains",
        "Test accuracy of a linear classifier on the frozen discriminator's features: of its final "
        "layer, where the runs have that, and of its best block. A fall is forgetting. A cross: "
        "the classifier did not converge. Of more than ten arms those of claims and the GANs "
        "without a method beside have curves.",
        gan_figures.figure2,
        gan_figures.probed,
        live=True,
    ),
    "figure3": Drawing(
        SEQUENTIAL,
        "Figure 3: accuracy on the current task, one task after another",
        "The classifier learns one class against all others at a time; grey lines are switches of "
        "the task, the dashed line ends a cycle through the classes, dotted is chance.",
        sequential_figures.figure3,
        sequential_figures.one_vs_all,
        live=True,
    ),
    "figure4": Drawing(
        GAN,
        "Figure 4: distribution of the samples' distance over models, seeds and settings",
        "A point a run; settings that differ as in Table 2 stand in one box. FID where Inception's "
        "weights could be had, else a Fréchet distance on the features of a named classifier of "
        "our own, which does not compare with FID. Lower is better.",
        gan_figures.figure4,
        gan_figures.measured_by_scale,
    ),
    "probe_by_block": Drawing(
        GAN,
        "Representation by block over training",
        "As Figure 2, every residual block for itself.",
        gan_figures.probe_by_block,
        gan_figures.probed,
        live=True,
    ),
    "past_fakes": Drawing(
        GAN,
        "Does the discriminator forget old fakes? Accuracy",
        "Rows: the discriminator over training; columns: the generator whose fakes it has to tell "
        "from held-out real images. What is left of the diagonal is the past.",
        gan_figures.past_fakes,
        gan_figures.with_past_fakes,
    ),
    "past_fakes_auc": Drawing(
        GAN,
        "Does the discriminator forget old fakes? Area under the ROC curve",
        "The same without a threshold: whether it still ranks real images above the old fakes.",
        gan_figures.past_fakes_auc,
        gan_figures.with_past_fakes,
    ),
    "quality": Drawing(
        GAN,
        "Quality of the samples over training",
        "The distance of Figure 4 along the way.",
        gan_figures.quality,
        gan_figures.measured,
        live=True,
    ),
    "samples": Drawing(
        GAN,
        "Samples over training",
        "The same latents every time, of each model's first seed. Published runs have the last "
        "alone.",
        gan_figures.samples,
        gan_figures.first_seeds,
        live=True,
    ),
    "representation": Drawing(
        SEQUENTIAL,
        "What the features hold of all classes",
        "Test accuracy of a linear probe of the frozen features at each task's end.",
        sequential_figures.representation,
        sequential_figures.probed,
        live=True,
    ),
    "accuracy_matrix": Drawing(
        SEQUENTIAL,
        "Accuracy on every task over time",
        "A row a task. With one head for all tasks the labels change their meaning at a switch, so "
        "that low accuracy on other tasks is forced.",
        sequential_figures.accuracy_matrix,
        sequential_figures.one_vs_all,
    ),
    "summary": Drawing(
        SEQUENTIAL,
        "Sequential tasks: the measures",
        "A grey point a seed, mean and interval; below, the difference of two arms by seed. All of "
        "them are in the table of differences.",
        sequential_figures.summary,
        sequential_figures.one_vs_all,
    ),
    "forgetting": Drawing(
        SEQUENTIAL,
        "Sequential tasks with a head a task: forgetting and transfer",
        "The measures of the continual-learning literature, for runs with head=per_task.",
        sequential_figures.forgetting,
        sequential_figures.head_a_task,
        "python experiments/sequential_tasks.py with cpu head=per_task",
    ),
    "opponents": Drawing(
        SEQUENTIAL,
        "A discriminator after each of the generators it met, against all of them",
        "Above, the last cycle: the area under the ROC curve, real images against fakes. Rows: the "
        "generator just met; columns: the one whose fakes are told; the diagonal is the one at "
        "hand. Beside it the same for logistic regression on means and deviations of the colour "
        "channels: what resembles it needs no memory. Below: the first generator's fakes over "
        "time; shaded while it is at hand, the dashed line ends a cycle, dotted is chance.",
        opponent_figures.opponents,
        opponent_figures.in_turn,
        "python experiments/sweep.py opponents --preset cpu",
        live=True,
    ),
    "planted": Drawing(
        SEQUENTIAL + GAN,
        "Planted knowledge: what is kept, and what is taught beside",
        "Nets began with updates on the images' classes, or not. A linear probe of the vector that "
        "the heads read says what is left of it (full lines) and what training alone gives "
        "(dashed). Kept is the first minus the second, taught is the second above the untrained "
        "net, both means over the run. Dotted: references, and no bounds.",
        kept_and_taught.planted,
        kept_and_taught.with_planted,
        "python experiments/sweep.py planted --preset cpu",
    ),
    "remembers_live": Drawing(
        SEQUENTIAL + GAN,
        "Does a method that remembers recorded opponents remember live?",
        "A method a point, minus the first arm of the same seeds and recordings. Across: memory of "
        "recorded generators. Up: the area under the ROC curve of a live GAN's discriminator on "
        "past fakes of all methods' GANs of its seed. No claim is made of it.",
        remembers.remembers_live,
        remembers.with_both,
        "python experiments/gan_probe.py round_robin with resume=ID",
        with_twins=True,
    ),
    "drift": Drawing(
        SEQUENTIAL + GAN,
        "How the features drift",
        "How alike the final layer's features of the same test images, 1,000 at most, are at "
        "each two probes of a run: debiased linear CKA, 1 where they are the same but for rotation "
        "and scale.",
        drift.drift,
        drift.with_drift,
    ),
}
