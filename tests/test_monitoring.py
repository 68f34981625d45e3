"""Prometheus sees what happens, and alerts.  Run: pytest tests/test_monitoring.py"""

import base64
import json
import os
import re
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from processes import DEADLINE_SECONDS, await_ready, started, wait_until
from scratch import ROOT, Digits, deep, edit_json, run, set_limits
from wire import (
    MODELS,
    body,
    message,
    metrics,
    metrics_url,
    model_ready,
    png,
    post,
    service,
    tensor,
)

from serving.client import ResponseError, RestClient
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.launch import Server, free_ports
from stages.evaluation.alerts import EXPECTED, expected
from stages.evaluation.metrics import recorded

MONITORING = ROOT / "deploy/monitoring"
DASHBOARD = json.loads((MONITORING / "grafana/fashion.json").read_text("utf-8"))
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))
needs_prometheus = pytest.mark.skipif(
    not shutil.which("promtool"), reason="no promtool: apt-get install prometheus"
)


def risen(server: Server, before: dict[Any, float], name: str) -> dict[frozenset[str], float]:
    """How far each series of a name has risen, by the values of its labels."""
    return {
        frozenset(value for _, value in labels): value - before.get((found, labels), 0)
        for (found, labels), value in metrics(server).items()
        if found == name and value != before.get((found, labels), 0)
    }


def test_requests_images_and_confidences_are_counted(server: Server, images: np.ndarray):
    before = metrics(server)
    with RestClient(server.rest) as client:
        outputs = client.infer("fashion-sklearn", images[:50], ["label", "predict_proba"])
    post(server, "fashion-sklearn", body(tensor([0.0], [1, 784])))
    post(server, "nobody", body(tensor([0.0])))
    of = {"fashion-sklearn", "v1"}
    assert risen(server, before, "fashion_requests_total") == {
        frozenset({*of, "rest", "ok"}): 1,
        frozenset({*of, "rest", "400"}): 1,
        frozenset({"", "rest", "404"}): 1,
    }
    labels, counts = np.unique(outputs["label"].astype(str), return_counts=True)
    expected = {frozenset({*of, name}): n for name, n in zip(labels, counts, strict=True)}
    assert risen(server, before, "fashion_images_total") == expected
    assert risen(server, before, "fashion_batch_images_sum") == {frozenset(of): 50}
    assert risen(server, before, "fashion_confidence_count") == {frozenset(of): 50}
    (total,) = risen(server, before, "fashion_confidence_sum").values()
    highest = outputs["predict_proba"].max(axis=1)
    assert total == pytest.approx(highest.sum())
    buckets = risen(server, before, "fashion_confidence_bucket")
    assert buckets[frozenset({*of, "0.9"})] == (highest <= 0.9).sum()
    assert model_ready(server)["fashion-sklearn", "v1"] == 1
    assert metrics(server)["fashion_body_bytes_in_hand", frozenset()] == 0


@needs_prometheus
@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_prometheus_accepts_configuration_and_rules(command: tuple[str, ...]):
    assert "FAILED" not in run(MONITORING, "promtool", *command)


def test_compose_starts_the_server_with_prometheus_and_grafana():
    compose = yaml.safe_load((MONITORING / "compose.yaml").read_text("utf-8"))
    services = compose["services"]
    assert set(services) == {"server", "prometheus", "grafana"}
    for one in services.values():
        for volume in one["volumes"]:
            place = volume.split(":")[0]
            assert place in compose["volumes"] or (MONITORING / place).is_file(), place
        for port in one.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    mounted = {volume.split(":")[1] for volume in services["prometheus"]["volumes"]}
    named = ("prometheus.yml", *config["rule_files"])
    assert {os.path.normpath(f"/etc/prometheus/{name}") for name in named} == mounted
    (scraped,) = config["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": ["server:8082"]}]
    source = yaml.safe_load((MONITORING / "grafana/prometheus.yml").read_text("utf-8"))
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    if "Compose" in run(ROOT, "sh", "-c", "docker compose version", expect=None):
        run(MONITORING, "docker", "compose", "config", "--quiet")


def test_panels_and_alerts_name_metrics_that_there_are(server: Server, images: np.ndarray):
    RestClient(server.rest).infer(MODELS[0], images[:1])  # the first request makes its metrics
    there = {re.sub("_(total|bucket|sum|count|created)$", "", name) for name, _ in metrics(server)}
    recorded = {
        rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule
    }
    there |= recorded | {"fashion_evaluation_class_share", "fashion_evaluation_confidence"}
    texts = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    texts += [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    for text in texts:
        for name in re.findall(r"fashion[_:][a-z_0-9:]+", text):
            assert re.sub("_(total|bucket|sum|count)$", "", name) in there, name


# As a day's windows would make a test last a day, and a small model has no long queue.
SOONER = {
    "> 1000": "> 20",
    "15s": "1s",
    "[5m]": "[10s]",
    "[1h]": "[10s]",
    "for: 1m": "for: 0s",
    "for: 5m": "for: 0s",
    "$__rate_interval": "10s",
}


def sooner(text: str) -> str:
    for old, new in SOONER.items():
        text = text.replace(old, new)
    return text


class Prometheus:
    """A real one, that scrapes a server and knows its alerts, all sooner."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[Any]:
        """The series of an expression, now."""
        response = requests.get(
            f"{self.url}/api/v1/query", params={"query": sooner(expression)}, timeout=60
        )
        assert response.ok, response.text
        return response.json()["data"]["result"]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        response = requests.get(f"{self.url}/api/v1/alerts", timeout=60).json()
        alerts = response["data"]["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, target: str, rules: str) -> Iterator[Prometheus]:
    for name in ("prometheus.yml", "alerts.yml"):
        text = sooner((MONITORING / name).read_text("utf-8")).replace("server:8082", target)
        text = text.replace(f"../../{EXPECTED}", EXPECTED.name)
        (folder / name).write_text(text, "utf-8")
    (folder / EXPECTED.name).write_text(rules, "utf-8")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            found = Prometheus(f"http://{address}")

            def responses() -> bool:
                with suppress(requests.ConnectionError):
                    return requests.get(f"{found.url}/-/ready", timeout=60).ok
                return False

            wait_until(responses, "Prometheus")
            yield found
        finally:
            process.kill()


def evaluated(server: Server, digits: Digits) -> str:
    """What evaluate would have found, for the alerts to compare with."""
    images, _, names = digits[1]
    with RestClient(server.rest) as client:
        outputs = {m: client.infer(m, images, [LABELS, PROBABILITIES]) for m in client.models()}
    return expected(names, {model: recorded(found) for model, found in outputs.items()})


def add_damaged_version(model: Path) -> None:
    """A version v0 of a model, whose file is another than was packaged."""
    shutil.copytree(model / "v1", model / "v0")
    edit_json(model / "v0/model-settings.json", lambda s: s["parameters"].update(version="v0"))
    (model / "v0/model.joblib").write_bytes(b"altered")


def keep_on(send: Callable[[], object], until: Callable[[], object], what: str) -> None:
    """Send again and again until something has happened."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not until():
        assert time.monotonic() < deadline, what
        send()


@deep
@needs_prometheus
def test_a_real_prometheus_fills_each_panel_and_alerts_where_it_should(
    own_repository: Path, tmp_path: Path, digits: Digits
):
    set_limits(own_repository / "models/fashion-xgboost", bodies_mb=1)
    add_damaged_version(own_repository / "models/fashion-sklearn")
    images = digits[1].images
    log = {"FASHION_REQUEST_LOG": str(tmp_path / "log"), "FASHION_REQUEST_LOG_IMAGES": "1"}
    with started(own_repository, tmp_path, **log) as server:
        for model in MODELS:
            await_ready(server, model)
        url = metrics_url(server).removeprefix("http://").removesuffix("/metrics")
        client, random = RestClient(server.rest), np.random.default_rng(1)

        def send(model: str, some: np.ndarray | list[bytes]) -> None:
            with suppress(ResponseError):
                client.infer(model, some)

        def good() -> None:
            for model in MODELS:
                send(model, images[random.permutation(len(images))[:100]])

        with prometheus(tmp_path, url, evaluated(server, digits)) as watching:
            queries = [t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]]
            for query in queries:
                keep_on(good, partial(watching.query, query), f"data of {query}")
            begin = time.monotonic()  # the first windows have but a part of what is sent
            keep_on(good, lambda: time.monotonic() > begin + 15, "fifteen seconds of good load")
            assert watching.firing() == {"FashionModelNotReady"}  # the damaged version

            def fires(alert: str, send: Callable[[], object]) -> None:
                keep_on(send, lambda: alert in watching.firing(), alert)

            fires("FashionRefusals", lambda: post(server, MODELS[0], body(tensor([0.0], [1, 784]))))
            zeros = images[digits[1].labels == 0]
            fires("FashionClassShare", lambda: send(MODELS[0], zeros))
            noise = random.integers(0, 256, (100, 784), dtype=np.uint8)
            fires("FashionConfidence", lambda: send(MODELS[0], noise))
            many = np.zeros((4000, 784), np.uint8)
            fires("FashionErrors", lambda: send("fashion-xgboost", many))

            large = [base64.b64decode(png(np.zeros((4000, 4000), np.uint8)))] * 20
            fires("FashionLatency", lambda: send(MODELS[0], large))
            requests_ = [message(body(tensor(images[:100], datatype="UINT8")), MODELS[0], raw=True)]
            with service(server) as methods:
                infer = methods.ModelInfer.future
                requested = [infer(request, timeout=60) for request in requests_ * 1200]
                wait_until(lambda: "FashionQueue" in watching.firing(), "FashionQueue")
                for call in requested:
                    call.cancel()
            size = server.log.stat().st_size + 10_000
            resource.prlimit(server.guard.pid, resource.RLIMIT_FSIZE, (size, size))
            fires("FashionLogLosesLines", good)
            client.close()
            server.guard.kill()
            wait_until(lambda: "FashionServerDown" in watching.firing(), "FashionServerDown")
