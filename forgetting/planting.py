"""Knowledge planted in a net before its task begins to move, so that it can be watched going."""

import torch
import torch.nn.functional as F
from torch import nn

from forgetting.data import Dataset
from forgetting.learner import adam
from forgetting.networks import build, initialised, scale_images
from forgetting.seeding import derived_seed, generator


def plant(
    net: nn.Module,
    dataset: Dataset,
    updates: int,
    *,
    seed: int,
    batch_size: int,
    lr: float,
    adam_betas: tuple[float, float],
    autocast,
) -> None:
    """Train `net` with a linear head on the images' classes; then head and optimiser are dropped.

    net: on the dataset's device; net(images) are its features (N, net.width). By draws of its own
    and before any method, so that all arms of a seed begin from one planted net.
    """
    device = dataset.train_labels.device

    def head() -> nn.Module:
        return initialised(nn.Linear(net.width, len(dataset.classes)), 1.0)

    classes = build(derived_seed(seed, "planting head"), head).to(device)
    draws = generator(seed, "planting")
    optimiser = adam([*net.backbone.parameters(), *classes.parameters()], lr, adam_betas)
    net.train()
    for _ in range(updates):
        rows = torch.randint(len(dataset.train_labels), (batch_size,), generator=draws).to(device)
        images = scale_images(dataset.train_images[rows])
        with autocast():
            logits = classes(net(images))
        loss = F.cross_entropy(logits.float(), dataset.train_labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.zero_grad()
