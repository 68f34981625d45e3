"""What was packaged once is served the same.  Run: pytest tests/test_frozen.py"""

import shutil
from pathlib import Path

import numpy as np
from scratch import ROOT

from serving.client import connect
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.launch import running

FROZEN = ROOT / "tests/frozen"


def test_a_repository_that_was_packaged_before_loads_and_predicts_the_same(tmp_path: Path):
    repository = tmp_path / "serving"
    shutil.copytree(ROOT / "serving/fashion", repository / "fashion")
    shutil.copytree(FROZEN / "models", repository / "models")
    shutil.copy(FROZEN / "settings.json", repository)
    expected = np.load(FROZEN / "expected.npz")
    with running(repository) as server:
        for protocol, url in (("rest", server.rest), ("grpc", server.grpc)):
            with connect(protocol, url) as client:
                models = client.models()
                assert models == ["fashion-sklearn", "fashion-xgboost"]
                for model in models:
                    found = client.infer(model, expected["images"], [LABELS, PROBABILITIES])
                    assert np.array_equal(found[LABELS], expected[f"{model}_{LABELS}"])
                    assert np.allclose(
                        found[PROBABILITIES], expected[f"{model}_{PROBABILITIES}"], atol=1e-6
                    )
