"""Array lookups add up a forest's leaves as XGBoost does.  Run: pytest tests/test_trees.py"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from xgboost import XGBClassifier

from serving.fashion.model.trees import DEEPEST, SmallBatchTrees

FEATURES = 7


def fitted(depth: int) -> XGBClassifier:
    random = np.random.default_rng(depth)
    rows = random.normal(size=(1500, FEATURES)).astype(np.float32).round(1)  # some of them equal
    labels = (rows[:, 0] * rows[:, 1] > 0) + 2 * (rows[:, 2] > random.normal(size=1500))
    return XGBClassifier(max_depth=depth, n_estimators=6, n_jobs=1).fit(rows, labels)


@pytest.fixture(scope="module", params=[1, 3, DEEPEST])
def both(request: pytest.FixtureRequest) -> tuple[XGBClassifier, SmallBatchTrees]:
    model = fitted(request.param)
    return model, SmallBatchTrees(model.get_booster())


ordinary = st.floats(-4, 4, width=32)
on_a_threshold = ordinary.map(lambda value: round(value, 1))
extreme = st.sampled_from([0.0, -np.inf, np.inf, float(np.finfo(np.float32).max)])


@settings(deadline=None, max_examples=25)
@given(
    rows=arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.just(FEATURES)),
        elements=st.one_of(ordinary, on_a_threshold, extreme),
    )
)
def test_margins_are_those_of_xgboost_to_the_bit(
    both: tuple[XGBClassifier, SmallBatchTrees], rows: np.ndarray
):
    model, forest = both
    assert np.array_equal(forest(rows), model.predict(rows, output_margin=True))


def test_trees_that_are_too_deep_are_refused():
    with pytest.raises(ValueError, match=f"at most {DEEPEST} levels, got {DEEPEST + 1}"):
        SmallBatchTrees(fitted(DEEPEST + 1).get_booster())
