"""Measure the accuracy of the packaged models over the wire, from a live MLServer.

Reads   serving/, data/processed/test.npz
Writes  metrics/models/<name>.json          accuracy, calibration error, log loss, macro F1, images
        metrics/predictions/<name>.csv      of each image, in order: actual and predicted class,
                                            and the probability of the latter
        metrics/plots/recall.csv            of each model and class
        metrics/plots/reliability.csv       of each model, in bins of how sure it was: how sure, how
                                            often right, how many images
        metrics/plots/mistakes/<name>.png   the images that it was wrong about and surest of
        metrics/expected.yml                shares of classes, confidence: for alerts
Params  evaluate.batch_size, evaluate.min_accuracy

All of it is what the server returned over REST, once gRPC and the models' files give the same.
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.evaluate")

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from serving.client import Client, GrpcClient, Outputs, ResponseError, RestClient
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.packaged import Model, models_in, newest
from serving.launch import ServerError, running
from stages.console import StageError, progress, run
from stages.data.processed import PROCESSED, read_npz
from stages.evaluation.checks import check_model
from stages.evaluation.metrics import recorded
from stages.evaluation.plots import read_metrics, write_results
from stages.params import load_params

SERVING = Path("serving")
COMPARED = LABELS, PROBABILITIES  # with what the files give, and recorded


def served_outputs(
    clients: list[Client], models: list[Model], batches: list[np.ndarray]
) -> dict[Model, list[Outputs]]:
    """Each model's outputs to all batches, uint8 [≤ batch_size, 784] each, by client.

    Requests go to all models and over all protocols at the same time, as in serving.
    """

    def infer_all(model: Model, client: Client) -> Outputs:
        outputs = []
        for batch in batches:
            outputs.append(client.infer(model.name, batch, COMPARED, model.version))
            advance(len(batch))
        return {name: np.concatenate([batch[name] for batch in outputs]) for name in COMPARED}

    total = len(models) * len(clients) * sum(map(len, batches))
    with (
        progress("evaluating over REST and gRPC", total, "images") as advance,
        ThreadPoolExecutor(len(models) * len(clients)) as pool,
    ):
        pending = {m: [pool.submit(infer_all, m, client) for client in clients] for m in models}
        return {model: [future.result() for future in found] for model, found in pending.items()}


def check_accuracy(accuracies: Mapping[str, float], minimum: float) -> None:
    """Raise StageError, a line each, where the accuracy of a model is below the minimum."""
    expected = f"expected at least {minimum:g} (params.yaml: evaluate.min_accuracy)"
    low = [f"{name}: accuracy {a:.4f}, {expected}" for name, a in accuracies.items() if a < minimum]
    if low:
        raise StageError("\n".join(low))


def main() -> None:
    params, data = load_params().evaluate, read_npz(PROCESSED / "test.npz")
    batches = np.split(data.images, range(params.batch_size, len(data.images), params.batch_size))
    try:
        models = newest(models_in(SERVING))
        with running(SERVING) as server:
            clients = [RestClient(server.rest), GrpcClient(server.grpc)]
            served = served_outputs(clients, models, batches)
    except (ServerError, ResponseError) as error:
        raise StageError(str(error)) from None
    for model in models:
        check_model(model, data.images, served[model])
    write_results(data, {model.name: recorded(served[model][0]) for model in models})
    metrics = read_metrics()
    for model in models:
        print(
            f"{model.name} {model.version}: accuracy {metrics[model.name]['accuracy']:.4f} on "
            f"{len(data.images):,} images, served predictions match offline"
        )
    check_accuracy({name: m["accuracy"] for name, m in metrics.items()}, params.min_accuracy)


if __name__ == "__main__":
    run(main)
