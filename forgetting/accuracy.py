"""Accuracy on tasks "class c against all others", and on real images against fakes."""

import numpy as np


def one_vs_all_accuracy(logits: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Balanced accuracy (classes,) of each task "class c against all others", threshold logit 0.

    logits: (N,) of one head for every task, or (N, classes) of a head a task.
    labels: (N,) int class of each image, each class present.
    The mean of the rates of true positives and true negatives: 0.5 is chance.
    """
    says_yes = np.broadcast_to(logits.reshape(len(labels), -1) > 0, (len(labels), classes))
    is_class = labels[:, None] == np.arange(classes)
    true_positive_rate = (says_yes & is_class).sum(0) / is_class.sum(0)
    true_negative_rate = (~says_yes & ~is_class).sum(0) / (~is_class).sum(0)
    return (true_positive_rate + true_negative_rate) / 2


def roc_auc(real: np.ndarray, fake: np.ndarray) -> float:
    """Area under the ROC curve, in 0..1, of logits (N,) for real images and (M,) for fakes: the
    share of pairs in which the real one has the larger, wherever the threshold lies."""
    from sklearn.metrics import roc_auc_score

    truth = np.repeat([1, 0], [len(real), len(fake)])
    return float(roc_auc_score(truth, np.concatenate([real, fake])))
