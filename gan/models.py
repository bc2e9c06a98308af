"""The GANs that an arm of the probe study may begin with. Their kind is the generator's batch norm
(`gan.networks.BatchNorm`)."""

from forgetting.methods import Model

ALONE = "no generator"
MODELS = {
    "uncond": Model("plain"),
    "cond": Model("class"),
    "ssgan": Model("plain", ("rotation",)),
    "ssgan_sbn": Model("latent", ("rotation",)),
    # The paper's control: the discriminator's net learns rotation alone.
    "rotation_only": Model(ALONE, ("rotation",), {"alpha": 0.0, "alpha_end": 0.0, "beta": 1.0}),
}
