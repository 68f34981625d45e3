"""Margins of boosted trees for a few images at once, by array lookups.

XGBoost's prediction takes 0.6 ms before the first image, as it prepares for thousands.
"""

import json
from typing import Any

import numpy as np
from xgboost import Booster

DEEPEST = 8  # levels; trees are filled up to 2^levels leaves each


class SmallBatchTrees:
    """The trees of a Booster that was fitted with `multi:softprob`, and the sums of their leaves.

    Every tree is filled up to a perfect one, level by level, so that from node i of a level a step
    leads to node 2i or 2i + 1 of the next. Raises ValueError for trees deeper than DEEPEST levels,
    and for a booster of another kind than one tree a class and round.

    Source of the format: XGBoost, "Introduction to Model IO", JSON schema.
    """

    def __init__(self, booster: Booster) -> None:
        learner = json.loads(booster.save_raw("json"))["learner"]
        self._base = np.array(json.loads(learner["learner_model_param"]["base_score"]), np.float32)
        boosted = learner["gradient_booster"]
        if boosted["name"] != "gbtree":
            raise ValueError(f"expected a booster gbtree, got {boosted['name']}")
        trees = [_Tree(tree) for tree in boosted["model"]["trees"]]
        if boosted["model"]["tree_info"] != [n % len(self._base) for n in range(len(trees))]:
            raise ValueError("expected one tree a class and round")
        depth = max(tree.depth() for tree in trees)
        if depth > DEEPEST:
            raise ValueError(f"expected trees of at most {DEEPEST} levels, got {depth}")
        self._trees = np.arange(len(trees))
        self._levels = []
        nodes = [[0] for _ in trees]
        for _ in range(depth):
            tests = [
                tree.test(node) for tree, row in zip(trees, nodes, strict=True) for node in row
            ]
            features, thresholds = zip(*tests, strict=True)
            self._levels.append((np.array(features), np.array(thresholds, np.float32)))
            nodes = [
                [below for node in row for below in tree.below(node)]
                for tree, row in zip(trees, nodes, strict=True)
            ]
        leaves = [tree.values[node] for tree, row in zip(trees, nodes, strict=True) for node in row]
        self._leaves = np.array(leaves, np.float32)

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


class _Tree:
    """A tree of the file."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.values = content["split_conditions"]  # of a leaf: what it adds
        self._features = content["split_indices"]
        self._children = list(zip(content["left_children"], content["right_children"], strict=True))

    def depth(self, node: int = 0) -> int:
        """Tests below a node, on the longest path."""
        if self._is_leaf(node):
            return 0
        return 1 + max(self.depth(below) for below in self._children[node])

    def test(self, node: int) -> tuple[int, float]:
        """Feature and threshold of a node; of a leaf, a test that always leads left."""
        return (0, np.inf) if self._is_leaf(node) else (self._features[node], self.values[node])

    def below(self, node: int) -> tuple[int, int]:
        """The next nodes; below a leaf, itself."""
        return (node, node) if self._is_leaf(node) else self._children[node]

    def _is_leaf(self, node: int) -> bool:
        return self._children[node][0] < 0
