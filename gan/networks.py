"""Generator and discriminator for square images of 8 to 256 pixels.

At 32 pixels these are the nets of SNGAN (Miyato et al., arXiv 1802.05957, Table 4) as
Chen et al. (arXiv 1811.11212) use them, at generator width 256 and discriminator width 128.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from forgetting.networks import Backbone, extra_blocks, initialised, normalise_spectrally

LATENT = 128  # numbers in z, drawn from a standard normal


def upsample_then_conv(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """conv(nearest upsampling of x by 2) for a 3x3 convolution, in 2.25 times fewer operations.

    The adjoint of `forgetting.networks.conv_then_average_pool`: one transposed convolution with
    the sum of the four shifted kernels.
    """
    flipped = conv.weight.transpose(0, 1).flip(2, 3)
    kernel = F.avg_pool2d(flipped, 2, stride=1, padding=1, divisor_override=1)
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


class BatchNorm(nn.Module):
    """Batch norm whose scale and shift are constants, or depend on the class or on z.

    modulation: "plain"; "class" (conditional, arXiv 1610.07629: a scale and a shift a class); or
    "latent" (self-modulated, arXiv 1810.01365: from z through one hidden ReLU layer of 32).
    All start at scale 1 and shift 0.
    """

    def __init__(self, channels: int, modulation: str, classes: int | None):
        super().__init__()
        self.modulation = modulation
        # The authors' decay of 0.9 is PyTorch's momentum of 0.1.
        self.norm = nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1, affine=modulation == "plain")
        if modulation == "class":
            self.scale = nn.Embedding(classes, channels)
            self.shift = nn.Embedding(classes, channels)
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)
        elif modulation == "latent":
            self.hidden = initialised(nn.Linear(LATENT, 32), math.sqrt(2))
            self.scale, self.shift = nn.Linear(32, channels), nn.Linear(32, channels)
            for layer in (self.scale, self.shift):
                nn.init.zeros_(layer.weight)
            nn.init.ones_(self.scale.bias)
            nn.init.zeros_(self.shift.bias)

    def forward(
        self, x: torch.Tensor, z: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        x = self.norm(x)
        if self.modulation == "plain":
            return x
        by = labels if self.modulation == "class" else F.relu(self.hidden(z))
        # An embedding stays in fp32 under autocast, and would take the maps with it.
        scale, shift = self.scale(by).to(x.dtype), self.shift(by).to(x.dtype)
        return x * scale[:, :, None, None] + shift[:, :, None, None]


class UpBlock(nn.Module):
    """BN-ReLU-upsample-conv-BN-ReLU-conv beside an upsampled 1x1 convolution."""

    def __init__(self, channels_in: int, channels: int, modulation: str, classes: int | None):
        super().__init__()
        self.norm1 = BatchNorm(channels_in, modulation, classes)
        self.norm2 = BatchNorm(channels, modulation, classes)
        self.conv1 = initialised(nn.Conv2d(channels_in, channels, 3, padding=1), math.sqrt(2))
        self.conv2 = initialised(nn.Conv2d(channels, channels, 3, padding=1), math.sqrt(2))
        self.shortcut = initialised(nn.Conv2d(channels_in, channels, 1), 1.0)

    def forward(
        self, x: torch.Tensor, z: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        h = upsample_then_conv(F.relu(self.norm1(x, z, labels)), self.conv1)
        h = self.conv2(F.relu(self.norm2(h, z, labels)))
        # A 1x1 convolution and nearest upsampling commute: convolving first costs a quarter.
        shortcut = self.shortcut(x)
        with torch.autocast(x.device.type, enabled=False):  # on a GPU it would widen bf16 to fp32
            return h + F.interpolate(shortcut, scale_factor=2)


class Generator(nn.Module):
    """z (N, 128) float, and labels (N,) int64 where conditional -> images (N, 3, S, S) in [-1, 1].

    Linear to 4x4, residual up-blocks of `width` channels (half of it for each doubling beyond 32
    pixels), batch norm, ReLU, 3x3 convolution, tanh.
    """

    def __init__(
        self, size: int, width: int, modulation: str = "plain", classes: int | None = None
    ):
        super().__init__()
        ups, extra = int(math.log2(size)) - 2, extra_blocks(size)
        widths = [width] * (ups - extra) + [max(1, width >> k) for k in range(1, extra + 1)]
        self.width = width
        self.linear = initialised(nn.Linear(LATENT, 4 * 4 * width), 1.0)
        self.blocks = nn.ModuleList(
            UpBlock(before, after, modulation, classes)
            for before, after in zip([width, *widths], widths, strict=False)
        )
        self.norm = BatchNorm(widths[-1], modulation, classes)
        self.conv = initialised(nn.Conv2d(widths[-1], 3, 3, padding=1), 1.0)

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        x = self.linear(z).view(-1, self.width, 4, 4).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, z, labels)
        return torch.tanh(self.conv(F.relu(self.norm(x, z, labels))))


class Discriminator(nn.Module):
    """The backbone with two heads, and a projection of the class where conditional.

    Scaled images (N, 3, S, S) -> features (N, width), the last block's map averaged, of which
    `adversarial` and `rotation_head` are linear heads (arXiv 1811.11212, Section 3).
    """

    condition = "labels"  # the column of a batch that its logits depend on

    def __init__(
        self, size: int, width: int, spectral_norm: bool = True, classes: int | None = None
    ):
        super().__init__()
        self.width = width
        self.backbone = Backbone(size, width)
        self.adversarial = initialised(nn.Linear(width, 1), 1.0)
        self.rotation_head = initialised(nn.Linear(width, 4), 1.0)
        self.projection = None
        if classes:
            self.projection = nn.Embedding(classes, width)
            nn.init.xavier_uniform_(self.projection.weight)
        if spectral_norm:
            normalise_spectrally(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.backbone.map_of(-1, images).mean((2, 3))

    def logits(self, features: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (N,) float32 for "real"; labels (N,) int64 where conditional (arXiv 1802.05637,
        equation 3)."""
        logits = self.adversarial(features)[:, 0].float()
        if self.projection is not None:
            logits = logits + (self.projection(labels) * features).sum(1).float()
        return logits
