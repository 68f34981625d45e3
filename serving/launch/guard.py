"""Run a command until it ends or standard input closes, then end its whole process group.

Started as a program in a new process group, with a pipe as standard input. The system closes that
pipe even when the process which opened it is killed, so nothing outlives it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

STOP_SECONDS = 15.0  # for the command to end by itself


def guard(command: Sequence[str]) -> None:
    """Run the command; does not return, since this process is of the group that ends."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # it ends by its input and its command alone
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end_with_input() -> None:
        sys.stdin.read()
        process.terminate()
        time.sleep(STOP_SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_with_input, daemon=True).start()
    process.wait()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    guard(sys.argv[1:])
