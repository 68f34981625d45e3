"""Ask a server one question, over and over, and say how long the answers took.

Closed loop: so many connections, each asking again as soon as it is answered. Open loop: questions
at a fixed rate, each timed from the moment at which it was due, so that a server which stalls
cannot hide behind questions that were therefore asked later (Tene, "How NOT to measure latency").
No load tool does both for REST and gRPC by one clock: wrk, hey and h2load time from the sending,
and locust takes more of two cores than the servers do.

Run: python -m benchmarks.load [PARENT] < job.json, see `Job`; it prints a `Result` as JSON, and
ends early when it is no longer the child of the process with the number PARENT
"""

import asyncio
import base64
import json
import os
import resource
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import numpy as np
import uvloop

HTTP = 80
LOOK_SECONDS = 0.5
GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
]


class Job(NamedTuple):
    """What to ask, and how.

    protocol: rest or grpc; address: a URL, or host:port and the method after a space; payload: the
    body or message; rate: of requests per second, 0 for a closed loop; seconds: to ask for;
    expected: the status that a right answer has, 200 over rest and OK over grpc if it is empty.
    """

    protocol: str
    address: str
    payload: bytes
    connections: int
    rate: float
    seconds: float
    expected: str = ""


class Result(NamedTuple):
    """What came of it. Latencies in milliseconds, none if nothing was answered.

    sent: requests; wrong: not answered, refused, or answered otherwise than the first time;
    seconds: until the last answer; cpu_seconds: of this generator.
    """

    sent: int
    wrong: int
    seconds: float
    per_second: float
    p50: float | None
    p95: float | None
    p99: float | None
    most: float | None
    cpu_seconds: float


class Connection(ABC):
    """A connection that asks one question at a time."""

    @abstractmethod
    async def open(self) -> Self:
        """Connect."""

    @abstractmethod
    async def ask(self) -> bytes:
        """The answer, or its words if it is to be a refusal; b"" for another status."""

    @abstractmethod
    async def close(self) -> None:
        """Hang up."""


class RestConnection(Connection, asyncio.Protocol):
    """HTTP/1.1, kept alive, with as little work as possible beside the server."""

    def __init__(self, job: Job) -> None:
        self._url = urlsplit(job.address)
        head = (
            f"POST {self._url.path} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(job.payload)}\r\n\r\n"
        )
        self._question = head.encode() + job.payload
        self._expected = f" {job.expected or 200} ".encode()
        self._came = bytearray()

    async def open(self) -> Self:
        """Connect."""
        self._lost = asyncio.Event()
        loop = asyncio.get_running_loop()
        place = self._url.hostname or "", self._url.port or HTTP
        self._transport, _ = await loop.create_connection(lambda: self, *place)
        return self

    async def ask(self) -> bytes:
        """As Connection has it: the body."""
        if self._transport.is_closing():  # by the server, as it was idle for long
            await self._lost.wait()
            await self.open()
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport.write(self._question)
        return await self._answer

    async def close(self) -> None:
        """Hang up."""
        self._transport.close()
        await self._lost.wait()

    def data_received(self, data: bytes) -> None:
        """Of an answer, which may come in parts."""
        self._came += data
        head, blank, body = bytes(self._came).partition(b"\r\n\r\n")
        if not blank:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) >= int(fields[b"content-length"]):
            self._answer.set_result(body if self._expected in head[:13] else b"")
            self._came.clear()

    def connection_lost(self, _: Exception | None) -> None:
        """The server hung up."""
        self._lost.set()
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_result(b"")


class GrpcConnection(Connection):
    """A channel of gRPC, which is given messages as bytes and gives them so."""

    def __init__(self, job: Job) -> None:
        import grpc.aio  # noqa: PLC0415

        target, method = job.address.split(" ")
        self._error, self._payload = grpc.RpcError, job.payload
        self._expected = job.expected or grpc.StatusCode.OK.name
        self._channel = grpc.aio.insecure_channel(target, GRPC_OPTIONS)
        self._call = self._channel.unary_unary(method)

    async def open(self) -> Self:
        """Connect."""
        await self._channel.channel_ready()
        return self

    async def ask(self) -> bytes:
        """As Connection has it: the message, or the details."""
        try:
            answer, status = await self._call(self._payload), "OK"
        except self._error as error:
            answer, status = error.details().encode(), error.code().name
        return answer if status == self._expected else b""

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()


class Load:
    """What was asked so far, and what came of it."""

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self.latencies: list[float] = []
        self.wrong = 0

    async def ask(self, connection: Connection, due: float) -> None:
        """Ask once; the answer counts from when it was due."""
        answer = await connection.ask()
        self.latencies.append(time.perf_counter() - due)
        self.wrong += answer != self._expected

    async def closed(self, connection: Connection, end: float) -> None:
        """Ask again and again."""
        while (now := time.perf_counter()) < end:
            await self.ask(connection, now)

    async def open(self, connections: list[Connection], rate: float, end: float) -> None:
        """Ask on schedule, by whichever connection is free first."""
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in connections:
            free.put_nowait(connection)

        async def once(due: float) -> None:
            connection = await free.get()
            await self.ask(connection, due)
            free.put_nowait(connection)

        start, asked = time.perf_counter(), set()
        for number in range(round((end - start) * rate)):
            due = start + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            asked.add(task := asyncio.create_task(once(due)))
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)


async def run(job: Job) -> Result:
    """Put the load on. The first answer tells what the others have to be."""
    kinds: dict[str, Callable[[Job], Connection]] = {"rest": RestConnection, "grpc": GrpcConnection}
    async with AsyncExitStack() as stack:
        connections: list[Connection] = []
        for _ in range(job.connections):
            connection = await kinds[job.protocol](job).open()
            stack.push_async_callback(connection.close)
            connections.append(connection)
        load = Load(expected := await connections[0].ask())
        used, start = _cpu_seconds(), time.perf_counter()
        end = start + job.seconds
        if job.rate:
            await load.open(connections, job.rate, end)
        else:
            await asyncio.gather(*(load.closed(connection, end) for connection in connections))
        seconds = time.perf_counter() - start
    if not expected:  # refused, each time
        load.wrong = len(load.latencies)
    return summary(load, seconds, _cpu_seconds() - used)


def summary(load: Load, seconds: float, cpu_seconds: float) -> Result:
    """The figures of a load."""
    sent = len(load.latencies)
    marks = np.percentile(load.latencies, (50, 95, 99, 100)) * 1e3 if sent else [None] * 4
    p50, p95, p99, most = (None if m is None else round(float(m), 3) for m in marks)
    rate = round((sent - load.wrong) / seconds, 3)
    used, seconds = round(cpu_seconds, 3), round(seconds, 3)
    return Result(sent, load.wrong, seconds, rate, p50, p95, p99, most, used)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it has ended: nobody would read the result."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def main() -> None:
    parent = int(sys.argv[1]) if sys.argv[1:] else os.getppid()
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    given: dict[str, Any] = json.load(sys.stdin)
    job = Job(**given | {"payload": base64.b64decode(given["payload"])})
    print(json.dumps(uvloop.run(run(job))._asdict()))


if __name__ == "__main__":
    main()
