"""Ridge and logistic regression in dual form: from inner products (n, n) of scans, however many voxels they have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

PENALTIES = 10.0 ** np.arange(-4, 5)  # relative to the mean variance of a principal axis
INVERSE_PENALTIES = 10.0 ** np.arange(-4, 1)
FEW_AXES = 10  # up to so many, the choice of penalty hardly matters: it is 1
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
    errors = np.zeros(len(PENALTIES))
    for fit, check in inner_folds(groups):
        predicted = _ridge_path(kernel, target, train[fit], train[check])
        errors += ((predicted - target[train[check], None]) ** 2).sum(0)
    return _ridge_path(kernel, target, train, test)[:, errors.argmin()]


def _ridge_path(kernel: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predictions for every penalty: (test, penalties)."""
    scores, scores_test = principal_scores(kernel, train, test)
    mean = target[train].mean()
    variance = (scores**2).sum(0)  # of each axis
    penalty = PENALTIES * variance.mean() if len(variance) else PENALTIES
    slopes = (scores.T @ (target[train] - mean))[:, None] / (variance[:, None] + penalty)
    return mean + scores_test @ slopes


def fit_classes(kernel: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray, groups: np.ndarray,
                num_classes: int) -> np.ndarray:
    """Logistic regression on principal scores; the penalty has the least log loss over inner folds.

    Args and shapes as ``fit_number``, with class indices as target.

    Returns:
        (test, num_classes) probabilities; a class that training lacks gets 0.
    """
    losses = np.zeros(len(INVERSE_PENALTIES))
    for fit, check in inner_folds(groups):
        truth = target[train[check]]
        path = _logistic_path(kernel, target, train[fit], train[check], INVERSE_PENALTIES, num_classes)
        losses -= np.log(np.clip(path[:, np.arange(len(truth)), truth], 1e-6, 1)).sum(1)
    return _logistic_path(kernel, target, train, test, INVERSE_PENALTIES[[losses.argmin()]], num_classes)[0]


def _logistic_path(kernel: np.ndarray, target: np.ndarray, train: np.ndarray, test: np.ndarray, strengths: np.ndarray,
                   num_classes: int) -> np.ndarray:
    """Probabilities for every inverse penalty: (penalties, test, num_classes)."""
    present, counts = np.unique(target[train], return_counts=True)
    out = np.zeros((len(strengths), len(test), num_classes))
    out[..., present] = counts / len(train)
    scores, scores_test = principal_scores(kernel, train, test)
    if len(present) == 1 or not scores.shape[1]:
        return out
    if scores.shape[1] <= FEW_AXES:
        strengths = np.ones(len(strengths))
    scale = np.sqrt((scores**2).sum(0).mean() / len(train))
    for i, strength in enumerate(strengths):  # equal neighbours need no second fit
        out[i][:, present] = out[i - 1][:, present] if i and strength == strengths[i - 1] else _logistic(
            scores / scale, target[train], scores_test / scale, strength)
    return out


def _logistic(scores: np.ndarray, target: np.ndarray, scores_test: np.ndarray, strength: float) -> np.ndarray:
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    with config_context(assume_finite=True, skip_parameter_validation=True):
        return LogisticRegression(C=strength, max_iter=1000).fit(scores, target).predict_proba(scores_test)


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
