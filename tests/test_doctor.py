"""`make doctor` finds what is wrong, also before anything is installed.

Run: pytest tests/test_doctor.py
"""

import ast
import re
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from scratch import ROOT, install, make_project, run

import doctor
from stages.data.idx import TEST_FILES, TRAIN_FILES
from stages.download import SOURCE_VARIABLE

FILES = [*TRAIN_FILES, *TEST_FILES]
FREE = {f"MLSERVER_{name}_PORT": "0" for name in doctor.PORTS}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project that knows no source but the one that a test names."""
    folder = make_project(tmp_path / "checkout")
    params = folder / "params.yaml"
    text = re.sub(r"(?m)^    - http.*$", "    - /nowhere", params.read_text("utf-8"))
    params.write_text(text, "utf-8")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with four files named as published."""
    (tmp_path / "source").mkdir()
    for name in FILES:
        (tmp_path / "source" / name).touch()
    return tmp_path / "source"


@pytest.fixture
def site(source: Path) -> Iterator[str]:
    """The URL of a server of that folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(source))
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def examine(folder: Path, expect: int, **more: str) -> dict[str, tuple[str, str]]:
    """Run `make doctor`; return state and words by what was checked."""
    said = run(folder, "make", "doctor", expect=expect, **(FREE | more))
    lines = re.findall(r"(?m)^(ok|warning|fails) +(Python|port \d+|\S+) +(.+)$", said)
    return {what: (state, words) for state, what, words in lines}


def test_nothing_is_wrong_before_anything_is_installed(checkout: Path, source: Path):
    found = examine(checkout, 0, FASHION_MNIST_SOURCE=str(source))
    assert found["data"] == ("ok", f"from {source}")
    assert found["packages"] == ("warning", "not installed in .venv yet; make run does it, 1.7 GB")
    assert {what for what, (state, _) in found.items() if state == "warning"} == {
        "packages",
        "models",
    }
    assert not (checkout / ".venv").exists()


def test_the_installed_packages_are_those_of_the_lock(checkout: Path, source: Path):
    found = examine(install(checkout), 0, FASHION_MNIST_SOURCE=str(source))
    assert found["packages"][0] == "ok"


def test_a_package_of_another_version_or_missing_is_named(checkout: Path, source: Path):
    lock = install(checkout) / "requirements.lock"
    text = re.sub(r"(?m)^numpy==\S+", "numpy==1.0", lock.read_text("utf-8"))
    elsewhere = "colour==1.0 ; sys_platform == 'win32' \\\n"
    lock.write_text(f"{text}\nno-such-thing==1.0 \\\n{elsewhere}", "utf-8")
    state, words = examine(checkout, 2, FASHION_MNIST_SOURCE=str(source))["packages"]
    assert state == "fails"
    assert re.match(
        r"unlike requirements.lock: numpy \S+ instead of 1\.0, no-such-thing is missing: ", words
    )


def test_another_python_is_told_with_what_to_do(checkout: Path, source: Path, tmp_path: Path):
    pretend = "import sys\nsys.version_info = (3, 13, 0, 'final', 0)\n"
    (tmp_path / "sitecustomize.py").write_text(pretend, "utf-8")
    found = examine(checkout, 2, PYTHONPATH=str(tmp_path), FASHION_MNIST_SOURCE=str(source))
    assert found["Python"][0] == "fails"
    assert re.search(
        "3.13, .*: nothing can be installed, 3.11 or 3.12 is needed", found["Python"][1]
    )
    assert found["git"][0] == "ok"


@pytest.mark.parametrize("module", ["doctor.py", "serving/fashion/adapter/preflight.py"])
def test_an_old_python_can_read_it(module: str):
    ast.parse((ROOT / module).read_text("utf-8"), feature_version=(3, 8))


def test_a_taken_port_is_told_with_what_to_do(checkout: Path, source: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        more = {"MLSERVER_GRPC_PORT": port, "FASHION_MNIST_SOURCE": str(source)}
        found = examine(checkout, 2, **more)
    assert found[f"port {port}"] == (
        "fails",
        f"make serve would fail: port {port} of 127.0.0.1: Address already in use; stop what "
        "listens there, or choose another: MLSERVER_GRPC_PORT=…",
    )


def test_a_folder_without_the_files_is_told_with_what_to_do(checkout: Path, source: Path):
    (source / FILES[0]).unlink()
    state, words = examine(checkout, 2, FASHION_MNIST_SOURCE=str(source))["data"]
    assert state == "fails"
    assert words.startswith(f"{source}: no {FILES[0]} there; /nowhere: none of the files ")
    assert f"set {SOURCE_VARIABLE} to a folder" in words


def test_a_source_that_is_passed_over_is_a_warning(source: Path, site: str):
    assert doctor.first_source([site], FILES) == ("ok", "data", f"from {site}")
    state, _, words = doctor.first_source([f"{site}/wrong", str(source)], FILES)
    assert state == "warning"
    assert words == f"from {source}; before it, {site}/wrong: File not found"


def test_a_source_that_does_not_answer_is_told_in_one_line():
    closed = f"http://127.0.0.1:{socket_that_was_free()}"
    assert doctor.lacking(closed, FILES) == "Connection refused"
    assert doctor.lacking("http://", FILES) == "no host given"


def socket_that_was_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_files_that_are_here_need_no_source(checkout: Path):
    (checkout / "data/raw").mkdir(parents=True)
    for name in FILES:
        (checkout / "data/raw" / name).touch()
    assert examine(checkout, 0)["data"] == ("ok", "already in data/raw")


def test_digits_need_no_source(tmp_path: Path):
    project = make_project(tmp_path, dataset="digits")
    assert examine(project, 0)["data"] == ("ok", "digits, bundled with scikit-learn")


def test_a_data_set_of_ones_own_is_looked_for_where_and_as_it_is_named(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
):
    written_by_dvc = f"""download:
  dataset: own                  # or digits
  sources:                      # tried in this order
  - {source}
  own:
    class_names:
    - A
    files:                      # as the sources name them
    - {FILES[0]}
    - letters.gz
    md5:
"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(SOURCE_VARIABLE, "/nowhere")  # of no effect
    Path("params.yaml").write_text(written_by_dvc, "utf-8")
    state, _, words = doctor.data()
    assert state == "fails"
    assert words.startswith(f"{source}: no letters.gz there: make run would fail; name a folder ")
    (source / "letters.gz").touch()
    assert doctor.data() == ("ok", "data", f"from {source}")


@pytest.mark.parametrize(
    "text", ["  s: [/a b, 'http://c']  # of\n", "  s:\n    - /a b  # of\n    - 'http://c'\n  t:\n"]
)
def test_a_list_of_the_params_is_read_in_either_form(text: str):
    assert doctor.listed(f"x:\n{text}", "s") == ["/a b", "http://c"]


def test_a_folder_that_is_no_repository_is_told_with_what_to_do(checkout: Path, source: Path):
    (checkout / ".git").rename(checkout / "no.git")
    state, words = examine(checkout, 2, FASHION_MNIST_SOURCE=str(source))["git"]
    assert state == "fails"
    assert "not a git repository" in words
    assert words.endswith("or type: git init")


def test_a_disk_needs_less_once_all_is_installed():
    assert doctor.disk(2.0, is_installed=True).state == "ok"
    assert doctor.disk(2.0, is_installed=False) == (
        "fails",
        "disk",
        "2.0 GB free, 3.0 needed: make run would end with a full disk; free some space",
    )


def test_memory_that_others_use_is_a_warning_and_too_little_of_it_fails():
    assert doctor.memory(4000, 3000, 2200).state == "ok"
    assert doctor.memory(4000, 2000, 2200).state == "warning"
    assert doctor.memory(2000, 2000, 2200).state == "fails"


def test_packaged_models_are_named(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.fashion.packaged.REPOSITORY", repository)
    assert doctor.models() == ("ok", "models", "fashion-sklearn v1, fashion-xgboost v1")


def test_what_it_knows_is_what_the_project_says():
    assert doctor.SOURCE_VARIABLE == SOURCE_VARIABLE
    assert f"{doctor.DISK_GB:.0f} GB of disk" in (ROOT / "README.md").read_text("utf-8")
    assert f"{doctor.INSTALLED_GB} GB" in (ROOT / "Makefile").read_text("utf-8")
    assert doctor.memory_needed() > 1000
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in accepted_versions()


def accepted_versions() -> list[str]:
    (pythons,) = re.findall(r"(?m)^PYTHONS := (.+)$", (ROOT / "Makefile").read_text("utf-8"))
    return str(pythons).split("|")
