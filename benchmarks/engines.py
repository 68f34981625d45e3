"""Measure preprocessing and XGBoost's engines on 1, 4 and 16 times the training images.

A machine is one core here. Copies of 55,000 training images, shifted and mirrored, go through
`download` and `preprocess` as a data set of one's own, preprocess with its address space limited;
then each engine boosts 40 rounds: local and external on one core, Dask with one and two workers of
a core each. The other 5,000 training images tell the accuracy.

Run: python -m benchmarks.engines [--quick], after make dask and dvc repro download
Writes benchmarks/engines.json, or with --quick, on 5,500 images, only prints.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.augmented import augmented
from benchmarks.conditions import conditions
from serving.fashion.contract import CLASS_NAMES
from stages.closed_yaml import Loader
from stages.dataset import RAW, TEST_FILES, TRAIN_FILES, Images, read_idx, write_idx
from stages.errors import StageError, run
from stages.split import split

RESULT, ROOT = Path("benchmarks/engines.json"), Path(__file__).parent.parent
TIMES = (1, 4, 16)
HELD_OUT, ROUNDS = 5_000, 40
ADDRESS_SPACE = 4 << 30  # bytes that preprocess may map at most, however many images there are
ENGINES = {"local": 0, "external": 0, "dask, 1 worker": 1, "dask, 2 workers": 2}
# Runs a module, then prints the most kB that were resident. (The system's resource usage of a child
# counts what its parent had when it was forked.)
PEAK = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def write_data(folder: Path, data: Images, held_out: Images, copies: int) -> None:
    """Write a project's params.yaml, and its data set as IDX files."""
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader=Loader)
    params["download"] |= {"dataset": "own", "sources": [str(folder)]}
    params["download"]["own"]["class_names"] = list(data.class_names)
    params["xgboost"] |= {"n_estimators": ROUNDS, "early_stopping_rounds": None}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    parts = list(augmented(data.images, data.labels, copies))
    images, labels = (np.concatenate(of) for of in zip(*parts, strict=True))
    every = Images(images, labels, data.class_names)
    write_idx(folder / TRAIN_FILES[0], folder / TRAIN_FILES[1], every, level=1)
    write_idx(folder / TEST_FILES[0], folder / TEST_FILES[1], held_out)


def measured(folder: Path, *module: str, limit: int | None = None, core: int | None = None) -> Any:
    """Run a module in a folder: seconds, peak MB, and the last line it printed."""
    confined = ["prlimit", f"--as={limit}"] if limit else []
    confined += ["taskset", "--cpu-list", str(core)] if core is not None else []
    start = time.perf_counter()
    done = subprocess.run(
        [*confined, sys.executable, "-c", PEAK, *module],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise StageError(f"{' '.join(module)}: {done.stderr[-2000:]}")
    *said, peak = done.stdout.splitlines()
    return {"seconds": seconds, "peak_mb": int(peak) / 1024, "said": said[-1]}


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str | None, list[int]]]:
    """The address of a scheduler of Dask and its workers' process ids, each with its own core."""
    if not workers:
        yield None, []
        return
    file = folder / "scheduler.json"
    common = ("--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(file))
    running = [_dask(0, "scheduler", *common, "--port", "0")]
    try:
        while not file.exists():
            time.sleep(0.1)
        options = (*common, "--no-nanny", "--nthreads", "1", "--local-directory", str(folder))
        running += [_dask(core, "worker", *options) for core in range(workers)]
        yield json.loads(file.read_text())["address"], [p.pid for p in running[1:]]
    finally:
        file.unlink(missing_ok=True)
        for process in running:
            process.kill()
            process.wait()


def _dask(core: int, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["taskset", "--cpu-list", str(core), sys.executable, "-m", "dask", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def boost(folder: Path, engine: str) -> dict[str, Any]:
    """Boost with an engine: seconds without the start of anything, MB of each process, accuracy."""
    with cluster(folder, ENGINES[engine]) as (scheduler, workers):
        name, count = engine.split(",", maxsplit=1)[0], str(len(workers))
        given = measured(folder, "benchmarks.boost", name, scheduler or "null", count, core=0)
        peaks = [_peak_mb(pid) for pid in workers]
    return json.loads(given["said"]) | {"worker_mb": peaks}


def _peak_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def preprocess_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a size."""
    lines = ["| images | `preprocess`, seconds | MB |", "|---" * 3 + "|"]
    lines += [f"| {r['images']:,} | {r['seconds']:.0f} | {r['peak_mb']:,.0f} |" for r in rows]
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a size and engine."""
    head = "| images | engine | seconds | times local | MB, client | MB, each worker | accuracy |"
    lines = [head, "|---" * 7 + "|"]
    local = {row["images"]: row["seconds"] for row in rows if row["engine"] == "local"}
    for row in rows:
        workers = max(row["worker_mb"], default=None)
        lines.append(
            f"| {row['images']:,} | {row['engine']} | {row['seconds']:.1f} "
            f"| {row['seconds'] / local[row['images']]:.2f} | {row['client_mb']:,.0f} "
            f"| {f'{workers:,.0f}' if workers else '–'} | {row['accuracy']:.4f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    quick = parser.parse_args().quick
    data = read_idx(RAW / TRAIN_FILES[0], RAW / TRAIN_FILES[1], CLASS_NAMES["fashion-mnist"])
    rest, chosen = split(data.labels, HELD_OUT, seed=7)
    rest = rest[::10] if quick else rest
    train, held_out = (
        Images(data.images[p], data.labels[p], data.class_names) for p in (rest, chosen)
    )
    preprocessing, rows = [], []
    for times in TIMES:
        with tempfile.TemporaryDirectory(prefix="bench-", dir="data") as scratch:
            folder = Path(scratch).resolve()
            write_data(folder, train, held_out, times)
            measured(folder, "stages.download")
            found = measured(folder, "stages.preprocess", limit=ADDRESS_SPACE)
            preprocessing.append({"images": times * len(rest)} | found)
            print(preprocessing[-1], flush=True)
            for engine in ENGINES:
                rows.append({"images": times * len(rest), "engine": engine} | boost(folder, engine))
                print(rows[-1], flush=True)
    print(f"\n{preprocess_table(preprocessing)}\n\n{table(rows)}\n")
    if not quick:
        result = conditions("benchmarks.engines") | {"address_space": ADDRESS_SPACE}
        result |= {"rounds": ROUNDS, "preprocess": preprocessing, "boosting": rows}
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"{RESULT} written")


if __name__ == "__main__":
    run(main)
