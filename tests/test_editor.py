"""What the editor and its container are told is so.  Run: pytest tests/test_editor.py"""

import json
import re
from typing import Any

from scratch import ROOT

from doctor import PORTS

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def read(name: str) -> Any:
    """The content of JSON with comments on lines of their own."""
    return json.loads(re.sub(r"(?m)^ *//.*$", "", (ROOT / name).read_text("utf-8")))


SETTINGS = read(".vscode/settings.json")
RECOMMENDED = read(".vscode/extensions.json")["recommendations"]
CONTAINER = read(".devcontainer/devcontainer.json")


def test_the_editor_takes_what_make_installs():
    assert re.search(r"(?m)^VENV := \.venv$", MAKEFILE)
    python = SETTINGS["python.defaultInterpreterPath"]
    assert python == "${workspaceFolder}/.venv/bin/python"


def test_each_file_that_the_settings_name_exists():
    for name in [*SETTINGS["yaml.schemas"].values(), *SETTINGS["files.associations"]]:
        assert (ROOT / name).exists(), name


def test_the_formatter_is_among_the_recommended_extensions():
    assert SETTINGS["[python]"]["editor.defaultFormatter"] in RECOMMENDED


def test_the_container_has_the_recommended_extensions():
    assert CONTAINER["customizations"]["vscode"]["extensions"] == RECOMMENDED


def test_the_container_forwards_the_ports_of_the_server():
    assert CONTAINER["forwardPorts"] == list(PORTS.values())
    assert list(CONTAINER["portsAttributes"]) == [str(port) for port in PORTS.values()]


def test_the_container_has_a_python_that_will_do_and_starts_with_a_verb():
    (pythons,) = re.findall(r"(?m)^PYTHONS := (.+)$", MAKEFILE)
    assert CONTAINER["image"].rpartition(":")[2] in pythons.split("|")
    (verb,) = re.findall(r"^make ([a-z-]+)$", CONTAINER["postCreateCommand"])
    assert f"\n{verb}: " in MAKEFILE
