"""Make a repository that MLServer serves out of the trained models, and of earlier versions.

Reads   models/, data/processed/features.npz, data/processed/test.npz
Writes  serving/models/<name>/<version>/    the model's files, features.npz, model-settings.json
        serving/models/example.json         a request with the first evaluation image, to try
        serving/models/samples.json         the first evaluation images, for the try-it page
Params  package
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.package")

import base64
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from serving.client import infer_request
from serving.fashion.contract import (
    CLASS_LABELS,
    IMAGES,
    INPUT_NAME,
    LABELS,
    PIXELS,
    PROBABILITIES,
    SAMPLES_FILE,
    TRAINING_FILE,
)
from serving.fashion.integrity import sha256
from serving.fashion.packaged import MODEL_SETTINGS
from stages import params as sections
from stages.console import StageError, run
from stages.data.idx import FEATURES, PROCESSED, Images, read_npz
from stages.data.previous import fetch_version
from stages.params import load_params

TARGET = Path("serving/models")
EXAMPLE = "example.json"
SAMPLES = 80  # images, of which the try-it page makes a grid


class Source(NamedTuple):
    """Where a model comes from.

    file: its own, its neighbours go with it; runtime: serves it; section: of package.serving.
    """

    file: Path
    runtime: str
    section: str


MODELS = {
    "fashion-sklearn": Source(
        Path("models/sklearn/model.joblib"), "fashion.runtimes.SvmModel", "sklearn"
    ),
    "fashion-xgboost": Source(
        Path("models/xgboost/model.json"), "fashion.runtimes.TreesModel", "xgboost"
    ),
}


def model_settings(
    name: str, source: Source, folder: Path, params: sections.Package, names: tuple[str, ...]
) -> dict[str, Any]:
    """A model's settings and metadata for MLServer.

    folder: holds all its files, training.json among them; names: of the classes.
    """
    training = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
    return {
        "name": name,
        "implementation": source.runtime,
        "platform": training["engine"],
        "versions": [*params.previous, params.version],
        "parameters": {
            "uri": f"./{source.file.name}",
            "version": params.version,
            "extra": {
                "class_names": names,
                "max_rows": params.max_rows,
                "limits": params.limits.model_dump(),
                "serving": getattr(params.serving, source.section).model_dump(),
                "training": training["parameters"],
                "libraries": training["libraries"],
                "sha256": {path.name: sha256(path) for path in sorted(folder.iterdir())},
            },
        },
        "inputs": [{"name": INPUT_NAME, "datatype": "UINT8", "shape": [-1, PIXELS]}],
        "outputs": [
            {"name": LABELS, "datatype": "INT64", "shape": [-1]},
            {"name": PROBABILITIES, "datatype": "FP64", "shape": [-1, len(names)]},
            {"name": CLASS_LABELS, "datatype": "BYTES", "shape": [-1]},
            {"name": IMAGES, "datatype": "UINT8", "shape": [-1, PIXELS]},
        ],
    }


def package(
    target: Path,
    models: dict[str, Source],
    features: Path,
    params: sections.Package,
    data: Images,
) -> None:
    """Put the models, a request that asks for the first image, and samples, into `target`.

    models: by name; features: the file of the map from pixels, which goes with each. The folder is
    replaced whole or not at all. Raises StageError for a file that is missing, and for an earlier
    version that cannot be had.
    """
    beside = target.resolve().parent.parent  # not inside serving/, where a server would find it
    with tempfile.TemporaryDirectory(dir=beside, prefix=".part-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        for name, source in models.items():
            folder = new / name / params.version
            folder.mkdir(parents=True)
            neighbours = sorted(p for p in source.file.parent.glob("[!.]*") if p != source.file)
            for path in (source.file, *neighbours, features):
                if not path.exists():
                    raise StageError(f"{path}: not found; make it with: dvc repro")
                shutil.copyfile(path, folder / path.name)
            settings = model_settings(name, source, folder, params, data.class_names)
            _write_json(folder / MODEL_SETTINGS, settings, indent=4)
            for version, revision in params.previous.items():
                fetch_version(version, revision, target / name / version, new / name / version)
        _write_json(new / EXAMPLE, infer_request(data.images[:1], "FP64"))
        _write_json(new / SAMPLES_FILE, samples(data))
        if target.exists():
            target.rename(old)
        new.rename(target)


def samples(data: Images) -> dict[str, Any]:
    """The first images for people to try: names of the classes; of each, label and pixels.

    Pixels are 784 bytes in base64.
    """
    first = zip(data.labels[:SAMPLES].tolist(), data.images[:SAMPLES], strict=True)
    return {
        "class_names": data.class_names,
        "images": [
            {"label": label, "pixels": base64.b64encode(image.tobytes()).decode("ascii")}
            for label, image in first
        ],
    }


def _write_json(path: Path, content: dict[str, Any], indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def main() -> None:
    params = load_params().package
    package(TARGET, MODELS, FEATURES, params, read_npz(PROCESSED / "test.npz"))
    print(f"{TARGET}: {', '.join(MODELS)}, each as {', '.join([*params.previous, params.version])}")


if __name__ == "__main__":
    run(main)
