"""Progress of long work: a bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

LINE_SECONDS = 10.0  # between two plain lines


@contextmanager
def progress(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes how many units were done since it was last called.

    total: units in all, > 0, None if unknown; unit: its symbol ("B" is shown with k, M, G).
    """
    if sys.stderr.isatty():
        scale = unit == "B"
        with tqdm(total=total, desc=what, unit=unit, unit_scale=scale, leave=False) as bar:
            yield bar.update
        return
    done, last = 0, time.monotonic()

    def advance(units: int) -> None:
        nonlocal done, last
        done += units
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            print(f"{what}: {done:,}{f' of {total:,}' if total else ''} {unit}", flush=True)

    yield advance
