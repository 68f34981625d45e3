"""What the benchmarks send, and how they sum up.  Run: pytest tests/test_benchmarks.py"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from scratch import ROOT

from benchmarks import results, scaling, serving, soak, training
from benchmarks.load import Job, Result, run
from benchmarks.serving import OUR_GRPC, Figures, Load, Setup, ratio, runs_of
from benchmarks.soak import MIX, TrafficShare
from serving.launch import Server
from stages.data.processed import Images

README = (ROOT / "benchmarks/README.md").read_text("utf-8")


@pytest.mark.parametrize(
    "part", MIX, ids=lambda p: f"{p.setup.protocol}-{p.kind}-{p.rows}-{p.valid}"
)
def test_every_part_of_the_soak_gets_the_responses_that_it_expects_and_others_are_wrong(
    server: Server, digits: tuple[Images, Images], part: TrafficShare
):
    job = soak.job(server, part, digits[1].images, 40.0 / part.share, 0.5)
    result = asyncio.run(run(job))
    assert (result.sent, result.wrong) == (20, 0)
    if not part.valid:
        result = asyncio.run(run(job._replace(expected="")))
        assert (result.sent, result.wrong, result.per_second) == (20, 20, 0)


def test_no_two_copies_of_an_image_are_alike_and_the_first_is_the_image(small: Images):
    copies = list(scaling.augmented(small.images, small.labels, 50))
    assert np.array_equal(copies[0][0], small.images)
    assert len({images.tobytes() for images, _ in copies}) == 50
    assert all(np.array_equal(labels, small.labels) for _, labels in copies)


def test_ratios_are_of_runs_of_the_same_repeat_and_above_1_where_ours_is_faster():
    ours, other = Load("sklearn", OUR_GRPC, 8, 1), Load("sklearn", Setup("workers-0", "rest"), 8, 1)
    runs = {
        load: [Figures(speed, 1, 2, 1, 0) for speed in speeds]
        for load, speeds in ((ours, (300, 600)), (other, (100, 100)))
    }
    assert ratio(runs, ours) == "4.50 (3.00–6.00)"


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("scaling", lambda result: scaling.engines_table(result["engines"])),
        ("scaling", lambda result: scaling.svm_table(result["svm"])),
        ("serving", lambda result: serving.table(runs_of(result))),
        ("training", lambda result: training.table(result["medians"])),
    ],
)
def test_the_tables_of_the_page_are_those_of_the_last_results(name: str, table: Any):
    result = json.loads((ROOT / f"benchmarks/{name}.json").read_text("utf-8"))
    assert f"\n\n{table(result)}\n\n" in README
    assert results.describe(result) in " ".join(README.split())


Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def run_against(respond: Respond, rate: float, seconds: float) -> Result:
    """Put a load on a server that does this with each connection, then closes it."""
    handlers: list[Any] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        await respond(reader, writer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        result = await run(Job("rest", f"http://{host}:{port}/", b"{}", 1, rate, seconds))
        await asyncio.gather(*handlers)
        return result


@pytest.mark.parametrize(("rate", "hidden"), [(100.0, False), (0.0, True)])
def test_a_server_that_stalls_cannot_hide_from_an_open_loop(rate: float, hidden: bool):
    """At 100 requests a second, half of them wait; in a closed loop, one of many."""
    count = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while await reader.read(65536):
            count += 1
            if count == 3:
                await asyncio.sleep(0.5)
            writer.write(OK)

    result = asyncio.run(run_against(respond, rate, 1.0))
    assert result.sent == 100 or hidden
    assert result.p95 < 100 if hidden else result.p95 > 300


def test_a_response_that_ends_early_or_differs_from_the_first_is_wrong():
    count = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while await reader.read(65536):
            count += 1
            writer.write({2: OK[:-1], 3: OK.replace(b"ok", b"no")}.get(count, OK))
            if count == 2:
                break

    result = asyncio.run(run_against(respond, 10.0, 0.5))
    assert (result.sent, result.wrong) == (5, 2)
