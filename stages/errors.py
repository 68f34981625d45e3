"""How a stage ends when its user can mend what is wrong: one line, an exit code, no traceback."""

import errno
import signal
import sys
from collections.abc import Callable

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class StageError(Exception):
    """A mistake that the user can mend; the message says where, what came, what was expected.

    exit_code: what the stage's process exits with, 1 unless a caller has to tell causes apart.
    """

    exit_code = 1


def run(main: Callable[[], None]) -> None:
    """Run a stage; a StageError, or a full disk, becomes a line on stderr and an exit code.

    Ctrl-C exits 130 and SIGTERM 143, both after the clean-up that a stage does at its end.
    Everything else propagates: it is a defect, and the traceback is wanted.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        main()
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        print(f"error: {error.strerror}; free some space, then run again", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
