"""docs/experiments.md, command by command.  Run: DEEP=1 pytest tests/test_experiments.py"""

import re
from pathlib import Path

from processes import wait_until
from scratch import ROOT, deep, run

PAGE = (ROOT / "docs/experiments.md").read_text("utf-8")


def commands() -> list[str]:
    """The commands of the page, on the data set of the tests."""
    joined = "".join(re.findall(r"(?s)```console\n(.*?)```", PAGE)).replace("\\\n", "")
    found = re.findall(r"(?m)^\$ (.*)$", joined)
    return [c.replace("preprocess.validation=10000", "preprocess.validation=300") for c in found]


def is_done(folder: Path) -> bool:
    status = run(folder, "dvc", "queue", "status")
    return "Queued" not in status and "Running" not in status


@deep
def test_the_walk_through_goes_as_the_page_says(project: Path):
    run(project, "git", "branch", "--move", "main")
    assert any("-j 2" in command for command in commands())
    for command in commands():
        if command == "dvc queue status":
            wait_until(lambda: is_done(project), "the end of the queue", poll=5)
        # Not through a pipe, which the workers of the queue would keep open.
        run(project, "bash", "-c", f"{{ {command}; }} > ../output 2>&1")
    assert run(project, "git", "status", "--short") == ""
    page = (project / "dvc_plots/index.html").read_text("utf-8")
    assert "held-out" in page
    params = (project / "params.yaml").read_text("utf-8")
    assert "validation: 0" in params
    assert "C: 10" in params
