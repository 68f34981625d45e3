"""What docs/other-runtimes.md shows.  Run: pytest tests/test_other_runtimes.py"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from processes import ready
from scratch import ROOT, run

from serving.fashion.inference.batching import Batcher
from serving.fashion.inference.handler import Handler, ServedModel
from serving.fashion.inference.limits import Limits
from serving.fashion.inference.rest_app import RestApp

PAGE = (ROOT / "docs/other-runtimes.md").read_text("utf-8")
PROGRAMS = re.findall(r"(?s)```python\n(.*?)```", PAGE)


@pytest.fixture(scope="module")
def predictor() -> Any:
    names: dict[str, Any] = {}
    exec(PROGRAMS[-1], names)
    return names["IrisPredictor"]()


def infer(predictor: Any, tensor: dict[str, Any], *outputs: str) -> tuple[int, dict[str, Any]]:
    """Status and body of the application's response to a request."""

    class Models:
        async def find(self, name: str, version: str) -> ServedModel:
            batcher = Batcher(predictor, predictor.predict, predictor.max_rows, 0, 10)
            return ServedModel(name, version or "1", predictor, Limits(1, 1, 1, 10), batcher)

    models: Any = Models()
    request = {"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v2/models/iris/infer",
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(request).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(RestApp(Handler(models, []))(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def flower(*values: float, shape: tuple[int, ...] = (1, 4), datatype: str = "FP64") -> Any:
    return {"name": "x", "shape": shape, "datatype": datatype, "data": values}


def test_a_request_is_served_by_the_first_output_or_those_that_it_names(predictor: Any):
    status, body = infer(predictor, flower(5.1, 3.5, 1.4, 0.2))
    assert (status, body["outputs"][0]["data"]) == (200, ["setosa"])
    _, body = infer(predictor, flower(5, 3, 1, 0, datatype="INT8"), "probability", "species")
    assert [(o["name"], o["shape"]) for o in body["outputs"]] == [
        ("probability", [1, 3]),
        ("species", [1]),
    ]
    assert sum(body["outputs"][0]["data"]) == pytest.approx(1)


def test_more_rows_than_the_predictor_takes_are_rejected_with_a_sentence(predictor: Any):
    words = "expected 1 to 1,000 rows a request, got [1001, 4]"
    assert infer(predictor, flower(shape=(1001, 4))) == (400, {"error": words})


def test_the_message_that_the_page_shows_is_the_one_sent(predictor: Any):
    (shown,) = re.findall(r'(?m)^\{"error":.*$', PAGE)
    assert infer(predictor, flower(1, 2, 3, shape=(1, 3)))[1] == json.loads(shown)


def test_a_model_put_into_the_folder_responses_the_pages_request(
    own_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    exec(PROGRAMS[0], {})
    assert (own_repository / "iris/model.joblib").is_file()
    (curl,), (shown,) = (
        re.findall(pattern, PAGE)
        for pattern in (r"(?s)```bash\n(curl .*?)```", r'(?m)^\{"model_name":.*$')
    )
    with ready(own_repository, tmp_path) as server:
        command = curl.replace("http://localhost:8080", server.rest)
        assert json.loads(run(tmp_path, "bash", "-c", command)) == json.loads(shown)
