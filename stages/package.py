"""Make a repository that MLServer serves out of the trained models.

Reads   models/, data/processed/features.npz, data/processed/test.npz
Writes  serving/models/<name>/     the model's files, features.npz and model-settings.json
        serving/models/example.json     a request with the first evaluation image, to try
Params  package.version
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from serving.client import infer_request
from serving.fashion.contract import INPUT_NAME, LABELS, PIXELS, PROBABILITIES
from serving.server import MODEL_SETTINGS
from stages.dataset import FEATURES, PROCESSED, Images, read_npz
from stages.errors import StageError, run
from stages.params import load_params

TARGET = Path("serving/models")
EXAMPLE = "example.json"

# name: (the model's own file; its neighbours go with it, the MLServer runtime that serves it)
MODELS = {
    "fashion-sklearn": (Path("models/sklearn/model.joblib"), "fashion.runtimes.SvmModel"),
    "fashion-xgboost": (Path("models/xgboost/model.json"), "fashion.runtimes.TreesModel"),
}


def model_settings(
    name: str, files: list[Path], runtime: str, version: str, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """What MLServer has to know of a model: its runtime, file, version, inputs and outputs.

    files: of the model, its own one first.
    """
    return {
        "name": name,
        "implementation": runtime,
        "parameters": {
            "uri": f"./{files[0].name}",
            "version": version,
            "extra": {
                "sha256": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
                "class_names": class_names,
            },
        },
        "inputs": [{"name": INPUT_NAME, "datatype": "FP64", "shape": [-1, PIXELS]}],
        "outputs": [
            {"name": LABELS, "datatype": "INT64", "shape": [-1, 1]},
            {"name": PROBABILITIES, "datatype": "FP64", "shape": [-1, len(class_names)]},
        ],
    }


def package(
    target: Path,
    models: dict[str, tuple[Path, str]],
    features: Path,
    version: str,
    data: Images,
) -> None:
    """Put the models, and a request that asks for the first image, into the folder `target`.

    models: by name, (file, runtime); what lies beside the file goes with it, and so does
    `features`, the file of the map from pixels. The folder is replaced whole or not at all.
    Raises StageError for a file that is missing.
    """
    beside = target.resolve().parent.parent  # not inside serving/, where a server would find it
    with tempfile.TemporaryDirectory(dir=beside, prefix=".part-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        for name, (file, runtime) in models.items():
            neighbours = sorted(path for path in file.parent.glob("[!.]*") if path != file)
            files = [file, *neighbours, features]
            (new / name).mkdir(parents=True)
            for path in files:
                if not path.exists():
                    raise StageError(f"{path}: not found; make it with: dvc repro")
                shutil.copyfile(path, new / name / path.name)
            settings = model_settings(name, files, runtime, version, data.class_names)
            _write_json(new / name / MODEL_SETTINGS, settings, indent=4)
        _write_json(new / EXAMPLE, infer_request(data.images[:1], "FP64"))
        if target.exists():
            target.rename(old)
        new.rename(target)


def _write_json(path: Path, content: dict[str, Any], indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def main() -> None:
    version = load_params().package.version
    package(TARGET, MODELS, FEATURES, version, read_npz(PROCESSED / "test.npz"))
    print(f"{TARGET}: {', '.join(MODELS)}, both {version}")


if __name__ == "__main__":
    run(main)
