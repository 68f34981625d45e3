"""Measure the accuracy of the packaged models over the wire, from a live MLServer.

Reads   serving/, data/processed/test.npz
Writes  metrics/evaluation.json             per model: accuracy, macro F1, top-2 accuracy, log loss,
                                            calibration error, recall by class, rows; accuracy over
                                            each protocol; whether every answer equals the offline
                                            one, and the metadata what is served
        metrics/predictions/<name>.csv      of each image, in order: actual and predicted class,
                                            and the probability of the latter
        metrics/plots/recall.csv            of each model and class
        metrics/plots/reliability.csv       of each model, in bins of how sure it was: how sure, how
                                            often right, how many images
        metrics/plots/mistakes/<name>.png   the images that it was wrong about and surest of
Params  evaluate.batch_size, evaluate.min_accuracy
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    recall_score,
)
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from serving.client import AnswerError, Answers, Client, GrpcClient, RestClient
from serving.fashion.contract import (
    FEATURES_FILE,
    IMAGES,
    LABELS,
    OUTPUTS,
    PIXELS,
    PROBABILITIES,
)
from serving.fashion.integrity import sha256
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.model.features import FeatureMap, read_features
from serving.fashion.model.svm import decisions
from serving.fashion.packaged import MODEL_SETTINGS, Model, RepositoryError, models_in, newest
from serving.launch import ServerError, running
from stages.atomic import replacing
from stages.dataset import PROCESSED, Images, read_npz
from stages.errors import StageError, run
from stages.params import load_params
from stages.plots import (
    DECIMALS,
    METRICS,
    PLOTS,
    PREDICTIONS,
    write_gallery,
    write_predictions,
    write_recall,
    write_reliability,
)
from stages.progress import progress
from stages.reliability import calibration_error

SERVING = Path("serving")
LIBRARY_SAMPLE, LIBRARY_TOLERANCE = 200, 1e-3  # images; of a decision, where 1 is the margin
TOLERANCE = 1e-11  # of a probability; the SVM's sums are rounded in another order


def served_answers(
    clients: dict[str, Client], models: list[Model], batches: list[np.ndarray]
) -> dict[Model, dict[str, Answers]]:
    """Each model's answers to all batches, uint8 [≤ batch_size, 784] each, by protocol.

    Both models and both protocols are asked at the same time, as they are served.
    """

    def ask(model: Model, client: Client) -> Answers:
        answers = []
        for batch in batches:
            answers.append(client.infer(model.name, batch, OUTPUTS, model.version))
            advance(len(batch))
        return joined(answers)

    questions = [(model, client) for model in models for client in clients.values()]
    total = len(questions) * sum(map(len, batches))
    with (
        progress("asking both models over both protocols", total, "images") as advance,
        ThreadPoolExecutor(len(questions)) as pool,
    ):
        answers = pool.map(lambda question: ask(*question), questions)
        return {model: {p: next(answers) for p in clients} for model in models}


def joined(answers: list[Answers]) -> Answers:
    """Answers to several batches as one."""
    return {name: np.concatenate([part[name] for part in answers]) for name in answers[0]}


def offline_answer(path: Path, batches: list[np.ndarray]) -> Answers:
    """The answer to all batches from the model's files, loaded here."""
    classifier = load_classifier(path)
    return joined([classifier.classify(batch) for batch in batches])


def check_library(path: Path, images: np.ndarray) -> None:
    """Raise StageError when the SVM's decisions are not those of scikit-learn's own prediction.

    That one is slow and computes in float64, so a sample is compared, spread over the images.
    """
    model = joblib.load(path)
    sample = images[:: max(1, len(images) // LIBRARY_SAMPLE)]
    features = FeatureMap(read_features(path.parent / FEATURES_FILE))(sample)
    off = np.abs(library_decisions(model, features) - decisions(model)(features)).max()
    if off > LIBRARY_TOLERANCE:
        raise StageError(
            f"{path}: a decision is {off:.2g} off scikit-learn's own, "
            f"expected at most {LIBRARY_TOLERANCE:g}"
        )


def library_decisions(model: SVC | Pipeline, features: np.ndarray) -> np.ndarray:
    """Those of scikit-learn itself, in float64, of all pairs: [n, pairs], above 0 for the first."""
    exact = features.astype(np.float64)
    if isinstance(model, Pipeline):
        mapped = model[0].transform(exact)
        return -np.stack([pair.decision_function(mapped) for pair in model[-1].estimators_], 1)
    values = model.set_params(decision_function_shape="ovo").decision_function(exact)
    # Of two classes, it has one column, above 0 for the second.
    return -values[:, None] if values.ndim == 1 else values


def check_equal(model: Model, served: Answers, offline: Answers) -> None:
    """Raise StageError when a served label or probability differs from the offline one."""
    labels, wanted = served[LABELS], offline[LABELS]
    differing = np.flatnonzero(labels != wanted)
    if len(differing):
        first = differing[0]
        raise StageError(
            f"{model.name}: {len(differing):,} of {len(labels):,} served labels differ from "
            f"the offline ones, first image {first:,}: served {labels[first]}, "
            f"offline {wanted[first]}"
        )
    off = np.abs(served[PROBABILITIES] - offline[PROBABILITIES]).max()
    if not off <= TOLERANCE:
        raise StageError(
            f"{model.name}: a served probability is {off:.2g} off the offline one, "
            f"expected at most {TOLERANCE:g}"
        )


def check_images(model: Model, served: Answers, images: np.ndarray) -> None:
    """Raise StageError when a model saw other pixels than were sent; uint8 [n, 784]."""
    differing = np.flatnonzero((served[IMAGES] != images).any(axis=1))
    if len(differing):
        raise StageError(
            f"{model.name}: saw other pixels than were sent in {len(differing):,} of "
            f"{len(images):,} images, first image {differing[0]:,}"
        )


def untruths(
    model: Model, told: dict[str, Any], served: Answers, class_names: tuple[str, ...]
) -> list[str]:
    """Where what the server tells of a model is not what it serves, in words.

    told: the answer of the metadata route; served: all outputs.
    """
    kinds = {"INT64": "i", "FP64": "f", "BYTES": "O", "UINT8": "u"}
    facts: dict[str, tuple[Any, Any]] = {
        "name": (told["name"], model.name),
        "versions": (model.version in told["versions"], True),
        "inputs": (
            [(i["datatype"], i["shape"]) for i in told["inputs"]],
            [("UINT8", [-1, PIXELS])],
        ),
        "outputs": (
            {o["name"]: (kinds[o["datatype"]], o["shape"]) for o in told["outputs"]},
            {n: (v.dtype.kind, [-1, *v.shape[1:]]) for n, v in served.items()},
        ),
    }
    if "parameters" in told:  # which Triton's protocol buffers have no field for
        files = {p.name: sha256(p) for p in model.path.parent.iterdir() if p.name != MODEL_SETTINGS}
        names = told["parameters"]["class_names"]
        facts["class names"] = (json.loads(names), list(class_names))
        facts["SHA-256"] = (json.loads(told["parameters"]["sha256"]), files)
    return [
        f"{model.name}: its metadata tells {what} {came}, expected {expected}"
        for what, (came, expected) in facts.items()
        if came != expected
    ]


def scores(data: Images, answer: Answers) -> dict[str, Any]:
    """Accuracy, macro F1, recall by class, log loss, calibration error, top-2 accuracy, rows."""
    actual, predicted, probabilities = data.labels, answer[LABELS], answer[PROBABILITIES]
    known = np.unique(actual)
    every = np.arange(len(data.class_names))
    recall = recall_score(actual, predicted, average=None, labels=known)
    top_2 = np.argsort(probabilities, axis=1, kind="stable")[:, -2:]
    values = {
        "accuracy": accuracy_score(actual, predicted),
        "macro_f1": f1_score(actual, predicted, average="macro"),
        "top_2_accuracy": (top_2 == actual[:, None]).any(axis=1).mean(),
        "log_loss": log_loss(actual, probabilities, labels=every),
        "calibration_error": calibration_error(predicted == actual, probabilities.max(axis=1)),
    }
    return {
        **{name: round(float(value), DECIMALS) for name, value in values.items()},
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


def main() -> None:
    params, data = load_params().evaluate, read_npz(PROCESSED / "test.npz")
    batches = np.split(data.images, range(params.batch_size, len(data.images), params.batch_size))
    try:
        models = newest(models_in(SERVING))
        with running(SERVING) as server:
            clients = {"rest": RestClient(server.rest), "grpc": GrpcClient(server.grpc)}
            served = served_answers(clients, models, batches)
            told = {m: [c.metadata(m.name, m.version) for c in clients.values()] for m in models}
    except (RepositoryError, ServerError, AnswerError) as error:
        raise StageError(str(error)) from None
    results, judged = {}, {}
    for model, answers in served.items():
        offline = offline_answer(model.path, batches)
        for answer in answers.values():
            check_equal(model, answer, offline)
            check_images(model, answer, data.images)
        wrong = [u for t in told[model] for u in untruths(model, t, answer, data.class_names)]
        if wrong:
            raise StageError("\n".join(wrong))
        if model.path.suffix == ".joblib":
            check_library(model.path, data.images)
        result = scores(data, offline)
        check_accuracy(model, result["accuracy"], params.min_accuracy)
        results[model.name] = result | {
            "over": {name: scores(data, answer)["accuracy"] for name, answer in answers.items()},
            "served_equals_offline": all(
                np.array_equal(answer[LABELS], offline[LABELS]) for answer in answers.values()
            ),
            "metadata_is_true": not wrong,
        }
        print(
            f"{model.name} {model.version}: accuracy {result['accuracy']:.4f} on "
            f"{result['rows']:,} images, every answer over REST and gRPC as offline"
        )
        labels, confidence = offline[LABELS], offline[PROBABILITIES].max(axis=1)
        judged[model.name] = labels == data.labels, confidence
        write_predictions(PREDICTIONS / f"{model.name}.csv", data, labels, confidence)
        write_gallery(PLOTS / f"mistakes/{model.name}.png", data, labels, confidence)
    write_recall(PLOTS / "recall.csv", {name: r["recall"] for name, r in results.items()})
    write_reliability(PLOTS / "reliability.csv", judged)
    with replacing(METRICS) as part:
        part.write_text(json.dumps(results, indent=4) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
