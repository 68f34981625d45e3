"""Probabilities are as sure as they are right.  Run: pytest tests/test_calibration.py"""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from stages.evaluation.metrics import Bin, calibration_error, reliability
from stages.training.calibration import fit_temperature, held_out_size


def drawn(temperature: float, size: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Random decisions of four classes, and labels drawn with their softmax at a temperature."""
    random = np.random.default_rng(1)
    decisions = random.normal(0, 3, (size, 4))
    chances = softmax(decisions / temperature, axis=1).cumsum(axis=1)
    return decisions, (chances < random.random((size, 1))).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.2, 1, 5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float):
    decisions, labels = drawn(temperature)
    found = fit_temperature(lambda t: log_softmax(decisions / t, axis=1), labels)
    assert found == pytest.approx(temperature, rel=0.05)


def test_the_calibration_error_is_small_at_that_temperature_and_large_at_others():
    decisions, labels = drawn(2)
    errors = [
        calibration_error(decisions.argmax(axis=1) == labels, softmax(decisions / t, axis=1).max(1))
        for t in (0.5, 2, 8)
    ]
    assert errors[1] < 0.01
    assert min(errors[0], errors[2]) > 0.1


RIGHT, CONFIDENCE = np.array([True, False, True, True]), np.array([0.9, 0.9, 0.6, 1.0])


def test_the_calibration_error_is_that_computed_by_hand():
    by_hand = (abs(1.8 - 1) + abs(0.6 - 1) + abs(1.0 - 1)) / 4
    assert calibration_error(RIGHT, CONFIDENCE) == pytest.approx(by_hand)


def test_bins_of_confidence_are_those_found_by_hand_and_empty_ones_are_left_out():
    assert reliability(RIGHT, CONFIDENCE) == [Bin(0.6, 1.0, 1), Bin(0.9, 0.5, 2), Bin(1.0, 1.0, 1)]


def test_at_most_a_fifth_of_the_images_is_held_out_but_one_at_least():
    assert held_out_size(60_000, 5000) == 5000
    assert held_out_size(1000, 5000) == 200
    assert held_out_size(4, 5000) == 1
