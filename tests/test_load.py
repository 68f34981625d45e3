"""The load generator of the benchmarks.  Run: pytest tests/test_load.py"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from benchmarks.load import Job, Result, run
from benchmarks.serving import OUR_GRPC, OUR_REST, Way, request
from benchmarks.soak import REFUSED
from serving.launch import Server
from stages.data.processed import Images

each_way = pytest.mark.parametrize("way", [OUR_REST, OUR_GRPC], ids=lambda way: way.protocol)
Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@each_way
def test_a_status_other_than_the_expected_one_is_wrong(
    server: Server, digits: tuple[Images, Images], way: Way
):
    bad = request(server, way, "xgboost", digits[1].images[:1], 2)
    for expected, wrong in ((REFUSED[way.protocol], 0), ("", 10)):
        result = asyncio.run(run(Job(*bad, 2, 20.0, 0.5, expected)))
        assert (result.sent, result.wrong) == (10, wrong)
        assert (result.per_second > 0) == (wrong == 0)


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


def test_a_connection_that_the_server_has_closed_is_made_anew():
    connected = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        await reader.read(65536)
        writer.write(OK)

    result = asyncio.run(run_against(respond, 10.0, 0.5))
    assert (result.sent, result.wrong, connected) == (5, 0, 6)


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
