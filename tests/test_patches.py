"""What of MLServer is replaced fits, or the start ends.  Run: pytest tests/test_patches.py

What each replacement is for has its test elsewhere: see WHY.
"""

import re
import sys

import pytest
from scratch import ROOT, run

ROAD = "tests/test_refusals.py::test_a_refusal_is_one_line_of_the_log_without_a_stack"
WHY = {  # by name: a test that fails without the replacement
    "RESTServer": ROAD,
    "GRPCServer": ROAD,
    "_NoSignalServer": "tests/test_faults.py::"
    "test_a_server_told_to_end_under_load_answers_what_it_took_and_frees_its_ports",
    "_is_newer": "tests/test_versions.py::"
    "test_each_version_has_its_url_and_the_highest_number_the_plain_one",
}
INSTALL = "import sys; sys.path.insert(0, 'serving'); import mlserver.server, mlserver.registry"


def test_each_replacement_is_in_its_place_and_few_there_are():
    program = (
        f"{INSTALL}\nimport fashion.repository\n"
        "from importlib import import_module\n"
        "from fashion.adapter.patches import PATCHES\n"
        "assert all(getattr(import_module(p.module), p.name) is p.by and p.why for p in PATCHES)\n"
        "print(*[p.name for p in PATCHES])"
    )
    assert run(ROOT, sys.executable, "-c", program).split() == list(WHY)


@pytest.mark.parametrize("test", sorted(set(WHY.values())))
def test_what_each_replacement_is_for_is_tested(test: str):
    path, name = test.split("::")
    assert f"def {name}(" in (ROOT / path).read_text("utf-8")


UNFIT = {  # changes of MLServer, by what the start says of each
    "no attribute 'RESTServer'": "del mlserver.server.RESTServer",
    "no attribute '_is_newer'": "del mlserver.registry._is_newer",
    "is_newer does not take one": "mlserver.registry._is_newer = lambda one, other, more: 0",
    "GrpcServer is no GRPCServer": "mlserver.server.GRPCServer = type('GRPCServer', (), {})",
    "start has no _get_config": "mlserver.rest.server.RESTServer.start = lambda self: 0",
    "no attribute 'start'": "del mlserver.rest.server.RESTServer.start",
}
EACH_IN_A_COPY = """
import os
for change in sys.argv[1:]:
    copy = os.fork()
    if copy == 0:
        exec(change)
        import fashion.repository
    assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 1, change
"""


def test_an_mlserver_that_does_not_fit_ends_the_start_in_one_line():
    output = run(ROOT, sys.executable, "-c", INSTALL + EACH_IN_A_COPY, *UNFIT.values())
    for line, words in zip(output.splitlines(), UNFIT, strict=True):
        assert line.startswith("error: this MLServer is not one of those tested, ")
        assert words in line


def test_the_tested_versions_are_those_of_the_lock_and_of_the_workflow():
    program = f"{INSTALL}\nfrom fashion.adapter.patches import TESTED\nprint(TESTED)"
    tested = run(ROOT, sys.executable, "-c", program)
    (locked,) = re.findall(r"(?m)^mlserver==(\S+)", (ROOT / "requirements.lock").read_text("utf-8"))
    workflow = (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    assert re.findall(r"\d[\w.]+", tested) == ["1.7.1", locked]
    assert "mlserver==1.7.1" in workflow
