"""Sequential tasks: does a classifier forget when its task keeps moving? (Figure 3)

One binary classifier learns "class c against all others" for each class in turn, round and round,
alone (vanilla) or with a rotation loss beside it (rotation).
"""

from experiments.run.settings import (
    OF_THE_RUNNER,
    arm_setting,
    common,
    digits_unless_named,
    tell,
)
from experiments.run.study import Experiment, Study, has_code_version
from forgetting import arms, streams
from forgetting.errors import UserError
from forgetting.methods import parse
from forgetting.settings import Setting, boolean, choice, integer, number
from forgetting.streams import fakes, one_vs_all
from gan import recordings


def _goes_by(setting: str):
    return lambda settings: arms.goes_by(setting, settings["method"], {})


def _has_classes(settings) -> bool:
    return not streams.of_fakes(settings)


SETTINGS = {
    **common(),
    "method": arm_setting("vanilla and rotation, a run each", parse),
    **streams.SETTINGS,
    "iterations_per_task": Setting(1000, integer(1), "updates before the task moves on"),
    "cycles": Setting(2, integer(1), "how often all tasks are gone through"),
    "plant_updates": Setting(
        0, integer(0), "updates of the net on the images' classes before the stream begins"
    ),
    "loss": Setting(
        "bce",
        choice("bce", "hinge"),
        "bce (cross-entropy) or hinge (as the GANs' discriminator)",
        lambda settings: arms.has_objective(settings["method"], {}),
    ),
    "head": Setting(
        "shared",
        choice("shared", "per_task"),
        "shared (one binary head, as in the paper) or per_task",
    ),
    "balanced": Setting(
        True,
        boolean(),
        "half of a batch is of the task's class; False: drawn from all images alike",
        _has_classes,
    ),
    "rotation_weight": Setting(
        1.0,
        number(at_least=0),
        "beta, the weight of the rotation loss",
        _goes_by("rotation_weight"),
        of_arm=True,
    ),
    "rotated_images": Setting(
        lambda settings: settings["batch_size"] // (8 if streams.of_fakes(settings) else 4),
        integer(1),
        "real images of a batch also seen by 90, 180 and 270 degrees",
        _goes_by("rotated_images"),
        of_arm=True,
    ),
    "eval_every": Setting(
        200, integer(1), "updates between evaluations, beside those at every switch"
    ),
    "eval_after_switch": Setting(
        True, boolean(), "evaluate 1, 10, 20, 50 and 100 updates after a switch, too"
    ),
    "relearning": Setting(
        True,
        boolean(),
        "at the end, how soon each past generator is learnt again",
        streams.of_fakes,
    ),
    "eval_images": Setting(2000, integer(1), "test images of an evaluation, equally many a class"),
    "probe_images": Setting(
        5000, integer(2), "training images of the linear probes at a task's end"
    ),
    "probe_features": Setting(
        512,
        integer(1),
        "at most so many features of the last block, averaged over a grid",
        _has_classes,
    ),
}


def _by_stream(one_vs_all, fakes):
    return lambda asked: fakes if streams.of_fakes(asked) else one_vs_all


# With recorded opponents: 300 updates a generator, as long as it takes to tell its fakes.
_OPPONENTS = {
    "iterations_per_task": _by_stream(1000, 300),
    "dataset.size": _by_stream(None, 16),
}
PRESETS = {
    "quick": (
        "Handwritten digits that need no download: under a minute for both arms.",
        {
            "dataset.name": digits_unless_named,
            "stream.recording": _by_stream(None, "digits"),
            "iterations_per_task": _by_stream(100, 60),
            "width": _by_stream(32, 16),
            "eval_every": _by_stream(20, 30),
            "eval_after_switch": _by_stream(True, False),
            "eval_images": 350,
            "probe_images": 1000,
        },
    ),
    "cpu": (
        "The paper's protocol with a narrow net: ten to twenty minutes a run on one core.",
        {"width": 16, "eval_every": _by_stream(200, 100), **_OPPONENTS},
    ),
    "paper": (
        "The paper's sizes; for a GPU.",
        # so that evaluating takes less than 15 % of the time
        {"eval_every": _by_stream(250, 100), **_OPPONENTS},
    ),
}
ex = Experiment("sequential_tasks", save_git_info=has_code_version())


def check(settings, images) -> None:
    recording = _recording(settings)
    images.training_subset(settings["probe_images"])
    if recording:
        recording.require(images)
        fakes.require_one_head(settings["head"])
        fakes.met(len(recording.nets), settings["stream.omit"])
        if settings["batch_size"] % 2:
            raise UserError(
                f"batch_size: half of it are fakes, so it must be even, "
                f"not {settings['batch_size']}"
            )
    else:
        one_vs_all.require_heads(settings["stream.switch"], settings["head"])
    tasks = len(recording.nets) if recording else len(images.classes)
    streams.resolved_order(settings["stream.order"], tasks, settings["seed"])
    of_a_kind = settings["batch_size"] // 2 if recording else settings["batch_size"]
    player = "discriminator" if recording else "classifier"
    for arm in filter(None, [settings["method"]]):
        parse(arm).check(STUDY.own_settings(settings), settings, player, of_a_kind)
    if settings["rotated_images"] > of_a_kind:
        what = "half of batch_size" if recording else "batch_size"
        raise UserError(
            f"rotated_images: it must be at most {what} ({of_a_kind}), "
            f"not {settings['rotated_images']}"
        )
    if settings["eval_images"] < len(images.classes):
        raise UserError(
            f"eval_images: it must be at least one a class ({len(images.classes)}), "
            f"not {settings['eval_images']}"
        )


def _recording(settings):
    """The recording of the stream's opponents; None where there is none."""
    if not streams.of_fakes(settings):
        for key in ("stream.recording", "stream.omit"):
            if settings[key]:
                raise UserError(f"{key}: it is of recorded generators; set stream.name=fakes, too")
        return None
    if settings["stream.recording"] is None:
        raise UserError(
            f"stream.recording: name the generators for stream.name=fakes: one of "
            f"{recordings.shipped()}, or a file that `gan_probe.py record` made"
        )
    return recordings.read(settings["stream.recording"])


def build(settings, images, device, autocast, fresh=True):
    from forgetting.sequential import SequentialTasks

    of_stream = {key.partition(".")[2]: settings[key] for key in streams.SETTINGS}
    del of_stream["name"]
    of_stream["recording"] = _recording(settings)
    chosen = {
        key: settings[key] for key in SETTINGS.keys() - OF_THE_RUNNER - streams.SETTINGS.keys()
    }
    own = STUDY.own_settings(settings)
    return SequentialTasks(
        images, device, autocast, fresh=fresh, method_settings=own, **of_stream, **chosen
    )


def updates(settings, images) -> int:
    recording = _recording(settings)
    tasks = len(recording.nets) if recording else len(images.classes)
    return settings["cycles"] * tasks * settings["iterations_per_task"]


def facts(settings) -> dict[str, str]:
    recording = _recording(settings)
    return {"recording": recording.content} if recording else {}


STUDY = Study(
    *(ex, "method", ("vanilla", "rotation"), SETTINGS, check, build, updates),
    facts=facts,
    presets=PRESETS,
)
tell(STUDY)

if __name__ == "__main__":
    from experiments.run.runner import main

    main(STUDY)
