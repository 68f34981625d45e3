"""Find the processes that a test started, and wait for them."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

DEADLINE_SECONDS = 120.0
POLL_SECONDS = 0.05


def wait_until(happened: Callable[[], object], what: str, poll: float = POLL_SECONDS) -> None:
    """Ask each `poll` seconds whether something has happened; fail when it has not in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(poll)


def servers_of(repository: Path) -> list[psutil.Process]:
    """The guard and the server of a repository: their command lines name its folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(repository.resolve()) in (process.info["cmdline"] or [])
    ]


def processes_in(group: int) -> list[psutil.Process]:
    """The processes of a process group, but for those that only wait to be reaped."""
    return [
        process
        for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and _group_of(process) == group
    ]


def _group_of(process: psutil.Process) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(process.pid)
    return None


def listening_addresses(group: int) -> set[str]:
    """The addresses on which the processes of a group listen, those of IPv4 in their own form."""
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in processes_in(group)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
