"""Fetch a file from the first of several folders and base URLs that has the right content."""

import gzip
import hashlib
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import requests
import urllib3

from stages.console import StageError, progress
from stages.data.arrays import atomic_write
from stages.data.forms import UnavailableError, is_gzipped_idx, is_url, locate, read

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
ATTEMPTS = 3
BACK_OFF_SECONDS = 1.0  # before the second attempt, then doubled
CHUNK = 1 << 18
LEVEL = 6  # of gzip, whose bytes then depend on the content alone


class File(NamedTuple):
    """A file of the data set. name: in data/raw; published: at a source.

    md5: of the file, or of the IDX content that it holds in any form; None accepts any.
    """

    name: str
    published: str
    md5: str | None


def fetch(file: File, sources: Sequence[str], folder: Path) -> str:
    """Copy a file into the folder from the first source that has the right content.

    sources: folders or base URLs. A good file already there is kept, another one replaced.
    Returns its origin. Raises StageError when none does.
    """
    target = folder / file.name
    if target.exists() and _is_good(file, target):
        return "already there"
    failures: list[str] = []
    for source in sources:
        try:
            for location in _locations(source, file):
                label = source if is_url(source) else location
                try:
                    with atomic_write(target) as tmp:
                        _copy(location, tmp)
                        found = _unify(file, tmp)
                    origin = f"from {label}" + ("" if file.md5 else f", MD5 {found}")
                    return " ".join([origin, *(f"(not from {why})" for why in failures)])
                except UnavailableError as why:
                    failures.append(f"{label}: {why}")
        except UnavailableError as why:
            failures.append(f"{source}: {why}")
    named = "it" if file.published == file.name else file.published
    raise StageError(f"{target}: no source gave {named}: {'; '.join(failures)}")


def _is_good(file: File, path: Path) -> bool:
    if _md5(path) == file.md5:
        return True
    with suppress(UnavailableError):
        content = hashlib.md5(read(path, file.name)).hexdigest()
        return content == file.md5 and is_gzipped_idx(path)
    return False


def _md5(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


def _locations(source: str, file: File) -> list[str]:
    if is_url(source):
        return [f"{source.rstrip('/')}/{file.published}"]
    return list(map(str, locate(source, file.published, file.name)))


def _unify(file: File, tmp: Path) -> str:
    """Convert a file in another form to that of data/raw.

    Returns the MD5 before. Raises UnavailableError for another content than expected.
    """
    found = _md5(tmp)
    if file.md5 in (None, found) and is_gzipped_idx(tmp):
        return found
    content = read(tmp, file.name)
    actual = hashlib.md5(content).hexdigest()
    if file.md5 not in (None, found, actual):
        raise UnavailableError(f"wrong checksum: expected MD5 {file.md5}, got {actual}")
    if not is_gzipped_idx(tmp):
        tmp.write_bytes(gzip.compress(content, LEVEL, mtime=0))
    return found


def _copy(location: str, tmp: Path) -> None:
    if is_url(location):
        _download(location, tmp)
        return
    try:
        shutil.copyfile(location, tmp)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UnavailableError(error.strerror) from None


def _download(url: str, tmp: Path) -> None:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACK_OFF_SECONDS * 2 ** (attempt - 1))
        try:
            _stream(url, tmp)
            return
        except requests.HTTPError as error:
            reason = str(error)
        except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            reason = f"no data for {READ_SECONDS:g} s"
        except requests.exceptions.SSLError:
            reason = "no secure connection: certificate or TLS rejected"
        except requests.exceptions.ProxyError:
            reason = "cannot connect to the proxy that the environment names"
        except requests.ConnectionError:
            reason = "cannot connect"
        except urllib3.exceptions.HTTPError:
            reason = "cut off midway"
        except requests.RequestException as error:
            raise UnavailableError(f"not a usable URL: {error}") from None
    raise UnavailableError(f"{reason} ({ATTEMPTS} attempts)")


def _stream(url: str, tmp: Path) -> None:
    timeout, headers = (CONNECT_SECONDS, READ_SECONDS), {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=timeout, headers=headers) as response:
        why = f"HTTP {response.status_code} {response.reason}"
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise requests.HTTPError(why)  # which may pass
        if not response.ok:
            raise UnavailableError(why)
        size = int(response.headers.get("Content-Length", 0)) or None
        name = url.rpartition("/")[2]
        with progress(name, size, "B") as advance, tmp.open("wb") as file:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                advance(len(chunk))
