"""A repository is whole or not there.  Run: pytest tests/test_package.py"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scratch import files_in

from serving.fashion.packaged import models_in
from stages.console import StageError
from stages.data.processed import Images
from stages.package import package
from stages.params import Limits, Package, Serving


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two models as they are trained, a in a.joblib and b in b.json."""
    training = {"engine": "e 1", "parameters": {"C": 5}, "libraries": {"numpy": "2"}}
    for name, file in (("a", "a.joblib"), ("b", "b.json")):
        served = {"name": name, "file": file, "runtime": f"fashion.runtimes.{name.upper()}"}
        folder = tmp_path / "trained" / name
        folder.mkdir(parents=True)
        (folder / file).write_text(f"content of {file}", "utf-8")
        (folder / "features.npz").write_text("the map", "utf-8")
        (folder / "training.json").write_text(json.dumps(training | {"served": served}), "utf-8")
    return [tmp_path / "trained/a", tmp_path / "trained/b"]


Pack = Callable[..., None]
LIMITS = Limits(body_mb=2, bodies_mb=4, request_seconds=9, waiting=8)


def version(name: str) -> Package:
    serving = Serving(max_batch_delay_ms=3, rows_per_thread=5)
    return Package(version=name, previous={}, max_rows=7, limits=LIMITS, serving=serving)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "serving").mkdir()
    return tmp_path / "serving" / "models"


@pytest.fixture
def pack(target: Path, folders: list[Path], small: Images) -> Pack:
    """Packages the models, or others, as a version."""

    def pack(name: str, sources: list[Path] = folders) -> None:
        package(target, sources, version(name), small)

    return pack


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


def test_the_example_is_a_request_for_the_first_image(target: Path, pack: Pack, small: Images):
    pack("v1")
    (tensor,) = json.loads((target / "example.json").read_text("utf-8"))["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("predict", "FP64", [1, 784])
    assert np.array_equal(tensor["data"], small.images[0])


def test_an_earlier_repository_is_replaced_whole(target: Path, pack: Pack, folders: list[Path]):
    pack("v1")
    (target / "a" / "stray").write_text("x", "utf-8")
    pack("v2", folders[1:])
    names = ["b.json", "features.npz", "model-settings.json", "training.json"]
    files = [*(f"b/v2/{name}" for name in names), "example.json", "samples.json"]
    assert sorted(files_in(target)) == files


@pytest.mark.parametrize("earlier", [True, False])
def test_a_failure_midway_leaves_what_was_there(
    target: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch, earlier: bool
):
    if earlier:
        pack("v1")
    before = files_in(target)

    def copy_but_fail_on_b(source: Path, to: Path) -> None:
        if source.name == "b.json":
            raise OSError("No space left on device")
        to.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", copy_but_fail_on_b)
    with pytest.raises(OSError, match="No space left"):
        pack("v2")
    assert files_in(target) == before
    assert target.exists() == earlier
    assert not list(target.parent.parent.glob(".part-*"))


@pytest.mark.parametrize("name", ["a.joblib", "training.json"])
def test_a_missing_file_is_named_with_its_remedy(pack: Pack, folders: list[Path], name: str):
    (folders[0] / name).unlink()
    with pytest.raises(StageError, match=f"{name}: not found; make it with: dvc repro"):
        pack("v1")


def test_a_folder_that_does_not_say_how_it_is_served_is_rejected(pack: Pack, folders: list[Path]):
    (folders[0] / "training.json").write_text('{"engine": "e 1"}', "utf-8")
    with pytest.raises(StageError, match=r"training\.json: does not say how the model is served"):
        pack("v1")


def test_two_models_of_one_name_are_rejected(
    tmp_path: Path, target: Path, pack: Pack, folders: list[Path]
):
    shutil.copytree(folders[0], tmp_path / "again")
    with pytest.raises(StageError, match="2 models are served as a; expected a name for each"):
        pack("v1", [*folders, tmp_path / "again"])
    assert not target.exists()
