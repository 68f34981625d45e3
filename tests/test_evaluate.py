"""Wrong answers and bad scores fail in words.  Run: pytest tests/test_evaluate.py"""

import csv
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.client import Answer, AnswerError, infer
from serving.fashion.svm import PairwiseDecisions
from serving.server import Model
from stages.dataset import Images
from stages.errors import StageError
from stages.evaluate import (
    check_accuracy,
    check_equal,
    check_library,
    scores,
    write_predictions,
)

MODEL = Model("fashion-sklearn", "v1", Path("model.joblib"))


def answer(*labels: int) -> Answer:
    """An answer that is 80 % sure of each label, of three classes."""
    probabilities = np.full((len(labels), 3), 0.1)
    probabilities[np.arange(len(labels)), labels] = 0.8
    return Answer(np.array(labels), probabilities)


def test_scores_are_those_computed_by_hand():
    data = Images(np.zeros((4, 784)), np.array([0, 0, 1, 1]), ("no", "yes", "unseen"))
    result = scores(data, answer(0, 1, 1, 1))
    assert result == {
        "accuracy": 0.75,
        "macro_f1": round((2 / 3 + 4 / 5) / 2, 6),
        "top_2_accuracy": 0.75,
        "log_loss": round(-(3 * np.log(0.8) + np.log(0.1)) / 4, 6),
        "calibration_error": 0.05,
        "recall": {"no": 0.5, "yes": 1.0},
        "rows": 4,
    }


def test_a_served_answer_that_differs_from_the_offline_one_is_an_error():
    check_equal(MODEL, answer(1, 2), answer(1, 2))
    expected = "1 of 2 served labels differ .* first image 1: served 0, offline 2"
    with pytest.raises(StageError, match=expected):
        check_equal(MODEL, answer(1, 0), answer(1, 2))
    off = answer(1, 2)
    off.probabilities[1, 0] += 1e-6
    with pytest.raises(StageError, match="a served probability is 1e-06 off the offline one"):
        check_equal(MODEL, off, answer(1, 2))
    off.probabilities[1, 0] = np.nan
    with pytest.raises(StageError, match="a served probability is nan off"):
        check_equal(MODEL, off, answer(1, 2))


def test_an_accuracy_below_the_minimum_is_an_error():
    check_accuracy(MODEL, 0.8, 0.8)
    with pytest.raises(
        StageError, match=r"fashion-sklearn: accuracy 0.7999, expected at least 0.8"
    ):
        check_accuracy(MODEL, 0.7999, 0.8)


def test_predictions_are_pairs_of_class_names(tmp_path: Path, small: Images):
    write_predictions(tmp_path / "p.csv", small, np.zeros(40, dtype=np.int64))
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["actual"] for row in rows[:5]] == ["a", "b", "c", "d", "a"]
    assert {row["predicted"] for row in rows} == {"a"}


@pytest.fixture
def liar() -> Iterator[Callable[[Callable[[dict[str, Any]], Any]], str]]:
    """Start a server that answers rightly but for what a function changes; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        change: Callable[[dict[str, Any]], Any]

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            (tensor,) = request["inputs"]
            rows = tensor["shape"][0]
            labels = {
                "name": "predict",
                "datatype": "INT64",
                "shape": [rows, 1],
                "data": [7] * rows,
            }
            sure = {
                "name": "predict_proba",
                "datatype": "FP64",
                "shape": [rows, 2],
                "data": [0.25, 0.75] * rows,
            }
            answer = {"model_name": "m", "model_version": "v1", "id": request["id"]}
            changed = type(self).change(answer | {"outputs": [labels, sure]})
            body = json.dumps(changed).encode() if isinstance(changed, dict) else changed
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def url(change: Callable[[dict[str, Any]], Any]) -> str:
            Handler.change = staticmethod(change)
            return f"http://127.0.0.1:{server.server_port}"

        yield url
        server.shutdown()


def output(**changes: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda answer: (
        answer | {"outputs": [answer["outputs"][0] | changes, answer["outputs"][1]]}
    )


def sure(**changes: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda answer: (
        answer | {"outputs": [answer["outputs"][0], answer["outputs"][1] | changes]}
    )


def test_a_right_answer_is_taken(liar: Callable[..., str], small: Images):
    labels, probabilities = infer(liar(lambda answer: answer), "m", "v1", small.images[:3])
    assert labels.tolist() == [7, 7, 7]
    assert probabilities.tolist() == [[0.25, 0.75]] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: answer | {"model_name": "n"}, "answered model 'n', expected 'm'"),
        (lambda answer: answer | {"model_version": "v2"}, "answered version 'v2', expected 'v1'"),
        (lambda answer: answer | {"id": "1"}, "answered id '1', expected '"),
        (lambda answer: answer | {"outputs": []}, "not an answer of the protocol: ValueError"),
        (output(name="a"), "answered outputs 'a, predict_proba', expected 'predict, predict_p"),
        (output(datatype="FP32"), "answered datatypes 'FP32, FP64', expected 'INT64, FP64'"),
        (sure(datatype="FP32"), "answered datatypes 'INT64, FP32', expected 'INT64, FP64'"),
        (sure(data=[0.5] * 5), "answered number of probabilities 5, expected 6"),
        (sure(shape=[3]), "not an answer of the protocol: IndexError"),
        (output(shape=[2]), "answered number of rows 2, expected 3"),
        (output(data=[7, 7]), "answered number of labels 2, expected 3"),
        (output(shape=[]), "not an answer of the protocol: IndexError"),
        (output(data=None), "not an answer of the protocol: TypeError"),
        (lambda _: {}, "not an answer of the protocol: KeyError"),
        (lambda _: b"[]", "not an answer of the protocol: TypeError"),
        (lambda _: b"<html>", "no answer: JSONDecodeError"),
    ],
)
def test_a_wrong_answer_is_an_error_that_names_what_came(
    liar: Callable[..., str], small: Images, change: Callable[..., Any], message: str
):
    with pytest.raises(AnswerError, match=message):
        infer(liar(change), "m", "v1", small.images[:3])


def test_a_proxy_of_the_environment_is_not_asked(
    liar: Callable[..., str], small: Images, monkeypatch: pytest.MonkeyPatch
):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert len(infer(liar(lambda answer: answer), "m", "v1", small.images[:3]).labels) == 3


def test_an_svm_whose_decisions_are_not_those_of_scikit_learn_is_an_error(
    repository: Path, digits: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
):
    (path,) = repository.rglob("model.joblib")
    check_library(path, digits[1].images)
    right = PairwiseDecisions.__call__
    monkeypatch.setattr(PairwiseDecisions, "__call__", lambda *given: right(*given) + 0.01)
    with pytest.raises(StageError, match=r"model.joblib: a decision is 0.01 off scikit-learn's"):
        check_library(path, digits[1].images)


def test_a_closed_port_is_an_error_in_one_line(small: Images):
    with pytest.raises(AnswerError, match="no answer: ConnectionError") as error:
        infer("http://127.0.0.1:9", "m", "v1", small.images[:1])
    assert "\n" not in str(error.value)
