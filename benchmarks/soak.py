"""Ask a server for ten minutes, well and badly, at 70 % of what it can answer: nothing goes wrong.

Both models, over REST and gRPC, on schedule (see load.py); a tenth of the requests must be refused.
Every answer is held against the first of its kind, and that against the model's files, asked
without a server. Loopback only; ends after --minutes, at most an hour.

Run: make soak, or python -m benchmarks.soak [--minutes N], after make run
Writes benchmarks/soak.json
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.conditions import conditions
from benchmarks.load import Job, Result
from benchmarks.servers import (
    OUR_GRPC,
    OUR_REST,
    Way,
    cpu_seconds,
    end_load,
    memory_mb,
    question,
    start_load,
)
from serving.client import connect
from serving.fashion.contract import CLASS_NAMES, LABELS
from serving.fashion.packaged import REPOSITORY, models_in
from serving.launch import Server, running
from stages.dataset import RAW, TEST_FILES, read_idx
from stages.errors import StageError, run
from stages.evaluate import offline_answer

RESULT = Path("benchmarks/soak.json")
SHARE = 0.7  # of saturation
CONNECTIONS, SAMPLE_SECONDS = 64, 10.0
FIRST_RATE, STEP, PROBE_SECONDS = 200.0, 1.15, 5.0
LATE = 1.1  # times the seconds for which questions came, of a server that falls behind
REFUSED = {"rest": "400", "grpc": "INVALID_ARGUMENT"}
SETTLED_SECONDS = 60.0  # when the first memory is taken that the last is held against
LONGEST_MINUTES = 60.0


class Part(NamedTuple):
    """Of the mix. share: of all requests; rows: images a request; good: not to be refused."""

    way: Way
    kind: str
    share: float
    rows: int
    good: bool


MIX = (
    Part(OUR_REST, "sklearn", 0.25, 1, good=True),
    Part(OUR_REST, "xgboost", 0.25, 1, good=True),
    Part(OUR_GRPC, "sklearn", 0.18, 1, good=True),
    Part(OUR_GRPC, "xgboost", 0.18, 1, good=True),
    Part(OUR_REST, "xgboost", 0.02, 5, good=True),
    Part(OUR_GRPC, "sklearn", 0.02, 5, good=True),
    Part(OUR_REST, "sklearn", 0.05, 1, good=False),
    Part(OUR_GRPC, "xgboost", 0.05, 1, good=False),
)


def job(server: Server, part: Part, images: np.ndarray, rate: float, seconds: float) -> Job:
    """A part of the mix at a rate; a bad one claims one image more than it brings."""
    claimed = None if part.good else part.rows + 1
    asked = question(server, part.way, part.kind, images[: part.rows], claimed)
    expected = "" if part.good else REFUSED[part.way.protocol]
    return Job(*asked, CONNECTIONS, rate, seconds, expected)


def check_first(server: Server, images: np.ndarray) -> None:
    """Raise StageError unless both models answer what their files answer here."""
    for model in models_in(REPOSITORY):
        wanted = offline_answer(model.path, [images])[LABELS]
        for protocol, address in (("rest", server.rest), ("grpc", server.grpc)):
            came = connect(protocol, address).infer(model.name, images)[LABELS]
            if not np.array_equal(came, wanted):
                raise StageError(f"{model.name} over {protocol}: {came}, expected {wanted}")


def start_mix(
    server: Server, images: np.ndarray, rate: float, seconds: float
) -> list[subprocess.Popen[str]]:
    """Begin to ask all parts at once, at so many requests a second in all."""
    jobs = [job(server, part, images, part.share * rate, seconds) for part in MIX]
    return [start_load(asked) for asked in jobs]


def saturation(server: Server, images: np.ndarray) -> float:
    """Requests a second of the mix that the server can answer: at STEP times as many, answers to
    some part fall behind the questions.
    """
    rate = FIRST_RATE
    while True:
        results = [end_load(load) for load in start_mix(server, images, rate, PROBE_SECONDS)]
        if any(result.seconds > LATE * PROBE_SECONDS for result in results):
            return rate / STEP
        rate *= STEP


def soak(server: Server, images: np.ndarray, minutes: float) -> dict[str, Any]:
    """Put the mix on; what came of it."""
    check_first(server, images[: max(part.rows for part in MIX)])
    most = saturation(server, images)
    rate, seconds = SHARE * most, 60 * minutes
    print(f"{most:,.0f} requests a second at most; {rate:,.0f} for {minutes:g} minutes", flush=True)
    used, start = cpu_seconds(server), time.monotonic()
    loads = start_mix(server, images, rate, seconds)
    memory = _watch(server, loads, start)
    results = [end_load(load) for load in loads]
    taken = time.monotonic() - start
    settled = min(SETTLED_SECONDS, seconds / 2)
    first = next(mb for at, mb in memory if at >= settled)
    return {
        "saturation_per_second": round(most, 1),
        "offered_per_second": round(rate, 1),
        "minutes": minutes,
        "sent": sum(result.sent for result in results),
        "wrong": sum(result.wrong for result in results),
        "refused_as_they_should": sum(
            result.sent - result.wrong
            for result, part in zip(results, MIX, strict=True)
            if not part.good
        ),
        "cpu_cores": round((cpu_seconds(server) - used) / taken, 2),
        "memory_mb": {"settled": round(first), "last": round(memory[-1][1]), "at": memory},
        "parts": [_told(part, result) for part, result in zip(MIX, results, strict=True)],
    }


def _watch(
    server: Server, loads: list[subprocess.Popen[str]], start: float
) -> list[tuple[float, float]]:
    """Seconds since the start and memory of the server in MB, as long as one of the loads is on."""
    memory = []
    while any(load.poll() is None for load in loads):
        time.sleep(SAMPLE_SECONDS)
        memory.append((round(time.monotonic() - start, 1), round(memory_mb(server), 1)))
    return memory


def _told(part: Part, result: Result) -> dict[str, Any]:
    return part._asdict() | {"way": part.way._asdict()} | result._asdict()


def summary(came: dict[str, Any]) -> str:
    """A line."""
    memory = came["memory_mb"]
    return (
        f"{came['sent']:,} requests in {came['minutes']:g} minutes, "
        f"{came['refused_as_they_should']:,} of them refused as they should, "
        f"{came['wrong']:,} answers wrong; memory after a minute {memory['settled']:,} MB, "
        f"at the end {memory['last']:,} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="at most an hour")
    given = parser.parse_args()
    if not 0 < given.minutes <= LONGEST_MINUTES:
        raise StageError(f"--minutes is {given.minutes:g}; expected above 0, at most 60")
    images = read_idx(RAW / TEST_FILES[0], RAW / TEST_FILES[1], CLASS_NAMES["fashion-mnist"]).images
    with running() as server:
        came = soak(server, images, given.minutes)
    print(summary(came))
    for part in came["parts"]:
        what = "" if part["good"] else ", to be refused"
        print(
            f"  {part['kind']} over {part['way']['protocol']}, {part['rows']} images{what}: "
            f"{part['per_second']:,.0f} a second, p50 {part['p50']} ms, p99 {part['p99']} ms"
        )
    result = conditions("benchmarks.soak") | came
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if came["wrong"]:
        raise StageError(f"{came['wrong']:,} of {came['sent']:,} answers were wrong")


if __name__ == "__main__":
    run(main)
