"""The client as a program: python -m serving.client."""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from serving.client import GRPC_URL, REST_URL, Client, Outputs, ResponseError, connect
from serving.client.replay import CHANGED, add_options, logged, replay, rows
from serving.fashion.contract import CLASS_LABELS, LABELS, PROBABILITIES

TEST_IMAGES = Path("data/processed/test.npz")
SHOWN = LABELS, PROBABILITIES, CLASS_LABELS


class Pictures(NamedTuple):
    """Images to classify: uint8 [n, 784], or files; actual: their classes, where known."""

    names: list[str]
    images: np.ndarray | list[bytes]
    actual: list[str] | None


def parser() -> argparse.ArgumentParser:
    """The program's options."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", action="append", help="this one only; repeatable (default: all)")
    common.add_argument("--version", default="", help="of the model (default: the newest)")
    common.add_argument("--protocol", choices=["rest", "grpc"], default="rest")
    common.add_argument(
        "--url", default="", help=f"of the server (default: {REST_URL}, {GRPC_URL})"
    )
    common.add_argument(
        "--token-file", type=Path, default=os.environ.get("FASHION_TOKEN_FILE") or None,
        help="whose first line the server asks for (default: FASHION_TOKEN_FILE)",
    )  # fmt: skip
    common.add_argument(
        "--ca", default=os.environ.get("FASHION_CA", ""),
        help="that may have signed the server's certificate (default: FASHION_CA, the system's)",
    )  # fmt: skip
    common.add_argument("--json", action="store_true", help="print JSON, not a table")
    program = argparse.ArgumentParser(
        prog="python -m serving.client", description="Send requests to the server of both models."
    )
    commands = program.add_subparsers(dest="command", required=True)
    commands.add_parser("health", parents=[common], help="check that server and models are ready")
    commands.add_parser("metadata", parents=[common], help="show the metadata of each model")
    predict = commands.add_parser("predict", parents=[common], help="classify pictures")
    predict.add_argument("pictures", nargs="*", type=Path, help="PNG or JPEG files")
    predict.add_argument("--index", help="of evaluation images instead, as 3, 0..9 or 1,5,7")
    predict.add_argument("--proba", action="store_true", help="show every class's probability")
    predict.add_argument("--invert", action="store_true", help="the pictures show dark on bright")
    replayed = "send a request log's images again, and show what changes"
    add_options(commands.add_parser("replay", parents=[common], help=replayed))
    return program


def indices(text: str, count: int) -> list[int]:
    """Positions that a text like 0..9 or 1,5,7 names, in its order. Raises ValueError."""
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        last = int(ends[2] or ends[1]) if ends else -1
        if not ends or not int(ends[1]) <= last < count:
            raise ValueError(f"--index: expected 3, 0..9 or 1,5,7, below {count:,}, got {text}")
        found += range(int(ends[1]), last + 1)
    return found


def read_pictures(options: argparse.Namespace) -> Pictures:
    """The images that the options name. Raises ValueError, in one line."""
    if bool(options.pictures) == (options.index is not None):
        raise ValueError("expected pictures or --index, one of both")
    if options.pictures:
        try:
            files = [path.read_bytes() for path in options.pictures]
        except OSError as error:
            raise ValueError(f"{error.filename}: {error.strerror}") from None
        return Pictures(names=[p.name for p in options.pictures], images=files, actual=None)
    try:
        with np.load(TEST_IMAGES, allow_pickle=False) as data:
            chosen = indices(options.index, len(data["labels"]))
            actual = data["class_names"][data["labels"][chosen]].tolist()
            return Pictures(
                names=[str(i) for i in chosen], images=data["images"][chosen], actual=actual
            )
    except FileNotFoundError:
        raise ValueError(f"{TEST_IMAGES}: not found; make it with: dvc repro preprocess") from None


def read_token(path: Path | None) -> str:
    """The first line of a file, "" without one. Raises ValueError, in one line."""
    if path is None:
        return ""
    try:
        lines = path.read_text("ascii").split()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        lines = []
    if not lines:
        raise ValueError(f"{path}: expected a token, in its first line")
    return lines[0]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns of equal width, the first row a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def show_results(
    pictures: Pictures, results: dict[str, Outputs], names: Sequence[str] | None
) -> str:
    """A line an image; names: of the classes, to show the probability of each."""
    columns = {"image": pictures.names} | ({"actual": pictures.actual} if pictures.actual else {})
    for model, outputs in results.items():
        confidences = outputs[PROBABILITIES].max(axis=1)
        pairs = zip(outputs[CLASS_LABELS], confidences, strict=True)
        columns[model] = [f"{label} {probability:.1%}" for label, probability in pairs]
    parts = [table([list(columns), *zip(*columns.values(), strict=True)])]
    for model, outputs in results.items() if names else ():
        shown = [[f"{p:.4f}" for p in row] for row in outputs[PROBABILITIES]]
        lines = [[name, *row] for name, row in zip(pictures.names, shown, strict=True)]
        parts.append(table([[model, *(names or ())], *lines]))
    return "\n\n".join(parts)


def predict(client: Client, options: argparse.Namespace) -> str:
    """Labels and probabilities of the images that the options name."""
    pictures = read_pictures(options)
    models = options.model or client.image_models()
    results = {
        model: client.infer(model, pictures.images, SHOWN, options.version, options.invert)
        for model in models
    }
    if options.json:
        plain = {m: {k: v.tolist() for k, v in outputs.items()} for m, outputs in results.items()}
        return json.dumps(
            {"images": pictures.names, "actual": pictures.actual, "models": plain}, indent=2
        )
    names = None
    if options.proba:
        parameters = client.metadata(models[0], options.version).get("parameters", {})
        count = next(iter(results.values()))[PROBABILITIES].shape[1]
        names = json.loads(parameters.get("class_names", "null")) or [str(c) for c in range(count)]
    return show_results(pictures, results, names)


def health(client: Client, options: argparse.Namespace) -> tuple[str, bool]:
    """Which are ready, and whether all are."""
    ready = {"server": client.ready()}
    models = options.model or client.models()
    ready |= {model: client.ready(model, options.version) for model in models}
    if options.json:
        return json.dumps(ready, indent=2), all(ready.values())
    rows = [[name, "ready" if is_ready else "not ready"] for name, is_ready in ready.items()]
    return table(rows), all(ready.values())


def metadata(client: Client, options: argparse.Namespace) -> str:
    """Metadata of the models."""
    models = options.model or client.models()
    found = {model: client.metadata(model, options.version) for model in models}
    if options.json:
        return json.dumps(found, indent=2)
    parts = []
    for model, facts in found.items():
        lines = [["model", model], ["platform", str(facts.get("platform", ""))]]
        lines.append(["versions", ", ".join(facts.get("versions") or [])])
        for side in ("inputs", "outputs"):
            lines += [[side[:-1], _tensor(tensor)] for tensor in facts.get(side) or []]
        lines += [[name, str(value)] for name, value in (facts.get("parameters") or {}).items()]
        parts.append(table(lines))
    return "\n\n".join(parts)


def show_changes(client: Client, options: argparse.Namespace) -> tuple[str, int]:
    """What changes where logged requests are sent again, and the program's exit code."""
    try:
        by_model = logged(options.folder, options.model or [])
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    changes = {
        model: replay(client, model, options.version, lines) for model, lines in by_model.items()
    }
    code = CHANGED if any(c.share > options.allow for c in changes.values()) else 0
    if options.json:
        return json.dumps({model: c._asdict() for model, c in changes.items()}, indent=2), code
    return table(rows(changes)), code


def _tensor(tensor: dict[str, Any]) -> str:
    shape = ", ".join(str(side) for side in tensor["shape"]).replace("-1", "n")
    return f"{tensor['name']} {tensor['datatype']} [{shape}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; exits with 1 and one line where something is wrong."""
    options, code = parser().parse_args(arguments), 0
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else each retry is a line of its own
    try:
        token = read_token(options.token_file)
        if options.ca and not Path(options.ca).is_file():
            raise ValueError(f"{options.ca}: expected a file of certificates, got none")
        with connect(options.protocol, options.url, token, options.ca) as client:
            if options.command == "health":
                text, success = health(client, options)
                code = 0 if success else 1
            elif options.command == "replay":
                text, code = show_changes(client, options)
            else:
                text = {"metadata": metadata, "predict": predict}[options.command](client, options)
    except (ResponseError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
