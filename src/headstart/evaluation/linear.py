"""Ridge regression in dual form, of numbers and classes: from inner products (n, n) of scans, not from voxels"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import softmax

PENALTIES = 10.0 ** np.arange(-4, 5)  # relative to the mean variance of a principal axis
FEW_AXES = 10  # up to so many, the choice of penalty hardly matters: it is 1
STEEPNESS = 2.0  # of a probability where two indicators are equal, it rises by one for one
INNER_FOLDS = 5


def fit_number(kernel: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray,
               groups: np.ndarray) -> np.ndarray:
    """Ridge regression; the penalty has the least squared error over inner folds.

    Args:
        kernel: (n, n) inner products of features.
        target: (n,).
        train, test: indices.
        groups: (train,) subject of each training scan; inner folds never split one.

    Returns:
        (test,) predictions.
    """
    return _ridge(kernel, target[:, None], train, test, groups)[:, 0]


def _ridge(kernel: np.ndarray, targets: np.ndarray, train: np.ndarray, test: np.ndarray,
           groups: np.ndarray) -> np.ndarray:
    """(test, k) predictions of ``targets`` (n, k), all under one penalty."""
    errors = np.zeros(len(PENALTIES))
    for fit, check in inner_folds(groups):
        predicted = _ridge_path(kernel, targets, train[fit], train[check])
        errors += ((predicted - targets[train[check], :, None]) ** 2).sum((0, 1))
    return _ridge_path(kernel, targets, train, test)[..., errors.argmin()]


def _ridge_path(kernel: np.ndarray, targets: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predictions of ``targets`` (n, k) for every penalty: (test, k, penalties)."""
    scores, scores_test = principal_scores(kernel, train, test)
    mean = targets[train].mean(0)
    variance = (scores**2).sum(0)  # of each axis
    penalty = PENALTIES * variance.mean() if len(variance) else PENALTIES
    slopes = (scores.T @ (targets[train] - mean))[..., None] / (variance[:, None] + penalty)[:, None]
    return mean[:, None] + np.tensordot(scores_test, slopes, 1)


def fit_classes(kernel: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray, groups: np.ndarray,
                num_classes: int) -> np.ndarray:
    """Classes from many features by ridge regression on their indicators, from few by logistic regression.

    On voxels of few people a logistic regression whose penalty minimises the log loss is the weaker floor: it is driven
    to penalties that leave nothing (sex from 18 people at other sites: AUROC 0.63, and 0.69 by ridge).

    Args and shapes as ``fit_number``, with class indices as target.

    Returns:
        (test, num_classes) probabilities; a class that training lacks gets 0.
    """
    present, counts = np.unique(target[train], return_counts=True)
    out = np.zeros((len(test), num_classes))
    out[:, present] = counts / len(train)
    scores, scores_test = principal_scores(kernel, train, test)
    if len(present) == 1 or not scores.shape[1]:
        return out
    if scores.shape[1] <= FEW_AXES:
        scale = np.sqrt((scores**2).sum(0).mean() / len(train))
        out[:, present] = _logistic(scores / scale, target[train], scores_test / scale)
    else:
        indicators = (target[:, None] == present).astype(float)
        out[:, present] = softmax(STEEPNESS * _ridge(kernel, indicators, train, test, groups), axis=1)
    return out


def _logistic(scores: np.ndarray, target: np.ndarray, scores_test: np.ndarray) -> np.ndarray:
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    with config_context(assume_finite=True, skip_parameter_validation=True):
        return LogisticRegression(C=1.0, max_iter=1000).fit(scores, target).predict_proba(scores_test)


def principal_scores(kernel: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of scans on the principal axes of the training scans, whose mean is the origin.

    Kernel principal component analysis (Schölkopf et al. 1998) of a linear kernel.

    Returns:
        (train, axes) and (test, axes).
    """
    inner, cross = kernel[np.ix_(train, train)], kernel[np.ix_(test, train)]
    centre = inner.mean(0)
    values, vectors = np.linalg.eigh(inner - centre - centre[:, None] + centre.mean())
    kept = values > 1e-6 * np.diagonal(inner).mean()  # below it is rounding
    axes = vectors[:, kept] / np.sqrt(values[kept])
    cross = cross - centre - cross.mean(1, keepdims=True) + centre.mean()
    return vectors[:, kept] * np.sqrt(values[kept]), cross @ axes


def inner_folds(groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (fit, check) of up to five folds that never split a group."""
    rank = np.unique(groups, return_inverse=True)[1]
    shuffled = np.random.default_rng(0).permutation(rank.max() + 1)[rank]
    folds = min(INNER_FOLDS, rank.max() + 1)
    for fold in range(folds if folds > 1 else 0):
        yield np.flatnonzero(shuffled % folds != fold), np.flatnonzero(shuffled % folds == fold)
