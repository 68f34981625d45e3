"""Something else than the models know is noticed.  Run: pytest tests/test_drift.py"""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scratch import Digits, write_log

from report import drift as report
from report.windows import Values, measures
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.logged import LoggedImages
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.packaged import models_in
from stages.console import StageError
from stages.data.processed import TEST

Drift = Callable[..., str]


@pytest.fixture
def project(module_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project on digits, of which evaluate has run: the working directory."""
    monkeypatch.chdir(module_project)
    return module_project


@pytest.fixture
def drift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Drift:
    """Runs report.drift in the working directory; returns what it prints."""

    def drift(*options: str, drifted: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["report.drift", "log", *options])
        monkeypatch.setattr(report, "REPOSITORY", Path.cwd() / "serving")
        if drifted:
            with pytest.raises(SystemExit, match=f"^{report.DRIFTED}$"):
                report.main()
        else:
            report.main()
        return capsys.readouterr().out

    return drift


def write_responses(project: Path, images: np.ndarray, with_pixels: bool) -> Path:
    """A log of both models' responses to images, in requests of 10."""
    lines = []
    for model in models_in(project / "serving"):
        outputs = load_classifier(model.path).classify(images)
        for start in range(0, len(images), 10):
            rows = slice(start, start + 10)
            lines.append(
                LoggedImages(
                    time=np.datetime64("2026-01-01T00:00:00").astype(object),
                    id=str(start),
                    model=model.name,
                    version=model.version,
                    protocol="rest",
                    status=200,
                    milliseconds=1.0,
                    images=len(images[rows]),
                    labels=outputs[LABELS][rows].tolist(),
                    probabilities=outputs[PROBABILITIES][rows].max(axis=1).tolist(),
                    pixels=images[rows].tobytes() if with_pixels else b"",
                )
            )
    write_log(project / "log", lines)
    return project / "log"


def test_what_another_version_gave_is_left_out(project: Path, digits: Digits, drift: Drift):
    folder = write_responses(project, digits[1].images[:60], with_pixels=True)
    (path,) = folder.iterdir()
    path.write_text(path.read_text("utf-8").replace('"v1"', '"v0"'), "utf-8")
    with pytest.raises(StageError, match=r"request log with responses of .*fashion-sklearn v1"):
        drift()


def test_images_as_evaluated_raise_no_alarm_and_others_do(
    project: Path, digits: Digits, drift: Drift
):
    images = digits[1].images
    write_responses(project, images[:200], with_pixels=True)
    text = drift("--images", "300")
    assert text.count("as before") == len(text.splitlines()) - text.count("drift.html")
    assert re.search(r"(?m)^distance .*\(200 images\)", text)  # both models got the same 200
    page = (project / "drift.html").read_text("utf-8")
    assert "No measure is above its threshold" in page
    assert page.count("<svg") == 5
    assert page.count('src="data:image/png') == 12
    write_responses(project, 255 - images[:200], with_pixels=True)
    text = drift("--images", "200", drifted=True)
    for name in ("confidence of fashion-sklearn", "distance"):
        (line,) = (line for line in text.splitlines() if line.startswith(name))
        assert line.endswith("drifted")
    assert "measures are above their thresholds" in (project / "drift.html").read_text("utf-8")


def test_one_model_alone_is_compared_and_disagrees_with_none(
    project: Path, digits: Digits, drift: Drift
):
    moved = (project / "serving/models/fashion-sklearn").rename(project / "moved")
    write_responses(project, digits[1].images[:200], with_pixels=True)
    text = drift("--images", "200")
    moved.rename(project / "serving/models/fashion-sklearn")
    measured = re.findall(r"(?m)^(\w+).* images\): as before$", text)
    assert measured == ["classes", "confidence", "distance"]


def test_without_pixels_the_labels_are_measured_alone(project: Path, digits: Digits, drift: Drift):
    zeros = digits[1].images[digits[1].labels == 0]
    write_responses(project, np.tile(zeros, (3, 1))[:100], with_pixels=False)
    text = drift(drifted=True)
    models = len(models_in(project / "serving"))
    assert text.count("classes of") == text.count("confidence of") == models
    assert "disagreement, distance: not measured" in text
    assert "FASHION_REQUEST_LOG_IMAGES" in (project / "drift.html").read_text("utf-8")


def test_too_little_to_measure_is_an_error(project: Path, digits: Digits, drift: Drift):
    write_responses(project, digits[1].images[:20], with_pixels=True)
    moved = (project / TEST).rename(project / "moved.npz")  # images are counted before it is read
    with pytest.raises(StageError, match="expected 50 images of a model at least"):
        drift()
    moved.rename(project / TEST)
    shutil.rmtree(project / "log")
    with pytest.raises(StageError, match="log: No such file or directory"):
        drift()
    with pytest.raises(StageError, match="--images is 0; expected 50 or more"):
        drift("--images", "0")


def test_unchanged_windows_are_rarely_above_the_thresholds_and_changed_ones_are():
    random = np.random.default_rng(2)

    def values(size: int, change: float) -> Values:
        shares = [0.1 + change, *[(0.9 - change) / 9] * 9]
        return {
            "classes of m": random.choice(10, size, p=shares),
            "disagreement": (random.random(size) < 0.05 + change).astype(float),
            "distance": random.random(size).round(2) + change,  # some are equal
        }

    reference, alarms = values(4000, 0), np.zeros(3)
    for _ in range(300):
        alarms += [m.drifted for m in measures(values(200, 0), reference)]
    assert sum(alarms) <= 10  # 3 expected
    assert all(m.drifted for m in measures(values(500, 0.2), reference))
