"""Fetch a file from the first of several folders and base URLs that gives the right content."""

import gzip
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
from stages.data.forms import (
    UnavailableError,
    UnknownFormError,
    is_gzipped_idx,
    is_url,
    locate,
    read,
)

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
ATTEMPTS = 3
BACK_OFF_SECONDS = 1.0  # before the second attempt, then doubled
CHUNK = 1 << 18
LEVEL = 6  # of gzip, whose bytes then depend on the content alone


class File(NamedTuple):
    """One of the four. name: in data/raw; published: at a source; md5: None to accept any.

    content: the MD5 of what is gzipped, which counts where the file has another form.
    """

    name: str
    published: str
    md5: str | None
    content: str | None = None


class ServerBusyError(UnavailableError):
    """A server answered with an error of its own (5xx), which may pass."""


def fetch(file: File, sources: Sequence[str], folder: Path) -> str:
    """Bring a file into the folder from the first source that gives the right bytes.

    sources: folders or base URLs. A good file already there is kept, another one replaced.
    Returns its origin. Raises StageError when none does.
    """
    target = folder / file.name
    if target.exists() and _is_good(file, target):
        return "already there"
    failures: list[str] = []
    for source in sources:
        try:
            for place in _places(source, file):
                label = source if is_url(source) else place
                try:
                    with atomic_write(target) as part:
                        found = _retried(place, part)
                        _unify(file, found, part)
                    origin = f"from {label}" + ("" if file.md5 else f", MD5 {found}")
                    return " ".join([origin, *(f"(not from {why})" for why in failures)])
                except UnavailableError as why:
                    failures.append(f"{label}: {why}")
        except UnavailableError as why:
            failures.append(f"{source}: {why}")
    named = "it" if file.published == file.name else file.published
    raise StageError(f"{target}: no source gave {named}: {'; '.join(failures)}")


def _is_good(file: File, path: Path) -> bool:
    with path.open("rb") as content:
        if hashlib.file_digest(content, "md5").hexdigest() == file.md5:
            return True
    try:
        content_md5 = hashlib.md5(read(path, file.name)).hexdigest() if file.content else None
    except UnavailableError:
        return False
    return content_md5 is not None and content_md5 == file.content and is_gzipped_idx(path)


def _places(source: str, file: File) -> list[str]:
    if is_url(source):
        return [f"{source.rstrip('/')}/{file.published}"]
    return list(map(str, locate(source, file.published, file.name)))


def _unify(file: File, found: str, part: Path) -> None:
    """Have a file in another form than data/raw's be the same content in that form.

    found: its MD5. Raises UnavailableError for another content than expected.
    """
    if file.md5 in (None, found) and is_gzipped_idx(part):
        return
    try:
        content = read(part, file.name)
    except UnknownFormError as why:
        wrong = f"wrong checksum: expected MD5 {file.md5}, got {found}: " if file.md5 else ""
        raise UnavailableError(f"{wrong}{why}") from None
    actual = hashlib.md5(content).hexdigest()
    if file.content not in (None, actual):
        raise UnavailableError(
            f"wrong checksum: expected MD5 {file.content} of the content, got {actual}; "
            "for other images, set download.dataset to own"
        )
    if not file.content and file.md5 not in (None, actual, found):
        raise UnavailableError(f"wrong checksum: expected MD5 {file.md5}, got {found}")
    part.write_bytes(gzip.compress(content, LEVEL, mtime=0))


def _retried(place: str, part: Path) -> str:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACK_OFF_SECONDS * 2 ** (attempt - 1))
        try:
            return _streamed(place, part)
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


def _streamed(place: str, part: Path) -> str:
    digest = hashlib.md5()
    with (
        _opened(place) as (chunks, size),
        progress(place.rpartition("/")[2], size, "B") as advance,
        part.open("wb") as file,
    ):
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


@contextmanager
def _opened(place: str) -> Iterator[tuple[Iterator[bytes], int | None]]:
    if is_url(place):
        with requests.get(
            place,
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
    path = Path(place)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnavailableError(error.strerror) from None
    with file:
        yield iter(lambda: file.read(CHUNK), b""), path.stat().st_size or None
