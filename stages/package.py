"""Make a repository that MLServer serves out of the trained models.

Reads   models/sklearn/model.joblib, models/xgboost/model.json, data/processed/test.npz
Writes  serving/models/<name>/     the model's file and model-settings.json
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
from serving.fashion.contract import INPUT_NAME, OUTPUT_NAME, PIXELS
from serving.server import MODEL_SETTINGS
from stages.dataset import PROCESSED, Images, read_npz
from stages.errors import StageError, run
from stages.params import load_params

TARGET = Path("serving/models")
EXAMPLE = "example.json"

# name: (file, the MLServer runtime that serves it)
MODELS = {
    "fashion-sklearn": (Path("models/sklearn/model.joblib"), "fashion.runtimes.KernelModel"),
    "fashion-xgboost": (Path("models/xgboost/model.json"), "mlserver_xgboost.XGBoostModel"),
}


def model_settings(
    name: str, model: Path, runtime: str, version: str, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """What MLServer has to know of a model: its runtime, file, version, inputs and outputs."""
    return {
        "name": name,
        "implementation": runtime,
        "parameters": {
            "uri": f"./{model.name}",
            "version": version,
            "extra": {
                "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
                "class_names": class_names,
            },
        },
        "inputs": [{"name": INPUT_NAME, "datatype": "FP64", "shape": [-1, PIXELS]}],
        "outputs": [{"name": OUTPUT_NAME, "datatype": "INT64", "shape": [-1, 1]}],
    }


def package(target: Path, models: dict[str, tuple[Path, str]], version: str, data: Images) -> None:
    """Put the models, and a request that asks for the first image, into the folder `target`.

    models: by name, (file, runtime). The folder is replaced whole or not at all.
    Raises StageError for a model's file that is missing.
    """
    beside = target.resolve().parent.parent  # not inside serving/, where a server would find it
    with tempfile.TemporaryDirectory(dir=beside, prefix=".part-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        for name, (file, runtime) in models.items():
            if not file.exists():
                raise StageError(f"{file}: not found; train it with: dvc repro")
            (new / name).mkdir(parents=True)
            shutil.copyfile(file, new / name / file.name)
            settings = model_settings(name, file, runtime, version, data.class_names)
            _write_json(new / name / MODEL_SETTINGS, settings, indent=4)
        _write_json(new / EXAMPLE, infer_request(data.images[:1], "FP64"))
        if target.exists():
            target.rename(old)
        new.rename(target)


def _write_json(path: Path, content: dict[str, Any], indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def main() -> None:
    version = load_params().package.version
    package(TARGET, MODELS, version, read_npz(PROCESSED / "test.npz"))
    print(f"{TARGET}: {', '.join(MODELS)}, both {version}")


if __name__ == "__main__":
    run(main)
