"""The load generator of the benchmarks.  Run: pytest tests/test_load.py"""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from processes import wait_until
from scratch import ROOT, run
from wire import body, message, tensor

from benchmarks import load
from benchmarks.load import Job
from serving.launch import Server
from stages.dataset import Images

INFER = "/inference.GRPCInferenceService/ModelInfer"


def generate(**job: Any) -> dict[str, Any]:
    """What the generator says, as a process of its own."""
    job["payload"] = base64.b64encode(job["payload"]).decode()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=ROOT,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def question(
    server: Server, protocol: str, image: Any, datatype: str = "FP64"
) -> tuple[str, bytes]:
    """Where to ask, and what."""
    model = "fashion-xgboost"
    request = body(tensor(image, datatype=datatype), id="1")
    if protocol == "rest":
        return f"{server.rest}/v2/models/{model}/infer", json.dumps(request).encode()
    return f"{server.grpc} {INFER}", message(request, model, raw=True).SerializeToString()


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("rate", [0.0, 50.0])
def test_a_server_answers_all_alike(
    server: Server, digits: tuple[Images, Images], protocol: str, rate: float
):
    address, payload = question(server, protocol, digits[1].images[:1])
    said = generate(
        protocol=protocol, address=address, payload=payload, connections=4, rate=rate, seconds=1.0
    )
    assert said["sent"] == 50 if rate else said["sent"] > 8
    assert said["wrong"] == 0
    assert 0 < said["p50"] <= said["p95"] <= said["p99"] <= said["most"]


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_refusals_are_counted(server: Server, digits: tuple[Images, Images], protocol: str):
    address, payload = question(server, protocol, digits[1].images[:1], datatype="INT64")
    wrong = payload.replace(b"INT64", b"INT65")
    said = generate(
        protocol=protocol, address=address, payload=wrong, connections=2, rate=20.0, seconds=0.5
    )
    assert said["sent"] == said["wrong"] == 10
    assert said["per_second"] == 0


@pytest.mark.parametrize(("protocol", "status"), [("rest", "400"), ("grpc", "INVALID_ARGUMENT")])
def test_a_refusal_may_be_what_is_expected(
    server: Server, digits: tuple[Images, Images], protocol: str, status: str
):
    address, payload = question(server, protocol, digits[1].images[:1], datatype="INT64")
    for asked, wrong in ((payload.replace(b"INT64", b"INT65"), 0), (payload, 10)):
        said = generate(
            protocol=protocol,
            address=address,
            payload=asked,
            connections=2,
            rate=20.0,
            seconds=0.5,
            expected=status,
        )
        assert (said["sent"], said["wrong"]) == (10, wrong)


@asynccontextmanager
async def stalling(stall: float) -> AsyncIterator[str]:
    """A server that answers at once, but the third question only after so many seconds."""
    asked, hung_up = 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.read(65536):
            asked += 1
            if asked == 3:
                await asyncio.sleep(stall)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/"
        await hung_up.wait()


async def ask_a_stalling_server(rate: float) -> load.Result:
    async with stalling(0.5) as address:
        return await load.run(Job("rest", address, b"{}", 1, rate, 1.0))


def test_a_server_that_stalls_cannot_hide_from_an_open_loop():
    """Asked 100 times a second, it lets half of them wait; a closed loop sees one of many."""
    opened, closed = (asyncio.run(ask_a_stalling_server(rate)) for rate in (100.0, 0.0))
    assert opened.sent == 100
    assert opened.p95 is not None
    assert closed.p95 is not None
    assert opened.p95 > 300
    assert closed.p95 < 100


async def ask_a_server_that_hangs_up() -> tuple[load.Result, int]:
    connected = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        result = await load.run(Job("rest", f"http://{host}:{port}/", b"{}", 1, 10.0, 0.5))
    return result, connected


def test_a_connection_that_the_server_has_closed_is_made_anew():
    result, connected = asyncio.run(ask_a_server_that_hangs_up())
    assert (result.sent, result.wrong, connected) == (5, 0, 6)


def test_a_wrong_job_is_an_error():
    assert "Expecting value" in run(ROOT, sys.executable, "-m", "benchmarks.load", expect=1)


def test_a_generator_ends_with_the_process_that_started_it(server: Server):
    job = {"protocol": "rest", "address": f"{server.rest}/v2", "payload": "", "connections": 1}
    job |= {"rate": 10.0, "seconds": 60.0}
    code = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-m', 'benchmarks.load', str(os.getpid())]\n"
        "one = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
        "one.stdin.write(sys.argv[1].encode()); one.stdin.close(); print(one.pid)"
    )
    started = int(run(ROOT, sys.executable, "-c", code, json.dumps(job)))
    wait_until(lambda: not psutil.pid_exists(started), "the generator has ended")
