"""Random choices of images that keep the share of each class."""

import numpy as np


def stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Choose `size` positions at random such that each class keeps its share.

    labels: [n]; size: 1 to n; returns int [size], ascending. A class's count is off its exact
    share by less than one: largest remainders first, ties to the lower label, and last those
    classes of which nothing else would be left.
    """
    random = np.random.default_rng(seed)
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * size / len(labels)
    quotas = np.floor(shares).astype(int)
    order = (quotas - shares) * np.where(counts - quotas > 1, 1, 1e-9)
    quotas[np.argsort(order, kind="stable")[: size - quotas.sum()]] += 1
    chosen = [
        random.choice(np.flatnonzero(labels == label), quota, replace=False)
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def split(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All positions, as (the rest, `size` chosen ones), both ascending; see stratified."""
    chosen = stratified(labels, size, seed)
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
