"""Measure the accuracy of the packaged models over the wire, from a live MLServer.

Reads   serving/, data/processed/test.npz
Writes  metrics/evaluation.json             per model: accuracy, macro F1, recall by class, rows,
                                            whether each served label equals the offline one
        metrics/predictions/<name>.csv      actual and predicted class, for the confusion plots
Params  evaluate.batch_size, evaluate.min_accuracy
"""

import csv
import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score
from xgboost import XGBClassifier

from serving.client import AnswerError, infer
from serving.fashion.svm import KernelClassifier
from serving.server import Model, ServerError, models_in, running
from stages.atomic import replacing
from stages.dataset import PROCESSED, Images, read_npz
from stages.errors import StageError, run
from stages.params import load_params
from stages.progress import progress

SERVING = Path("serving")
LIBRARY_SAMPLE, LIBRARY_AGREEMENT = 500, 0.99
METRICS, PREDICTIONS = Path("metrics/evaluation.json"), Path("metrics/predictions")
DECIMALS = 6  # of a metric


def served_labels(url: str, model: Model, batches: list[np.ndarray]) -> np.ndarray:
    """Labels of all batches, uint8 [≤ batch_size, 784] each, from the server at url; int64 [n]."""
    labels = []
    with progress(f"asking {model.name}", sum(map(len, batches)), "images") as advance:
        for batch in batches:
            labels.append(infer(url, model.name, model.version, batch))
            advance(len(batch))
    return np.concatenate(labels)


def offline_labels(path: Path, batches: list[np.ndarray]) -> np.ndarray:
    """Labels of all batches from the model's file, loaded here; int64 [n]."""
    if path.suffix == ".joblib":
        model = KernelClassifier(joblib.load(path))
    else:
        model = XGBClassifier()
        model.load_model(path)
    return np.concatenate([model.predict(batch) for batch in batches])


def check_library(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Raise StageError when the SVM's labels are not those of scikit-learn's own prediction.

    That one is slow, so a sample is asked, spread over the images; it computes in float64, so
    one label in a hundred may differ where two classes are all but equal.
    """
    step = max(1, len(images) // LIBRARY_SAMPLE)
    own = joblib.load(path).predict(images[::step])
    agreement = float((own == labels[::step]).mean())
    if agreement < LIBRARY_AGREEMENT:
        raise StageError(
            f"{path}: {agreement:.1%} of the labels are those of scikit-learn's own prediction, "
            f"expected at least {LIBRARY_AGREEMENT:.0%}"
        )


def check_equal(model: Model, served: np.ndarray, offline: np.ndarray) -> None:
    """Raise StageError when a served label differs from the offline one."""
    differing = np.flatnonzero(served != offline)
    if len(differing):
        first = differing[0]
        raise StageError(
            f"{model.name}: {len(differing):,} of {len(served):,} served labels differ from the "
            f"offline ones, first image {first:,}: served {served[first]}, offline {offline[first]}"
        )


def scores(data: Images, predicted: np.ndarray) -> dict[str, Any]:
    """Accuracy, macro F1, recall by class name, rows. predicted: [n], labels."""
    macro_f1 = f1_score(data.labels, predicted, average="macro")
    known = np.unique(data.labels)
    recall = recall_score(data.labels, predicted, average=None, labels=known)
    return {
        "accuracy": round(float(accuracy_score(data.labels, predicted)), DECIMALS),
        "macro_f1": round(float(macro_f1), DECIMALS),
        "recall": {
            data.class_names[label]: round(float(value), DECIMALS)
            for label, value in zip(known, recall, strict=True)
        },
        "rows": len(predicted),
    }


def check_accuracy(model: Model, accuracy: float, minimum: float) -> None:
    """Raise StageError when the accuracy is below the minimum."""
    if accuracy < minimum:
        raise StageError(
            f"{model.name}: accuracy {accuracy:.4f}, "
            f"expected at least {minimum:g} (params.yaml: evaluate.min_accuracy)"
        )


def write_predictions(path: Path, data: Images, predicted: np.ndarray) -> None:
    """Write the actual and the predicted class name of each image, as CSV."""
    names = np.array(data.class_names)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["actual", "predicted"])
        table.writerows(zip(names[data.labels], names[predicted], strict=True))


def main() -> None:
    params, data = load_params().evaluate, read_npz(PROCESSED / "test.npz")
    batches = np.split(data.images, range(params.batch_size, len(data.images), params.batch_size))
    try:
        models = models_in(SERVING)
        with running(SERVING) as server:
            served = {model: served_labels(server.rest, model, batches) for model in models}
    except (ServerError, AnswerError) as error:
        raise StageError(str(error)) from None
    results = {}
    for model, labels in served.items():
        offline = offline_labels(model.path, batches)
        check_equal(model, labels, offline)
        if model.path.suffix == ".joblib":
            check_library(model.path, data.images, labels)
        result = scores(data, labels)
        result["served_equals_offline"] = bool(np.array_equal(labels, offline))
        check_accuracy(model, result["accuracy"], params.min_accuracy)
        results[model.name] = result
        print(
            f"{model.name} {model.version}: accuracy {result['accuracy']:.4f} "
            f"on {result['rows']:,} images, every label as offline"
        )
    for model, labels in served.items():
        write_predictions(PREDICTIONS / f"{model.name}.csv", data, labels)
    with replacing(METRICS) as part:
        part.write_text(json.dumps(results, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
