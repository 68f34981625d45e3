"""The client as a program: python -m serving.client."""

import argparse
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from serving.client import GRPC_URL, REST_URL, Client, Outputs, ResponseError, connect, pictures
from serving.fashion.contract import CLASS_LABELS, LABELS, PIXELS, PROBABILITIES
from serving.fashion.logged import LoggedImages, read_log

TEST_IMAGES = Path("data/processed/test.npz")
SHOWN = LABELS, PROBABILITIES, CLASS_LABELS
CHANGED = 3  # exit code of a replay that changes more labels than allowed
Result = tuple[dict[str, Any], str, int]  # of a command: for JSON, for people, the exit code


def parser() -> argparse.ArgumentParser:
    """The program's options."""
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--model", action="append", help="this one only; repeatable (default: all)")
    every.add_argument("--version", default="", help="of the model (default: the newest)")
    every.add_argument("--protocol", choices=["rest", "grpc"], default="rest")
    every.add_argument("--url", default="", help=f"of the server (default: {REST_URL}, {GRPC_URL})")
    every.add_argument(
        "--token-file", type=Path, default=os.environ.get("FASHION_TOKEN_FILE") or None,
        help="the file with the token, in its first line (default: FASHION_TOKEN_FILE)",
    )  # fmt: skip
    every.add_argument(
        "--ca", default=os.environ.get("FASHION_CA", ""),
        help="a file of trusted certificates (default: FASHION_CA, else the system's)",
    )  # fmt: skip
    every.add_argument("--json", action="store_true", help="print JSON, not a table")
    program = argparse.ArgumentParser(
        prog="python -m serving.client", description="Send requests to a server of models."
    )
    commands = program.add_subparsers(dest="command", required=True)
    commands.add_parser("health", parents=[every], help="check that server and models are ready")
    commands.add_parser("metadata", parents=[every], help="print each model's metadata in JSON")
    predicts = commands.add_parser("predict", parents=[every], help="classify pictures")
    predicts.add_argument("pictures", nargs="*", type=Path, help="files or folders of them")
    predicts.add_argument("--index", help="of evaluation images instead, as 3, 0..9 or 1,5,7")
    predicts.add_argument("--proba", action="store_true", help="show every class's probability")
    predicts.add_argument("--invert", action="store_true", help="the pictures show dark on bright")
    purpose = "send a request log's images again, and show what changes"
    replays = commands.add_parser("replay", parents=[every], help=purpose)
    replays.add_argument("folder", type=Path, help="of the log")
    replays.add_argument(
        "--allow", type=float, default=0.0, metavar="SHARE",
        help=f"of labels that may change; above it, exit code {CHANGED} (default: 0)",
    )  # fmt: skip
    return program


def indices(text: str, count: int) -> list[int]:
    """Positions that a text like 0..9 or 1,5,7 names, in its order. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        positions = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else range(0)
        if not positions or positions[-1] >= count:
            raise ValueError(f"--index: expected 3, 0..9 or 1,5,7, below {count:,}, got {text}")
        found += positions
    return found


def read_images(options: argparse.Namespace) -> tuple[np.ndarray, list[str], list[str]]:
    """The images that --index names, uint8 [n, 784], their names and classes. Raises ValueError."""
    if not TEST_IMAGES.exists():
        raise ValueError(f"{TEST_IMAGES}: not found; make it with: dvc repro preprocess")
    with np.load(TEST_IMAGES, allow_pickle=False) as data:
        chosen = indices(options.index, len(data["labels"]))
        actual = data["class_names"][data["labels"][chosen]].tolist()
        return data["images"][chosen], [str(i) for i in chosen], actual


def read_token(path: Path | None) -> str:
    """The first line of a file, "" without one. Raises ValueError, in one line, and OSError."""
    if path is None:
        return ""
    text = path.read_bytes()
    if not text.isascii() or not text.strip():
        raise ValueError(f"{path}: expected a token, in its first line")
    return text.decode().split()[0]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of equal width, the first row a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join(f"{{:<{width}}}" for width in widths)
    return "\n".join(line.format(*row).rstrip() for row in rows)


def class_names(client: Client, model: str, version: str, count: int) -> list[str]:
    """Of a model, from its metadata; numbers where that has none."""
    parameters = client.metadata(model, version).get("parameters", {})
    return json.loads(parameters.get("class_names", "null")) or [str(c) for c in range(count)]


def health(client: Client, options: argparse.Namespace) -> Result:
    """Which are ready; exit code 1 unless all are."""
    ready = {"server": client.ready()}
    ready |= {m: client.ready(m, options.version) for m in options.model or client.models()}
    reasons = {} if options.model else client.reasons()
    rows = [
        [name, "ready" if is_ready else "not ready", reasons.get(name, "")]
        for name, is_ready in ready.items()
    ]
    found = ready | ({"reasons": reasons} if reasons else {})
    return found, table(rows), 0 if all(ready.values()) else 1


def metadata(client: Client, options: argparse.Namespace) -> Result:
    """The metadata of each model, in JSON."""
    models = options.model or client.models()
    found = {model: client.metadata(model, options.version) for model in models}
    return found, json.dumps(found, indent=2), 0


def predict(client: Client, options: argparse.Namespace) -> Result:
    """Labels and probabilities of the images that the options name; 1 where a file is bad."""
    if bool(options.pictures) == (options.index is not None):
        raise ValueError("expected pictures or --index, one of both")
    models = options.model or client.image_models()
    infer = partial(client.infer, outputs=SHOWN, version=options.version, invert=options.invert)
    if options.pictures:
        return _predict_files(client, infer, models, options)
    images, names, actual = read_images(options)
    results = {model: infer(model, images) for model in models}
    return *_show(client, options, names, actual, results), 0


def _predict_files(
    client: Client, infer: Callable[..., Outputs], models: list[str], options: argparse.Namespace
) -> Result:
    files, errors = pictures.read(pictures.find(options.pictures))
    results: dict[str, dict[str, Outputs]] = {}
    for model in models:
        found, rejected = pictures.infer(partial(infer, model), files, model)
        results[model], errors = found, errors | rejected
        files = {name: content for name, content in files.items() if name in found}
    if not options.invert and (bright := pictures.bright(files)):
        others = f" and {len(bright) - 1:,} more" if len(bright) > 1 else ""
        print(
            f"note: {bright[0]}{others}: a bright border; for dark clothes on a bright ground, "
            "add --invert",
            file=sys.stderr,
        )
    for name, why in errors.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    if not files:
        return {"images": [], "actual": None, "models": {}}, "", 1
    joined = {
        model: {o: np.concatenate([found[name][o] for name in files]) for o in SHOWN}
        for model, found in results.items()
    }
    return *_show(client, options, list(files), None, joined), 1 if errors else 0


def _show(
    client: Client,
    options: argparse.Namespace,
    names: list[str],
    actual: list[str] | None,
    results: dict[str, Outputs],
) -> tuple[dict[str, Any], str]:
    columns = {"image": names} | ({"actual": actual} if actual else {})
    plain, details = {}, []
    for model, outputs in results.items():
        plain[model] = {name: array.tolist() for name, array in outputs.items()}
        labels, probabilities = outputs[CLASS_LABELS], outputs[PROBABILITIES]
        pairs = zip(labels, probabilities.max(axis=1), strict=True)
        columns[model] = [f"{label} {probability:.1%}" for label, probability in pairs]
        if options.proba and not options.json:
            heading = class_names(client, model, options.version, probabilities.shape[1])
            cells = [[f"{p:.4f}" for p in row] for row in probabilities]
            rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
            details.append(table([[model, *heading], *rows]))
    overview = table([list(columns), *zip(*columns.values(), strict=True)])
    found = {"images": names, "actual": actual, "models": plain}
    return found, "\n\n".join([overview, *details])


def show_changes(client: Client, options: argparse.Namespace) -> Result:
    """What changes when logged requests are sent again; exit code CHANGED above --allow."""
    requests = logged(options.folder, options.model or [])
    changes = {m: replay(client, m, options.version, lines) for m, lines in requests.items()}
    heading = [name.replace("_", " ") for name in next(iter(changes.values()))]
    rows = [["model", *heading]]
    for model, change in changes.items():
        cells = (f"{n:,}" if isinstance(n, int) else f"{n:.4f}" for n in change.values())
        rows.append([model, *cells])
    too_many = any(change["share"] > options.allow for change in changes.values())
    return changes, table(rows), CHANGED if too_many else 0


def logged(folder: Path, models: list[str]) -> dict[str, list[LoggedImages]]:
    """The log's requests that have their pixels, by model. models: these only, if any.

    Raises ValueError, in one line, where there is none, OSError where a file cannot be read.
    """
    found: dict[str, list[LoggedImages]] = {}
    for line in read_log(folder):
        if line.pixels and (line.model in models or not models):
            found.setdefault(line.model, []).append(line)
    if not found:
        raise ValueError(
            f"{folder}: expected requests with pixels for {', '.join(models) or 'a model'}, found "
            "none; a server logs those of the share FASHION_REQUEST_LOG_IMAGES"
        )
    return found


def replay(
    client: Client, model: str, version: str, lines: Sequence[LoggedImages]
) -> dict[str, float]:
    """Send requests of a model again, one after another, and count and measure what changes.

    changed: labels; share: of all labels; probability: the largest difference, 0 to 1, of that of a
    logged label; logged_ms, now_ms: medians, in the server, and here, with the network in it.
    Raises ResponseError, and ValueError where a model has fewer classes than the log.
    """
    results, now = [], []
    for line in lines:
        pixels = np.frombuffer(line.pixels, np.uint8).reshape(-1, PIXELS)
        start = time.perf_counter()
        results.append(client.infer(model, pixels, [LABELS, PROBABILITIES], version))
        now.append(1000 * (time.perf_counter() - start))
    labels = np.array([label for line in lines for label in line.labels])
    probabilities = np.concatenate([result[PROBABILITIES] for result in results])
    if labels.max() >= probabilities.shape[1]:
        raise ValueError(f"{model}: expected the classes of the log, got fewer: other classes?")
    changed = labels != np.concatenate([result[LABELS] for result in results])
    before = np.concatenate([line.probabilities for line in lines])
    difference = np.abs(probabilities[np.arange(len(labels)), labels] - before).max()
    return {
        "requests": len(lines),
        "images": len(labels),
        "changed": int(changed.sum()),
        "share": float(changed.mean()),
        "probability": float(difference),
        "logged_ms": float(np.median([line.milliseconds for line in lines])),
        "now_ms": float(np.median(now)),
    }


COMMANDS = {"health": health, "metadata": metadata, "predict": predict, "replay": show_changes}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; exits with 1 and one line where something is wrong."""
    options = parser().parse_args(arguments)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else each retry is a line
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else each failed handshake is one
    try:
        token = read_token(options.token_file)
        if options.ca and not Path(options.ca).is_file():
            raise ValueError(f"{options.ca}: expected a file of certificates, got none")
        with connect(options.protocol, options.url, token, options.ca) as client:
            found, text, code = COMMANDS[options.command](client, options)
    except (ResponseError, ValueError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    if options.json or text:
        print(json.dumps(found, indent=2) if options.json else text)
    sys.exit(code)


if __name__ == "__main__":
    main()
