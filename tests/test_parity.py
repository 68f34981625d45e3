"""What is served is what the models say offline.  Run: pytest tests/test_parity.py -s"""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scratch import Digits

from serving.client import connect
from serving.fashion.contract import OUTPUTS
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.packaged import Model, models_in
from serving.launch import Server
from stages.evaluation.checks import check_equal

SIZES = (1, 1, 1, 2, 63, 64, 65)


def test_batches_that_arrive_together_over_both_protocols_are_served_as_offline(
    server: Server, repository: Path, digits: Digits
):
    images = np.concatenate([part.images for part in digits])
    models = models_in(repository)
    offline = {m.name: load_classifier(m.path).classify(images) for m in models}
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    requests = [
        (rng.integers(2), models[rng.integers(2)], rng.integers(0, len(images), size))
        for size in [*rng.choice(SIZES, 200), *[1000] * 4]
    ]

    def check(request: tuple[int, Model, np.ndarray]) -> None:
        protocol, model, rows = request
        address = (("rest", server.rest), ("grpc", server.grpc))[protocol]
        with connect(*address) as client:
            served = client.infer(model.name, images[rows], OUTPUTS)
        expected = {name: values[rows] for name, values in offline[model.name].items()}
        check_equal(model, served, expected)

    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(check, requests))) == len(requests)
