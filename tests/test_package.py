"""A repository is whole or not there.  Run: pytest tests/test_package.py"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serving.fashion.packaged import RepositoryError, models_in
from stages.console import StageError
from stages.data.idx import Images
from stages.package import Source, package
from stages.params import Limits, Package, Serving, ServingOfModels


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Source]:
    training = {"engine": "e 1", "parameters": {"C": 5}, "libraries": {"numpy": "2"}}
    for name in ("a/a.joblib", "b/b.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}", "utf-8")
        (tmp_path / name).with_name("training.json").write_text(json.dumps(training), "utf-8")
    return {
        "a": Source(tmp_path / "a" / "a.joblib", "fashion.runtimes.A", "sklearn"),
        "b": Source(tmp_path / "b" / "b.json", "fashion.runtimes.B", "xgboost"),
    }


Pack = Callable[..., None]
LIMITS = Limits(body_mb=2, bodies_mb=4, request_seconds=9, waiting=8)


def version(name: str) -> Package:
    serving = ServingOfModels(
        sklearn=Serving(max_batch_delay_ms=3, rows_per_thread=5),
        xgboost=Serving(max_batch_delay_ms=0, rows_per_thread=1),
    )
    return Package(version=name, previous={}, max_rows=7, limits=LIMITS, serving=serving)


@pytest.fixture
def features(tmp_path: Path) -> Path:
    (tmp_path / "features.npz").write_text("the map", "utf-8")
    return tmp_path / "features.npz"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "serving").mkdir()
    return tmp_path / "serving" / "models"


@pytest.fixture
def pack(target: Path, models: dict[str, Source], features: Path, small: Images) -> Pack:
    """Packages the models, or others, as a version."""

    def pack(name: str, sources: dict[str, Source] = models) -> None:
        package(target, sources, features, version(name), small)

    return pack


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_each_model_has_its_file_and_true_settings(target: Path, pack: Pack):
    pack("v3")
    settings = json.loads((target / "a" / "v3" / "model-settings.json").read_text("utf-8"))
    assert settings["name"] == "a"
    assert settings["implementation"] == "fashion.runtimes.A"
    assert settings["platform"] == "e 1"
    assert settings["versions"] == ["v3"]
    assert settings["parameters"]["version"] == "v3"
    assert settings["parameters"]["uri"] == "./a.joblib"
    assert settings["parameters"]["extra"] == {
        "class_names": ["a", "b", "c", "d"],
        "max_rows": 7,
        "limits": LIMITS.model_dump(),
        "serving": {"max_batch_delay_ms": 3, "rows_per_thread": 5},
        "training": {"C": 5},
        "libraries": {"numpy": "2"},
        "sha256": {
            name: hashlib.sha256((target / "a" / "v3" / name).read_bytes()).hexdigest()
            for name in ("a.joblib", "features.npz", "training.json")
        },
    }
    assert settings["inputs"] == [{"name": "predict", "datatype": "UINT8", "shape": [-1, 784]}]
    assert settings["outputs"] == [
        {"name": "predict", "datatype": "INT64", "shape": [-1]},
        {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 4]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "image", "datatype": "UINT8", "shape": [-1, 784]},
    ]
    assert [(m.name, m.version) for m in models_in(target)] == [("a", "v3"), ("b", "v3")]


def test_the_example_asks_for_the_first_image(target: Path, pack: Pack, small: Images):
    pack("v1")
    (tensor,) = json.loads((target / "example.json").read_text("utf-8"))["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("predict", "FP64", [1, 784])
    assert np.array_equal(tensor["data"], small.images[0])


def test_packaging_twice_gives_the_same_bytes(target: Path, pack: Pack):
    pack("v1")
    first = content(target)
    pack("v1")
    assert content(target) == first


def test_an_earlier_repository_is_replaced_whole(
    target: Path, pack: Pack, models: dict[str, Source]
):
    pack("v1")
    (target / "a" / "stray").write_text("x", "utf-8")
    pack("v2", {"b": models["b"]})
    names = ["b.json", "features.npz", "model-settings.json", "training.json"]
    files = [*(f"b/v2/{name}" for name in names), "example.json", "samples.json"]
    assert sorted(content(target)) == files


@pytest.mark.parametrize("earlier", [True, False])
def test_a_failure_midway_leaves_what_was_there(
    target: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch, earlier: bool
):
    if earlier:
        pack("v1")
    before = content(target)

    def copy_but_fail_on_b(source: Path, to: Path) -> None:
        if source.name == "b.json":
            raise OSError("No space left on device")
        to.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", copy_but_fail_on_b)
    with pytest.raises(OSError, match="No space left"):
        pack("v2")
    assert content(target) == before
    assert target.exists() == earlier
    assert not list(target.parent.parent.glob(".part-*"))


@pytest.mark.parametrize("name", ["a.joblib", "features.npz"])
def test_a_missing_file_is_named_with_its_remedy(
    pack: Pack, models: dict[str, Source], features: Path, name: str
):
    (models["a"][0] if name == "a.joblib" else features).unlink()
    with pytest.raises(StageError, match=f"{name}: not found; make it with: dvc repro"):
        pack("v1")


def test_an_empty_repository_is_named_with_its_remedy(tmp_path: Path):
    with pytest.raises(RepositoryError, match="no model packaged; package them with: dvc repro"):
        models_in(tmp_path)
