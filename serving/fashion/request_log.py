"""The log of requests: JSON lines in a folder, written by a thread of its own.

No request waits for the disk. Lines that cannot be written, or that wait while WAITING_BYTES do,
are lost and counted.
"""

import atexit
import logging
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np

from .contract import CONFIDENCES, IMAGES, LABELS
from .exchange import Exchange
from .limits import MB

logger = logging.getLogger("mlserver.fashion")
WRITE_SECONDS = 0.5  # from one time that waiting lines are written to the next
WAITING_BYTES = 64 * MB
LINE_BYTES = 512  # of memory, about, for a line beside its arrays
FILE_SHARE = 16  # files that the folder holds, about
OWNER_ALONE = 0o600  # reads what clients have sent
DECIMALS = 6  # of a probability
LONGEST = 200  # characters of a client's id, or of a sentence


class Line(msgspec.Struct, omit_defaults=True):
    """A request. probabilities: of the labels; pixels: uint8 [images, 784], in base64 as JSON."""

    time: datetime
    id: str
    model: str
    version: str
    protocol: str
    status: int
    milliseconds: float
    images: int = 0
    labels: list[int] = []
    probabilities: list[float] = []
    pixels: bytes = b""
    error: str = ""


class Waiting(NamedTuple):
    """A request that is to be written. size: bytes of memory, about; version: that answered."""

    exchange: Exchange
    size: int
    version: str = ""
    labels: np.ndarray | None = None
    confidences: np.ndarray | None = None
    pixels: bytes = b""


class RequestLog:
    """Takes requests at their end, and writes them.

    folder: of the files; image_share: of requests whose pixels are written, 0 to 1; max_mb: MiB of
    all files, beyond which the oldest go; lost: called with a number of lost lines. Raises OSError
    where nothing can be written.
    """

    def __init__(
        self, folder: Path, image_share: float, max_mb: int, lost: Callable[[int], None]
    ) -> None:
        self._folder, self._image_share, self._max_bytes = folder, image_share, max_mb * MB
        self._lost, self._losing = lost, False
        self._waiting: deque[Waiting] = deque()
        self._taken = self._done = 0  # bytes, each counted by one thread
        self._file: BinaryIO | None = None
        self._open(datetime.now(UTC))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, exchange: Exchange) -> None:
        """Have a request written. Called by one thread."""
        waiting = Waiting(exchange, LINE_BYTES)
        if response := exchange.response:
            exchange.response = None  # it has all images of the batch
            labels, confidences = response.results[LABELS], response.results[CONFIDENCES]
            is_chosen = random.random() < self._image_share
            pixels = response.results[IMAGES].tobytes() if is_chosen else b""
            size = LINE_BYTES + labels.nbytes + confidences.nbytes + len(pixels)
            waiting = Waiting(exchange, size, response.version, labels, confidences, pixels)
        if self._taken - self._done + waiting.size > WAITING_BYTES:
            self._lose(1, "the disk is too slow")
            return
        self._taken += waiting.size
        self._waiting.append(waiting)

    def close(self) -> None:
        """Write what waits, within seconds, and end."""
        self._ending.set()
        self._thread.join(10 * WRITE_SECONDS)

    def _run(self) -> None:
        while not self._ending.wait(WRITE_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not taken:
            return
        lines = b"".join(msgspec.json.encode(_line(waiting)) + b"\n" for waiting in taken)
        try:
            now = datetime.now(UTC)
            file = self._file
            if file is None or self._is_full(now) or not self._path.exists():
                file = self._open(now)
            left = memoryview(lines)
            while left:  # a full disk may take a part of them first
                left = left[file.write(left) :]
            self._size += len(lines)
        except OSError as error:
            self._lose(len(taken), error.strerror or str(error))
            self._close_file()  # whose last line may be cut off
        self._done += sum(waiting.size for waiting in taken)

    def _is_full(self, now: datetime) -> bool:
        return self._hour != _hour(now) or self._size >= self._max_bytes // FILE_SHARE

    def _open(self, now: datetime) -> BinaryIO:
        self._close_file()
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        self._path = self._folder / f"{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}.jsonl"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
        self._file, self._size = os.fdopen(descriptor, "wb", 0), 0
        self._hour = _hour(now)
        self._remove_oldest()
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remove_oldest(self) -> None:
        files = log_files(self._folder)
        total = sum(path.stat().st_size for path in files) + self._max_bytes // FILE_SHARE
        for path in files[:-1]:
            if total <= self._max_bytes:
                break
            total -= path.stat().st_size
            path.unlink(missing_ok=True)

    def _lose(self, count: int, why: str) -> None:
        self._lost(count)
        if not self._losing:
            self._losing = True
            logger.warning("%s: lines of the request log are lost: %s", self._folder, why)


def _hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def _line(waiting: Waiting) -> Line:
    exchange = waiting.exchange
    line = Line(
        time=datetime.fromtimestamp(exchange.time, UTC),
        id=exchange.id[:LONGEST],
        model=exchange.model[:LONGEST],
        version=waiting.version or exchange.version[:LONGEST],
        protocol=exchange.protocol,
        status=exchange.status,
        milliseconds=round(exchange.seconds * 1000, 3),
        error=exchange.error[:LONGEST],
        pixels=waiting.pixels,
    )
    if waiting.labels is not None and waiting.confidences is not None:
        line.labels, line.images = waiting.labels.tolist(), len(waiting.labels)
        line.probabilities = [round(value, DECIMALS) for value in waiting.confidences.tolist()]
    return line


def log_files(folder: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    return sorted(folder.glob("*T*-*.jsonl"))


def read_log(folder: Path | str) -> Iterator[Line]:
    """The lines of a log, the oldest file's first, but for those that were cut off.

    Raises OSError where there is no folder, or a file cannot be read.
    """
    decoder = msgspec.json.Decoder(Line)
    os.listdir(folder)  # raises where there is none, which glob does not
    for path in log_files(Path(folder)):
        with path.open("rb") as file:
            for text in file:
                try:
                    yield decoder.decode(text)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
