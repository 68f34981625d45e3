"""Prometheus sees what happens, and alerts.  Run: pytest tests/test_monitoring.py"""

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
from processes import ready, wait_until
from scratch import ROOT, Digits, deep, run
from wire import (
    MODELS,
    body,
    metrics,
    metrics_url,
    model_ready,
    post,
    tensor,
)

from serving.client import RestClient
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.launch import Server, free_ports
from stages.evaluation.alerts import EXPECTED, expected
from stages.evaluation.metrics import recorded

MONITORING = ROOT / "deploy/monitoring"
DASHBOARD = json.loads((MONITORING / "grafana/fashion.json").read_text("utf-8"))
PANELS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
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
        sources = {volume.split(":")[0] for volume in one["volumes"]} - set(compose["volumes"])
        assert [source for source in sources if not (MONITORING / source).is_file()] == []
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
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


def test_panels_alerts_and_their_tests_name_metrics_and_labels_that_there_are(
    server: Server, images: np.ndarray
):
    RestClient(server.rest).infer(MODELS[0], images[:1])  # the first request makes its metrics
    labels = {name: {key for key, _ in series} for name, series in metrics(server)}
    labels["fashion_evaluation_class_share"] = {"model", "class"}
    labels["fashion_evaluation_confidence"] = {"model"}
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    known = {rule.get("record") for rule in rules} | set(labels)
    expressions = PANELS + [rule["expr"] for rule in rules]
    for name in re.findall(r"fashion[_:][a-z_0-9:]+", " ".join(expressions)):
        assert name in known, name
    tests = (MONITORING / "alerts_test.yml").read_text("utf-8")
    for name, series in re.findall(r"(fashion_\w+)\{(.*?)\}", tests):
        assert set(re.findall(r'(\w+)="', series)) <= labels[name], (name, series)


def sooner(text: str) -> str:
    """With windows of ten seconds, a scrape each second and no delay."""
    text = re.sub(r"\[[$\w]+\]", "[10s]", text)
    return re.sub("for: .*", "for: 0s", text).replace("15s", "1s")


@contextmanager
def prometheus(folder: Path, target: str, rules: str) -> Iterator[Callable[[str], list[Any]]]:
    """A real one, that scrapes a server, all sooner; gives what evaluates an expression."""
    for name in ("prometheus.yml", "alerts.yml"):
        text = sooner((MONITORING / name).read_text("utf-8")).replace("server:8082", target)
        text = text.replace(f"../../{EXPECTED}", EXPECTED.name)
        (folder / name).write_text(text, "utf-8")
    (folder / EXPECTED.name).write_text(rules, "utf-8")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={address}"]

    def is_ready() -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"http://{address}/-/ready", timeout=60).ok
        return False

    def query(expression: str) -> list[Any]:
        url, parameters = f"http://{address}/api/v1/query", {"query": sooner(expression)}
        response = requests.get(url, params=parameters, timeout=60)
        assert response.ok, response.text
        return response.json()["data"]["result"]

    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_until(is_ready, "Prometheus")
            yield query
        finally:
            process.kill()


def keep_on(send: Callable[[], object], until: Callable[[], object], what: str) -> None:
    """Send again and again until something has happened."""

    def has_happened() -> object:
        send()
        return until()

    wait_until(has_happened, what, poll=0)


@deep
@needs_prometheus
def test_a_real_prometheus_fills_each_panel_and_alerts_where_it_should(
    own_repository: Path, tmp_path: Path, digits: Digits
):
    (own_repository / "models/fashion-xgboost/v1/features.npz").write_bytes(b"altered")
    images, labels, names = digits[1]
    model, random = MODELS[0], np.random.default_rng(1)
    zeros, noise = images[labels == 0], random.integers(0, 256, (100, 784), dtype=np.uint8)
    bad = body(tensor([0.0], [1, 784]))
    with ready(own_repository, tmp_path, model, FASHION_REQUEST_LOG="log") as server:
        client = RestClient(server.rest)
        evaluated = recorded(client.infer(model, images, [LABELS, PROBABILITIES]))
        address = metrics_url(server).removeprefix("http://").removesuffix("/metrics")
        with prometheus(tmp_path, address, expected(names, {model: evaluated})) as query:

            def good() -> None:
                client.infer(model, images[random.permutation(len(images))[:100]])

            def firing() -> set[str]:
                return {s["metric"]["alertname"] for s in query('ALERTS{alertstate="firing"}')}

            for panel in PANELS:
                keep_on(good, partial(query, panel), f"data of {panel}")
            begin = time.monotonic()  # the first windows have but a part of what is sent
            keep_on(good, lambda: time.monotonic() > begin + 15, "fifteen seconds of good load")
            assert firing() == {"FashionModelNotReady"}
            size = server.log.stat().st_size + 10_000  # of which the request log soon has more
            resource.prlimit(server.guard.pid, resource.RLIMIT_FSIZE, (size, size))
            causes: dict[str, Callable[[], object]] = {
                "FashionRefusals": lambda: post(server, model, bad),
                "FashionClassShare": lambda: client.infer(model, zeros),
                "FashionConfidence": lambda: client.infer(model, noise),
                "FashionLogLosesLines": good,
                "FashionServerDown": server.guard.kill,
            }
            for alert, send in causes.items():
                keep_on(send, lambda: alert in firing(), alert)  # noqa: B023
