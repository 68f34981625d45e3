"""`make doctor` finds what is wrong, also before anything is installed.

Run: pytest tests/test_doctor.py
"""

import ast
import re
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from scratch import ROOT, install, make_params, run

import doctor
from stages.data.idx import TEST_FILES, TRAIN_FILES

FILES = [*TRAIN_FILES, *TEST_FILES]
FREE = {f"MLSERVER_{name}_PORT": "0" for name in doctor.PORTS}


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
    output = run(folder, "make", "doctor", expect=expect, **(FREE | more))
    lines = re.findall(r"(?m)^(ok|fails) +(Python|port \d+|\S+) +(.+)$", output)
    return {what: (state, words) for state, what, words in lines}


def test_all_is_well_before_anything_is_installed(checkout: Path, source: Path):
    found = examine(checkout, 0, FASHION_MNIST_SOURCE=str(source))
    assert found["data"] == ("ok", f"from {source}")
    assert found["models"] == ("ok", "none packaged yet; make run does it")
    assert not (checkout / ".venv").exists()


def test_another_python_and_no_repository_fail_and_the_rest_is_still_checked(
    checkout: Path, source: Path, tmp_path: Path
):
    (checkout / ".git").rename(checkout / "no.git")
    pretend = "import sys\nsys.version_info = (3, 14, 0, 'final', 0)\n"
    (tmp_path / "sitecustomize.py").write_text(pretend, "utf-8")
    more = {"PYTHONPATH": str(tmp_path), "FASHION_MNIST_SOURCE": str(source)}
    found = examine(checkout, 2, **more)
    assert found["Python"][0] == found["git"][0] == "fails"
    assert found["Python"][1].startswith("3.14, 3.11, 3.12 or 3.13 needed: ")
    assert found["git"][1].endswith("git init")
    assert found["data"][0] == "ok"


def test_an_old_python_can_read_it():
    for module in ("doctor.py", "serving/fashion/adapter/preflight.py"):
        ast.parse((ROOT / module).read_text("utf-8"), feature_version=(3, 8))


def test_a_taken_port_fails_with_what_to_do(checkout: Path, source: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        more = {"MLSERVER_GRPC_PORT": port, "FASHION_MNIST_SOURCE": str(source)}
        found = examine(checkout, 2, **more)
    assert found[f"port {port}"] == (
        "fails",
        f"port {port} of 127.0.0.1: Address already in use; stop what listens there, or choose "
        "another: MLSERVER_GRPC_PORT=…",
    )


def test_where_no_source_responds_each_is_named_with_the_reason(checkout: Path, site: str):
    state, words = examine(checkout, 2, FASHION_MNIST_SOURCE=f"{site}/wrong")["data"]
    assert state == "fails"
    assert words == (
        f"{site}/wrong: File not found; "
        "/nowhere: No such file or directory; "
        "set FASHION_MNIST_SOURCE to a folder or base URL"
    )
    output = run(install(checkout), "python", "doctor.py", "data", expect=1)
    assert output.startswith("error: /nowhere: No such file")


def test_a_folder_needs_the_files_or_tables_of_them(checkout: Path, tmp_path: Path):
    output = run(checkout, "python", "doctor.py", "data", expect=1, FASHION_MNIST_SOURCE=".")
    assert output.startswith("error: .: No such file or directory: train-images-idx3-ubyte.gz, nor")
    for name in ("fashion-mnist_train.csv", "fashion-mnist_test.csv"):
        (tmp_path / name).touch()
    source = f"file://{tmp_path}/"
    assert run(checkout, "python", "doctor.py", "data", FASHION_MNIST_SOURCE=source) == ""


def test_sources_are_read_as_the_pipeline_reads_them(checkout: Path, source: Path):
    make_params(checkout, "download.dataset=fashion-mnist", f"download.sources=['{source}']")
    text = (checkout / "params.yaml").read_text("utf-8")
    flow = text.replace(f"sources:\n  - {source}", f"sources: ['{source}']")
    (checkout / "params.yaml").write_text(flow, "utf-8")
    assert run(checkout, "python", "doctor.py", "data") == ""
    (checkout / "params.yaml").write_text(flow.replace("sources:", "source:"), "utf-8")
    output = run(checkout, "python", "doctor.py", "data", expect=1)
    assert "download.source is" in output
    assert "Traceback" not in output


def test_data_that_is_here_or_bundled_needs_no_source(checkout: Path, site: str):
    assert run(checkout, "python", "doctor.py", "data", FASHION_MNIST_SOURCE=site) == ""
    (checkout / "data/raw").mkdir(parents=True)
    for name in FILES:
        (checkout / "data/raw" / name).touch()
    assert examine(checkout, 0)["data"] == ("ok", "already in data/raw")
    make_params(checkout)
    assert examine(checkout, 0)["data"] == ("ok", "download.dataset is digits")
