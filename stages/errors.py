"""How a stage ends when its user can mend what is wrong: one line, an exit code, no traceback."""

import sys
from collections.abc import Callable


class StageError(Exception):
    """A mistake that the user can mend; the message says where, what came, what was expected.

    exit_code: what the stage's process exits with, 1 unless a caller has to tell causes apart.
    """

    exit_code = 1


def run(main: Callable[[], None]) -> None:
    """Run a stage; a StageError becomes its message on stderr and its exit code, Ctrl-C exits 130.

    Everything else propagates: it is a defect, and the traceback is wanted.
    """
    try:
        main()
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
