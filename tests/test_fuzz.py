"""No request, however odd, harms the server.  Run: [DEEP=1] pytest tests/test_fuzz.py"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire import FIELDS, MODELS, OK, REJECTED, Response, body, message, post, send, tensor

from benchmarks.processes import memory_mb
from serving.client import infer_request
from serving.fashion.contract import OUTPUTS
from serving.launch import Server

CASES = 1000 if os.environ.get("DEEP") else 40  # of each of the three below
GROWTH_MB = 150  # of the server's memory, over all of them
STATUSES = {OK, REJECTED, 403, 404, 405}
cases = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def unharmed(server: Server, images: np.ndarray) -> Callable[[], None]:
    """Send a valid request, and hold the response against the first one."""
    images = images[:3]
    expected = {model: post(server, model, infer_request(images)) for model in MODELS}

    def check() -> None:
        for model in MODELS:
            assert post(server, model, infer_request(images)) == expected[model]

    return check


@pytest.fixture(scope="module", autouse=True)
def bounded_memory(server: Server, unharmed: Callable[[], None]) -> Any:
    """The server's memory grows by no more than the bound over all tests of this file."""
    unharmed()
    before = memory_mb(server)
    yield
    unharmed()
    grown = memory_mb(server) - before
    print(f"{3 * CASES} cases; memory grew by {grown:.0f} MB")
    assert grown < GROWTH_MB


def rejected_or_served(response: Response) -> None:
    assert response.status in (OK, REJECTED), response
    assert "Traceback" not in response.error
    assert "\n" not in response.error
    assert (response.status == OK) == bool(response.outputs)


SHAPES = st.one_of(
    st.sampled_from([[784], [1, 784], [2, 784], [28, 28], [1, 28, 28], [1], [0, 784], []]),
    st.lists(st.integers(-2, 2**40), max_size=5),
)
DATATYPES = st.one_of(st.sampled_from([*FIELDS, "FP16", "INT8", "UINT64"]), st.text(max_size=6))
VALUES = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=20),
)
JSON = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)
DATA = st.one_of(VALUES.map(lambda odd: [0.0] * 783 + [odd]), st.lists(VALUES), JSON)
TENSORS = st.builds(tensor, DATA, SHAPES, DATATYPES, name=st.text(max_size=8))
BODIES = st.one_of(
    st.fixed_dictionaries(
        {"inputs": st.lists(TENSORS, min_size=1, max_size=2)},
        optional={
            "outputs": st.lists(st.builds(dict, name=st.sampled_from([*OUTPUTS, "x"]))),
            "parameters": JSON,
        },
    ),
    st.dictionaries(st.sampled_from(["inputs", "outputs", "id", "parameters"]), JSON),
    JSON,
)


@cases
@given(model=st.sampled_from(MODELS), request=BODIES)
def test_any_body_over_rest_is_served_or_rejected(
    server: Server, unharmed: Callable[[], None], model: str, request: Any
):
    rejected_or_served(post(server, model, request))
    unharmed()


@cases
@given(
    model=st.sampled_from(MODELS),
    shape=SHAPES.filter(lambda shape: all(abs(side) < 2**60 for side in shape)),
    datatype=DATATYPES,
    raw=st.lists(st.binary(max_size=50) | st.binary(min_size=784, max_size=784), max_size=2),
    inputs=st.integers(0, 2),
)
def test_any_raw_tensor_over_grpc_is_served_or_rejected(
    server: Server, unharmed: Callable[[], None], **case: Any
):
    one = tensor([], case["shape"], "FP64") | {"datatype": case["datatype"]}
    request = message(body(*[one] * case["inputs"]), case["model"])
    request.raw_input_contents.extend(case["raw"])
    rejected_or_served(send(server, request))
    unharmed()


def test_what_the_servers_own_description_allows_is_served_or_rejected(
    server: Server, unharmed: Callable[[], None]
):
    description = requests.get(f"{server.rest}/v2/docs/dataplane.json", timeout=60).json()
    # It describes a tensor's data by itself, which schemathesis cannot draw from.
    values = {"anyOf": [{"type": kind} for kind in ("number", "string", "boolean")]}
    description["components"]["schemas"]["TensorData"] = {"type": "array", "items": values}
    schema = schemathesis.openapi.from_dict(description)

    operations = [operation.ok() for operation in schema.get_all_operations()]  # type: ignore[union-attr]
    strategy = st.one_of([operation.as_strategy() for operation in operations])

    @cases
    @given(case=strategy)
    def call(case: schemathesis.Case) -> None:
        response = case.call(base_url=server.rest)
        assert response.status_code in STATUSES, (response.status_code, response.text)
        assert "Traceback" not in response.text
        unharmed()

    call()
    assert psutil.pid_exists(server.guard.pid)
