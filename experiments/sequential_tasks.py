"""Sequential tasks: does a classifier forget when its task keeps moving? (Figure 3)

One binary classifier learns "class c against all others" for each class in turn, round and round,
alone (vanilla) or with a rotation loss beside it (rotation).
"""

from experiments.run.settings import OF_THE_RUNNER, arm_setting, common, tell
from experiments.run.study import Experiment, Study, has_code_version
from forgetting import arms, streams
from forgetting.errors import UserError
from forgetting.methods import parse
from forgetting.settings import Setting, boolean, choice, integer, number
from forgetting.streams import one_vs_all


def _goes_by(setting: str):
    return lambda settings: arms.goes_by(setting, settings["method"], {})


SETTINGS = {
    **common(),
    "method": arm_setting("vanilla and rotation, a run each", parse),
    **streams.SETTINGS,
    "iterations_per_task": Setting(1000, integer(1), "updates before the task moves on"),
    "cycles": Setting(2, integer(1), "how often all tasks are gone through"),
    "head": Setting(
        "shared",
        choice("shared", "per_task"),
        "shared (one binary head, as in the paper) or per_task",
    ),
    "balanced": Setting(
        True,
        boolean(),
        "half of a batch is of the task's class; False: drawn from all images alike",
    ),
    "rotation_weight": Setting(
        1.0,
        number(at_least=0),
        "beta, the weight of the rotation loss",
        _goes_by("rotation_weight"),
        of_arm=True,
    ),
    "rotated_images": Setting(
        lambda settings: settings["batch_size"] // 4,
        integer(1),
        "images of a batch also seen by 90, 180 and 270 degrees",
        _goes_by("rotated_images"),
        of_arm=True,
    ),
    "eval_every": Setting(
        200, integer(1), "updates between evaluations, beside those around every switch"
    ),
    "eval_images": Setting(2000, integer(1), "test images of an evaluation, equally many a class"),
    "probe_images": Setting(
        5000, integer(2), "training images of the linear probe at a task's end"
    ),
    "probe_features": Setting(
        512, integer(1), "at most so many features of the last block, averaged over a grid"
    ),
}
PRESETS = {
    "quick": (
        "Handwritten digits that need no download: under a minute for both arms.",
        {
            "dataset.name": "digits",
            "iterations_per_task": 100,
            "width": 32,
            "eval_every": 20,
            "eval_images": 350,
            "probe_images": 1000,
        },
    ),
    "cpu": (
        "The paper's protocol with a narrow net: ten to twenty minutes a run on one core.",
        {"width": 16},
    ),
    "paper": (
        "The paper's sizes; for a GPU.",
        {"eval_every": 250},  # so that evaluating takes less than 15 % of the time
    ),
}
ex = Experiment("sequential_tasks", save_git_info=has_code_version())


def check(settings, images) -> None:
    images.training_subset(settings["probe_images"])
    streams.resolved_order(settings["stream.order"], len(images.classes), settings["seed"])
    one_vs_all.require_heads(settings["stream.switch"], settings["head"])
    for arm in filter(None, [settings["method"]]):
        own = STUDY.own_settings(settings)
        parse(arm).check(own, settings, "classifier", settings["batch_size"])
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

    of_stream = {key.partition(".")[2]: settings[key] for key in streams.SETTINGS}
    chosen = {
        key: settings[key] for key in SETTINGS.keys() - OF_THE_RUNNER - streams.SETTINGS.keys()
    }
    own = STUDY.own_settings(settings)
    return SequentialTasks(images, device, autocast, method_settings=own, **of_stream, **chosen)


def updates(settings, images) -> int:
    return settings["cycles"] * len(images.classes) * settings["iterations_per_task"]


STUDY = Study(ex, "method", ("vanilla", "rotation"), SETTINGS, check, build, updates)
tell(STUDY, PRESETS)

if __name__ == "__main__":
    from experiments.run.runner import main

    main(STUDY)
