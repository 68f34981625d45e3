"""The verbs do what they say, also where something is missing.  Run: pytest tests/test_make.py"""

import re
from pathlib import Path

import pytest
from processes import check_served
from scratch import install, make_project, run
from test_run import CHATTER


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_project(tmp_path / "checkout")


@pytest.fixture
def installed_checkout(checkout: Path) -> Path:
    return install(checkout)


def stand_ins(folder: Path, **versions: str) -> str:
    """A PATH on which each Python found is a stand-in that tells a version."""
    folder.mkdir()
    for name in ("python3", "python", "python3.12", "python3.11"):
        tells = f"echo {versions[name]}" if name in versions else "exit 127"
        (folder / name).write_text(f"#!/bin/sh\n{tells}\n", "utf-8")
        (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_bare_make_lists_the_verbs(checkout: Path):
    listed = re.findall(r"(?m)^  ([a-z-]+) ", run(checkout, "make"))
    assert listed[:7] == ["help", "doctor", "run", "demo", "report", "serve", "check"]
    phony = re.findall(r"(?m)^[.]PHONY: (.*)$", (checkout / "Makefile").read_text("utf-8"))
    assert sorted(listed) == sorted(" ".join(phony).split())
    assert run(checkout, "make", "help") == run(checkout, "make")


def test_another_python_is_told_in_one_line(checkout: Path, tmp_path: Path):
    path = stand_ins(tmp_path / "bin", python3="3.13", python="2.7")
    said = run(checkout, "make", "run", expect=2, PATH=path).splitlines()[0]
    assert said == (
        "error: Python 3.11 or 3.12 is needed, but python3 is 3.13, python is 2.7; "
        "install one, or name it: make run PYTHON=/path/to/python3.12"
    )
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_told_in_one_line(checkout: Path, tmp_path: Path):
    said = run(checkout, "make", "test", expect=2, PATH=stand_ins(tmp_path / "bin"))
    assert said.startswith("error: Python 3.11 or 3.12 is needed, but none was found; install")


def test_a_named_python_is_the_only_one_tried(checkout: Path, tmp_path: Path):
    path = stand_ins(tmp_path / "bin", **{"python3": "3.12", "python3.11": "3.10"})
    said = run(checkout, "make", "run", "PYTHON=python3.11", expect=2, PATH=path)
    assert said.startswith("error: Python 3.11 or 3.12 is needed, but python3.11 is 3.10; install")


def test_serving_nothing_is_told_in_one_line(installed_checkout: Path):
    said = run(installed_checkout, "make", "serve", expect=2).splitlines()[0]
    assert said.endswith("no model packaged; package them with: dvc repro")


def test_a_run_that_reaches_no_source_says_so_and_runs_a_demo_that_can_be_served(
    installed_checkout: Path, tmp_path: Path
):
    params = installed_checkout / "params.yaml"
    text = re.sub(r"(?m)^    - http.*$", "    - /nowhere", params.read_text("utf-8"))
    text = text.replace("train_limit: null", "train_limit: 6000")  # more than the demo has
    text = text.replace("landmarks: 6000", "landmarks: 300")  # for a quick demo
    params.write_text(text.replace("validation: 0", "validation: 10000"), "utf-8")
    before = run(installed_checkout, "git", "status", "--short")
    (tmp_path / "temporary").mkdir()

    said = run(installed_checkout, "make", "run", TMPDIR=str(tmp_path / "temporary"))

    assert "no source gave it: /nowhere: No such file or directory" in said
    assert "The data set could not be fetched: no source was reached." in said
    assert re.findall(r"(?m)^\d+:\d\d \[(\d)/6\] ", said) == ["1", *"123456"]
    assert not CHATTER.search(said)
    assert re.search(r"(?m)^accuracy +0\.\d{4} +0\.\d{4}$", said)
    assert run(installed_checkout, "git", "status", "--short") == before
    assert not [path for path in (installed_checkout / "data").rglob("*") if path.is_file()]
    (page,) = re.findall(r"(?m)^Read the report:    (.+)$", said)
    assert "These figures say nothing about Fashion-MNIST." in " ".join(
        Path(page).read_text().split()
    )
    (command,) = re.findall(r"(?m)^Serve both models:  (.+)$", said)
    (example,) = re.findall(r"(?m)^Ask one of them: .* -d @(\S+)$", said)
    check_served(command, Path(example), installed_checkout)


def test_a_run_with_a_wrong_parameter_says_so_and_does_nothing_else(installed_checkout: Path):
    params = installed_checkout / "params.yaml"
    params.write_text(params.read_text("utf-8").replace("C: 5", "C: five"), "utf-8")
    said = run(installed_checkout, "make", "run", expect=2)
    assert said.startswith('error: params.yaml: svm.C is "five"; expected a number above 0\nmake: ')
