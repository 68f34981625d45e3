"""Send good and bad requests for ten minutes, at 70 % of what a server can do: nothing goes wrong.

Both models, over REST and gRPC, on schedule (see load.py); a tenth of the requests is invalid.
Every response is compared with the first one to the same request, and that with the labels that
the model's files give here.
Loopback only; ends after --minutes, at most an hour.

Run: make soak, or python -m benchmarks.soak [--minutes N], after make run
Writes benchmarks/soak.json, or in less than ten minutes only prints
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from benchmarks import load, results
from benchmarks.processes import cpu_seconds, memory_mb, serving
from benchmarks.results import published
from benchmarks.serving import OUR_GRPC, OUR_REST, Setup, request
from serving.client import connect
from serving.fashion.contract import LABELS
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.packaged import REPOSITORY, models_in
from serving.launch import Server
from stages.console import StageError, run
from stages.data.idx import TEST_FILES

RESULT = Path("benchmarks/soak.json")
SHARE = 0.7  # of saturation
CONNECTIONS = 64
FIRST_RATE, STEP, PROBE_SECONDS = 200.0, 1.15, 5.0
LATE = 1.1  # times the seconds in which requests are due, of a server that falls behind
REJECTED = {"rest": "400", "grpc": "INVALID_ARGUMENT"}
SETTLED_SECONDS = 60.0  # when the first memory is taken that the last is compared with
MINUTES, LONGEST_MINUTES = 10.0, 60.0


class TrafficShare(NamedTuple):
    """Of the mix. share: of all requests; rows: images a request; valid: else to be rejected."""

    setup: Setup
    kind: str
    share: float
    rows: int
    valid: bool


MIX = (
    TrafficShare(OUR_REST, "sklearn", 0.25, 1, valid=True),
    TrafficShare(OUR_REST, "xgboost", 0.25, 1, valid=True),
    TrafficShare(OUR_GRPC, "sklearn", 0.18, 1, valid=True),
    TrafficShare(OUR_GRPC, "xgboost", 0.18, 1, valid=True),
    TrafficShare(OUR_REST, "xgboost", 0.02, 5, valid=True),
    TrafficShare(OUR_GRPC, "sklearn", 0.02, 5, valid=True),
    TrafficShare(OUR_REST, "sklearn", 0.05, 1, valid=False),
    TrafficShare(OUR_GRPC, "xgboost", 0.05, 1, valid=False),
)


def job(
    server: Server, part: TrafficShare, images: np.ndarray, rate: float, seconds: float
) -> load.Job:
    """A share of the mix, at a rate of all; a bad request has a shape of one image too many."""
    count = None if part.valid else part.rows + 1
    sent = request(server, part.setup, part.kind, images[: part.rows], count)
    expected = "" if part.valid else REJECTED[part.setup.protocol]
    return load.Job(*sent, CONNECTIONS, part.share * rate, seconds, expected)


def check_first(server: Server, images: np.ndarray) -> None:
    """Raise StageError unless both models return the labels that their files give here."""
    for model in models_in(REPOSITORY):
        expected = load_classifier(model.path).classify(images)[LABELS]
        for protocol, url in (("rest", server.rest), ("grpc", server.grpc)):
            actual = connect(protocol, url).infer(model.name, images)[LABELS]
            if not np.array_equal(actual, expected):
                raise StageError(f"{model.name} over {protocol}: {actual}, expected {expected}")


async def send_mix(
    server: Server, images: np.ndarray, rate: float, seconds: float
) -> list[load.Result]:
    """All shares at once, at so many requests a second in all."""
    jobs = [job(server, part, images, rate, seconds) for part in MIX]
    return await asyncio.gather(*map(load.run, jobs))


async def saturation(server: Server, images: np.ndarray) -> float:
    """Requests a second of the mix that the server can do: at STEP times that, it falls behind."""
    rate = FIRST_RATE
    while all(
        result.seconds <= LATE * PROBE_SECONDS
        for result in await send_mix(server, images, rate, PROBE_SECONDS)
    ):
        rate *= STEP
    return rate / STEP


async def soak(server: Server, images: np.ndarray, minutes: float) -> dict[str, Any]:
    """Find the rate, send the mix, and return what soak.json holds."""
    most = await saturation(server, images)
    rate, seconds = SHARE * most, 60 * minutes
    print(f"{most:,.0f} requests a second at most; {rate:,.0f} for {minutes:g} minutes", flush=True)
    used, start = cpu_seconds(server), time.monotonic()
    sending = asyncio.create_task(send_mix(server, images, rate, seconds))
    await asyncio.sleep(min(SETTLED_SECONDS, seconds / 2))
    settled = await asyncio.to_thread(memory_mb, server)
    shares = list(zip(MIX, await sending, strict=True))
    cores = (cpu_seconds(server) - used) / (time.monotonic() - start)
    return {
        "saturation_per_second": round(most, 1),
        "offered_per_second": round(rate, 1),
        "minutes": minutes,
        "sent": sum(result.sent for _, result in shares),
        "wrong": sum(result.wrong for _, result in shares),
        "rejected": sum(r.sent - r.wrong for share, r in shares if not share.valid),
        "cpu_cores": round(cores, 2),
        "memory_mb": {"settled": round(settled), "last": round(memory_mb(server))},
        "shares": [
            share._asdict() | {"setup": share.setup._asdict()} | result._asdict()
            for share, result in shares
        ],
    }


def summary(result: dict[str, Any]) -> str:
    """One line."""
    memory = result["memory_mb"]
    return (
        f"{result['sent']:,} requests in {result['minutes']:g} minutes, "
        f"{result['rejected']:,} invalid ones rejected, "
        f"{result['wrong']:,} wrong responses; memory after a minute {memory['settled']:,} MB, "
        f"at the end {memory['last']:,} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="at most an hour")
    minutes = parser.parse_args().minutes
    if not 0 < minutes <= LONGEST_MINUTES:
        raise StageError(f"--minutes is {minutes:g}; expected above 0, at most 60")
    images = published(TEST_FILES).images
    with serving(REPOSITORY) as server:
        check_first(server, images[: max(part.rows for part in MIX)])
        result = uvloop.run(soak(server, images, minutes))
    for share in result["shares"]:
        what = f"{share['kind']} over {share['setup']['protocol']}, {share['rows']} images"
        print(f"{what}: {share['per_second']:,.0f} a second, p99 {share['p99']} ms")
    print(summary(result))
    if minutes >= MINUTES:
        results.write(RESULT, result)
    if result["wrong"]:
        raise StageError(f"{result['wrong']:,} of {result['sent']:,} responses were wrong")


if __name__ == "__main__":
    run(main)
