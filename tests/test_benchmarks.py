"""What the benchmarks ask, and how they sum up.  Run: pytest tests/test_benchmarks.py"""

import json
from pathlib import Path
from typing import Any

import pytest
from scratch import ROOT

from benchmarks import approximation, engines, pictures
from benchmarks.figures import Figures, Load, figures, median
from benchmarks.servers import (
    BLOG_REST,
    KINDS,
    OUR_GRPC,
    OUR_REST,
    WAYS,
    cpu_seconds,
    end_load,
    memory_mb,
    start_load,
)
from benchmarks.serving import OPEN_CONNECTIONS, SATURATED, ratios, table
from benchmarks.soak import MIX, Part, job
from serving.launch import Server
from stages.dataset import Images

SPEED = {BLOG_REST: 100.0, OUR_REST: 400.0, OUR_GRPC: 300.0}


@pytest.mark.parametrize("part", MIX, ids=lambda p: f"{p.way.protocol}-{p.kind}-{p.rows}-{p.good}")
def test_every_part_of_the_soak_is_answered_as_it_expects(
    server: Server, digits: tuple[Images, Images], part: Part
):
    came = end_load(start_load(job(server, part, digits[1].images, 40.0, 0.5)))
    assert (came.sent, came.wrong) == (20, 0)


def test_the_shares_of_the_soak_add_up_to_1():
    assert sum(part.share for part in MIX) == pytest.approx(1)


def test_a_server_uses_time_and_memory(server: Server):
    assert cpu_seconds(server) > 0.5
    assert 100 < memory_mb(server) < 2000


@pytest.fixture
def result() -> dict[str, Any]:
    """As serving.json has it: the blog's way answers 100 a second, and ours 400 and 300."""
    loads = [
        Load(kind, way, connections, rows, factor)
        for kind in KINDS
        for way in WAYS
        for connections, rows, factor in [
            *((c, 1, 0.0) for c in (1, SATURATED, OPEN_CONNECTIONS)),
            (1, 16, 0.0),
            (OPEN_CONNECTIONS, 1, 1.0),
        ]
    ]
    runs = {
        load: [
            Figures(SPEED[load.way] * luck, 1, 2, 1e3 / SPEED[load.way] * luck, 1, 0)._asdict()
            for luck in (0.5, 1.0, 3.0)
        ]
        for load in loads
    }
    return {
        "loads": [
            load._asdict() | {"way": load.way._asdict(), "runs": runs[load]} for load in loads
        ],
        "seconds": {
            f"{whose}-{kind}: 10 images to labels": [seconds]
            for whose, seconds in (("blog", 8.0), ("fashion", 2.0))
            for kind in KINDS
        },
    }


def test_the_median_of_several_runs_counts_what_was_wrong_in_all():
    runs = [Figures(speed, 1, 2, 3, 4, wrong) for speed, wrong in ((5, 0), (1, 2), (9, 1))]
    assert median(runs) == Figures(5, 1, 2, 3, 4, 3)


def test_ratios_are_of_medians_and_above_1_where_ours_is_better(result: dict[str, Any]):
    found = ratios(result)
    assert found["single images a second, REST, 8 connections"] == {"sklearn": 4.0, "xgboost": 4.0}
    assert found["single images a second, gRPC, 64 connections"]["xgboost"] == 3.0
    assert found["p99 at the rate that saturates the blog's way, gRPC"]["sklearn"] == 3.0
    assert found["10 images to labels, each with its own client"]["sklearn"] == 4.0
    assert "| 10 images to labels, each with its own client | 4.0 | 4.0 |" in table(found)


def test_two_pictures_are_drawn(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("LATENCY", "THROUGHPUT"):
        monkeypatch.setattr(pictures, name, tmp_path / f"{name}.svg")
    pictures.draw(figures(result))
    for name in ("LATENCY", "THROUGHPUT"):
        text = (tmp_path / f"{name}.svg").read_text("utf-8")
        assert all(label in text for label in pictures.NAMES.values())


def test_the_table_of_the_approximation_has_a_line_a_size_and_says_what_took_too_long():
    def row(images: int, landmarks: int | None, seconds: float | None) -> dict[str, Any]:
        found = {"seconds": seconds, "peak_mb": 1500.4, "accuracy": seconds and 0.9}
        return {"images": images, "landmarks": landmarks} | found

    rows = [row(5000, None, 1.25), row(60_000, None, None), row(60_000, 300, 30.0)]
    assert approximation.table(rows).splitlines() == [
        "| images | exact, s | MB | accuracy | 300 landmarks, s | MB | accuracy |",
        "|---|---|---|---|---|---|---|",
        "| 5,000 | 1.2 | 1,500 | 0.9000 | – | – | – |",
        f"| 60,000 | over {approximation.LIMIT_S} | 1,500 | – | 30.0 | 1,500 | 0.9000 |",
    ]


@pytest.mark.parametrize(("module", "key"), [(approximation, "rows"), (engines, "boosting")])
def test_the_tables_of_the_page_are_those_of_the_last_results(module: Any, key: str):
    result = json.loads((ROOT / module.RESULT).read_text("utf-8"))
    page = (ROOT / "benchmarks/README.md").read_text("utf-8")
    assert module.table(result[key]) in page
    if module is engines:
        assert engines.preprocess_table(result["preprocess"]) in page
