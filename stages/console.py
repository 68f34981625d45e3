"""Progress of long work, and errors in one line."""

import errno
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from serving.fashion.packaged import RepositoryError
from stages import SAME_KERNELS

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
LINE_SECONDS = 10.0  # between two plain lines


class StageError(Exception):
    """A user error; the message says where, what is wrong and what to do."""


def run(main: Callable[[], None]) -> None:
    """Run a stage; a user error, or a full disk, becomes a line on stderr and an exit code.

    Ctrl-C exits 130 and SIGTERM 143, both after the stage's clean-up. Everything else propagates:
    it is a defect, with its traceback.
    """
    if not SAME_KERNELS:
        print("note: the outputs' last digits may differ on this processor from those of others")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        main()
    except (StageError, RepositoryError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        sys.exit(f"error: {error.strerror}; free some space, then run again")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


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
