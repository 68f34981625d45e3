"""Fit the class scores that the boosted trees see (serving/fashion/trees.py)."""

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from serving.fashion.trees import ROWS, Scores, kernel
from stages.errors import StageError
from stages.params import ClassScores
from stages.progress import progress
from stages.split import stratified


def fit_scores(
    features: np.ndarray, labels: np.ndarray, columns: int, params: ClassScores
) -> tuple[Scores, np.ndarray]:
    """Fit on float32 [n, k] features with labels [n], 0 to classes - 1.

    Returns the scores for images that are not among these, and float32 [n, classes] for these
    ones: each is scored by a regression on the other folds, which has not seen its label.

    Sources: Williams and Seeger, Using the Nyström method to speed up kernel machines, NIPS 2000
    (landmarks); Wolpert, Stacked generalization, Neural Networks 5, 1992 (folds).
    Raises StageError when params.ridge is too small for the number of landmarks.
    """
    count = min(params.landmarks, len(labels))
    landmarks = features[stratified(labels, count, params.seed)]
    gamma = np.array(params.gamma, np.float32)
    targets = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    targets -= targets.mean(axis=0)
    fold_of = np.random.default_rng(params.seed).permutation(len(labels)) % params.folds
    folds = [np.flatnonzero(fold_of == fold) for fold in range(params.folds)]
    with progress("scoring", 2 * len(labels), "images") as advance:
        grams = np.zeros((params.folds, count, count), np.float32)
        moments = np.zeros((params.folds, count, targets.shape[1]), np.float32)
        for fold, rows in enumerate(folds):
            for part in np.array_split(rows, -(-len(rows) // ROWS)):
                values = kernel(features[part], landmarks, gamma)
                grams[fold] += values.T @ values
                moments[fold] += values.T @ targets[part]
                advance(len(part))
        gram, moment = grams.sum(axis=0, dtype=np.float64), moments.sum(axis=0, dtype=np.float64)
        gram[np.diag_indices(count)] += params.ridge * np.trace(gram) / count
        held_out = np.empty_like(targets)
        for fold, rows in enumerate(folds):
            weights = _solve(gram - grams[fold], moment - moments[fold], params)
            held_out[rows] = kernel(features[rows], landmarks, gamma) @ weights
            advance(len(rows))
        weights = _solve(gram, moment, params)
    return Scores(np.array(columns), landmarks, gamma, weights), held_out


def _solve(gram: np.ndarray, moment: np.ndarray, params: ClassScores) -> np.ndarray:
    try:
        factor = cho_factor(gram.T, overwrite_a=True, check_finite=False)  # .T: Fortran's order
    except LinAlgError:
        raise StageError(
            f"params.yaml: scores.ridge is {params.ridge:g}; "
            f"expected more, for {params.landmarks:,} landmarks"
        ) from None
    return cho_solve(factor, moment).astype(np.float32)
