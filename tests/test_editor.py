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


def test_the_settings_name_what_exists():
    assert SETTINGS["python.defaultInterpreterPath"] == "${workspaceFolder}/.venv/bin/python"
    for name in [*SETTINGS["yaml.schemas"].values(), *SETTINGS["files.associations"]]:
        assert (ROOT / name).exists(), name
    assert SETTINGS["[python]"]["editor.defaultFormatter"] in RECOMMENDED
    assert CONTAINER["customizations"]["vscode"]["extensions"] == RECOMMENDED


def test_the_container_forwards_the_ports_of_the_server():
    assert CONTAINER["forwardPorts"] == list(PORTS.values())
    assert list(CONTAINER["portsAttributes"]) == [str(port) for port in PORTS.values()]


def test_the_container_has_a_python_that_will_do_and_starts_with_a_verb():
    (pythons,) = re.findall(r"(?m)^PYTHONS := (.+)$", MAKEFILE)
    assert CONTAINER["image"].rpartition(":")[2] in pythons.split("|")
    (verb,) = re.findall(r"^make ([a-z-]+)$", CONTAINER["postCreateCommand"])
    assert f"\n{verb}: " in MAKEFILE
