"""Run what is out of date, as `dvc repro` does, with a line for each stage and the time so far.

Of what DVC tells its users (locks, bars of a blink, what to add to git, where to push), warnings
and errors remain.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError

from stages.errors import INTERRUPTED, TERMINATED, StageError, run
from stages.params import load_params

# What DVC logs of a stage that it does not run, and what is said instead.
NOT_RUN = {
    "Stage '%s' didn't change, skipping": "up to date",
    "Stage '%s' is cached - skipping run, checking out outputs": "made before, taken from cache",
}
RUN = "Running stage '%s':"
BARS = ("dvc.progress", "dvc_data.callbacks")  # loggers whose level DVC asks before it draws one
LAST_STATUS = 128  # above it, a shell tells the signal that ended a command


def narrator(descriptions: dict[str, str]) -> Callable[[logging.LogRecord], bool]:
    """A filter of DVC's log that turns what it says of a stage into one line.

    descriptions: by name, of all stages.
    """
    started, count = time.monotonic(), 0

    def tell(record: logging.LogRecord) -> bool:
        nonlocal count
        if record.levelno >= logging.WARNING:
            return True
        if record.msg != RUN and record.msg not in NOT_RUN:
            return False
        count += 1
        name = record.getMessage().split("'")[1]
        what = NOT_RUN.get(record.msg, descriptions[name])
        elapsed = clock(time.monotonic() - started)
        record.msg, record.args = f"{elapsed} [{count}/{len(descriptions)}] {name}: {what}", None
        return True

    return tell


def clock(seconds: float) -> str:
    """Minutes and seconds: 92.6 is 1:32."""
    return f"{seconds // 60:.0f}:{int(seconds % 60):02}"


def reproduce() -> int:
    """Run the stages that are out of date; return how many. Raises DvcException as DVC does."""
    with Repo() as repo:
        tell = narrator({stage.addressing: stage.desc for stage in repo.index.stages})
        for handler in logging.getLogger("dvc").handlers:
            handler.addFilter(tell)
        for name in BARS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return len(repo.reproduce())


def explain(error: DvcException) -> None:
    """End with the exit code of a stage that failed, which has said why; else with DVC's words.

    Raises StageError for a stage that could not say why, OSError for what `run` explains.
    """
    for cause in causes(error):
        if isinstance(cause, StageCmdFailedError):
            sys.exit(status_of(cause))
        if isinstance(cause, OSError):
            raise cause from None
    logging.getLogger("dvc").exception("")
    sys.exit(1)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what caused it, and so on."""
    while error:
        yield error
        error = error.__cause__


def status_of(failure: StageCmdFailedError) -> int:
    """The exit code of a stage's command. Raises StageError where a signal ended it unasked."""
    (code,) = re.findall(r"exited with (-?\d+)$", str(failure))
    status = LAST_STATUS - int(code) if code.startswith("-") else int(code)
    if status > LAST_STATUS and status not in (INTERRUPTED, TERMINATED):
        raise StageError(
            f"the stage was ended by signal {status - LAST_STATUS}, as the system does when "
            "memory runs out; see what is needed with: make doctor"
        )
    return status


def main() -> None:
    load_params()  # a mistake in them is told before anything runs
    started = time.monotonic()
    try:
        ran = reproduce()
    except DvcException as error:
        explain(error)
    else:
        print(clock(time.monotonic() - started), "done" if ran else "nothing was out of date")


if __name__ == "__main__":
    run(main)
