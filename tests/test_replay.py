"""Logged requests tell what another server would change.  Run: pytest tests/test_replay.py"""

import json
from pathlib import Path

import numpy as np
from processes import ready, wait_until
from scratch import ROOT, run, write_log

from serving.client import GrpcClient, RestClient
from serving.fashion.logged import read_log
from serving.launch import Server


def replay(server: Server, folder: Path, *options: str, expect: int = 0) -> str:
    address = ("--url", server.grpc if "grpc" in options else server.rest)
    command = ("python", "-m", "serving.client", "replay", str(folder), *address, *options)
    return run(ROOT, *command, expect=expect)


def test_logged_images_are_sent_again_and_what_changes_is_told(
    repository: Path, tmp_path: Path, images: np.ndarray
):
    log, counts = tmp_path / "log", {"fashion-sklearn": 4, "fashion-xgboost": 3}
    variables = {"FASHION_REQUEST_LOG": str(log), "FASHION_REQUEST_LOG_IMAGES": "1"}
    with ready(repository, tmp_path, **variables) as server:
        assert "expected requests with pixels for a model" in replay(server, log, expect=1)
        for model, count in counts.items():
            with RestClient(server.rest) as rest, GrpcClient(server.grpc) as grpc:
                for place in range(count):
                    (rest, grpc)[place % 2].infer(model, images[10 * place :][:10])
        wait_until(lambda: len(list(read_log(log))) == 7, "seven lines")
        kept, lines = tmp_path / "kept", list(read_log(log))
        write_log(kept, lines)
        for protocol in ("rest", "grpc"):
            found = json.loads(replay(server, kept, "--json", "--protocol", protocol))
            for model, count in counts.items():
                change = found[model]
                assert (change["requests"], change["images"]) == (count, 10 * count)
                assert change["changed"] == 0
                assert change["probability"] < 1e-5
                assert min(change["logged_ms"], change["now_ms"]) > 0
        lines[0].labels[0] += 1 if lines[0].labels[0] < 9 else -1
        write_log(kept, lines)
        assert " 1        0.0250" in replay(server, kept, expect=3)
        assert " 1        0.0250" in replay(server, kept, "--allow", "0.03")
        assert " 1        0.0250" in replay(server, kept, "--allow", "0.02", expect=3)
        only = replay(server, kept, "--model", "fashion-xgboost")
        assert "fashion-xgboost  3         30" in only
        assert "fashion-sklearn" not in only
        assert "not found" in replay(server, kept, "--version", "v9", expect=1)
