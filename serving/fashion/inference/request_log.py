"""The log of requests: JSON lines in a folder, written by a thread.

No request waits for the disk. Lines that cannot be written, or for which WAITING_BYTES leave no
room, are lost and counted.
"""

import atexit
import os
import random
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from . import logger
from .handler import RequestContext
from .limits import MB

WRITE_SECONDS = 0.5  # between writes of the waiting lines
WAITING_BYTES = 64 * MB
FILES = 16  # that the folder holds, about
OWNER_ONLY = 0o600
HOUR = "%Y%m%dT%H"  # in a file's name
LONGEST = 200  # characters of a client's id, or of a message


class RequestLog:
    """Writes a line for each request at its end.

    folder: of the files; input_share: of requests whose inputs are written, 0 to 1; max_mb: MiB of
    all files, beyond which the oldest go; lost: called with a number of lost lines. Raises OSError
    where nothing can be written.
    """

    def __init__(
        self, folder: Path, input_share: float, max_mb: int, lost: Callable[[int], None]
    ) -> None:
        self._folder, self._input_share, self._max_bytes = folder, input_share, max_mb * MB
        self._lost, self._losing = lost, False
        self._waiting: deque[bytes] = deque()
        self._taken = self._done = 0  # bytes, each counted by one thread
        self._file = self._open(datetime.now(UTC))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, context: RequestContext) -> None:
        """Queue a request's line. Called by one thread."""
        if not context.is_logged:
            return
        line = msgspec.json.encode(self._line(context)) + b"\n"
        if self._taken - self._done + len(line) > WAITING_BYTES:
            self._drop(1, "the disk is too slow")
            return
        self._taken += len(line)
        self._waiting.append(line)

    def close(self) -> None:
        """Write the waiting lines, within seconds, and end."""
        self._ending.set()
        self._thread.join(10 * WRITE_SECONDS)

    def _line(self, context: RequestContext) -> dict[str, Any]:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(context.time, UTC),
            "id": context.id[:LONGEST],
            "model": context.model[:LONGEST],
            "version": context.version[:LONGEST],
            "protocol": context.protocol,
            "status": context.status,
            "milliseconds": round(context.seconds * 1000, 3),
        }
        if context.error:
            line["error"] = context.error[:LONGEST]
        elif context.served and context.results:
            with_inputs = random.random() < self._input_share
            line |= context.served.signature.log_fields(context.results, with_inputs)
        return line

    def _run(self) -> None:
        while not self._ending.wait(WRITE_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        text = b"".join(self._waiting.popleft() for _ in range(len(self._waiting)))
        if not text:
            return
        left = memoryview(text)
        try:
            now = datetime.now(UTC)
            if self._should_rotate(now):
                self._file.close()
                self._file = self._open(now)
            while left:  # a full disk may take a part of them first
                left = left[self._file.write(left) :]
            self._losing = False
        except OSError as error:
            self._drop(bytes(left).count(b"\n"), error.strerror or str(error))
            with suppress(OSError):
                self._file.close()  # its last line may be cut off
        self._done += len(text)

    def _should_rotate(self, now: datetime) -> bool:
        of_hour = Path(self._file.name).name.startswith(f"{now:{HOUR}}")
        if self._file.closed or not of_hour:
            return True
        state = os.fstat(self._file.fileno())
        return state.st_size >= self._max_bytes // FILES or not state.st_nlink

    def _open(self, now: datetime) -> FileIO:
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        path = self._folder / f"{now:{HOUR}%M%S.%f}-{os.getpid()}.jsonl"
        file = FileIO(path, "x", opener=lambda name, how: os.open(name, how, OWNER_ONLY))
        self._remove_oldest()
        return file

    def _remove_oldest(self) -> None:
        total = self._max_bytes // FILES  # of the file that begins
        for path in reversed(log_files(self._folder)):
            with suppress(OSError):  # removed by another server, or owned by one
                total += path.stat().st_size
                if total > self._max_bytes:
                    path.unlink()

    def _drop(self, count: int, reason: str) -> None:
        self._lost(count)
        if not self._losing:
            self._losing = True
            logger.warning("%s: lines of the request log are lost: %s", self._folder, reason)


def log_files(folder: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    return sorted(folder.glob("*T*-*.jsonl"))
