"""Strangers stay outside, and everyone else gets in.  Run: pytest tests/test_access.py"""

import re
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from processes import ready, started, wait_until
from scratch import ROOT, deep, edit_json, private, run, slow
from tritonclient.grpc import service_pb2 as pb
from wire import body, each_protocol, log_of, message, metrics_url, open_connection, service, tensor

from serving.client import ResponseError, RestClient, connect, infer_request
from serving.fashion.adapter.preflight import is_local
from serving.fashion.contract import LABELS
from serving.fashion.inference.credentials import Certificate, SecretError, Tokens
from serving.fashion.inference.request_log import log_files
from serving.fashion.logged import read_log
from serving.launch import Server

TOKEN, OTHER = "0123456789abcdef0123", "another-token-of-24-chars"
MODEL = "fashion-sklearn"
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a token, and logs its requests, in the folder of its log."""
    folder = tmp_path_factory.mktemp("guarded")
    variables = {
        "FASHION_TOKEN_FILE": str(private(folder / "tokens", f"{OTHER}\n{TOKEN}\n")),
        "FASHION_REQUEST_LOG": str(folder / "requests"),
        "FASHION_REQUEST_LOG_IMAGES": "1",
    }
    with ready(repository, folder, **variables) as server:
        yield server


@each_protocol
def test_a_client_with_a_token_is_served_and_one_without_is_not(
    guarded: Server, images: np.ndarray, protocol: str
):
    url = getattr(guarded, protocol)
    for token in (TOKEN, OTHER):
        with connect(protocol, url, token) as client:
            assert client.ready(MODEL)
            assert client.models() == ["fashion-sklearn", "fashion-xgboost"]
            assert client.metadata(MODEL)["name"] == MODEL
            assert len(client.infer(MODEL, images[:2])[LABELS]) == 2
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "0"):
        with connect(protocol, url, token) as client:
            assert client.ready(MODEL)  # health is open
            for ask in (
                client.models,
                client.metadata,
                lambda c=client: c.infer(MODEL, images[:1]),
            ):
                with pytest.raises(ResponseError, match="expected a token of this server"):
                    ask()


CALLS = [
    *("ModelInfer", "ModelMetadata", "ServerMetadata", "RepositoryIndex"),
    *("RepositoryModelLoad", "RepositoryModelUnload"),
]


@pytest.mark.parametrize("name", CALLS)
def test_every_call_but_health_needs_a_token(guarded: Server, name: str):
    with service(guarded) as methods:
        with pytest.raises(grpc.RpcError) as caught:
            getattr(methods, name)(getattr(pb, f"{name}Request")(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            list(methods.ModelStreamInfer(iter(()), timeout=60))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert methods.ServerLive(pb.ServerLiveRequest(), timeout=60).live
        assert methods.ServerReady(pb.ServerReadyRequest(), timeout=60).ready


METADATA = {
    "two": (("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")),
    "another scheme": (("authorization", f"Basic {TOKEN}"),),
    "no scheme": (("authorization", TOKEN),),
    "another name": (("x-authorization", f"Bearer {TOKEN}"),),
    "bytes": (("authorization-bin", f"Bearer {TOKEN}".encode()),),
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA.keys())
def test_metadata_that_strangers_try(
    guarded: Server, images: np.ndarray, metadata: tuple[tuple[str, str], ...]
):
    request = message(body(tensor(images[:1])), MODEL)
    with service(guarded) as methods:
        with pytest.raises(grpc.RpcError) as caught:
            methods.ModelInfer(request, timeout=60, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


ASKED = f"Authorization: Bearer {TOKEN}"
MARK = "stranger-was-here"
# The head of a request, after which the server has to answer one of these, or hang up (0).
STRANGE = {
    "no token": (f"GET /v2/models/{MODEL} HTTP/1.1", [], {401}),
    "a wrong one": (f"POST {INFER} HTTP/1.1", [f"Authorization: Bearer {MARK}-0123456789"], {401}),
    "a truncated one": (f"POST {INFER} HTTP/1.1", [f"Authorization: Bearer {TOKEN[:-1]}"], {401}),
    "an empty one": (f"POST {INFER} HTTP/1.1", ["Authorization: Bearer "], {401}),
    "another scheme": (f"POST {INFER} HTTP/1.1", [f"Authorization: Basic {TOKEN}"], {401}),
    "the token alone": (f"POST {INFER} HTTP/1.1", [f"Authorization: {TOKEN}"], {401}),
    "in the URL": (f"POST {INFER}?token={TOKEN}&access_token={TOKEN} HTTP/1.1", [], {401}),
    "in a cookie": (f"POST {INFER} HTTP/1.1", [f"Cookie: token={TOKEN}"], {401}),
    "two lines": (f"POST {INFER} HTTP/1.1", [ASKED, "Authorization: Bearer x"], {401}),
    "two in a line": (f"POST {INFER} HTTP/1.1", [f"{ASKED}, Bearer x"], {401}),
    "a folded line": (f"POST {INFER} HTTP/1.1", [f"X: a\r\n {ASKED}"], {400, 401}),
    "the demo's parent": (f"GET /demo/../v2/models/{MODEL} HTTP/1.1", [], {401}),
    "dots, encoded": (f"GET /demo/%2e%2e/v2/models/{MODEL} HTTP/1.1", [], {401}),
    "slashes, encoded": (f"GET /demo%2f..%2fv2%2fmodels%2f{MODEL} HTTP/1.1", [], {401}),
    "two slashes": (f"GET //v2/health/ready/../../models/{MODEL} HTTP/1.1", [], {401}),
    "health's child": ("GET /v2/health/ready/../../repository/index HTTP/1.1", [], {401}),
    "health, by POST": ("POST /v2/health/ready HTTP/1.1", [], {401}),
    "a URL of its own": (f"GET http://{MARK}/v2/models/{MODEL} HTTP/1.1", [], {400, 401}),
    "a forwarded path": (f"GET /v2/models/{MODEL} HTTP/1.1", ["X-Original-URL: /demo"], {401}),
    "a forwarded method": (
        f"GET /v2/models/{MODEL} HTTP/1.1", ["X-HTTP-Method-Override: GET"], {401},
    ),
    "a long path": (f"GET /{'a' * 60_000} HTTP/1.1", [], {401, 414, 431}),
    "a longer one": (f"GET /{'a' * 100_000} HTTP/1.1", [], {400, 414, 431}),
    "a thousand headers": ("GET /v2 HTTP/1.1", [f"X-{n}: {MARK}" for n in range(1000)], {401}),
    "100,000 bytes of headers": ("GET /v2 HTTP/1.1", [f"X: {MARK * 6000}"], {401, 431}),
    "an unknown method": (f"BREW {INFER} HTTP/1.1", [], {400, 401}),
    "CONNECT": (f"CONNECT {MARK}:443 HTTP/1.1", [], {400, 401}),
    "HTTP/1.0": (f"GET /v2/models/{MODEL} HTTP/1.0", [], {401}),
    "HTTP/0.9": (f"GET /v2/models/{MODEL}", [], {0, 400, 401}),
    "samples": ("GET /demo/samples.json HTTP/1.1", [], {401}),
    "the API": ("GET /v2/docs/dataplane.json HTTP/1.1", [], {401}),
}  # fmt: skip


def status_of(server: Server, content: bytes) -> tuple[int, bytes]:
    """The status of the response to such bytes, 0 for none, and all that is sent."""
    answer = b""
    with open_connection(server) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0, answer


@pytest.mark.parametrize(("line", "headers", "allowed"), STRANGE.values(), ids=STRANGE.keys())
def test_heads_that_strangers_try(
    guarded: Server, line: str, headers: list[str], allowed: set[int]
):
    head = "\r\n".join([line, "Host: x", *headers, "Content-Length: 0", "", ""]).encode()
    status, answer = status_of(guarded, head)
    assert status in allowed, answer[:300]
    assert b'"outputs"' not in answer
    assert b"platform" not in answer


def test_a_second_request_cannot_hide_in_the_first_ones_body(guarded: Server):
    hidden = f"GET /v2/models/{MODEL} HTTP/1.1\r\nHost: x\r\n{ASKED}\r\n\r\n"
    for lengths in (
        f"Content-Length: {len(hidden) + 5}\r\nTransfer-Encoding: chunked",
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(hidden) + 5}",
        "Content-Length: 0\r\nContent-Length: 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
    ):
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n0\r\n\r\n"
        status, answer = status_of(guarded, (head + hidden).encode())
        assert status in (400, 401), (lengths, answer)
        assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1, (lengths, answer)


def test_nothing_of_what_is_refused_is_kept(guarded: Server, images: np.ndarray):
    marked = images[:1].copy()
    for number, path in enumerate((INFER, f"/v2/models/{MARK}/infer", f"/{MARK}")):
        response = requests.post(
            f"{guarded.rest}{path}",
            json=infer_request(marked) | {"id": MARK},
            headers={"Authorization": f"Bearer {MARK}-{number}", "X-Mark": MARK},
            timeout=60,
        )
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert MARK not in response.text

    def text() -> bytes:
        return b"".join(path.read_bytes() for path in log_files(guarded.log.parent / "requests"))

    wait_until(lambda: b'"status":401' in text(), "a refusal in the log")
    assert text().count(b'"status":401') == 1  # of a minute, however many there were
    assert MARK.encode() not in text()
    assert TOKEN.encode() not in text()
    server_log = log_of(guarded)
    assert "rejected with 401: expected a token of this server" in server_log
    assert MARK not in server_log
    assert TOKEN not in server_log


def test_metrics_need_a_token_and_the_page_needs_none(guarded: Server):
    url = metrics_url(guarded)
    assert requests.get(url, timeout=60).status_code == 401
    field = {"Authorization": f"Bearer {TOKEN}"}
    response = requests.get(url, headers=field, timeout=60)
    assert (
        'fashion_requests_total{model="",outcome="401",protocol="rest",version=""}' in response.text
    )
    for path in ("/demo/", "/demo/demo.js", "/v2/health/live", f"/v2/models/{MODEL}/ready"):
        assert requests.get(guarded.rest + path, timeout=60).ok


def test_a_token_can_be_taken_away_and_another_given_while_the_server_runs(tmp_path: Path):
    file = private(tmp_path / "tokens", TOKEN)
    tokens = Tokens(file)
    old, new = (f"Bearer {text}".encode() for text in (TOKEN, OTHER))
    assert (tokens.allow([old]), tokens.allow([new])) == (True, False)
    private(file, f"{OTHER}\n")
    tokens.refresh()
    assert (tokens.allow([old]), tokens.allow([new])) == (False, True)
    for bad in ("", "short"):
        private(file, bad)
        tokens.refresh()
        assert tokens.allow([new])  # the previous content stays
    file.unlink()
    tokens.refresh()
    assert tokens.allow([new])
    private(file, TOKEN)
    tokens.refresh()
    assert (tokens.allow([old]), tokens.allow([new])) == (True, False)


def test_a_bad_or_missing_file_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file = private(tmp_path / "tokens", TOKEN)
    tokens = Tokens(file)
    for change, words in (
        (lambda: private(file, "short"), "each of 16 or more"),
        (file.unlink, "No such file"),
        (lambda: private(file, "short, too"), "each of 16 or more"),
    ):
        caplog.clear()
        change()
        for _ in range(3):
            tokens.refresh()
        (record,) = caplog.records
        assert words in record.getMessage()
        assert "the previous content stays" in record.getMessage()


def test_metrics_are_open_by_choice_and_a_warning_names_what_is_open(
    repository: Path, tmp_path: Path
):
    file = private(tmp_path / "tokens", TOKEN)
    more = {"FASHION_TOKEN_FILE": str(file), "FASHION_OPEN_METRICS": "true"}
    with ready(repository, tmp_path, **more) as server:
        assert requests.get(metrics_url(server), timeout=60).ok
        assert "name a file of tokens" not in log_of(server)


def test_an_address_of_this_machine_alone_needs_no_token():
    hosts = ["127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "x.com"]
    assert [is_local(host) for host in hosts] == [True] * 4 + [False] * 4


@deep
def test_settings_json_may_have_them_all_and_a_variable_comes_first(
    own_repository: Path, tmp_path: Path, images: np.ndarray
):
    private(tmp_path / "tokens", TOKEN)
    options = {"token_file": str(tmp_path / "tokens"), "request_log": str(tmp_path / "unused")}

    def change(content: dict[str, dict[str, object]]) -> None:
        content["model_repository_implementation_args"] |= options

    edit_json(own_repository / "settings.json", change)
    with ready(own_repository, tmp_path, FASHION_REQUEST_LOG=str(tmp_path / "log")) as server:
        with RestClient(server.rest, TOKEN) as client:
            client.infer(MODEL, images[:1])
        wait_until(lambda: len(list(read_log(tmp_path / "log"))) == 1, "a line")
        assert not (tmp_path / "unused").exists()
        with pytest.raises(ResponseError, match="expected a token"):
            RestClient(server.rest).models()
    options["nonsense"] = "1"
    edit_json(own_repository / "settings.json", change)
    with started(own_repository, tmp_path) as server:
        assert server.guard.wait(60) == 1
        assert "error: settings.json: nonsense is '1'" in log_of(server)


CERTIFICATE = (
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
    "-nodes", "-days", "2", "-subj", "/CN=localhost",
    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
)  # fmt: skip


def make_certificate(folder: Path) -> dict[str, str]:
    """A certificate that signs itself, and its key, as a server's variables."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    run(folder, *CERTIFICATE, "-out", str(cert), "-keyout", str(key))
    return {"FASHION_TLS_CERT": str(cert), "FASHION_TLS_KEY": str(key)}


needs_openssl = pytest.mark.skipif(
    not shutil.which("openssl"), reason="no openssl: apt-get install openssl"
)


@needs_openssl
def test_both_protocols_speak_tls_and_take_a_renewed_certificate(
    repository: Path, tmp_path: Path, images: np.ndarray
):
    variables = make_certificate(tmp_path)
    ca = variables["FASHION_TLS_CERT"]
    with started(repository, tmp_path, **variables) as plain:
        server = plain._replace(
            rest=plain.rest.replace("http", "https"), grpc=f"https://{plain.grpc}"
        )

        def asked(protocol: str, ca: str) -> int:
            with connect(protocol, getattr(server, protocol), ca=ca) as client:
                return len(client.infer(MODEL, images[:3])[LABELS])

        def is_served(protocol: str, ca: str) -> bool:
            try:
                return asked(protocol, ca) == 3
            except ResponseError:
                return False

        for protocol in ("rest", "grpc"):
            wait_until(partial(is_served, protocol, ca), f"TLS over {protocol}")
        with pytest.raises(ResponseError, match="certificate that is trusted"):
            asked("rest", "")
        with pytest.raises(ResponseError):
            RestClient(plain.rest).models()
        old = shutil.copy(ca, tmp_path / "old.pem")
        make_certificate(tmp_path)
        for protocol in ("rest", "grpc"):
            wait_until(partial(is_served, protocol, ca), f"the new one over {protocol}")
            assert not is_served(protocol, str(old))


def say_of(url: str, protocol: str) -> str:
    """What the client's program prints of a server at a URL."""
    command = ("python", "-m", "serving.client", "health", "--protocol", protocol, "--url", url)
    return run(ROOT, *command, expect=1)


@needs_openssl
def test_a_client_says_whether_the_server_speaks_tls(
    server: Server, repository: Path, tmp_path: Path
):
    with started(repository, tmp_path, **make_certificate(tmp_path)) as tls:
        wait_until(lambda: "Serving " in log_of(tls), "the models to be ready")
        for protocol in ("rest", "grpc"):
            plain, secret = (getattr(s, protocol).removeprefix("http://") for s in (server, tls))
            words = f"https://{plain}: the server speaks no TLS; expected http://{plain}"
            assert say_of(f"https://{plain}", protocol) == f"error: {words}\n"
            words = f"http://{secret}: the server speaks TLS; expected https://{secret}"
            assert say_of(f"http://{secret}", protocol) == f"error: {words}\n"


@needs_openssl
@pytest.mark.parametrize("scheme", [slow("http"), "https"])
def test_the_metrics_speak_tls_by_choice_and_a_warning_says_where_they_do_not(
    repository: Path, tmp_path: Path, scheme: str
):
    variables = make_certificate(tmp_path)
    variables["FASHION_TOKEN_FILE"] = str(private(tmp_path / "tokens", TOKEN))
    if scheme == "https":
        variables["FASHION_METRICS_TLS"] = "true"
    with started(repository, tmp_path, **variables) as server:
        log = partial(server.log.read_text, "utf-8")
        wait_until(lambda: "Metrics server running on" in log(), "the metrics")
        url = re.sub("^https?", scheme, metrics_url(server))

        def status(**headers: str) -> int:
            try:
                ca = variables["FASHION_TLS_CERT"]
                return requests.get(url, verify=ca, headers=headers, timeout=60).status_code
            except requests.RequestException:
                return 0

        wait_until(lambda: status() == 401, "the metrics to answer")
        assert status(Authorization=f"Bearer {TOKEN}") == 200
        words = "tokens are sent unencrypted to the port of the metrics"
        assert (words in log()) == (scheme == "http")


def bad_files(folder: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Variables with a bad file, and what the line at the start says."""
    token, missing = "FASHION_TOKEN_FILE", folder / "missing"
    yield {token: str(missing)}, f"{missing}: No such file"
    yield {token: str(private(folder / "empty", ""))}, "printable characters, got none"
    yield {token: str(private(folder / "short", "abc"))}, "each of 16 or more printable characters"
    open_ = private(folder / "open", TOKEN)
    open_.chmod(0o644)
    yield {token: str(open_)}, f"got mode 644; run: chmod o= {open_}"
    pair = make_certificate(folder)
    yield (
        {"FASHION_TLS_CERT": pair["FASHION_TLS_CERT"]},
        "expected FASHION_TLS_CERT and FASHION_TLS_KEY",
    )
    yield pair | {"FASHION_TLS_KEY": str(private(folder / "no key", "x"))}, "in PEM, got an error"
    other = folder / "other"
    other.mkdir()
    yield (
        pair | {"FASHION_TLS_KEY": make_certificate(other)["FASHION_TLS_KEY"]},
        "KEY_VALUES_MISMATCH",
    )
    yield {token: str(folder)}, f"{folder}: expected a file"
    yield {"FASHION_TOKEN": "x"}, "FASHION_TOKEN is not a setting; expected FASHION_TOKEN_FILE"
    yield {"FASHION_REQUEST_LOG_IMAGES": "7"}, "FASHION_REQUEST_LOG_IMAGES is '7': Input should be"


@needs_openssl
@pytest.mark.parametrize("cases", [slice(0, 10, 3), slow(slice(None))], ids=str)
def test_a_bad_file_or_setting_ends_the_start_in_one_line(
    repository: Path, tmp_path: Path, cases: slice
):
    for variables, expected in list(bad_files(tmp_path))[cases]:
        with started(repository, tmp_path, **variables) as server:
            assert server.guard.wait(60) == 1
            (line,) = log_of(server).strip().splitlines()
            assert line.startswith("error: ")
            assert expected in line


@needs_openssl
def test_a_key_that_everyone_may_read_is_refused(tmp_path: Path):
    pair = make_certificate(tmp_path)
    Path(pair["FASHION_TLS_KEY"]).chmod(0o644)
    with pytest.raises(SecretError, match="chmod o="):
        Certificate(Path(pair["FASHION_TLS_CERT"]), Path(pair["FASHION_TLS_KEY"]))


@deep
def test_the_command_line_takes_token_and_certificates(guarded: Server, tmp_path: Path):
    models = ("python", "-m", "serving.client", "metadata", "--url", guarded.rest)
    file = str(guarded.log.parent / "tokens")
    assert MODEL in run(ROOT, *models, "--token-file", file)
    assert MODEL in run(ROOT, *models, FASHION_TOKEN_FILE=file)
    for none in ({}, {"FASHION_TOKEN_FILE": ""}):
        assert "expected a token of this server" in run(ROOT, *models, expect=1, **none)
    empty = str(private(tmp_path / "empty", ""))
    shown = run(ROOT, *models, "--token-file", empty, expect=1)
    assert "expected a token, in its first line" in shown
    assert "expected a file of certificates" in run(ROOT, *models, "--ca", "nowhere", expect=1)
