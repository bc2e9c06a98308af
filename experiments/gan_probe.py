"""GAN probe: what does a GAN's discriminator know, and forget, while it trains? (Figure 2)

A GAN is trained without (uncond) or with a rotation loss (ssgan); along the way its frozen
discriminator is probed with linear classifiers and has to tell real images from earlier fakes.
"""

from experiments.common_settings import COMMON
from experiments.dataset_settings import dataset
from experiments.runner import (
    Experiment,
    Study,
    default_path,
    has_code_version,
    main,
)
from forgetting.errors import UserError
from forgetting.settings import choice, integer, number, optional

ex = Experiment("gan_probe", ingredients=[dataset], save_git_info=has_code_version())


@ex.config
def settings():
    preset = None  # which preset this is; written `with quick`, `with cpu` or `with paper`
    model = None  # uncond, cond, ssgan, ssgan_sbn or rotation_only; unset: uncond and ssgan
    seed = 0  # of weights, images and latents, each with a generator of its own
    steps = 100000  # updates of the generator
    batch_size = 64  # real images, and as many fakes, a step
    width = 128  # channels of the discriminator; the generator's are twice as many
    discriminator_width = width  # channels of every residual block of the discriminator
    generator_width = 2 * width  # channels of every residual block of the generator
    loss = "hinge"  # hinge or non_saturating
    regularizer = "spectral_norm"  # of the discriminator: spectral_norm or gradient_penalty
    spectral_norm = regularizer == "spectral_norm"  # follows from the regularizer
    gradient_penalty_weight = 10.0  # lambda of the gradient penalty
    alpha = 0.2  # weight of the generator's rotation loss
    alpha_end = alpha  # the same at the end; other than alpha: in a straight line from one to it
    beta = 1.0  # weight of the discriminator's rotation loss
    d_steps = 1  # updates of the discriminator for one of the generator
    lr = 2e-4  # Adam's learning rate
    adam_betas = [0.0, 0.9]  # Adam's decay rates
    probe_every = 5000  # generator updates between probes
    probe_images = None  # training images of the linear probes; unset: all
    probe_features = 8192  # at most so many features of a block, averaged over a grid
    quality_every = 10000  # generator updates between measurements of the samples' quality
    quality_images = 10000  # samples for that measurement
    device = "auto"  # auto, cpu or cuda
    precision = "auto"  # auto, fp32 (a GPU convolves in TF32, PyTorch's default) or bf16
    results_dir = default_path("results/runs")  # where runs are stored
    checkpoint_every = 1000  # iterations between checkpoints
    resume = None  # a run's id: go on with it; auto: with the unfinished run of these settings
    stop_after = None  # stop in good order after 90s, 10m, 2h; exit code 75, resumable


@ex.named_config
def quick():
    """Handwritten digits that need no download: about a minute for both arms."""
    preset = "quick"
    dataset = {"name": "digits"}
    steps = 400
    width = 16
    probe_every = 100
    probe_images = 1000
    probe_features = 512
    quality_every = 400
    quality_images = 1000


@ex.named_config
def cpu():
    """The paper's protocol with narrow nets: under an hour a run on one core."""
    preset = "cpu"
    steps = 5000
    width = 32
    probe_every = 500
    probe_images = 10000
    probe_features = 512
    quality_every = 2500
    checkpoint_every = 250


@ex.named_config
def paper():
    """The paper's sizes; for a GPU."""
    preset = "paper"
    width = 128


RULES = {
    **COMMON,
    "model": optional(
        choice("uncond", "cond", "ssgan", "ssgan_sbn", "rotation_only"), "uncond and ssgan"
    ),
    "steps": integer(1),
    "discriminator_width": integer(1),
    "generator_width": integer(1),
    "loss": choice("hinge", "non_saturating"),
    "regularizer": choice("spectral_norm", "gradient_penalty"),
    "gradient_penalty_weight": number(above=0),
    "alpha": number(at_least=0),
    "alpha_end": number(at_least=0),
    "beta": number(at_least=0),
    "d_steps": integer(1),
    "probe_every": integer(1),
    "probe_images": optional(integer(50), "all"),
    "probe_features": integer(1),
    "quality_every": integer(1),
    "quality_images": integer(500),
}


def check(settings, images) -> None:
    images.training_subset(settings["probe_images"])
    if len(images.classes) < 2 and settings["model"] == "cond":
        raise UserError(f"model: cond needs labels, and {images.label} has one class folder")
    if settings["spectral_norm"] != (settings["regularizer"] == "spectral_norm"):
        raise UserError(
            f"spectral_norm: it follows from regularizer={settings['regularizer']}; set that alone"
        )


def build(settings, images, device, autocast, to_train=True):
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

    not_of_the_study = (*COMMON.keys() - {"seed", "batch_size", "lr"}, "width")
    chosen = {key: settings[key] for key in RULES if key not in not_of_the_study}
    chosen |= {key: settings[key] for key in ("adam_betas", "spectral_norm")}
    return ProbeStudy(images, device, autocast, quality, about, **chosen)


@ex.command(unobserved=True)
def sample():
    """Draw a grid of images from a stored run: sample with resume=ID."""


def draw_samples(study, folder) -> str:
    import torch

    from forgetting.files import write_atomically
    from gan.samples import image_grid, latents_and_labels

    if study.generator is None:
        raise UserError("resume: a run of rotation_only has no generator to sample from")
    draws = torch.Generator().manual_seed(1)
    images = study.sample(*latents_and_labels(100, len(study.dataset.classes), draws))
    path = folder / "sample.png"
    write_atomically(path, image_grid(images))
    return f"100 images of step {study.position} in {path}"


STUDY = Study(
    "model",
    ("uncond", "ssgan"),
    RULES,
    check,
    build,
    lambda settings, images: settings["steps"],
    least_classes=1,
    commands={"sample": draw_samples},
)

if __name__ == "__main__":
    main(ex, STUDY)
