"""Any classifier predicts as its library does.  Run: pytest tests/test_classifiers.py"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scratch import Digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC
from xgboost import XGBClassifier

from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.model.trees import DEEPEST, SmallBatchTrees
from stages.data.strict_yaml import Section
from stages.training.saved import by_scikit_learn, by_xgboost, save_model

SMALL: dict[str, Any] = {"n_estimators": 4, "max_depth": 3}
CLASSIFIERS = {
    "logistic regression": LogisticRegression(),
    "forest": RandomForestClassifier(10, random_state=1),
    "neighbours": KNeighborsClassifier(3),
    "scaled": make_pipeline(MinMaxScaler(), LogisticRegression()),
    "trees": XGBClassifier(**SMALL),
    "trees that stopped early": XGBClassifier(
        n_estimators=60, learning_rate=1.0, early_stopping_rounds=2
    ),
    "several trees a round": XGBClassifier(**SMALL, num_parallel_tree=2),
    "trees with dropout": XGBClassifier(**SMALL, booster="dart"),
}


pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(params=CLASSIFIERS)
def saved(request: pytest.FixtureRequest, digits: Digits, tmp_path: Path) -> tuple[Any, Path]:
    """A classifier of pixels, and its file."""
    model = CLASSIFIERS[request.param]
    images, labels = digits[0].images[:600], digits[0].labels[:600]
    unseen = {"eval_set": [(digits[1].images, digits[1].labels)], "verbose": False}
    model.fit(images, labels, **(unseen if "early" in request.param else {}))
    by = by_xgboost if isinstance(model, XGBClassifier) else by_scikit_learn
    served = by("any")
    save_model(tmp_path, served, model, Section(), images[:50], features=None)
    return model, tmp_path / served.file


def test_few_and_many_images_of_pixels_are_predicted_as_by_the_library(
    saved: tuple[Any, Path], images: np.ndarray
):
    model, path = saved
    classifier = load_classifier(path)
    expected = model.predict_proba(images[:300].astype(float))
    for size in (1, 20, 300):
        found = classifier.classify(images[:size])
        assert np.allclose(found[PROBABILITIES], expected[:size], atol=1e-6)
        assert (found[LABELS] == found[PROBABILITIES].argmax(axis=1)).all()


def test_an_svc_fitted_without_probabilities_has_some(digits: Digits, tmp_path: Path):
    images, labels = digits[0].images[:300], digits[0].labels[:300]
    model = SVC().fit(images, labels)
    save_model(tmp_path, by_scikit_learn("svc"), model, Section(), images[:9], features=None)
    classifier = load_classifier(tmp_path / "model.joblib")
    labels = classifier.classify(digits[1].images)[LABELS]
    assert (labels == model.predict(digits[1].images)).mean() > 0.9


def test_a_model_without_probabilities_is_an_error(digits: Digits, tmp_path: Path):
    model = Perceptron().fit(digits[0].images[:100], digits[0].labels[:100])
    rows = digits[0].images[:9]
    save_model(tmp_path, by_scikit_learn("x"), model, Section(), rows, features=None)
    with pytest.raises(ValueError, match="expected a classifier with predict_proba, got Perc"):
        load_classifier(tmp_path / "model.joblib")


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


def test_trees_that_are_too_deep_are_rejected():
    with pytest.raises(ValueError, match=f"at most {DEEPEST} levels, got more"):
        SmallBatchTrees(fitted(DEEPEST + 1).get_booster())
