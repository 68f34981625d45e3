"""What is served is what the models say offline.  Run: pytest tests/test_parity.py -s"""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scratch import Digits
from wire import MODELS

from serving.client import Client, GrpcClient, Outputs, RestClient
from serving.fashion.contract import LABELS, OUTPUTS, PROBABILITIES
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.packaged import models_in
from serving.launch import Server
from stages.evaluation.checks import TOLERANCE

SIZES = (1, 1, 1, 2, 63, 64, 65)


@pytest.fixture(scope="module")
def images(digits: Digits) -> np.ndarray:
    return np.concatenate([digits[0].images, digits[1].images])


@pytest.fixture(scope="module")
def offline(repository: Path, images: np.ndarray) -> dict[str, Outputs]:
    return {m.name: load_classifier(m.path).classify(images) for m in models_in(repository)}


def client(server: Server, protocol: str) -> Client:
    return RestClient(server.rest) if protocol == "rest" else GrpcClient(server.grpc)


def check(served: Outputs, offline: Outputs, rows: np.ndarray) -> None:
    """Labels must be equal, but where two classes are as probable as each other."""
    expected = offline[PROBABILITIES][rows]
    assert np.abs(served[PROBABILITIES] - expected).max() < TOLERANCE
    first, second = np.sort(expected, axis=1)[:, [-1, -2]].T
    clear = first - second > TOLERANCE
    assert np.array_equal(served[LABELS][clear], offline[LABELS][rows][clear])
    assert clear.mean() > 0.99


def test_batches_that_arrive_together_over_both_protocols_are_served_as_offline(
    server: Server, images: np.ndarray, offline: dict[str, Outputs]
):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    requests_ = [
        (
            str(rng.choice(["rest", "grpc"])),
            str(rng.choice(MODELS)),
            rng.integers(0, len(images), size),
        )
        for size in [*rng.choice(SIZES, 200), *[1000] * 4]
    ]

    def one(request: tuple[str, str, np.ndarray]) -> None:
        protocol, model, rows = request
        served = client(server, protocol).infer(model, images[rows], OUTPUTS)
        check(served, offline[model], rows)

    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(one, requests_))) == len(requests_)
