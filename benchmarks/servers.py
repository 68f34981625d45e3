"""Servers to measure, the blog's and this project's: what to ask them, and what that takes."""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks.load import Job, Result
from benchmarks.ways import BLOG_SETTINGS, train
from serving.client import infer_request
from serving.fashion.contract import INPUT_NAME, PIXELS
from serving.fashion.packaged import MODEL_SETTINGS
from serving.launch import Server
from stages.errors import StageError

BLOG = Path("data/blog")  # the blog's models, trained once, which takes six minutes
METHOD = "/inference.GRPCInferenceService/ModelInfer"
KINDS = ("sklearn", "xgboost")
TRAINING_IMAGES = 60_000


class Way(NamedTuple):
    """Whom to ask, blog or fashion, and how: rest, in JSON of FP64, or grpc, in raw UINT8."""

    whose: str
    protocol: str


BLOG_REST, OUR_REST, OUR_GRPC = Way("blog", "rest"), Way("fashion", "rest"), Way("fashion", "grpc")
WHOSE = ("blog", "fashion")
WAYS = (BLOG_REST, OUR_REST, OUR_GRPC)


def blog_repository() -> Path:
    """The repository of the blog's models, which are trained unless they are there."""
    for kind in KINDS:
        target = BLOG / "models" / f"blog-{kind}"
        if target.exists():
            continue
        print(f"training the blog's model with {kind}, once", flush=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BLOG, prefix=".part-") as scratch:
            train(f"blog_{kind}", TRAINING_IMAGES, Path(scratch))
            (folder,) = Path(scratch, "models").iterdir()
            settings = json.loads((folder / MODEL_SETTINGS).read_text(encoding="utf-8"))
            settings["name"] = target.name
            (folder / MODEL_SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
            folder.rename(target)
    (BLOG / "settings.json").write_text(BLOG_SETTINGS, encoding="utf-8")
    return BLOG


def question(
    server: Server, way: Way, kind: str, images: np.ndarray, claimed: int | None = None
) -> tuple[str, str, bytes]:
    """Protocol, address and payload of a Job that asks one model about these images.

    claimed: how many they are said to be, another number than there are for a bad request.
    """
    model, shape = f"{way.whose}-{kind}", [claimed or len(images), PIXELS]
    if way.protocol == "grpc":
        return way.protocol, f"{server.grpc} {METHOD}", message(model, images, shape)
    body = infer_request(images, "FP64") | {"id": "1"}
    body["inputs"][0]["shape"] = shape
    return way.protocol, f"{server.rest}/v2/models/{model}/infer", json.dumps(body).encode()


def message(model: str, images: np.ndarray, shape: Sequence[int]) -> bytes:
    """The message of gRPC that asks a model about images, in raw UINT8."""
    from tritonclient.grpc import service_pb2 as pb  # noqa: PLC0415 (see GrpcClient)

    request = pb.ModelInferRequest(model_name=model, id="1")
    request.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=shape)
    request.raw_input_contents.append(images.tobytes())
    return request.SerializeToString()


def start_load(asked: Job) -> subprocess.Popen[str]:
    """Begin to ask, in a process of its own; `end_load` waits for what comes of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    content: dict[str, Any] = asked._asdict()
    process.stdin.write(json.dumps(content | {"payload": base64.b64encode(asked.payload).decode()}))
    process.stdin.close()
    process.stdin = None  # which communicate() would flush
    return process


def end_load(process: subprocess.Popen[str]) -> Result:
    """What came of a load. Raises StageError if it could not be put on."""
    said, error = process.communicate()
    if process.returncode:
        raise StageError(f"benchmarks.load: {error.strip()}")
    return Result(**json.loads(said))


def processes(server: Server) -> list[psutil.Process]:
    """The server's own processes, not the guard that ends them."""
    return psutil.Process(server.guard.pid).children(recursive=True)


def cpu_seconds(server: Server) -> float:
    """That the server's processes have used so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes(server))


def memory_mb(server: Server) -> float:
    """Of all of the server's processes: their own, and once the files, libraries mostly, that they
    share. (Linux also divides shared pages by those who share them, other programs included, whose
    end would then look like growth.)
    """
    told = [Path(f"/proc/{process.pid}/status").read_text("utf-8") for process in processes(server)]
    own, mapped = ([_resident(text, kind) for text in told] for kind in ("Anon", "File"))
    return (sum(own) + max(mapped)) / 1e6


def _resident(status: str, kind: str) -> int:
    """Bytes of a process in memory that no file, or that a file, stands behind."""
    found = re.search(rf"Rss{kind}:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0
