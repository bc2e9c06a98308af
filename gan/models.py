"""The GANs that an arm of the probe study may begin with. Their kind is the generator's batch norm
(`gan.networks.BatchNorm`)."""

from forgetting.errors import UserError
from forgetting.methods import Arm, Model, parse

ALONE = "no generator"
MODELS = {
    "uncond": Model("unconditional GAN", "plain"),
    "cond": Model("conditional GAN", "class"),
    "ssgan": Model("SS-GAN (rotation loss)", "plain", ("rotation",)),
    "ssgan_sbn": Model("SS-GAN (sBN)", "latent", ("rotation",)),
    # The paper's control: the discriminator's net learns rotation alone.
    "rotation_only": Model(
        "rotation only", ALONE, ("rotation",), {"alpha": 0.0, "alpha_end": 0.0, "beta": 1.0}
    ),
    # The reference: the same net, images and updates, and the labels to learn.
    "supervised": Model("supervised on the labels", ALONE, ("supervised",)),
}


def parse_model(text: str) -> Arm:
    """The arm that `model=TEXT` means. Raises UserError as `forgetting.methods.parse` does, and for
    methods where there are no fakes."""
    arm = parse(text, "model", MODELS)
    if MODELS[arm.model].kind == ALONE and arm.key != arm.model:
        raise UserError(f"model: {arm.model} has no fakes to forget, and takes no methods")
    if MODELS[arm.model].kind == "class" and arm.replaces:
        name = arm.methods[0].name
        raise UserError(f"model: {name} takes the place of a logit that knows no class; use uncond")
    return arm


def has_generator(text: str | None) -> bool:
    """Whether `model=TEXT` means a GAN; unset it does."""
    first = (text or "").split("+")[0]
    return first not in MODELS or MODELS[first].kind != ALONE
