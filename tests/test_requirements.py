"""Another Python than the project needs.  Run: pytest tests/test_requirements.py"""

import re
import sys

from packaging.requirements import Requirement
from scratch import ROOT, run

LINES = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
FIRST = next(line for line in LINES if line and not line.startswith("#"))
GUARD = Requirement(FIRST)
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def test_the_first_requirement_is_for_every_python_but_those_that_make_takes():
    (accepted,) = re.findall(r"(?m)^PYTHONS := (.*)$", MAKEFILE)
    assert GUARD.marker
    for version in ("2.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "4.0"):
        applies = GUARD.marker.evaluate({"python_version": version})
        assert applies == (version not in accepted.split("|")), version


def test_pip_stops_at_it_with_the_python_that_is_needed(tmp_path):
    (tmp_path / "requirements.txt").write_text(f"{GUARD.name} @ {GUARD.url}\nno-such-package\n")
    pip = (sys.executable, "-m", "pip", "install", "--no-index", "--disable-pip-version-check")
    output = run(tmp_path, *pip, "-r", "requirements.txt", expect=1).strip().splitlines()
    assert output[-1].endswith(
        "No such file or directory: "
        "'/Python 3.11 or 3.12 is needed (MLServer needs less than 3.13).zip'"
    )


def test_the_lock_is_made_without_it():
    assert f"--excludes <(echo {GUARD.name})" in MAKEFILE
    assert GUARD.name not in (ROOT / "requirements.lock").read_text("utf-8")
