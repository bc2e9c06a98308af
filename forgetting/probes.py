"""Linear probes: how well a linear classifier reads the image's class off frozen features."""

import torch
import torch.nn.functional as F


def pool_map(feature_map: torch.Tensor, limit: int) -> torch.Tensor:
    """Average a map (N, C, h, w) over a grid so coarse that at most `limit` numbers are left.

    Returns (N, C * g * g) float32 with the largest g <= h for which C * g * g <= limit (g >= 1).
    """
    channels, height = feature_map.shape[1], feature_map.shape[2]
    grid = max(1, min(height, int((limit / channels) ** 0.5)))
    return F.adaptive_avg_pool2d(feature_map.float(), grid).flatten(1)


# Of a probe of the vector that the heads read: fixed, for a C chosen on an untrained net's features
# favours what an untrained net has.
FINAL_LAYER_C = 1.0

# On a CPU each core has so many numbers at a time, 2 MiB: images by their features.
BLOCK = 2**19


def linear_probe(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    c: float = 0.01,
    max_iterations: int = 2000,
) -> tuple[float, bool]:
    """Test accuracy in 0..1 of `probe_hits`, and whether its fit converged."""
    hits, converged = probe_hits(
        train_features, train_labels, test_features, test_labels, c, max_iterations
    )
    return float(hits.mean()), converged


def probe_hits(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    c: float,
    max_iterations: int = 2000,
) -> tuple[torch.Tensor, bool]:
    """Which test images logistic regression with scikit-learn's objective gets right, (M,) float64
    of 1 and 0, and whether the fit converged within `max_iterations` of L-BFGS.

    Features that are no numbers, or too large for their squares to be (of a diverged net), give
    NaN, False.

    Features (N, D) float32, standardised here with the training features' mean and deviation;
    labels (N,) int64, any. c: inverse strength of the L2 penalty, LogisticRegression's C. Fitted
    on the features' device.
    """
    unknown = torch.full((len(test_labels),), float("nan"), dtype=torch.float64)
    mean = train_features.mean(0)
    classes, labels = train_labels.to(mean.device).unique(return_inverse=True)
    (n, d), device = train_features.shape, mean.device
    in_a_block = max(1, min(n, BLOCK // d)) if device.type == "cpu" else n
    # Behind the features a one, whose weight is the bias; other numbers are zeros, also in the
    # rows behind the images, and add nothing. Rows are an odd multiple of 16 numbers apart: by a
    # power of two they would fall on the same few lines of the cache.
    blocks = mean.new_zeros(-(-n // in_a_block), in_a_block, ((d + 16) // 16 | 1) * 16)
    rows = blocks.flatten(0, 1)[:n]
    torch.sub(train_features, mean, out=rows[:, :d])
    deviation = torch.linalg.vector_norm(rows[:, :d], dim=0) / n**0.5
    if not deviation.isfinite().all():
        return unknown, False
    # What the mean's rounding leaves of a feature that never changes is no deviation.
    deviation = torch.where(deviation > 1e-8 + 1e-6 * mean.abs(), deviation, 1.0)
    rows[:, :d] /= deviation
    rows[:, d] = 1
    # Two classes have one vector of weights in scikit-learn: its C is half as much for two.
    weights, converged = _fit(
        blocks, labels, len(classes), d, c / 2 if len(classes) == 2 else c, max_iterations
    )
    logits = torch.addmm(weights[:, d], (test_features - mean).div_(deviation), weights[:, :d].T)
    if not logits.isfinite().all():
        return unknown, False
    hits = classes[logits.argmax(1)] == test_labels.to(device)
    return hits.double(), converged


@torch.no_grad()
def _fit(
    blocks: torch.Tensor, labels: torch.Tensor, classes: int, d: int, c: float, max_iterations: int
) -> tuple[torch.Tensor, bool]:
    """Weights (K, W) of least mean cross-entropy plus |weights[:, :d]|^2 / (2 c N), and whether
    the gradient came to 1e-4 in every entry, where scikit-learn stops by default.

    blocks (B, rows, W): N images row by row, each its d features, a one and zeros; then rows of
    zeros. labels (N,) int64 in 0..K-1.

    By L-BFGS as scikit-learn does, but with the features where they are, and each read once for
    both the loss and its gradient: a product of batches gives each core its own block.
    """
    n, (b, rows, width) = len(labels), blocks.shape
    weights = blocks.new_zeros(classes, width)
    right = blocks.new_zeros(b * rows, classes)
    right[:n].scatter_(1, labels[:, None], 1)
    right = right.view(b, rows, classes).transpose(1, 2).contiguous()
    at_once = torch.get_num_threads() if blocks.device.type == "cpu" else 1
    gradients = blocks.new_empty(at_once, classes, width)

    def loss() -> torch.Tensor:
        cross_entropy = 0.0
        gradients.zero_()
        for some, correct in zip(blocks.split(at_once), right.split(at_once), strict=True):
            for_each = weights.expand(len(some), -1, -1)
            log_p = torch.bmm(for_each, some.transpose(1, 2)).log_softmax(1)
            cross_entropy -= (log_p * correct).sum(dtype=torch.float64)
            gradients[: len(some)].baddbmm_(log_p.exp_().sub_(correct), some)
        weights.grad = gradients.sum(0) / n
        weights.grad[:, :d] += weights[:, :d] / (c * n)
        return cross_entropy / n + weights[:, :d].square().sum(dtype=torch.float64) / (2 * c * n)

    optimizer = torch.optim.LBFGS(
        [weights],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        history_size=10,
        tolerance_grad=1e-4,
        tolerance_change=0,  # however small a step is
        line_search_fn="strong_wolfe",
    )
    optimizer.step(loss)
    loss()  # the gradient where it ended, and not where it looked last
    return weights, bool(weights.grad.abs().max() <= 1e-4)


def choose_c(
    features: torch.Tensor,
    labels: torch.Tensor,
    grid: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
) -> float:
    """The C of `grid` that does best on a held-out fifth of the training images.

    features (N, D) float32, labels (N,) int64. Climbs the ascending grid until the accuracy falls,
    for the large C take longest to fit; of equals the smallest.
    """
    held_out = torch.arange(len(labels), device=features.device) % 5 == 0
    labels = labels.to(features.device)
    fit, judge = ~held_out, held_out
    best, best_score = grid[0], -1.0
    for c in grid:
        score, _ = linear_probe(features[fit], labels[fit], features[judge], labels[judge], c)
        if score > best_score:
            best, best_score = c, score
        elif score < best_score:
            break
    return best


def pixel_probe(
    train_images: torch.Tensor,
    train_labels: torch.Tensor,
    test_images: torch.Tensor,
    test_labels: torch.Tensor,
    components: int = 32,
) -> float:
    """Test accuracy of a linear probe on what no net can forget: the first principal components of
    the pixels, of the training images (N, 3, S, S) uint8."""
    train, test = (images.flatten(1).float() for images in (train_images, test_images))
    mean = train.mean(0)
    centred = (train - mean).double()
    _, axes = torch.linalg.eigh(centred.T @ centred)  # ascending
    axes = axes[:, -components:].float()
    parts = (train - mean) @ axes, train_labels, (test - mean) @ axes, test_labels
    return linear_probe(*parts, FINAL_LAYER_C)[0]
