"""Fetch a file from the first of several folders and base URLs that gives the right bytes."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import requests
import urllib3

from stages.console import StageError, progress
from stages.data.arrays import atomic_write

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
ATTEMPTS = 3
BACK_OFF_SECONDS = 1.0  # before the second attempt, then doubled
CHUNK = 1 << 18


class File(NamedTuple):
    """One of the four. name: in data/raw; published: at a source; md5: None to accept any."""

    name: str
    published: str
    md5: str | None


class UnavailableError(Exception):
    """A source did not give a file; the message is the reason."""


class ServerBusyError(UnavailableError):
    """A server answered with an error of its own (5xx), which may pass."""


def fetch(file: File, sources: Sequence[str], folder: Path) -> str:
    """Bring a file into the folder from the first source that gives the right bytes.

    sources: folders or base URLs. A good file already there is kept, another one replaced.
    Returns its origin. Raises StageError when none does.
    """
    target = folder / file.name
    if target.exists():
        with target.open("rb") as content:
            if hashlib.file_digest(content, "md5").hexdigest() == file.md5:
                return "already there"
    failures: list[str] = []
    for source in sources:
        try:
            with atomic_write(target) as part:
                found = _fetch_from(source, file, part)
            origin = f"from {source}" + ("" if file.md5 else f", MD5 {found}")
            return " ".join([origin, *(f"(not from {why})" for why in failures)])
        except UnavailableError as why:
            failures.append(f"{source}: {why}")
    named = "it" if file.published == file.name else file.published
    raise StageError(f"{target}: no source gave {named}: {'; '.join(failures)}")


def _fetch_from(source: str, file: File, part: Path) -> str:
    arguments = source, file.published, part
    found = _retried(*arguments) if _is_url(source) else _streamed(*arguments)
    if file.md5 and found != file.md5:
        raise UnavailableError(f"wrong checksum: expected MD5 {file.md5}, got {found}")
    return found


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _retried(source: str, name: str, part: Path) -> str:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACK_OFF_SECONDS * 2 ** (attempt - 1))
        try:
            return _streamed(source, name, part)
        except ServerBusyError as busy:
            reason = str(busy)
        except (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
            reason = f"no connection within {CONNECT_SECONDS:g} s"
        except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            reason = f"no data for {READ_SECONDS:g} s"
        except (requests.exceptions.SSLError, urllib3.exceptions.SSLError):
            reason = "no secure connection: its certificate or TLS is refused"
        except requests.exceptions.ProxyError:
            reason = "cannot connect to the proxy that the environment names"
        except requests.ConnectionError:
            reason = "cannot connect"
        except urllib3.exceptions.HTTPError:
            reason = "cut off midway"
        except requests.TooManyRedirects:
            raise UnavailableError("too many redirects") from None
        except requests.RequestException as error:
            raise UnavailableError(f"not a usable URL: {error}") from None
    raise UnavailableError(f"{reason} ({ATTEMPTS} attempts)")


def _streamed(source: str, name: str, part: Path) -> str:
    digest = hashlib.md5()
    with (
        _opened(source, name) as (chunks, size),
        progress(name, size, "B") as advance,
        part.open("wb") as file,
    ):
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


@contextmanager
def _opened(source: str, name: str) -> Iterator[tuple[Iterator[bytes], int | None]]:
    if _is_url(source):
        with requests.get(
            f"{source.rstrip('/')}/{name}",
            stream=True,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            headers={"Accept-Encoding": "identity"},
        ) as response:
            if not response.ok:
                passes = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
                why = f"HTTP {response.status_code} {response.reason}"
                raise ServerBusyError(why) if passes else UnavailableError(why)
            size = int(response.headers.get("Content-Length", 0)) or None
            yield response.raw.stream(CHUNK, decode_content=False), size
        return
    path = Path(source).expanduser() / name
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnavailableError(error.strerror) from None
    with file:
        yield iter(lambda: file.read(CHUNK), b""), path.stat().st_size or None
