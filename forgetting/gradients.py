"""How much a net's answer changes with an image, for the losses that hold it down."""

import torch


def of_images(learner, images: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
    """The gradient of each image's logit by its pixels, (N, 3 * S * S) float32, with its graph.

    images: (N, 3, S, S), scaled; condition: of these rows, as `Learner.score` has it. In full
    precision, by a forward pass of its own.
    """
    images = images.detach().requires_grad_()
    with torch.autocast(learner.device.type, enabled=False):
        logits = learner.score(learner.net(images), condition)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.flatten(1)
