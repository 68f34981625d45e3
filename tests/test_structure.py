"""The layout keeps what it promises.  Run: pytest tests/test_structure.py"""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from scratch import ROOT, run

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES = list(PIPELINE["stages"])
PLUMBING = {ROOT / f"stages/{name}.py" for name in ("console", "params")}


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
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                beside = path.parents[max(node.level, 1) - 1].relative_to(ROOT).parts
                package = beside if node.level else ()
                source = ".".join([*package, node.module])
                names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                place = ROOT / name.replace(".", "/")
                todo += [p for p in (place.with_suffix(".py"), place / "__init__.py") if p.exists()]
    kernels = ROOT / "stages/__init__.py"
    long = {path for path in found if len(path.read_text("utf-8")) > 200}
    return {path for path in found if path.stem != "__init__" or path in long - {kernels}}


def sections_of(keys: list[str]) -> set[str]:
    return {key.split(".")[0] for key in keys}


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
    text = (ROOT / "stages" / f"{name}.py").read_text("utf-8")
    doc = ast.get_docstring(ast.parse(text)) or ""
    (documented,) = re.findall(r"(?m)^Params +(.*)$", doc)
    listed = PIPELINE["stages"][name]["params"]
    assert sections_of(listed) == sections_of(documented.split(", "))


def test_no_stage_but_the_first_two_reads_the_test_files():
    for name, stage in PIPELINE["stages"].items():
        knows = any("t10k" in str(path) for path in stage["deps"] + stage.get("outs", []))
        assert knows == (name in {"download", "preprocess"})


def test_serving_never_imports_stages():
    for module in (ROOT / "serving").rglob("*.py"):
        assert "stages" not in {p.parent.name for p in imports(module)}, module


def test_what_ships_inside_the_server_imports_its_own_by_relative_names():
    for module in (ROOT / "serving/fashion").rglob("*.py"):
        text = module.read_text("utf-8")
        assert not re.search(r"^\s*(from|import) (serving|stages|fashion)\b", text, re.M), module


def test_the_core_of_the_server_knows_nothing_of_mlserver():
    """What lasts, beside the adapter, which may be exchanged."""
    program = (
        "import sys; sys.path.insert(0, 'serving')\n"
        "import fashion.inference.infer, fashion.integrity, fashion.packaged\n"
        "import fashion.inference.rest, fashion.inference.grpc, fashion.model.classifiers\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = set(run(ROOT, sys.executable, "-c", program).split())
    assert "fashion" in loaded
    assert not loaded & {"mlserver", "fastapi", "starlette", "uvicorn", "grpc", "tritonclient"}
    adapter = ROOT / "serving/fashion/adapter"
    names = ("repository", "runtimes", "inference/rest_app", "inference/http_protocol")
    outside = {ROOT / f"serving/fashion/{name}.py" for name in names}
    for module in (ROOT / "serving/fashion").rglob("*.py"):
        if adapter not in module.parents and module not in outside:
            text = module.read_text("utf-8")
            assert not re.search(r"(?m)^\s*(from|import) \.*(adapter|mlserver|uvicorn)\b", text), (
                module
            )
