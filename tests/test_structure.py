"""The layout keeps what it promises.  Run: pytest tests/test_structure.py"""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from scratch import ROOT, run

from stages.params import Params

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES = ["download", "preprocess", "train_sklearn", "train_xgboost", "package", "evaluate"]
PLUMBING = {ROOT / f"stages/{name}.py" for name in ("console", "params")}
OF_SECTION = {
    "features": ["preprocess"],
    "svm": ["train_sklearn"],
    "scores": ["preprocess"],
    "threads": ["preprocess", "train_sklearn", "train_xgboost"],
    "xgboost": ["train_xgboost"],
    "calibration": ["train_sklearn", "train_xgboost"],
}


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


def test_there_are_the_six_stages_in_their_order():
    assert list(PIPELINE["stages"]) == STAGES


def test_each_section_of_the_params_is_named_after_its_stage_or_listed_here():
    for section in Params.model_fields:
        readers = [
            name for name in STAGES if section in sections_of(PIPELINE["stages"][name]["params"])
        ]
        expected = OF_SECTION.get(section, [section])
        assert [name for name in readers if name in expected] == expected


def sections_of(keys: list[str]) -> set[str]:
    return {key.split(".")[0] for key in keys}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_says_what_it_does_and_runs_its_module(name: str):
    stage = PIPELINE["stages"][name]
    assert stage["desc"]
    assert stage["cmd"].endswith(f"python -m stages.{name}")


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


def test_outputs_are_ignored_by_git_or_small_and_tracked():
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    tracked = run(ROOT, "git", "ls-files").splitlines()
    for stage in PIPELINE["stages"].values():
        for out in stage.get("outs", []) + stage.get("metrics", []):
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            kept_in_git = options.get("cache") is False
            assert kept_in_git != any(f"/{path}".startswith(rule.rstrip("/")) for rule in ignored)
            assert kept_in_git == any(name.startswith(path) for name in tracked)


def test_only_what_makes_or_reads_the_test_files_knows_them():
    for name, stage in PIPELINE["stages"].items():
        knows = any("t10k" in str(path) for path in stage["deps"] + stage.get("outs", []))
        assert knows == (name in {"download", "preprocess"})
    for module in [*ROOT.glob("stages/**/*.py"), *ROOT.glob("serving/**/*.py")]:
        if "TEST_FILES" in module.read_text("utf-8"):
            assert module.stem in {"idx", "download", "own_images", "preprocess"}


def test_what_stands_beside_the_six_stages():
    beside = {path.name for path in (ROOT / "stages").iterdir() if path.name != "__pycache__"}
    folders = {"data", "training", "evaluation"}
    assert beside - {f"{name}.py" for name in [*STAGES, "params", "console", "__init__"]} == folders


def test_no_module_is_above_250_lines():
    for folder in ("stages", "serving", "report", "benchmarks", "deploy"):
        for module in (ROOT / folder).rglob("*.py"):
            assert len(module.read_text("utf-8").splitlines()) <= 250, module


def test_no_path_is_absolute_or_leaves_the_project():
    for stage in PIPELINE["stages"].values():
        for path in stage["deps"]:
            assert not path.startswith(("/", "..")), path


def test_serving_never_imports_stages():
    for module in (ROOT / "serving").rglob("*.py"):
        assert "stages" not in {p.parent.name for p in imports(module)}, module


def test_what_ships_inside_the_server_imports_its_own_by_relative_names():
    for module in (ROOT / "serving/fashion").rglob("*.py"):
        text = module.read_text("utf-8")
        assert not re.search(r"^\s*(from|import) (serving|stages|fashion)\b", text, re.M), module


def test_server_settings_leave_host_and_ports_to_the_environment():
    settings = yaml.safe_load((ROOT / "serving/settings.json").read_text("utf-8"))
    assert not {"host", "http_port", "grpc_port", "metrics_port"} & set(settings)
    assert settings["debug"] is False
    assert "MLSERVER_HOST=127.0.0.1" in (ROOT / ".env").read_text("utf-8")


def test_the_core_of_the_server_knows_nothing_of_mlserver():
    """What lasts, beside the adapter, which may be exchanged."""
    program = (
        "import sys; sys.path.insert(0, 'serving')\n"
        "import fashion.infer, fashion.integrity, fashion.packaged, fashion.model.classifiers\n"
        "import fashion.protocol.rest, fashion.protocol.grpc\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = set(run(ROOT, sys.executable, "-c", program).split())
    assert "fashion" in loaded
    assert not loaded & {"mlserver", "fastapi", "starlette", "uvicorn", "grpc", "tritonclient"}
    adapter = ROOT / "serving/fashion/adapter"
    outside = {ROOT / f"serving/fashion/{name}.py" for name in ("repository", "runtimes")}
    for module in (ROOT / "serving/fashion").rglob("*.py"):
        if adapter not in module.parents and module not in outside:
            text = module.read_text("utf-8")
            assert not re.search(r"(?m)^\s*(from|import) \.*(adapter|mlserver|uvicorn)\b", text), (
                module
            )
