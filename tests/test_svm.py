"""Matrix products label as scikit-learn's own SVC does.  Run: pytest tests/test_svm.py"""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from serving.fashion.svm import ROWS, KernelClassifier
from stages.dataset import Images
from stages.params import Params
from stages.train_sklearn import train


def problem(classes: int, size: int = 600) -> tuple[np.ndarray, np.ndarray]:
    return make_classification(
        size, 12, n_informative=8, n_classes=classes, class_sep=0.7, random_state=3
    )


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": "linear"},
        {"kernel": "rbf", "gamma": 0.05},
        {"kernel": "poly", "degree": 4, "coef0": 0.5},
        {"kernel": "sigmoid", "gamma": 0.01, "coef0": -0.1},
    ],
    ids=lambda settings: settings["kernel"],
)
def test_every_kernel_and_number_of_classes_gives_the_labels_of_scikit_learn(
    classes: int, settings: dict[str, object]
):
    features, labels = problem(classes)
    pipeline = Pipeline([("scale", StandardScaler()), ("svc", SVC(**settings))])
    pipeline.fit(features[:300], labels[:300] + 5)
    agree = KernelClassifier(pipeline).predict(features) == pipeline.predict(features)
    assert agree.mean() > 0.995


def test_labels_do_not_depend_on_the_size_of_the_batch(
    digits: tuple[Images, Images], params: Params
):
    classifier = KernelClassifier(train(digits[0].images, digits[0].labels, params.svm))
    images = np.resize(digits[1].images, (2 * ROWS + 1, 784))
    whole = classifier.predict(images)
    for size in (1, 63, ROWS - 1, ROWS, ROWS + 1):
        assert np.array_equal(classifier.predict(images[:size]), whole[:size])


def test_labels_of_digits_are_those_of_scikit_learn(digits: tuple[Images, Images], params: Params):
    pipeline = train(digits[0].images, digits[0].labels, params.svm)
    images = digits[1].images
    assert np.array_equal(KernelClassifier(pipeline).predict(images), pipeline.predict(images))
