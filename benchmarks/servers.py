"""Servers to measure, MLServer's own and this project's: requests, processor time, memory."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from benchmarks.figures import BASELINES, KINDS, Way
from benchmarks.processes import MB, in_new_process
from benchmarks.training import ALL, train
from serving.client import infer_request
from serving.fashion.contract import INPUT_NAME, PIXELS
from serving.launch import Server

BLOG = Path("data/blog")  # the blog's models, trained once, which takes six minutes
# Logs of each request would cost MLServer time.
SETTINGS = {"workers-0": {"debug": False, "parallel_workers": 0}, "default": {"debug": False}}
METHOD = "/inference.GRPCInferenceService/ModelInfer"


def baseline_repository(baseline: str) -> Path:
    """The blog's models under one of BASELINES, for a server that starts before the next call.

    The models are trained unless they are there.
    """
    for kind in KINDS:
        if not (BLOG / f"models/blog-{kind}").exists():
            print(f"training the blog's model with {kind}, once", flush=True)
            in_new_process(train, f"blog_{kind}", ALL, BLOG, f"blog-{kind}")
    (BLOG / "settings.json").write_text(json.dumps(SETTINGS[baseline]), encoding="utf-8")
    return BLOG


def request(
    server: Server, way: Way, kind: str, images: np.ndarray, count: int | None = None
) -> tuple[str, str, bytes]:
    """Protocol, address and payload of a Job that sends these images to one model.

    count: of images in the shape, another number than there are for a bad request.
    """
    model = f"{'blog' if way.whose in BASELINES else way.whose}-{kind}"
    shape = [count or len(images), PIXELS]
    if way.protocol == "grpc":
        return way.protocol, f"{server.grpc} {METHOD}", _message(model, images, shape)
    body = infer_request(images, "FP64") | {"id": "1"}
    body["inputs"][0]["shape"] = shape
    return way.protocol, f"{server.rest}/v2/models/{model}/infer", json.dumps(body).encode()


def _message(model: str, images: np.ndarray, shape: Sequence[int]) -> bytes:
    from tritonclient.grpc import service_pb2 as pb  # noqa: PLC0415 (see GrpcClient)

    message = pb.ModelInferRequest(model_name=model, id="1")
    message.inputs.add(name=INPUT_NAME, datatype="UINT8", shape=shape)
    message.raw_input_contents.append(images.tobytes())
    return message.SerializeToString()


def processes(server: Server) -> list[psutil.Process]:
    """The server's own processes, not the guard that ends them."""
    return psutil.Process(server.guard.pid).children(recursive=True)


def cpu_seconds(server: Server) -> float:
    """That the server's processes have used so far."""
    return sum(sum(process.cpu_times()[:2]) for process in processes(server))


def memory_mb(server: Server) -> float:
    """Of all of the server's processes, the files that they share, libraries mostly, once.

    (Linux also divides shared pages by the processes that have them, other programs' included,
    whose end would then look like growth.)
    """
    of = [process.memory_info() for process in processes(server)]
    return float(sum(m.rss - m.shared for m in of) + max(m.shared for m in of)) / MB
