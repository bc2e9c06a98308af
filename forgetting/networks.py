"""The residual net of both studies: the discriminator of SNGAN for small images, and its heads.

Miyato et al., "Spectral Normalization for GANs", arXiv 1802.05957, Table 4 (CIFAR-10): four
residual blocks of equal width without batch norm, the first two halve the resolution, then
ReLU, global average, linear. Chen et al. (arXiv 1811.11212) use it at width 128.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm


def scale_images(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) in 0..255 -> float32 in [-1, 1], channels_last (faster convolutions)."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """The inverse of `scale_images`: float (N, 3, H, W) in [-1, 1] -> the nearest uint8."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def conv_then_average_pool(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """avg_pool2d(conv(x), 2) for a 3x3 convolution with padding 1, in 2.25 times fewer operations.

    The mean of four neighbouring 3x3 windows is one 4x4 window moved in steps of two, whose
    kernel is the mean of the four shifted kernels.
    """
    kernel = F.avg_pool2d(conv.weight, 2, stride=1, padding=1)
    return F.conv2d(x, kernel, conv.bias, stride=2, padding=1)


def initialised(layer: nn.Module, gain: float) -> nn.Module:
    """Xavier weights, zero bias. Gain sqrt(2) inside the blocks and 1 elsewhere, as the authors of
    SNGAN have it."""
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """conv-ReLU-conv beside a shortcut; `first` takes raw pixels, so no ReLU before it."""

    def __init__(self, channels_in: int, channels: int, downsample: bool, first: bool):
        super().__init__()
        self.downsample = downsample
        self.first = first
        self.conv1 = initialised(nn.Conv2d(channels_in, channels, 3, padding=1), math.sqrt(2))
        self.conv2 = initialised(nn.Conv2d(channels, channels, 3, padding=1), math.sqrt(2))
        self.shortcut = None
        if downsample or channels_in != channels:
            self.shortcut = initialised(nn.Conv2d(channels_in, channels, 1), 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = F.relu(h)
        h = conv_then_average_pool(h, self.conv2) if self.downsample else self.conv2(h)
        if self.downsample:
            # A 1x1 convolution and a mean commute: pooling first costs a quarter.
            x = F.avg_pool2d(x, 2)
        return h + (x if self.shortcut is None else self.shortcut(x))


def extra_blocks(size: int) -> int:
    """How many more blocks images of `size` pixels need than the nets for 32 pixels have."""
    return max(0, int(math.log2(size)) - 5)


class Backbone(nn.Module):
    """Residual blocks for square images of `size` pixels: 8, 16, 32, 64, 128, ...

    Up to 32 pixels four blocks, of which the first two halve the resolution; each doubling
    beyond puts one more halving block in front, of half the width of the one behind it.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        extra = extra_blocks(size)
        widths = [max(1, width >> k) for k in range(extra, 0, -1)] + [width] * 4
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, downsample=i < extra + 2, first=i == 0)
            for i, (before, after) in enumerate(zip([3, *widths], widths, strict=False))
        )

    def maps(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """The output of every block in turn, each as `map_of` gives it."""
        x = images
        for one in self.blocks:
            x = one(x)
            yield F.relu(x)

    def map_of(self, block: int, images: torch.Tensor) -> torch.Tensor:
        """The output (N, width, h, w) of one block (from 0; -1 is the last), after ReLU.

        images: as `scale_images` gives them.
        """
        x = images
        for one in self.blocks[: block + 1 or None]:
            x = one(x)
        return F.relu(x)


class Classifier(nn.Module):
    """The backbone with a binary head (one logit, or one a task) and a 4-way rotation head.

    Scaled images (N, 3, S, S) -> features (N, width), the last block's map averaged, of which both
    heads are linear.
    """

    condition = "tasks"  # the column of a batch that its logits depend on

    def __init__(self, size: int, width: int, binary_outputs: int, spectral_norm: bool = False):
        super().__init__()
        self.width = width
        self.backbone = Backbone(size, width)
        self.rotation_head = initialised(nn.Linear(width, 4), 1.0)
        self.binary_head = initialised(nn.Linear(width, binary_outputs), 1.0)
        if spectral_norm:
            normalise_spectrally(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone.map_of(-1, images).mean((2, 3))

    def logits(self, features: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
        """Logits (N,) float32 for "the class of its task"; tasks (N,) int64."""
        logits = self.binary_head(features).float()
        if logits.shape[1] == 1:
            return logits[:, 0]
        return logits.gather(1, tasks[:, None])[:, 0]


def normalise_spectrally(module: nn.Module) -> None:
    """Divide the weight of every convolution, linear layer and embedding by its largest singular
    value.

    arXiv 1802.05957: one power iteration a training forward pass, none in evaluation mode.
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            norm = FullPrecisionSpectralNorm(layer.weight)
            parametrize.register_parametrization(layer, "weight", norm)


class FullPrecisionSpectralNorm(_SpectralNorm):
    """PyTorch's, kept out of autocast: on a GPU the power iteration would run in bf16."""

    given = False  # whether the weight is what the layer is to use, as it is

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if self.given:
            return weight
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


def _norm_of(net: nn.Module, name: str) -> FullPrecisionSpectralNorm | None:
    """The spectral norm that a parameter of the net has."""
    layer, found, _ = name.partition(".parametrizations.")
    return net.get_submodule(layer).parametrizations.weight[0] if found else None


def acting_weights(net: nn.Module) -> dict[str, torch.Tensor]:
    """The net's parameters by name as its layers use them now, with their graph: those with a
    spectral norm divided by it. No power iteration."""
    found = {}
    for name, weight in net.named_parameters():
        if norm := _norm_of(net, name):
            before, norm.training = norm.training, False
            weight = norm(weight)
            norm.training = before
        found[name] = weight
    return found


def flattened(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Tensors one behind the other, (numbers in all of them,)."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def logits_with(
    net: nn.Module, weights: Mapping[str, torch.Tensor], images: torch.Tensor, condition
) -> torch.Tensor:
    """net.logits of scaled images (N, 3, S, S), with `acting_weights` in place of the net's own."""
    norms = [norm for name in weights if (norm := _norm_of(net, name))]
    try:
        for norm in norms:
            norm.given = True
        inside = {f"net.{name}": weight for name, weight in weights.items()}
        return functional_call(_Logits(net), inside, (images, condition))
    finally:
        for norm in norms:
            norm.given = False


class _Logits(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor, condition) -> torch.Tensor:
        return self.net.logits(self.net(images), condition)


@contextmanager
def buffers_kept(*nets: nn.Module) -> Iterator[None]:
    """Leave batch statistics, power iterations and modes as they were before."""
    before = [(buffer, buffer.clone()) for net in nets for buffer in net.buffers()]
    modes = [(module, module.training) for net in nets for module in net.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
        for module, mode in modes:
            module.training = mode


def build(seed: int, make, *args, **kwargs) -> nn.Module:
    """make(*args, **kwargs) with all its random numbers drawn from `seed`, in channels_last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(*args, **kwargs).to(memory_format=torch.channels_last)
