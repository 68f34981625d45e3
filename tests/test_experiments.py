"""docs/experiments.md, command by command, on digits.  Run: DEEP=1 pytest tests/test_experiments.py

What a command prints must have the form of what the page shows: the same lines in the same order,
whatever the numbers, names of metrics and commits in them; `…` there stands for any lines.
"""

import re
from pathlib import Path

from processes import wait_until
from scratch import ROOT, deep, run

PAGE = (ROOT / "docs/experiments.md").read_text("utf-8")
FORMS = [  # what is not the same each time, and what stands for it
    (r"file://\S+", "PAGE"),
    (r"(Removed experiments:) .*", r"\1 NAMES"),
    (r"\[(grid-\d|held-out)\]", "EXPERIMENT"),
    (r"grid-\d(, grid-\d)*", "GRID"),
    (r"(?<=\.json)(:| +)[a-z]\w+", " METRIC"),
    (r"\b[0-9a-f]{7}\b", "COMMIT"),
    (r"\d\d:\d\d [AP]M", "TIME"),
    (r"-?\d[\d.,]*(e-\d+)?", "NUMBER"),
    (r"[├└]──", "─"),
    (r"-{3,}", "-"),
    (r" +", " "),
]


def steps() -> list[tuple[str, str]]:
    """The commands of the page, each with the output shown below it."""
    blocks = re.findall(r"(?s)```console\n(.*?)```", PAGE)
    joined = "".join(blocks).replace("\\\n", "")
    parts = re.split(r"(?m)^\$ ", joined)[1:]
    return [(command.strip(), shown) for command, _, shown in (p.partition("\n") for p in parts)]


def form(output: str) -> str:
    """The lines of an output without what varies; of equal ones, or pairs, in a row, the first."""
    lines: list[str] = []
    for line in output.splitlines():
        for pattern, name in FORMS:
            line = re.sub(pattern, name, line)  # noqa: PLW2901
        if line.strip() and lines[-1:] != [line.strip()]:
            lines.append(line.strip())
        if len(lines) > 3 and lines[-2:] == lines[-4:-2]:
            del lines[-2:]
    return "\n".join(lines) + "\n"


def has_form(output: str, shown: str) -> bool:
    pattern = re.escape(form(shown)).replace("…\\\n", "(.*\n)*?")
    return bool(re.fullmatch(pattern, form(output)))


def outcome(folder: Path, command: str) -> str:
    command = command.replace("preprocess.validation=10000", "preprocess.validation=300")
    # Not through a pipe, which the workers of the queue would keep open.
    run(folder, "bash", "-c", f"{{ {command}; }} > ../said 2>&1")
    return (folder.parent / "said").read_text("utf-8")


def is_done(folder: Path) -> bool:
    status = run(folder, "dvc", "queue", "status")
    return "Queued" not in status and "Running" not in status


@deep
def test_the_walk_through_goes_as_the_page_says(project: Path):
    run(project, "git", "branch", "--move", "main")
    commands = [command for command, _ in steps()]
    assert any("-j 2" in command for command in commands)
    for command, shown in steps():
        if command == "dvc queue status":
            wait_until(lambda: is_done(project), "the end of the queue", poll=5)
        output = outcome(project, command)
        assert has_form(output, shown), f"{command}\n{output}\nhas not the form of\n{form(shown)}"
    assert run(project, "git", "status", "--short") == ""
    page = (project / "dvc_plots/index.html").read_text("utf-8")
    assert "held-out" in page
    params = (project / "params.yaml").read_text("utf-8")
    assert "validation: 0" in params
    assert "C: 10" in params


def test_a_line_of_another_form_would_be_seen():
    assert has_form("a 1.5\nb\nc 3\n", "a 2\n…\nc 4\n")
    assert not has_form("a 1.5\nb\nd 3\n", "a 2\n…\nc 4\n")
    assert not has_form("a\n", "")
