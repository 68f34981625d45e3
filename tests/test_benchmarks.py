"""What the benchmarks ask, and how they sum up.  Run: pytest tests/test_benchmarks.py"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scratch import ROOT

from benchmarks import approximation, engines, load, pictures, soak
from benchmarks.figures import (
    BLOG_REST,
    KINDS,
    OPEN_CONNECTIONS,
    OUR_GRPC,
    OUR_REST,
    SATURATED,
    WAYS,
    Figures,
    Load,
    figures,
    median,
    ratios,
    table,
)
from benchmarks.processes import in_new_process, only_cores
from benchmarks.servers import cpu_seconds, memory_mb
from benchmarks.soak import MIX, TrafficShare
from serving.launch import Server
from stages.data.idx import Images

SPEED = {BLOG_REST: 100.0, OUR_REST: 400.0, OUR_GRPC: 300.0}
README = (ROOT / "benchmarks/README.md").read_text("utf-8")


@pytest.mark.parametrize("part", MIX, ids=lambda p: f"{p.way.protocol}-{p.kind}-{p.rows}-{p.good}")
def test_every_part_of_the_soak_gets_the_responses_that_it_expects(
    server: Server, digits: tuple[Images, Images], part: TrafficShare
):
    job = soak.job(server, part, digits[1].images, 40.0 / part.share, 0.5)
    result = asyncio.run(load.run(job))
    assert (result.sent, result.wrong) == (20, 0)


def test_the_shares_of_the_soak_add_up_to_1():
    assert sum(part.share for part in MIX) == pytest.approx(1)


def test_a_server_uses_time_and_memory(server: Server):
    assert cpu_seconds(server) > 0.5
    assert 100 < memory_mb(server) < 2000


def test_a_process_returns_or_raises_what_its_function_does_and_its_memory_is_measured():
    with only_cores(1):
        size, peak = in_new_process(np.random.default_rng(0).bytes, 100_000_000)
        assert len(in_new_process(os.sched_getaffinity, 0)[0]) == 1
    assert len(size) < 1e6 * peak
    with pytest.raises(ZeroDivisionError):
        in_new_process(divmod, 1, 0)


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


def test_each_picture_is_drawn(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    pictures.draw_serving(figures(result))
    curve = {"images": [1000, 2000], "seconds": [3, 6], "accuracy": [0.8, 0.9], "exponent": 1.0}
    pictures.draw_growth({"ours_sklearn": curve, "ours_xgboost": curve})
    for name in ("latency", "throughput"):
        text = (tmp_path / f"{name}.svg").read_text("utf-8")
        assert all(line["label"] in text for line in pictures.LINES.values())
    assert "fashion-sklearn" in (tmp_path / "growth.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "of_page"),
    [
        ("engines", lambda result: engines.preprocess_table(result["preprocess"])),
        ("engines", lambda result: engines.table(result["boosting"])),
        ("approximation", lambda result: approximation.table(result["rows"])),
    ],
)
def test_the_tables_of_the_page_are_those_of_the_last_results(name: str, of_page: Any):
    result = json.loads((ROOT / f"benchmarks/{name}.json").read_text("utf-8"))
    assert f"\n\n{of_page(result)}\n\n" in README
