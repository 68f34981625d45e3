"""How soon drift.html's measures raise an alarm, and how often where nothing has changed.

Half of the evaluation images set the thresholds, windows are of the other half; more than one such
split where nothing changes.

Reads   data/processed/, serving/models/
Writes  benchmarks/drift.json
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import results
from report.windows import Models, Values, measures, threshold
from serving.fashion.contract import PIXEL_MAX, PIXELS, SIDE
from serving.fashion.packaged import REPOSITORY, models_in, newest
from stages.data.digits import make_digits
from stages.data.processed import TEST, Images, read_npz

RESULT = Path("benchmarks/drift.json")
SEED = 7
SPLITS, UNCHANGED, WINDOW = 10, 100, 500  # halves, windows of nothing new, images of each
SIZES = 50, 100, 200, 500, 1000, 2000
WINDOWS, FOUND = 20, 18  # windows of each size, of which so many have to raise the alarm
NOISE = 25.5  # standard deviation, of 255


def changes(data: Images) -> Iterator[tuple[str, np.ndarray]]:
    """What is asked instead, by name: uint8 [n, 784]."""
    squares = data.images.reshape(-1, SIDE, SIDE)
    noise = np.random.default_rng(SEED).normal(0, NOISE, squares.shape)
    found = {
        "inverted": PIXEL_MAX - squares,
        "rotated by 90°": np.rot90(squares, axes=(1, 2)),
        "shifted by 4 pixels": np.pad(squares, ((0, 0), (0, 0), (4, 0)))[:, :, :SIDE],
        "darker by half": squares // 2,
        "noisy": np.clip(squares + noise, 0, PIXEL_MAX),
        "mirrored": squares[:, :, ::-1],
        "one class missing": squares[data.labels != 0],
        "digits instead": make_digits()[0].images,
    }
    for name, images in found.items():
        yield name, np.ascontiguousarray(images, dtype=np.uint8).reshape(-1, PIXELS)


def alarms(
    values: Values, limits: dict[str, float], reference: Values, size: int, windows: int
) -> int:
    """In how many windows of so many images any measure is above its threshold."""
    random, count = np.random.default_rng(SEED), len(next(iter(values.values())))
    raised = 0
    for _ in range(windows):
        chosen = random.choice(count, size, replace=False)
        window = {name: found[chosen] for name, found in values.items()}
        raised += any(m.drifted for m in measures(window, reference, limits))
    return raised


def limits_of(reference: Values, size: int) -> dict[str, float]:
    """The threshold of each measure, for windows of so many images."""
    return {
        name: threshold(name, values, size, len(reference)) for name, values in reference.items()
    }


def main() -> None:
    data = read_npz(TEST)
    models = Models(newest(models_in(REPOSITORY)))
    values = models(data.images)
    random = np.random.default_rng(SEED)
    half, unchanged = len(data.images) // 2, 0
    for _ in range(SPLITS):
        order = random.permutation(len(data.images))
        reference, rest = (
            {name: every[places] for name, every in values.items()}
            for places in (order[:half], order[half:])
        )
        limits = limits_of(reference, WINDOW)
        unchanged += alarms(rest, limits, reference, WINDOW, UNCHANGED)
    print(f"unchanged: {unchanged} of {SPLITS * UNCHANGED} windows of {WINDOW} images", flush=True)
    until: dict[str, int | None] = {}
    by_size = {size: limits_of(reference, size) for size in SIZES}
    unseen = Images(data.images[order[half:]], data.labels[order[half:]], data.class_names)
    for name, images in changes(unseen):
        found = models(images)
        sizes = (size for size in SIZES if size <= len(images))
        enough = (s for s in sizes if alarms(found, by_size[s], reference, s, WINDOWS) >= FOUND)
        until[name] = next(enough, None)
        print(f"{name}: {until[name]}", flush=True)
    result = {
        "unchanged": {"windows": SPLITS * UNCHANGED, "alarms": unchanged},
        "images_until": until,
    }
    results.write(RESULT, result)


if __name__ == "__main__":
    main()
