"""What `make run` says, to people who meet the project for the first time.

Run: pytest tests/test_run.py
"""

import os
import pty
import re
import shutil
import subprocess
import termios
from pathlib import Path

import pytest
import yaml
from dvc.stage.exceptions import StageCmdFailedError
from scratch import ROOT, environment, install, run

from stages.errors import StageError
from stages.pipeline import clock, status_of

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"])
CHATTER = re.compile(r"git add|dvc push|dvc\.lock|autostage|didn't change|failed to reproduce")
NARRATED = r"(?m)^\d+:\d\d \[(\d)/6\] (\w+): (.+)$"


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "project"))


def change(project: Path, old: str, new: str) -> None:
    params = project / "params.yaml"
    text = params.read_text("utf-8")
    assert old in text
    params.write_text(text.replace(old, new), "utf-8")


def on_a_terminal(folder: Path, *command: str) -> str:
    """What a command writes to a terminal of 100 columns."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (40, 100))
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=its, stderr=its):
        os.close(its)
        written = b""
        while chunk := read(ours):
            written += chunk
    os.close(ours)
    return written.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how Linux tells that nobody writes any more
        return b""


def test_where_nothing_is_out_of_date_it_says_so_and_ends_with_the_metrics(project: Path):
    said = run(install(project), "make", "run")
    told = re.findall(NARRATED, said)
    assert [int(number) for number, _, _ in told] == [1, 2, 3, 4, 5, 6]
    assert {name: what for _, name, what in told} == dict.fromkeys(STAGES, "up to date")
    assert re.search(r"(?m)^\d:\d\d nothing was out of date$", said)
    assert re.search(r"(?m)^accuracy +0\.\d{4} +0\.\d{4}$", said)
    assert not CHATTER.search(said)
    assert run(project, "git", "status", "--short") == ""


def test_a_stage_that_fails_has_the_last_word(project: Path):
    change(project, "min_accuracy: 0.8 ", "min_accuracy: 1.0 ")
    said = run(project, "python", "-m", "stages.pipeline", expect=1)
    *_, before, last = said.splitlines()
    assert re.match(r"\d:\d\d \[6/6\] evaluate: Start MLServer", before)
    assert re.match(r"error: fashion-\w+: accuracy 0\.\d+, expected at least 1 ", last)
    assert not CHATTER.search(said)


def test_a_terminal_shows_the_bars_of_stages_alone(project: Path):
    change(project, "batch_size: 1000", "batch_size: 100")
    said = on_a_terminal(project, "python", "-m", "stages.pipeline")
    bars = re.findall(r"[\r\n\x1b](?:\[A)?([^\r\n]*?)\|", said)
    assert bars
    assert {bar.split(":")[0] for bar in bars} == {"asking both models over both protocols"}
    assert re.search(r"\d:\d\d done", said)


def test_a_result_of_before_comes_out_of_the_cache(project: Path):
    shutil.rmtree(project / "serving/models")
    (project / "dvc.lock").unlink()
    said = run(project, "python", "-m", "stages.pipeline")
    told = {name: what for _, name, what in re.findall(NARRATED, said)}
    assert told.pop("download").startswith("Fetch ")  # whose files stay where they are
    assert told == dict.fromkeys(STAGES[1:], "made before, taken from cache")
    assert run(project, "git", "status", "--short") == ""


def test_a_full_disk_is_told_in_one_line(project: Path):
    change(project, "  C: 5", "  C: 4")
    said = run(project, "bash", "-c", "ulimit -f 1500; python -m stages.pipeline", expect=1)
    assert said.splitlines()[-1] == "error: File too large; free some space, then run again"
    assert not CHATTER.search(said)


def test_what_dvc_refuses_is_told_in_its_own_words(project: Path):
    pipeline = project / "dvc.yaml"
    pipeline.write_text(pipeline.read_text("utf-8").replace("cmd:", "command:", 1), "utf-8")
    said = run(project, "python", "-m", "stages.pipeline", expect=1)
    assert said.startswith("'./dvc.yaml' validation failed")
    assert "Traceback" not in said


def test_a_stage_that_the_system_killed_is_told_with_what_to_do():
    for status in (-9, 137):
        with pytest.raises(StageError, match="ended by signal 9, as the system does when memory"):
            status_of(StageCmdFailedError("python -m stages.x", status))


@pytest.mark.parametrize("status", [1, 69, 130, 143])
def test_the_exit_code_of_a_stage_is_kept(status: int):
    assert status_of(StageCmdFailedError("python -m stages.x", status)) == status


def test_a_time_is_told_in_minutes_and_seconds():
    assert [clock(seconds) for seconds in (0, 59.9, 60, 754)] == ["0:00", "0:59", "1:00", "12:34"]
