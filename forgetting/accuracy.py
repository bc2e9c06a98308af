"""Accuracy on tasks "class c against all others"."""

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
