"""Measure the accuracy of the packaged models over the wire, from a live MLServer.

Reads   serving/, data/processed/test.npz
Writes  metrics/evaluation.json             per model: accuracy, macro F1, top-2 accuracy, log loss,
                                            calibration error, recall by class, rows; labels that
                                            were compared with the offline ones, and that differ
        metrics/expected.yml                shares of classes, confidence: for alerts
        metrics/predictions/<name>.csv      of each image, in order: actual and predicted class,
                                            and the probability of the latter
        metrics/plots/recall.csv            of each model and class
        metrics/plots/reliability.csv       of each model, in bins of how sure it was: how sure, how
                                            often right, how many images
        metrics/plots/mistakes/<name>.png   the images that it was wrong about and surest of
Params  evaluate.batch_size, evaluate.min_accuracy
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.evaluate")

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from serving.client import Client, GrpcClient, Outputs, ResponseError, RestClient
from serving.fashion.contract import LABELS, OUTPUTS, PROBABILITIES
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.packaged import Model, RepositoryError, models_in, newest
from serving.launch import ServerError, running
from stages.console import StageError, progress, run
from stages.data.arrays import atomic_write
from stages.data.processed import PROCESSED, read_npz
from stages.evaluation.alerts import EXPECTED, expected, write_expected
from stages.evaluation.checks import check_equal, check_images, check_library, check_metadata
from stages.evaluation.metrics import evaluation_metrics
from stages.evaluation.plots import (
    METRICS,
    PLOTS,
    PREDICTIONS,
    write_gallery,
    write_predictions,
    write_recall,
    write_reliability,
)
from stages.params import load_params

SERVING = Path("serving")


def served_outputs(
    clients: dict[str, Client], models: list[Model], batches: list[np.ndarray]
) -> dict[Model, dict[str, Outputs]]:
    """Each model's outputs to all batches, uint8 [≤ batch_size, 784] each, by protocol.

    Both models and both protocols are asked at the same time, as they are served.
    """

    def infer_all(model: Model, client: Client) -> Outputs:
        outputs = []
        for batch in batches:
            outputs.append(client.infer(model.name, batch, OUTPUTS, model.version))
            advance(len(batch))
        return concatenate(outputs)

    requests = [(model, client) for model in models for client in clients.values()]
    total = len(requests) * sum(map(len, batches))
    with (
        progress("asking both models over both protocols", total, "images") as advance,
        ThreadPoolExecutor(len(requests)) as pool,
    ):
        outputs = pool.map(lambda request: infer_all(*request), requests)
        return {model: {p: next(outputs) for p in clients} for model in models}


def concatenate(outputs: list[Outputs]) -> Outputs:
    """Outputs to several batches as one."""
    return {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}


def offline_outputs(path: Path, batches: list[np.ndarray]) -> Outputs:
    """The outputs to all batches from the model's files, loaded here."""
    classifier = load_classifier(path)
    return concatenate([classifier.classify(batch) for batch in batches])


def check_accuracy(model: Model, accuracy: float, minimum: float) -> None:
    """Raise StageError when the accuracy is below the minimum."""
    if accuracy < minimum:
        raise StageError(
            f"{model.name}: accuracy {accuracy:.4f}, "
            f"expected at least {minimum:g} (params.yaml: evaluate.min_accuracy)"
        )


def main() -> None:
    params, data = load_params().evaluate, read_npz(PROCESSED / "test.npz")
    batches = np.split(data.images, range(params.batch_size, len(data.images), params.batch_size))
    try:
        models = newest(models_in(SERVING))
        with running(SERVING) as server:
            clients = {"rest": RestClient(server.rest), "grpc": GrpcClient(server.grpc)}
            served = served_outputs(clients, models, batches)
            metadata = {
                m: [client.metadata(m.name, m.version) for client in clients.values()]
                for m in models
            }
    except (RepositoryError, ServerError, ResponseError) as error:
        raise StageError(str(error)) from None
    results, judged, rules = {}, {}, []
    for model, by_protocol in served.items():
        offline = offline_outputs(model.path, batches)
        for outputs, described in zip(by_protocol.values(), metadata[model], strict=True):
            check_equal(model, outputs, offline)
            check_images(model, outputs, data.images)
            check_metadata(model, described, outputs, data.class_names)
        if model.path.suffix == ".joblib":
            check_library(model.path, data.images)
        result = evaluation_metrics(data, offline)
        check_accuracy(model, result["accuracy"], params.min_accuracy)
        labels, confidence = offline[LABELS], offline[PROBABILITIES].max(axis=1)
        served_labels = np.concatenate([outputs[LABELS] for outputs in by_protocol.values()])
        different = served_labels != np.tile(labels, len(by_protocol))
        results[model.name] = result | {
            "labels_compared": len(different),
            "labels_different": int(different.sum()),
        }
        print(
            f"{model.name} {model.version}: accuracy {result['accuracy']:.4f} on "
            f"{result['rows']:,} images, every answer over REST and gRPC as offline"
        )
        rules += expected(model.name, data.class_names, labels, confidence)
        judged[model.name] = labels == data.labels, confidence
        write_predictions(PREDICTIONS / f"{model.name}.csv", data, labels, confidence)
        write_gallery(PLOTS / f"mistakes/{model.name}.png", data, labels, confidence)
    write_recall(PLOTS / "recall.csv", {name: r["recall"] for name, r in results.items()})
    write_reliability(PLOTS / "reliability.csv", judged)
    write_expected(EXPECTED, rules)
    with atomic_write(METRICS) as part:
        part.write_text(json.dumps(results, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
