"""Margins of boosted trees for a few images at once, by array lookups.

XGBoost's prediction takes 0.6 ms before the first image, as it prepares for thousands.
"""

import json

import numpy as np
from xgboost import Booster

DEEPEST = 8  # levels; trees are filled up to 2^levels leaves each


class SmallBatchTrees:
    """The trees of a Booster that was fitted with `multi:softprob`, and the sums of their leaves.

    Every tree is filled up to a perfect one, level by level: below a leaf is twice the leaf itself.
    So from node i of a level a step leads to node 2i or 2i + 1 of the next. Raises ValueError for
    trees deeper than DEEPEST levels, and for a booster of another kind than one tree a class and
    round.

    Source of the format: XGBoost, "Introduction to Model IO", JSON schema.
    """

    def __init__(self, booster: Booster) -> None:
        learner = json.loads(booster.save_raw("json"))["learner"]
        self._base = np.array(json.loads(learner["learner_model_param"]["base_score"]), np.float32)
        boosted = learner["gradient_booster"]
        if boosted["name"] != "gbtree":
            raise ValueError(f"expected a booster gbtree, got {boosted['name']}")
        trees = boosted["model"]["trees"]
        if boosted["model"]["tree_info"] != [n % len(self._base) for n in range(len(trees))]:
            raise ValueError("expected one tree a class and round")

        def of_all_nodes(name: str) -> np.ndarray:
            return np.concatenate([tree[name] for tree in trees])

        sizes = [len(tree["left_children"]) for tree in trees]
        roots = np.cumsum([0, *sizes[:-1]])
        root = np.repeat(roots, sizes)  # of each node's tree
        is_leaf, itself = of_all_nodes("left_children") < 0, np.arange(sum(sizes))
        left = np.where(is_leaf, itself, root + of_all_nodes("left_children"))
        right = np.where(is_leaf, itself, root + of_all_nodes("right_children"))
        # Of a leaf: what it adds, and a test that always leads left.
        values = of_all_nodes("split_conditions").astype(np.float32)
        features = np.where(is_leaf, 0, of_all_nodes("split_indices"))
        thresholds = np.where(is_leaf, np.float32(np.inf), values)
        self._trees, nodes = np.arange(len(trees)), roots
        self._levels: list[tuple[np.ndarray, np.ndarray]] = []
        while not is_leaf[nodes].all():
            if len(self._levels) == DEEPEST:
                raise ValueError(f"expected trees of at most {DEEPEST} levels, got more")
            self._levels.append((features[nodes], thresholds[nodes]))
            nodes = np.stack([left[nodes], right[nodes]], axis=1).ravel()
        self._leaves = values[nodes]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Margins, float32 [n, classes], of float32 [n, k] features; the same bits as XGBoost's."""
        places = np.arange(len(rows))[:, None] * rows.shape[1]
        nodes = np.tile(self._trees, (len(rows), 1))
        values = rows.ravel()
        for features, thresholds in self._levels:
            right = values.take(features.take(nodes) + places) >= thresholds.take(nodes)
            nodes *= 2
            nodes += right
        # As XGBoost adds them, one round after the other.
        rounds = self._leaves.take(nodes).reshape(len(rows), -1, len(self._base))
        return np.add.reduce(np.insert(rounds, 0, self._base, axis=1), axis=1)
