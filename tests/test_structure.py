"""The layout keeps what it promises.  Run: pytest tests/test_structure.py"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from scratch import ROOT

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES = list(PIPELINE["stages"])
PLUMBING = {ROOT / f"stages/{name}.py" for name in ("console", "params", "data/strict_yaml")}


def imported_by(module: Path) -> Iterator[tuple[int, str]]:
    """The names that a module imports, from the root, each after its level: 0 is absolute."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.parents[node.level - 1].relative_to(ROOT).parts if node.level else ()
            source = ".".join([*package, *filter(None, [node.module])])
            yield node.level, source
            yield from ((node.level, f"{source}.{alias.name}") for alias in node.names)


def imports(module: Path) -> set[Path]:
    """The project's modules that a module imports, itself and what those import included.

    Without PLUMBING: the values of the params are tracked by DVC, and messages are no output.
    """
    found, todo = set(), [module]
    while todo:
        path = todo.pop()
        if path in found or path in PLUMBING:
            continue
        found.add(path)
        for _, name in imported_by(path):
            place = ROOT / name.replace(".", "/")
            todo += [p for p in (place.with_suffix(".py"), place / "__init__.py") if p.exists()]
    kernels = ROOT / "stages/__init__.py"
    long = {path for path in found if len(path.read_text("utf-8")) > 200}
    return {path for path in found if path.stem != "__init__" or path in long - {kernels}}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_code_that_determines_its_output_and_on_no_other(name: str):
    modules = {str(p.relative_to(ROOT)) for p in imports(ROOT / "stages" / f"{name}.py")}
    code = [
        dep for dep in PIPELINE["stages"][name]["deps"] if dep.startswith(("stages", "serving"))
    ]
    code = [dep for dep in code if dep not in ("serving/models", "serving/settings.json")]
    for module in modules:
        assert any(module == dep or module.startswith(f"{dep}/") for dep in code), module
    for dep in set(code) - {"stages/__init__.py"}:
        assert any(module == dep or module.startswith(f"{dep}/") for module in modules), dep
    if name in ("preprocess", "train_sklearn", "train_xgboost"):  # which kernels they compute with
        assert "stages/__init__.py" in code
    if name == "evaluate":  # the server that it starts imports all of it
        assert {"serving/fashion", "serving/launch"} <= set(code)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_each_section_of_the_params_that_it_reads(name: str):
    doc = ast.get_docstring(ast.parse((ROOT / f"stages/{name}.py").read_text("utf-8"))) or ""
    (documented,) = re.findall(r"(?m)^Params +(.*)$", doc)
    listed, read = PIPELINE["stages"][name]["params"], documented.split(", ")
    assert {key.split(".")[0] for key in listed} == {key.split(".")[0] for key in read}


def test_no_stage_but_the_first_two_reads_the_test_files():
    for name, stage in PIPELINE["stages"].items():
        knows = any("t10k" in str(path) for path in stage["deps"] + stage.get("outs", []))
        assert knows == (name in {"download", "preprocess"})


def test_serving_never_imports_stages():
    for module in (ROOT / "serving").rglob("*.py"):
        assert "stages" not in {p.parent.name for p in imports(module)}, module


FASHION = ROOT / "serving/fashion"
INTERFACE = {f"inference.{name}" for name in ("errors", "messages", "predictor", "tensors")}
ROOMS = {  # what each may import of the others, and of MLServer
    "inference": set(),
    "model": {"contract", *INTERFACE},
    "adapter": {"contract", "integrity", "packaged", "inference", "model", "mlserver"},
}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_server_imports_no_other_than_it_may(room: str):
    others = {*ROOMS, "contract", "integrity", "packaged", "logged", "mlserver"} - {room}
    for module in (FASHION / room).glob("*.py"):
        for level, path in imported_by(module):
            name = path.removeprefix("serving.fashion.")
            assert level or name.split(".")[0] not in {"serving", "stages", "fashion"}, module
            of_others = name.split("_")[0].split(".")[0] in others
            allowed = any(f"{name}.".startswith(f"{a}.") for a in ROOMS[room])
            assert not of_others or allowed or name.startswith("mlserver_"), (module, name)
