"""What of MLServer is replaced fits, or the start ends.  Run: pytest tests/test_patches.py

What each replacement is for has its test elsewhere: see WHY.
"""

import re
import sys
from importlib.metadata import version

import pytest
from scratch import ROOT, run

ROAD = "tests/test_refusals.py::test_a_refusal_is_one_line_of_the_log_without_a_stack"
WHY = {  # by name: a test that fails without the replacement
    "RESTServer": ROAD,
    "GRPCServer": ROAD,
    "_NoSignalServer": "tests/test_faults.py::"
    "test_a_server_told_to_end_under_load_answers_what_it_took_and_frees_its_ports",
    "_is_newer": "tests/test_versions.py::test_each_version_has_its_url_the_highest_number_the_"
    "plain_one_and_loading_may_be_allowed",
}
INSTALL = "import sys; sys.path.insert(0, 'serving'); import mlserver.server, mlserver.registry"


def start(change: str, expect: int) -> str:
    """What the import of the repository prints, after a change of MLServer."""
    program = f"{INSTALL}\n{change}\nimport fashion.repository"
    return run(ROOT, sys.executable, "-c", program, expect=expect)


def test_each_replacement_is_in_its_place_and_few_there_are():
    program = (
        f"{INSTALL}\nimport fashion.repository\n"
        "from importlib import import_module\n"
        "from fashion.adapter.patches import PATCHES\n"
        "assert all(getattr(import_module(p.module), p.name) is p.by and p.why for p in PATCHES)\n"
        "print(*[p.name for p in PATCHES])"
    )
    names = run(ROOT, sys.executable, "-c", program).split()
    assert names == list(WHY)
    assert len(names) <= 6


@pytest.mark.parametrize("test", sorted(set(WHY.values())))
def test_what_each_replacement_is_for_is_tested(test: str):
    path, name = test.split("::")
    assert f"def {name}(" in (ROOT / path).read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("del mlserver.server.RESTServer", "no attribute 'RESTServer'"),
        ("del mlserver.registry._is_newer", "no attribute '_is_newer'"),
        ("mlserver.registry._is_newer = lambda one, other, more: 0", "is_newer does not take one"),
        ("mlserver.server.GRPCServer = type('GRPCServer', (), {})", "GrpcServer is no GRPCServer"),
        ("mlserver.rest.server.RESTServer.start = lambda self: 0", "start has no _get_config"),
        ("del mlserver.rest.server.RESTServer.start", "no attribute 'start'"),
    ],
)
def test_an_mlserver_that_does_not_fit_ends_the_start_in_one_line(change: str, words: str):
    said = start(change, expect=1)
    assert re.fullmatch(r"error: this MLServer is not one of those tested, [^\n]*\n", said), said
    assert words in said


def test_the_tested_versions_are_those_of_the_lock_and_of_the_workflow():
    program = f"{INSTALL}\nfrom fashion.adapter.patches import TESTED\nprint(TESTED)"
    tested = run(ROOT, sys.executable, "-c", program)
    (locked,) = re.findall(r"(?m)^mlserver==(\S+)", (ROOT / "requirements.lock").read_text("utf-8"))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    assert re.findall(r"\d[\w.]+", tested) == ["1.7.1", locked]
    assert "mlserver==1.7.1" in workflow


def test_the_suite_runs_on_one_of_the_tested_versions():
    assert version("mlserver") in {"1.7.1", "1.7.2rc1"}
