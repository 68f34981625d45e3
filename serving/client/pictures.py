"""Picture files: found, read, and sent in batches within the server's limits."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from serving.client import Outputs, ResponseError
from serving.fashion.model.pictures import SIDE, PixelError, open_picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
BATCH_FILES, BATCH_BYTES = 100, 8 * 2**20  # of a request
BRIGHT = 128  # of 255, the mean of a border from which on it is bright

Files = dict[str, bytes]  # by name


def find(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and the pictures of folders that are. Raises ValueError."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.glob("*") if p.suffix.lower() in SUFFIXES)
        if path.is_dir() and not inside:
            raise ValueError(f"{path}: expected pictures in it ({', '.join(sorted(SUFFIXES))})")
        found += inside if path.is_dir() else [path]
    return found


def read(paths: Sequence[Path]) -> tuple[Files, dict[str, str]]:
    """The files by name, and errors of those that cannot be read. Equal names become paths."""
    files, errors = {}, {}
    short = len({path.name for path in paths}) == len(paths)
    for path in paths:
        name = path.name if short else str(path)
        try:
            files[name] = path.read_bytes()
        except OSError as error:
            errors[name] = error.strerror or str(error)
    return files, errors


def infer(
    send: Callable[[list[bytes]], Outputs], files: Files, title: str
) -> tuple[dict[str, Outputs], dict[str, str]]:
    """The outputs of each file, and errors of those rejected. title: of the progress bar."""
    results: dict[str, Outputs] = {}
    errors: dict[str, str] = {}

    def infer_batch(names: list[str]) -> None:
        try:
            outputs = send([files[name] for name in names])
        except ResponseError as error:
            if not error.is_rejection:
                raise
            if len(names) == 1:
                errors[names[0]] = str(error)
            else:  # one of them is bad, or all are too large together
                for name in names:
                    infer_batch([name])
            return
        for row, name in enumerate(names):
            results[name] = {o: values[row : row + 1] for o, values in outputs.items()}

    with tqdm(total=len(files), desc=title, unit="picture", disable=None, leave=False) as bar:
        for batch in _batches(files):
            infer_batch(batch)
            bar.update(len(batch))
    return results, errors


def _batches(files: Files) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name, content in files.items():
        if batch and (len(batch) == BATCH_FILES or size + len(content) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += len(content)
    if batch:
        yield batch


def bright(files: Files) -> list[str]:
    """The names of pictures with a bright border; the data set's is black."""
    return [name for name, content in files.items() if _is_bright(content)]


def _is_bright(content: bytes) -> bool:
    with suppress(PixelError, OSError, ValueError):
        picture = open_picture(content)
        picture.draft("L", (SIDE, SIDE))
        if not picture.has_transparency_data:
            grey = np.asarray(picture.convert("L").resize((SIDE, SIDE)))
            inner = grey[1:-1, 1:-1]
            count = grey.size - inner.size
            return bool((grey.sum() - inner.sum(dtype=float)) / count >= BRIGHT)
    return False
