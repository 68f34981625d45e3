"""Make a repository that MLServer serves out of the trained models, and of earlier versions.

Reads   models/<each that is named>, data/processed/test.npz
Writes  serving/models/<name>/<version>/    the folder's files, model-settings.json
        serving/models/example.json         a request with the first evaluation image
        serving/models/samples.json         the first evaluation images, for the try-it page
Params  package
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.package models/sklearn …")

import base64
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serving.client import infer_request
from serving.fashion import contract
from serving.fashion.integrity import sha256
from serving.fashion.packaged import MODEL_SETTINGS
from stages import params as sections
from stages.console import StageError, run
from stages.data.arrays import atomic_folder
from stages.data.previous import fetch_version
from stages.data.processed import TEST, Images, read_npz
from stages.params import load_params

TARGET = Path("serving/models")
EXAMPLE = "example.json"
SAMPLES = 80  # images, of which the try-it page makes a grid


def model_settings(
    served: dict[str, str], folder: Path, params: sections.Package, names: tuple[str, ...]
) -> dict[str, Any]:
    """A model's settings and metadata for MLServer.

    served: see stages/training/saved.py; folder: holds all its files; names: of the classes.
    """
    training = json.loads((folder / contract.TRAINING_FILE).read_text(encoding="utf-8"))
    return {
        "name": served["name"],
        "implementation": served["runtime"],
        "platform": training["engine"],
        "versions": [
            *(v for v in params.previous if (folder.parent / v).exists()),  # it may be newer
            params.version,
        ],
        "parameters": {
            "uri": f"./{served['file']}",
            "version": params.version,
            "extra": {
                "class_names": names,
                "max_rows": params.max_rows,
                "limits": params.limits.model_dump(),
                "serving": params.serving.model_dump(),
                "training": training["parameters"],
                "libraries": training["libraries"],
                "sha256": {path.name: sha256(path) for path in sorted(folder.iterdir())},
            },
        },
        "inputs": [
            {"name": contract.INPUT_NAME, "datatype": "UINT8", "shape": [-1, contract.PIXELS]}
        ],
        "outputs": [
            {"name": contract.LABELS, "datatype": "INT64", "shape": [-1]},
            {"name": contract.PROBABILITIES, "datatype": "FP64", "shape": [-1, len(names)]},
            {"name": contract.CLASS_LABELS, "datatype": "BYTES", "shape": [-1]},
            {"name": contract.IMAGES, "datatype": "UINT8", "shape": [-1, contract.PIXELS]},
        ],
    }


def how_served(folders: Iterable[Path]) -> dict[Path, dict[str, str]]:
    """How the model of each folder is served, by its training.json.

    Raises StageError for a folder without that, and where two have models of one name.
    """
    found = {}
    for folder in folders:
        path = folder / contract.TRAINING_FILE
        try:
            found[folder] = json.loads(path.read_text(encoding="utf-8"))["served"]
            path = folder / found[folder]["file"]
            path.stat()
        except FileNotFoundError:
            raise StageError(f"{path}: not found; make it with: dvc repro") from None
        except KeyError:
            why = (
                "does not say how the model is served; expected what stages/training/saved.py wrote"
            )
            raise StageError(f"{path}: {why}: train it again") from None
    for name, count in Counter(served["name"] for served in found.values()).items():
        if count > 1:
            raise StageError(f"{count} models are served as {name}; expected a name for each")
    return found


def package(
    target: Path, folders: Iterable[Path], params: sections.Package, data: Images
) -> list[str]:
    """Write the models, a request with the first image, and samples into `target`.

    folders: as stages/training/saved.py writes them. `target` is replaced whole or not at all.
    Returns the models' names. Raises StageError for a folder or earlier version that is missing.
    """
    models = how_served(folders)
    names = [served["name"] for served in models.values()]
    with atomic_folder(target) as new:
        for version, revision in params.previous.items():
            fetch_version(version, revision, names, target, new)
        for source, served in models.items():
            folder = new / served["name"] / params.version
            folder.mkdir(parents=True)
            for path in source.glob("[!.]*"):
                shutil.copyfile(path, folder / path.name)
            settings = model_settings(served, folder, params, data.class_names)
            _write_json(folder / MODEL_SETTINGS, settings, indent=4)
        _write_json(new / EXAMPLE, infer_request(data.images[:1], "FP64"))
        _write_json(new / contract.SAMPLES_FILE, samples(data))
    return names


def samples(data: Images) -> dict[str, Any]:
    """The first images for people to try: names of classes; of each, label, pixels in base64."""
    images = [
        {"label": int(label), "pixels": base64.b64encode(image.tobytes()).decode("ascii")}
        for label, image in zip(data.labels[:SAMPLES], data.images[:SAMPLES], strict=True)
    ]
    return {"class_names": data.class_names, "images": images}


def _write_json(path: Path, content: dict[str, Any], indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")


def main() -> None:
    folders = [Path(name) for name in sys.argv[1:]]
    if not folders:
        raise StageError("no models to package; expected their folders: models/sklearn …")
    params = load_params().package
    names = package(TARGET, folders, params, read_npz(TEST))
    print(f"{TARGET}: {', '.join(names)}, each as {', '.join([*params.previous, params.version])}")


if __name__ == "__main__":
    run(main)
