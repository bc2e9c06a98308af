"""GAN probe: what does a GAN's discriminator know, and forget, while it trains? (Figure 2)

A GAN is trained without (uncond) or with a rotation loss (ssgan); along the way its frozen
discriminator is probed with linear classifiers and has to tell real images from earlier fakes.
"""

from dataclasses import replace

from experiments.run.settings import (
    COMMON,
    OF_THE_RUNNER,
    arm_setting,
    common,
    default_path,
    digits_unless_named,
    never,
    tell,
)
from experiments.run.stored import read_record
from experiments.run.study import Experiment, Study, has_code_version
from forgetting import arms
from forgetting.errors import UserError
from forgetting.settings import Setting, choice, integer, number, optional
from gan.models import MODELS, has_generator, parse_model


def _has_generator(settings) -> bool:
    return has_generator(settings["model"])


def _has_objective(settings) -> bool:
    return _has_generator(settings) and arms.has_objective(settings["model"], MODELS)


def _goes_by(setting: str):
    return lambda settings: arms.goes_by(setting, settings["model"], MODELS)


def _has_boundaries(settings) -> bool:
    return arms.has_boundaries(settings["model"], MODELS)


def _penalises(settings) -> bool:
    return settings["regularizer"] == "gradient_penalty" and _has_generator(settings)


SETTINGS = {
    **common(
        lr=2e-4,
        adam_betas=[0.0, 0.9],
        checkpoint_every=1000,
        batch_size=replace(COMMON["batch_size"], help="real images, and as many fakes, a step"),
        width=replace(
            COMMON["width"],
            help="channels of the discriminator; the generator's: generator_width",
            used=never,
        ),
        spectral_norm=replace(
            COMMON["spectral_norm"],
            default=lambda settings: settings["regularizer"] == "spectral_norm",
            help="follows from the regularizer",
            used=never,
        ),
    ),
    "model": arm_setting("uncond and ssgan, a run each", parse_model),
    "steps": Setting(100000, integer(1), "updates of the generator"),
    "discriminator_width": Setting(
        lambda settings: settings["width"],
        integer(1),
        "channels of every residual block of the discriminator",
    ),
    "generator_width": Setting(
        lambda settings: 2 * settings["width"],
        integer(1),
        "channels of every residual block of the generator",
        _has_generator,
    ),
    "loss": Setting(
        "hinge", choice("hinge", "non_saturating"), "hinge or non_saturating", _has_objective
    ),
    "regularizer": Setting(
        "spectral_norm",
        choice("spectral_norm", "gradient_penalty", "none"),
        "of the discriminator: spectral_norm, gradient_penalty or none",
    ),
    "gradient_penalty_weight": Setting(
        10.0, number(above=0), "lambda of the gradient penalty", _penalises
    ),
    "alpha": Setting(
        0.2,
        number(at_least=0),
        "weight of the generator's rotation loss",
        _goes_by("alpha"),
        of_arm=True,
    ),
    "alpha_end": Setting(
        lambda settings: settings["alpha"],
        number(at_least=0),
        "the same at the end; other than alpha: in a straight line from one to it",
        _goes_by("alpha_end"),
        of_arm=True,
    ),
    "beta": Setting(
        1.0,
        number(at_least=0),
        "weight of the discriminator's rotation loss",
        _goes_by("beta"),
        of_arm=True,
    ),
    "plant_updates": Setting(
        0,
        integer(0),
        "updates of the discriminator on the images' classes before the GAN trains",
    ),
    "d_steps": Setting(
        1, integer(1), "updates of the discriminator for one of the generator", _has_generator
    ),
    "boundary_every": Setting(
        1000,
        integer(1),
        "generator updates between what methods do where a task ends",
        _has_boundaries,
    ),
    "probe_every": Setting(5000, integer(1), "generator updates between probes"),
    "record_every": Setting(
        lambda settings: settings["probe_every"],
        integer(1),
        "generator updates between the generators that are kept, for `record`",
        never,
    ),
    "probe_images": Setting(
        None, optional(integer(50), "all"), "training images of the linear probes; unset: all"
    ),
    "probe_features": Setting(
        8192, integer(1), "at most so many features of a block, averaged over a grid"
    ),
    "quality_every": Setting(
        10000,
        integer(1),
        "generator updates between measurements of the samples' quality",
        _has_generator,
    ),
    "quality_images": Setting(10000, integer(500), "samples for that measurement", _has_generator),
}
PRESETS = {
    "quick": (
        "Handwritten digits that need no download: about a minute for both arms.",
        {
            "dataset.name": digits_unless_named,
            "steps": 400,
            "boundary_every": 100,
            "width": 16,
            "probe_every": 100,
            "probe_images": 1000,
            "probe_features": 512,
            "quality_every": 400,
            "quality_images": 1000,
        },
    ),
    "cpu": (
        "The paper's losses, narrow nets, 16 pixels: about ten minutes a run on one core.",
        {
            "dataset.size": 16,
            "steps": 6000,
            "boundary_every": 500,
            "width": 32,
            "generator_width": 32,
            "lr": 5e-4,
            "probe_every": 1000,
            "probe_images": 5000,
            "probe_features": 512,
            "quality_every": 3000,
            "checkpoint_every": 250,
        },
    ),
    "paper": ("The paper's sizes; for a GPU.", {}),
}
ex = Experiment("gan_probe", save_git_info=has_code_version())


def check(settings, images) -> None:
    images.training_subset(settings["probe_images"])
    if _has_generator(settings):
        images.require_test_images(2, "the distance of samples")
    first = (settings["model"] or "").split("+")[0]
    of_labels = {"model": first in ("cond", "supervised")}
    of_labels["plant_updates"] = settings["plant_updates"] > 0
    for key in (key for key, asked in of_labels.items() if asked and len(images.classes) < 2):
        raise UserError(
            f"{key}: {settings[key]} needs labels, and {images.label} has one class folder"
        )
    for arm in filter(None, [settings["model"]]):
        own = STUDY.own_settings(settings)
        parse_model(arm).check(own, settings, "discriminator", settings["batch_size"])
    if settings["spectral_norm"] != (settings["regularizer"] == "spectral_norm"):
        raise UserError(
            f"spectral_norm: it follows from regularizer={settings['regularizer']}; set that alone"
        )


def build(settings, images, device, autocast, fresh=True, to_train=True):
    from gan import extractor, fidelity
    from gan.probe_study import ProbeStudy

    quality, about = None, {}
    if to_train:
        # Inception's 2,048 features say nothing of 364 digits; other images take it where it is to
        # be had, else a small classifier of these very images: fd_<its name>, and never fid.
        name = settings["dataset.name"]
        choose = extractor.find_extractor if name == "digits" else fidelity.choose_extractor
        chosen = choose(name, images, default_path("data/extractors"), device)
        about = {"extractor": "Inception of torch-fidelity"}
        if chosen:
            about = {"extractor": chosen.name, "extractor_sha256": chosen.sha256}

        def quality(samples, reader=chosen):
            return fidelity.quality(samples, images.test_images, reader, device)

    chosen = {key: settings[key] for key in SETTINGS.keys() - OF_THE_RUNNER - {"width"}}
    own = STUDY.own_settings(settings)
    chosen |= {"fresh": fresh, "method_settings": own}
    return ProbeStudy(images, device, autocast, quality, about, **chosen)


def widest(settings) -> int:
    generator = settings["generator_width"] if _has_generator(settings) else 0
    return max(settings["discriminator_width"], generator)


@ex.command(unobserved=True)
def sample():
    """Draw a grid of images from a stored run: sample with resume=ID."""


def draw_samples(study, folder) -> str:
    import torch

    from forgetting.files import write_atomically
    from gan.samples import image_grid, latents_and_labels

    if study.generator is None:
        raise UserError(f"resume: a run of {study.arm.model} has no generator to sample from")
    draws = torch.Generator().manual_seed(1)
    images = study.sample(*latents_and_labels(100, len(study.dataset.classes), draws))
    path = folder / "sample.png"
    write_atomically(path, image_grid(images))
    return f"100 images of step {study.position} in {path}"


@ex.command(unobserved=True)
def record():
    """Put the generators a run kept into a file, for stream.name=fakes: record with resume=ID."""


def write_recording(study, folder) -> str:
    from gan import recordings

    path = folder / "recording.pt"
    written = recordings.write(study, read_record(folder).settings, path)
    return f"{written} in {path}"


@ex.command(unobserved=True)
def round_robin():
    """Score discriminators on past fakes of all runs of their seed: round_robin with
    results_dir=DIR, or one with resume=ID."""


def score_round_robin(study, folder) -> str:
    from experiments.run.round_robin import write

    return write(study, folder)


def _takes_part(record) -> bool:
    from experiments.run.round_robin import takes_part

    return takes_part(record)


STUDY = Study(
    ex,
    "model",
    ("uncond", "ssgan"),
    SETTINGS,
    check,
    build,
    lambda settings, images: settings["steps"],
    least_classes=1,
    commands={"sample": draw_samples, "record": write_recording, "round_robin": score_round_robin},
    for_all={"round_robin": _takes_part},
    parse=parse_model,
    models=MODELS,
    widest=widest,
    presets=PRESETS,
)
tell(STUDY)

if __name__ == "__main__":
    from experiments.run.runner import main

    main(STUDY)
