"""Send one request to a server over and over, and time the responses.

Closed loop: each connection sends again as soon as it has the response. Open loop: requests are due
at a fixed rate and timed from then, so that a server which stalls cannot hide behind requests that
were therefore sent later (Tene, "How NOT to measure latency"). No load tool does both for REST and
gRPC by one clock: wrk, hey and h2load time from the sending, and locust takes more of two cores
than the servers do.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
]
Send = Callable[[], Awaitable[bytes]]  # the response; b"" where its status is not the expected one
Record = Callable[[Send, float], Awaitable[None]]  # send, and take the time since it was due


class Job(NamedTuple):
    """What to send, and how.

    protocol: rest or grpc; address: a URL, or host:port and the method after a space; payload: the
    body or message; rate: of requests a second, 0 for a closed loop; seconds: to send for;
    expected: the status of a right response, 200 over rest and OK over grpc if it is empty.
    """

    protocol: str
    address: str
    payload: bytes
    connections: int
    rate: float
    seconds: float
    expected: str = ""


class Result(NamedTuple):
    """Latencies are in milliseconds.

    sent: requests; wrong: responses of another status, or other bytes than the first one;
    seconds: until the last response; per_second: right ones.
    """

    sent: int
    wrong: int
    seconds: float
    per_second: float
    p50: float
    p95: float
    p99: float
    most: float


@asynccontextmanager
async def rest(job: Job) -> AsyncIterator[Send]:
    """One HTTP/1.1 connection, kept alive, and made anew once the server has closed it."""
    url = urlsplit(job.address)
    head = (
        f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(job.payload)}\r\n\r\n"
    )
    request, status = head.encode() + job.payload, f" {job.expected or 200} ".encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)

    async def send() -> bytes:
        nonlocal reader, writer
        if reader.at_eof():
            writer.close()
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            _, length = re.split(rb"(?i)content-length: *", head)
            body = await reader.readexactly(int(length.split(b"\r\n")[0]))
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""
        return body if status in head[:13] else b""

    try:
        yield send
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def grpc(job: Job) -> AsyncIterator[Send]:
    """One channel, with messages as bytes; the details are the response of an error."""
    from grpc import RpcError, aio  # noqa: PLC0415 (takes a second)

    target, method = job.address.split(" ")
    async with aio.insecure_channel(target, GRPC_OPTIONS) as channel:
        call = channel.unary_unary(method)

        async def send() -> bytes:
            try:
                response, status = await call(job.payload), "OK"
            except RpcError as error:
                response, status = error.details().encode(), error.code().name
            return response if status == (job.expected or "OK") else b""

        await channel.channel_ready()
        yield send


async def closed_loop(job: Job, connections: Sequence[Send], record: Record) -> None:
    """Send again and again over each connection."""
    end = time.perf_counter() + job.seconds

    async def repeat(send: Send) -> None:
        while (now := time.perf_counter()) < end:
            await record(send, now)

    await asyncio.gather(*map(repeat, connections))


async def open_loop(job: Job, connections: Sequence[Send], record: Record) -> None:
    """Send on schedule, over whichever connection is free first."""
    free: asyncio.Queue[Send] = asyncio.Queue()
    for send in connections:
        free.put_nowait(send)

    async def once(due: float) -> None:
        send = await free.get()
        await record(send, due)
        free.put_nowait(send)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(round(job.seconds * job.rate)):
            due = start + number / job.rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.create_task(once(due))


async def run(job: Job) -> Result:
    """Do a job. The first response, which does not count, is what the others have to be."""
    latencies, wrong = [], 0
    async with AsyncExitStack() as stack:
        connect = {"rest": rest, "grpc": grpc}[job.protocol]
        connections = [
            await stack.enter_async_context(connect(job)) for _ in range(job.connections)
        ]
        expected = await connections[0]()

        async def record(send: Send, due: float) -> None:
            nonlocal wrong
            response = await send()
            latencies.append(time.perf_counter() - due)
            wrong += not expected or response != expected

        start = time.perf_counter()
        await (open_loop if job.rate else closed_loop)(job, connections, record)
        seconds = time.perf_counter() - start
    sent, marks = len(latencies), np.percentile(latencies, (50, 95, 99, 100)) * 1e3
    rate = round((sent - wrong) / seconds, 3)
    return Result(sent, wrong, round(seconds, 3), rate, *(round(float(m), 3) for m in marks))
