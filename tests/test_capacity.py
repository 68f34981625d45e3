"""The capacity plan says what follows from the measurements.  Run: pytest tests/test_capacity.py"""

import json
from itertools import product

import pytest
from scratch import ROOT

from benchmarks import capacity
from benchmarks.capacity import ALONE, MANY, SINGLE, body, duration, per_core, two_digits
from benchmarks.figures import Load, figures
from benchmarks.servers import KINDS

README = (ROOT / "deploy/README.md").read_text("utf-8")
CROSSING = ((4, 20), (0.8, 2), (4, 20), (2, 6))  # times the cores' price, by the way of asking
FOUND = figures(json.loads((ROOT / capacity.SERVING).read_text("utf-8")))


def test_the_tables_are_those_that_the_program_prints():
    for table in capacity.tables(ROOT):
        assert f"\n\n{table}\n\n" in README, table


def test_the_prices_are_those_that_the_text_states():
    text = " ".join(README.split())
    assert f"${2 * capacity.CORE_HOUR:.4f} an hour for two vCPUs" in text
    assert f"${capacity.GB_BETWEEN_ZONES} a GB between zones" in text
    assert f"month of {capacity.MONTH} hours" in text


def rates(asked: list[Load], kind: str) -> list[float]:
    """Images that a core answers a second, over REST and over gRPC."""
    return [per_core(FOUND, load, kind) * load.rows for load in asked]


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_text_says_of_the_tables_holds(kind: str):
    alone, single, many = (rates(asked, kind) for asked in (ALONE, SINGLE, MANY))
    for lone, waiting in zip(alone, single, strict=True):
        assert 2.9 < waiting / lone < 5
    computing, most = {"sklearn": ((0.4, 0.6), 0.6), "xgboost": ((0.25, 0.4), 0.5)}[kind]
    assert computing[0] < single[0] / many[1] < computing[1]
    for one, batched in zip(single, many, strict=True):
        assert one / batched < most
    for asked, (least, highest) in zip((*SINGLE, *MANY), CROSSING, strict=True):
        crossing = body(asked) / 1e9 * 3600 * capacity.GB_BETWEEN_ZONES
        core = capacity.CORE_HOUR / (capacity.SHARE * per_core(FOUND, asked, kind))
        assert least < crossing / core < highest
    assert single[0] > single[1]
    assert many[0] < many[1]
    for load, rate in zip(SINGLE, single, strict=True):
        opened = [x for x in FOUND if (x.kind, x.way) == (kind, load.way) and x.factor]
        planned = min(opened, key=lambda x: abs(FOUND[x].per_second - capacity.SHARE * rate))
        assert 30 < FOUND[planned].p99 < 120
    assert body(SINGLE[0]) > 4 * body(SINGLE[1])


def test_both_models_in_one_server_wait_as_long_as_the_text_says():
    result = json.loads((ROOT / "benchmarks/soak.json").read_text("utf-8"))
    for part in result["parts"]:
        assert not part["good"] or 150 < part["p99"] < 350


@pytest.mark.parametrize(
    ("number", "words"),
    [(2, "2"), (13_049, "13,000"), (0.0066, "0.0066"), (2.04, "2.0"), (0.9999, "1.0")],
)
def test_numbers_have_two_digits_that_count(number: float, words: str):
    assert two_digits(number) == words


def test_durations_are_in_the_largest_unit_that_fits():
    assert duration(50.2) == "50 s"
    assert duration(59 * 60) == "59 min"
    assert duration(1.39e8) == "4.4 years"


def test_each_rate_is_asked_in_each_way():
    rows = capacity.tables(ROOT)[1].splitlines()[2:]
    ways = product(capacity.RATES, (*SINGLE, *MANY))
    for row, (rate, asked) in zip(rows, ways, strict=True):
        assert row.startswith(f"| {rate:,} | {capacity.words(asked)} |")
