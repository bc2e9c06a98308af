"""The GANs' nets against their definitions."""

import pytest
import torch
import torch.nn.functional as F
from test_networks import same_with_gradients
from torch import nn

from forgetting.networks import build, scale_images
from gan.networks import LATENT, BatchNorm, Discriminator, Generator, UpBlock, upsample_then_conv


def test_upsampling_and_convolution_in_one_equals_one_after_the_other():
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 5, 3, padding=1).double()
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    plain, fast = conv(F.interpolate(x, scale_factor=2)), upsample_then_conv(x, conv)
    same_with_gradients(fast, plain, [x, conv.weight, conv.bias])


def test_an_upsampling_block_equals_its_textbook_form():
    torch.manual_seed(0)
    block = UpBlock(4, 6, "plain", None).double()
    x = torch.randn(3, 4, 4, 4, dtype=torch.float64, requires_grad=True)

    def up(h):
        return F.interpolate(h, scale_factor=2)

    h = block.conv1(up(F.relu(block.norm1(x, None, None))))
    textbook = block.conv2(F.relu(block.norm2(h, None, None))) + block.shortcut(up(x))
    same_with_gradients(block(x, None, None), textbook, [x, *block.parameters()])


@pytest.mark.parametrize("modulation,classes", [("class", 1), ("latent", None)])
def test_modulated_batch_norm_with_constant_modulation_is_plain(modulation, classes):
    torch.manual_seed(0)
    plain, modulated = BatchNorm(4, "plain", None), BatchNorm(4, modulation, classes)
    x, z = torch.randn(6, 4, 5, 5), torch.randn(6, LATENT)
    labels = torch.zeros(6, dtype=torch.long)
    for value in (1.0, 1.7):  # as it starts, and another constant
        with torch.no_grad():
            plain.norm.weight.fill_(value)
            plain.norm.bias.fill_(value - 1)
            if modulation == "class":
                modulated.scale.weight.fill_(value)
                modulated.shift.weight.fill_(value - 1)
            else:
                modulated.scale.bias.fill_(value)
                modulated.shift.bias.fill_(value - 1)
        torch.testing.assert_close(modulated(x, z, labels), plain(x, z, labels))


def test_batch_norm_by_class_scales_and_shifts_by_each_images_class():
    torch.manual_seed(0)
    norm, plain = BatchNorm(4, "class", 3), BatchNorm(4, "plain", None)
    x, labels = torch.randn(6, 4, 5, 5), torch.arange(6) % 3
    nn.init.normal_(norm.scale.weight)
    nn.init.normal_(norm.shift.weight)
    scale, shift = (of.weight[labels][:, :, None, None] for of in (norm.scale, norm.shift))
    expected = plain(x, None, None) * scale + shift
    torch.testing.assert_close(norm(x, torch.randn(6, LATENT), labels), expected)


def test_a_conditional_discriminator_adds_its_classs_projection():
    """Miyato & Koyama 2018, arXiv 1802.05637, equation 3."""
    torch.manual_seed(0)
    net = Discriminator(8, 4, False, 3)
    features, labels = torch.randn(3, 4), torch.tensor([0, 2, 1])
    projected = (net.projection.weight[labels] * features).sum(1)
    expected = net.adversarial(features)[:, 0] + projected
    torch.testing.assert_close(net.logits(features, labels), expected)


@pytest.mark.parametrize("modulation", ["plain", "class", "latent"])
def test_no_batch_norm_widens_maps_of_bf16(modulation):
    torch.manual_seed(0)
    norm = BatchNorm(4, modulation, 3)
    x, z, labels = torch.randn(5, 4, 2, 2), torch.randn(5, LATENT), torch.arange(5) % 3
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x.bfloat16(), z, labels).dtype == torch.bfloat16
        assert norm(x, z, labels).dtype == torch.float32


@pytest.mark.parametrize("size,blocks", [(8, 1), (16, 2), (32, 3), (64, 4), (128, 5)])
def test_every_size_from_one_definition(size, blocks):
    generator, discriminator = Generator(size, 8), Discriminator(size, 4)
    fakes = generator(torch.randn(2, LATENT))
    assert fakes.shape == (2, 3, size, size) and fakes.abs().max() <= 1
    assert len(generator.blocks) == blocks
    assert len(discriminator.backbone.blocks) == max(4, blocks + 1)
    assert discriminator.logits(discriminator(fakes)).shape == (2,)


def test_full_width_has_the_parameters_of_torch_mimicrys_nets():
    """Counted on torch-mimicry 0.1.16 without biases: SNGANGenerator32 and SSGANGenerator32,
    SSGANDiscriminator32, CGANPDGenerator32 and CGANPDDiscriminator32 of 10 classes. Its conditional
    generator's last batch norm is plain, where the paper's authors make each conditional: 2 x 10 x
    256 more here. Its conditional discriminator has no rotation head: 4 x 128 more here."""

    def count(net):
        return sum(p.numel() for p in net.parameters() if p.dim() > 1)

    assert count(Generator(32, 256)) == 4_266_752
    assert count(Discriminator(32, 128, spectral_norm=False)) == 1_053_056
    assert count(Generator(32, 256, "class", 10)) == 4_297_472 + 2 * 10 * 256
    conditional = Discriminator(32, 128, spectral_norm=False, classes=10)
    assert count(conditional) == 1_053_824 + 4 * 128


def test_sigma_is_the_largest_singular_value_after_enough_iterations():
    net = build(0, Discriminator, size=8, width=8, classes=3)
    x = scale_images(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8))
    labels = torch.tensor([0, 1, 2, 0])
    for _ in range(60):
        features = net(x)
        net.logits(features, labels), net.rotation_head(features)
    net.eval()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 13
    for layer in layers:
        sigma = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item()
        assert sigma == pytest.approx(1, rel=0.01)
