import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from forgetting.networks import (
    Backbone,
    Classifier,
    ResidualBlock,
    build,
    conv_then_average_pool,
    scale_images,
)


def test_convolution_and_pooling_in_one_equals_one_after_the_other():
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 5, 3, padding=1).double()
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64, requires_grad=True)
    plain, fast = F.avg_pool2d(conv(x), 2), conv_then_average_pool(x, conv)
    same_with_gradients(fast, plain, [x, conv.weight, conv.bias])


def test_a_block_begins_as_the_authors_of_sngan_have_it():
    torch.manual_seed(0)
    block = ResidualBlock(64, 64, downsample=True, first=False)
    of_3x3 = math.sqrt(2) * math.sqrt(6 / (2 * 9 * 64))  # Xavier, gain sqrt(2)
    assert block.conv1.weight.abs().max().item() == pytest.approx(of_3x3, rel=0.01)
    of_1x1 = math.sqrt(6 / (2 * 64))
    assert block.shortcut.weight.abs().max().item() == pytest.approx(of_1x1, rel=0.01)


@pytest.mark.parametrize("first", [True, False])
def test_a_downsampling_block_equals_its_textbook_form(first):
    torch.manual_seed(0)
    block = ResidualBlock(4, 6, downsample=True, first=first).double()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    h = F.relu(block.conv1(x if first else F.relu(x)))
    textbook = F.avg_pool2d(block.conv2(h), 2) + F.avg_pool2d(block.shortcut(x), 2)
    same_with_gradients(block(x), textbook, [x, *block.parameters()])


def same_with_gradients(fast, plain, inputs, tolerance=1e-12):
    """Equal values, and equal gradients of a random function of them."""
    torch.testing.assert_close(fast, plain, rtol=tolerance, atol=tolerance)
    upstream = torch.randn_like(fast)
    gradients = [torch.autograd.grad(out, inputs, upstream) for out in (fast, plain)]
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size,blocks,side", [(8, 4, 2), (16, 4, 4), (32, 4, 8), (64, 5, 8)])
def test_blocks_follow_from_the_size(size, blocks, side):
    net = Backbone(size, width=4)
    images = scale_images(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    maps = [net.map_of(block, images) for block in range(len(net.blocks))]
    assert torch.equal(net.map_of(-1, images), maps[-1])
    assert len(maps) == blocks
    assert maps[-1].shape == (1, 4, side, side)


def test_full_width_has_the_parameters_of_the_published_discriminator():
    # Block 1: 3->128, 128->128, shortcut; block 2 likewise from 128; blocks 3 and 4 two each.
    nine = 9 * 128 * 128
    weights = (9 * 3 * 128 + nine + 3 * 128) + (2 * nine + 128 * 128) + 2 * (2 * nine)
    net = Backbone(32, width=128)
    assert sum(p.numel() for p in net.parameters() if p.dim() > 1) == weights


def test_one_seed_gives_every_head_the_same_start():
    shared = build(7, Classifier, size=8, width=4, binary_outputs=1)
    per_task = build(7, Classifier, size=8, width=4, binary_outputs=10)
    other = build(8, Classifier, size=8, width=4, binary_outputs=1)
    for name, value in shared.state_dict().items():
        if not name.startswith("binary_head"):
            assert torch.equal(value, per_task.state_dict()[name])
    assert not torch.equal(
        shared.backbone.blocks[0].conv1.weight, other.backbone.blocks[0].conv1.weight
    )


def test_one_power_iteration_a_training_pass(monkeypatch):
    from torch.nn.utils.parametrizations import _SpectralNorm

    calls = []
    power = _SpectralNorm._power_method
    monkeypatch.setattr(
        _SpectralNorm, "_power_method", lambda s, *a: calls.append(id(s)) or power(s, *a)
    )
    net = build(0, Classifier, size=8, width=4, binary_outputs=1, spectral_norm=True)
    images = scale_images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    calls.clear()
    net(images)
    assert len(calls) == len(set(calls)) == 10  # every layer of the backbone, once
    net.eval()
    net(images)
    assert len(calls) == 10


def test_spectral_norm_brings_every_layer_to_one():
    net = build(0, Classifier, size=8, width=8, binary_outputs=1, spectral_norm=True)
    images = scale_images(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8))
    for _ in range(60):
        features = net(images)
        net.rotation_head(features), net.binary_head(features)
    net.eval()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 12
    for layer in layers:
        sigma = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item()
        assert sigma == pytest.approx(1, rel=0.01)


def test_images_come_back_from_bytes(digits):
    from forgetting.networks import to_bytes

    assert torch.equal(to_bytes(scale_images(digits.test_images)), digits.test_images)
