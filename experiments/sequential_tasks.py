"""Sequential tasks: does a classifier forget when its task keeps moving? (Figure 3)

One binary classifier learns "class c against all others" for each class in turn, round and round,
alone (vanilla) or with a rotation loss beside it (rotation).
"""

from experiments.dataset_settings import dataset
from experiments.run.runner import (
    Experiment,
    Study,
    default_path,
    has_code_version,
    main,
)
from experiments.run.settings import COMMON
from forgetting.errors import UserError
from forgetting.settings import boolean, choice, integer, number, optional

ex = Experiment("sequential_tasks", ingredients=[dataset], save_git_info=has_code_version())


@ex.config
def settings():
    preset = None  # which preset this is; written `with quick`, `with cpu` or `with paper`
    method = None  # vanilla, rotation or augment; unset: vanilla and rotation, a run each
    seed = 0  # of weights, stream and rotations, each with a generator of its own
    iterations_per_task = 1000  # updates before the task moves on
    cycles = 2  # how often all tasks are gone through
    batch_size = 64  # upright images a step
    width = 128  # channels of every residual block
    head = "shared"  # shared (one binary head, as in the paper) or per_task
    balanced = True  # half of a batch is of the task's class; False: drawn from all images alike
    rotation_weight = 1.0  # beta, the weight of the rotation loss
    rotated_images = batch_size // 4  # images of a batch also seen by 90, 180 and 270 degrees
    spectral_norm = False  # divide every weight by its largest singular value
    lr = 1e-3  # Adam's learning rate
    adam_betas = [0.9, 0.999]  # Adam's decay rates
    eval_every = 200  # updates between evaluations, beside those around every switch
    eval_images = 2000  # test images of an evaluation, equally many a class
    probe_images = 5000  # training images of the linear probe at a task's end
    probe_features = 512  # at most so many features of the last block, averaged over a grid
    device = "auto"  # auto, cpu or cuda
    precision = "auto"  # auto, fp32 (a GPU convolves in TF32, PyTorch's default) or bf16
    results_dir = default_path("results/runs")  # where runs are stored
    checkpoint_every = 500  # iterations between checkpoints
    resume = None  # a run's id: go on with it; auto: with the unfinished run of these settings
    stop_after = None  # stop in good order after 90s, 10m, 2h; exit code 75, resumable


@ex.named_config
def quick():
    """Handwritten digits that need no download: under a minute for both arms."""
    preset = "quick"
    dataset = {"name": "digits"}
    iterations_per_task = 100
    width = 32
    eval_every = 20
    eval_images = 350
    probe_images = 1000


@ex.named_config
def cpu():
    """The paper's protocol with a narrow net: ten to twenty minutes a run on one core."""
    preset = "cpu"
    width = 16


@ex.named_config
def paper():
    """The paper's sizes; for a GPU."""
    preset = "paper"
    width = 128
    eval_every = 250  # so that evaluating takes less than 15 % of the time


RULES = {
    **COMMON,
    "method": optional(choice("vanilla", "rotation", "augment"), "vanilla and rotation"),
    "iterations_per_task": integer(1),
    "cycles": integer(1),
    "head": choice("shared", "per_task"),
    "balanced": boolean(),
    "rotation_weight": number(at_least=0),
    "rotated_images": integer(1),
    "eval_every": integer(1),
    "eval_images": integer(1),
    "probe_images": integer(2),
    "probe_features": integer(1),
}


def check(settings, images) -> None:
    images.training_subset(settings["probe_images"])
    if settings["rotated_images"] > settings["batch_size"]:
        raise UserError(
            f"rotated_images: it must be at most batch_size ({settings['batch_size']}), "
            f"not {settings['rotated_images']}"
        )
    if settings["eval_images"] < len(images.classes):
        raise UserError(
            f"eval_images: it must be at least one a class ({len(images.classes)}), "
            f"not {settings['eval_images']}"
        )


def build(settings, images, device, autocast):
    from forgetting.sequential import SequentialTasks

    of_the_study = (*RULES.keys() - COMMON.keys(), "seed", "batch_size", "width", "lr")
    chosen = {key: settings[key] for key in (*of_the_study, "adam_betas", "spectral_norm")}
    return SequentialTasks(images, device, autocast, **chosen)


def updates(settings, images) -> int:
    return settings["cycles"] * len(images.classes) * settings["iterations_per_task"]


STUDY = Study("method", ("vanilla", "rotation"), RULES, check, build, updates)

if __name__ == "__main__":
    main(ex, STUDY)
