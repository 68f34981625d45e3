"""The verbs do what they say, also where something is missing.  Run: pytest tests/test_make.py"""

import re
from pathlib import Path

import pytest
import yaml
from processes import check_served
from scratch import ROOT, deep, edit_text, install, make_project, run, stages_run, stand_in


@pytest.fixture
def installed_checkout(checkout: Path) -> Path:
    return install(checkout)


STAGES = [*yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]]
NEEDED = "Python 3.11, 3.12 or 3.13"
REMEDY = (
    "install uv (https://docs.astral.sh/uv) and try again, "
    "or name one: make run PYTHON=/path/to/python3.12"
)


def stand_ins(folder: Path, **versions: str) -> str:
    """A PATH without uv, on which each Python is a stand-in that tells a version."""
    folder.mkdir()
    for name in ("python3", "python", "python3.13", "python3.12", "python3.11"):
        stand_in(folder / name, f"echo {versions[name]}" if name in versions else "exit 127")
    return f"{folder}:/usr/bin:/bin"


def uv_stand_in(folder: Path, install_status: int = 0) -> None:
    """Add a uv that tells what it is called with, and whose Python does so too, then fails."""
    stand_in(folder / "fetched", 'echo "fetched $@"; exit 1')
    find, install = f"echo {folder}/fetched", f'echo "uv $@"; exit {install_status}'
    stand_in(folder / "uv", f'if [ "$2" = find ]; then {find}; else {install}; fi')


def test_bare_make_lists_the_verbs(checkout: Path):
    listed = re.findall(r"(?m)^  ([a-z-]+) ", run(checkout, "make"))
    assert listed[:5] == ["help", "doctor", "run", "demo", "report"]
    assert run(checkout, "make", "help") == run(checkout, "make")


@pytest.mark.parametrize(
    ("versions", "arguments", "found"),
    [
        ({"python3": "3.14", "python": "2.7"}, ["run"], "python3 is 3.14, python is 2.7"),
        ({"python3": "3.12", "python3.11": "3.10"}, ["run", "PYTHON=python3.11"], "python3.11 is"),
        ({}, ["test"], "none was found; "),
        ({}, ["doctor"], "none was found; "),
    ],
)
def test_without_a_python_that_will_do_the_error_names_what_was_found(
    checkout: Path, tmp_path: Path, versions: dict[str, str], arguments: list[str], found: str
):
    path = stand_ins(tmp_path / "bin", **versions)
    if "PYTHON=python3.11" in arguments:  # then nothing else is tried
        uv_stand_in(tmp_path / "bin")
    output = run(checkout, "make", *arguments, expect=2, PATH=path).splitlines()[0]
    assert output.startswith(f"error: {NEEDED} is needed, but {found}")
    assert output.endswith(REMEDY)
    assert not (checkout / ".venv").exists()


def test_a_link_in_place_of_the_environment_is_rejected_and_what_it_names_is_left(
    checkout: Path, tmp_path: Path
):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    (checkout / ".venv").symlink_to(tmp_path / "other")
    output = run(checkout, "make", "run", expect=2).splitlines()[0]
    assert output == (
        f"error: .venv is a link to {tmp_path}/other, which installing would empty; "
        "remove the link: rm .venv"
    )
    assert (tmp_path / "other/file").exists()


def test_drift_without_a_log_names_it(installed_checkout: Path):
    output = run(installed_checkout, "make", "drift", expect=2).splitlines()[0]
    assert output == (
        "error: LOG is not set; expected the folder of a request log: make drift LOG=folder"
    )


INSTALLING = "Installing requirements.lock into .venv with Python 3.12: a minute or two, 1.8 GB"


@pytest.mark.parametrize(
    ("install_status", "then"),
    [(0, [INSTALLING, "fetched -m venv --clear .venv"]), (1, [])],
)
def test_without_a_python_that_will_do_uv_installs_one_or_nothing_else_is_tried(
    checkout: Path, tmp_path: Path, install_status: int, then: list[str]
):
    path = stand_ins(tmp_path / "bin", python3="3.14")
    uv_stand_in(tmp_path / "bin", install_status)
    output = run(checkout, "make", "run", expect=2, PATH=path).split("make: ***")[0].splitlines()
    assert output == [
        f"No {NEEDED} was found; uv installs 3.12",
        "uv python install 3.12",
        *then,
    ]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What `make run` printed where no source is reached, and the scratch copy of its demo."""
    folder = tmp_path_factory.mktemp("demo")
    checkout = install(make_project(folder / "checkout", "download.dataset=fashion-mnist"))
    beyond = ("train_limit:", "train_limit: 6000"), ("validation: 0", "validation: 10000")
    edit_text(checkout / "params.yaml", *beyond)  # what there is of digits
    before = run(checkout, "git", "status", "--short")
    output = run(checkout, "make", "run", TMPDIR=str(folder))
    assert run(checkout, "git", "status", "--short") == before
    assert not [path for path in (checkout / "data").rglob("*") if path.is_file()]
    (scratch,) = re.findall(r"(?m)^Made in a scratch copy, (.*)$", output)
    return output, Path(scratch)


def test_a_run_that_reaches_no_source_says_so_and_runs_a_demo_that_can_be_served(
    demo: tuple[str, Path],
):
    output, scratch = demo
    assert output.startswith("error: /nowhere: No such file or directory; ")
    assert "The data set cannot be fetched. Nothing is wrong with the installation" in output
    assert re.search(r"(?m)^metrics/models/fashion-sklearn\.json +0\.\d+ ", output)
    (command,) = re.findall(r"(?m)^Serve the models:   (.+)$", output)
    (example,) = re.findall(r"(?m)^Send a request: .* -d @(\S+)$", output)
    check_served(command, Path(example), scratch.parent)


def test_two_runs_of_all_stages_make_the_same_bytes(demo: tuple[str, Path], trained: Path):
    output, scratch = demo
    assert stages_run(output) == STAGES
    assert (scratch / "dvc.lock").read_text("utf-8") == (trained / "dvc.lock").read_text("utf-8")
    for path in trained.glob("metrics/models/*"):
        assert (scratch / path.relative_to(trained)).read_bytes() == path.read_bytes()


@deep
def test_diff_shows_a_changed_parameter_with_what_it_does_to_metrics_and_plots(project: Path):
    install(project)
    changes = ("  C: 5", "  C: 0.01"), ("min_accuracy: 0.8", "min_accuracy: 0.1")
    edit_text(project / "params.yaml", *changes)
    run(project, "dvc", "repro")
    found = run(project, "make", "--silent", "diff", "BASE=HEAD")
    assert found.startswith("## The working tree compared with HEAD\n\n### Parameters\n")
    assert re.search(r"(?m)^\| params\.yaml +\| svm\.C +\| 5 +\| 0\.01 +\|$", found)
    change = r"fashion-sklearn\.json +\| accuracy +\| (0\.\d+) +\| (0\.\d+) +\| -0\.\d+ +\|"
    ((before, after),) = re.findall(change, found)
    assert float(after) < float(before)
    assert "fashion-xgboost.json" not in found
    page = (project / "dvc_plots/index.html").read_text("utf-8")
    assert "metrics/predictions/fashion-sklearn.csv" in page


def test_diff_says_where_nothing_differs(trained: Path):
    output = run(trained, ".ci/diff", "HEAD", "HEAD")
    assert output.count("Nothing differs.") == 2
