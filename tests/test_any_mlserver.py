"""The packaged models under servers of MLServer's own.  Run: pytest tests/test_any_mlserver.py

Without settings.json's repository, with workers, or where MLServer is none that was tested.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import ready
from scratch import edit_json, run, slow
from wire import MODELS, REJECTED, body, infer, log_of, offline, tensor

from serving.client import connect
from serving.fashion.contract import LABELS
from serving.launch import MLSERVER, on_free_ports

REPOSITORY = "model_repository_implementation"
# An MLServer of a version that was not tested.
UNTESTED = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: "1.8.0" if name == "mlserver" else version(name)
from mlserver.cli import main
main()
"""


def without_ours(repository: Path, workers: int = 0) -> None:
    def change(settings: dict[str, Any]) -> None:
        del settings[REPOSITORY], settings[f"{REPOSITORY}_args"]
        settings["parallel_workers"] = workers

    edit_json(repository / "settings.json", change)


@pytest.mark.parametrize("kind", ["no repository of ours", slow("workers"), slow("untested")])
def test_both_protocols_give_the_labels_that_the_files_give(
    own_repository: Path,
    tmp_path: Path,
    images: np.ndarray,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
):
    if kind == "untested":
        monkeypatch.setattr("processes.MLSERVER", [sys.executable, "-c", UNTESTED, "start"])
    else:
        without_ours(own_repository, 2 if kind == "workers" else 0)
    with ready(own_repository, tmp_path) as server:
        for model in MODELS:
            labels = offline(own_repository, model, images[:20])[LABELS].tolist()
            request = body(tensor(images[:20], datatype="UINT8"), outputs=(LABELS, "label"))
            for protocol in ("rest", "grpc"):
                response = infer(server, protocol, model, request)
                assert response.outputs[LABELS] == labels
                assert len(response.outputs["label"]) == len(labels)
                with connect(protocol, getattr(server, protocol)) as client:
                    assert client.infer(model, images[:20])[LABELS].tolist() == labels
                bad = infer(server, protocol, model, body(tensor([1.0, 2.0], [1, 2])))
                assert bad.status == REJECTED
                assert "expected shape [n, 784]" in bad.error
        warning = "MLServer 1.8.0 is not one of those tested, 1.7.1 and 1.7.2rc1: "
        assert (warning in log_of(server)) == (kind == "untested")


def ends(repository: Path, folder: Path, **more: str) -> str:
    """What a server says that ends by itself."""
    return run(folder, *MLSERVER, str(repository), expect=None, **(on_free_ports(folder) | more))


@pytest.mark.parametrize("variable", ["FASHION_TOKEN_FILE", slow("FASHION_REQUEST_LOG")])
def test_what_only_our_servers_do_is_not_left_out_silently(
    own_repository: Path, tmp_path: Path, variable: str
):
    without_ours(own_repository)
    text = ends(own_repository, tmp_path, **{variable: str(tmp_path / "file")})
    assert f"{variable} is set, which MLServer's servers ignore; expected" in text
    assert not (tmp_path / "file").exists()


def test_a_model_that_was_altered_is_not_served(own_repository: Path, tmp_path: Path):
    without_ours(own_repository)
    (file,) = own_repository.rglob("*.joblib")
    file.write_bytes(file.read_bytes() + b"x")
    assert "expected SHA-256" in ends(own_repository, tmp_path)
