"""Only authorized clients are served.  Run: pytest tests/test_access.py"""

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
from processes import ready, run_client, started, wait_until
from scratch import private, run, set_options, slow
from tritonclient.grpc import service_pb2 as pb
from wire import each_protocol, log_of, metrics_url, open_connection, service

from serving.client import ResponseError, RestClient, connect
from serving.fashion.adapter.preflight import is_local
from serving.fashion.contract import LABELS
from serving.fashion.inference.credentials import Certificate, SecretError, Tokens
from serving.fashion.inference.request_log import log_files
from serving.launch import Server

TOKEN, OTHER = "0123456789abcdef0123", "another-token-of-24-chars"
MODEL = "fashion-sklearn"
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires a token, and logs its requests, in the folder of its log."""
    folder = tmp_path_factory.mktemp("guarded")
    copy = Path(shutil.copytree(repository, folder / "serving"))
    private(folder / "tokens", f"{OTHER}\n{TOKEN}\n")
    set_options(
        copy,
        token_file=str(folder / "tokens"),
        request_log=str(folder / "unused"),
        request_log_images=1,
    )
    with ready(copy, folder, FASHION_REQUEST_LOG=str(folder / "requests")) as server:
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
            with pytest.raises(ResponseError, match="expected a token of this server"):
                client.infer(MODEL, images[:1])


CALLS = [
    *("ModelInfer", "ModelMetadata", "ServerMetadata", "RepositoryIndex"),
    *("RepositoryModelLoad", "RepositoryModelUnload"),
]
BEARER = f"Bearer {TOKEN}"


def test_every_call_but_health_needs_a_token(guarded: Server):
    with service(guarded) as methods:
        for metadata in (
            (),
            (("authorization", BEARER), ("authorization", BEARER)),
            (("x-authorization", BEARER),),
            (("authorization-bin", BEARER.encode()),),
        ):
            for name in CALLS:
                request = getattr(pb, f"{name}Request")()
                with pytest.raises(grpc.RpcError) as caught:
                    getattr(methods, name)(request, timeout=60, metadata=metadata)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            list(methods.ModelStreamInfer(iter(()), timeout=60))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert methods.ServerLive(pb.ServerLiveRequest(), timeout=60).live
        assert methods.ServerReady(pb.ServerReadyRequest(), timeout=60).ready


AUTHORIZED = f"Authorization: {BEARER}"
MARK = "unauthenticated-client"
# The first line and a header of a request, and the statuses that it may get, 0 for none.
HEADS = {
    "no token": (f"GET /v2/models/{MODEL} HTTP/1.1", "", {401}),
    "of the index": ("POST /v2/repository/index HTTP/1.1", "", {401}),
    "an empty one": (f"POST {INFER} HTTP/1.1", "Authorization: Bearer ", {401}),
    "another scheme": (f"POST {INFER} HTTP/1.1", f"Authorization: Basic {TOKEN}", {401}),
    "in the URL": (f"POST {INFER}?token={TOKEN}&access_token={TOKEN} HTTP/1.1", "", {401}),
    "two lines": (f"POST {INFER} HTTP/1.1", f"{AUTHORIZED}\r\nAuthorization: Bearer x", {401}),
    "two in a line": (f"POST {INFER} HTTP/1.1", f"{AUTHORIZED}, Bearer x", {401}),
    "a folded line": (f"POST {INFER} HTTP/1.1", f"X: a\r\n {AUTHORIZED}", {400, 401}),
    "the demo's parent": (f"GET /demo/../v2/models/{MODEL} HTTP/1.1", "", {401}),
    "dots, encoded": (f"GET /demo/%2e%2e/v2/models/{MODEL} HTTP/1.1", "", {401}),
    "slashes, encoded": (f"GET /demo%2f..%2fv2%2fmodels%2f{MODEL} HTTP/1.1", "", {401}),
    "health's child": ("GET /v2/health/ready/../../repository/index HTTP/1.1", "", {401}),
    "health, by POST": ("POST /v2/health/ready HTTP/1.1", "", {401}),
    "a URL of its own": (f"GET http://{MARK}/v2/models/{MODEL} HTTP/1.1", "", {400, 401}),
    "a forwarded path": (f"GET /v2/models/{MODEL} HTTP/1.1", "X-Original-URL: /demo", {401}),
    "CONNECT": (f"CONNECT {MARK}:443 HTTP/1.1", "", {400, 401}),
    "HTTP/1.0": (f"GET /v2/models/{MODEL} HTTP/1.0", "", {401}),
    "HTTP/0.9": (f"GET /v2/models/{MODEL}", "", {0, 400, 401}),
    "samples": ("GET /demo/samples.json HTTP/1.1", "", {401}),
}


def status_of(server: Server, content: bytes) -> tuple[int, bytes]:
    """The status of the response to such bytes, 0 for none, and all that is sent."""
    response = b""
    with open_connection(server) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        try:
            while part := connection.recv(65536):
                response += part
        except ConnectionResetError:
            pass
    return int(response.split()[1]) if response.startswith(b"HTTP/") else 0, response


@pytest.mark.parametrize(("line", "header", "allowed"), HEADS.values(), ids=HEADS)
def test_a_head_without_a_token_opens_nothing(
    guarded: Server, line: str, header: str, allowed: set[int]
):
    head = "\r\n".join(filter(None, [line, "Host: x", header, "Content-Length: 0"]))
    status, response = status_of(guarded, f"{head}\r\n\r\n".encode())
    assert status in allowed, response[:300]
    assert b'"outputs"' not in response
    assert b"platform" not in response


def test_a_second_request_cannot_hide_in_the_first_ones_body(guarded: Server):
    hidden = f"GET /v2/models/{MODEL} HTTP/1.1\r\nHost: x\r\n{AUTHORIZED}\r\n\r\n"
    for lengths in (
        f"Content-Length: {len(hidden) + 5}\r\nTransfer-Encoding: chunked",
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(hidden) + 5}",
        "Content-Length: 0\r\nContent-Length: 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
    ):
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n0\r\n\r\n"
        status, response = status_of(guarded, (head + hidden).encode())
        assert status in (400, 401), (lengths, response)
        assert len(re.findall(rb"HTTP/1.1 \d", response)) == 1, (lengths, response)


def test_nothing_of_what_is_rejected_is_kept(guarded: Server):
    headers = {"Authorization": f"Bearer {MARK}", "X-Mark": MARK}
    for path in (INFER, f"/v2/models/{MARK}/infer", f"/{MARK}"):
        url = guarded.rest + path
        response = requests.post(url, json={"id": MARK}, headers=headers, timeout=60)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert MARK not in response.text

    def requests_logged() -> str:
        folder = guarded.log.parent / "requests"
        return "".join(path.read_text("utf-8") for path in log_files(folder))

    wait_until(lambda: '"status":401' in requests_logged(), "a rejection in the log")
    assert not (guarded.log.parent / "unused").exists()  # since the variable outranks the file
    assert requests_logged().count('"status":401') == 1  # of a minute, however many there were
    assert "rejected with 401: expected a token of this server" in log_of(guarded)
    for text in (requests_logged(), log_of(guarded)):
        assert MARK not in text
        assert TOKEN not in text


def test_metrics_need_a_token_and_the_page_needs_none(guarded: Server):
    url = metrics_url(guarded)
    assert requests.get(url, timeout=60).status_code == 401
    response = requests.get(url, headers={"Authorization": BEARER}, timeout=60)
    assert (
        'fashion_requests_total{model="",outcome="401",protocol="rest",version=""}' in response.text
    )
    assert "tokens are sent unencrypted to the port of the metrics" in log_of(guarded)
    for path in ("/demo/", "/demo/demo.js", "/v2/health/live", f"/v2/models/{MODEL}/ready"):
        assert requests.get(guarded.rest + path, timeout=60).ok


def test_tokens_can_be_replaced_while_the_server_runs_and_a_bad_file_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    file = private(tmp_path / "tokens", TOKEN)
    tokens = Tokens(file)
    private(file, f"{OTHER}\n")
    tokens.refresh()
    old, new = (f"Bearer {text}".encode() for text in (TOKEN, OTHER))
    assert (tokens.allow([old]), tokens.allow([new])) == (False, True)
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
        assert re.search(f"{words}.*; the previous content stays", record.getMessage())
        assert tokens.allow([new])


def test_an_address_of_this_machine_alone_needs_no_token():
    hosts = ["127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "x.com"]
    assert [is_local(host) for host in hosts] == [True] * 4 + [False] * 4


CERTIFICATE = (
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
    "-nodes", "-days", "2", "-subj", "/CN=localhost",
    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
)  # fmt: skip


def make_certificate(folder: Path) -> dict[str, str]:
    """A certificate that signs itself, and its key, as a server's variables."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl: apt-get install openssl")
    cert, key = folder / "cert.pem", folder / "key.pem"
    run(folder, *CERTIFICATE, "-out", str(cert), "-keyout", str(key))
    return {"FASHION_TLS_CERT": str(cert), "FASHION_TLS_KEY": str(key)}


@pytest.fixture(scope="module")
def tls(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of TLS, with a token but for its metrics, and its files next to its log."""
    folder = tmp_path_factory.mktemp("tls")
    variables = make_certificate(folder) | {
        "FASHION_TOKEN_FILE": str(private(folder / "tokens", TOKEN)),
        "FASHION_OPEN_METRICS": "true",
        "FASHION_METRICS_TLS": "true",
    }
    with started(repository, folder, **variables) as server:
        wait_until(lambda: "Serving " in log_of(server), "the models to be ready")
        yield server


def test_a_client_says_whether_the_server_speaks_tls(guarded: Server, tls: Server):
    for protocol in ("rest", "grpc"):
        plain, secret = (getattr(s, protocol).removeprefix("http://") for s in (guarded, tls))
        for url, words in (
            (f"https://{plain}", f"the server speaks no TLS; expected http://{plain}"),
            (f"http://{secret}", f"the server speaks TLS; expected https://{secret}"),
        ):
            code, _ = run_client("health", "--protocol", protocol, "--url", url)
            assert code == f"error: {url}: {words}"


def test_all_ports_speak_tls_and_take_a_renewed_certificate(tls: Server, images: np.ndarray):
    ca = str(tls.log.parent / "cert.pem")
    url = metrics_url(tls).replace("http://", "https://")
    assert requests.get(url, verify=ca, timeout=60).ok  # by FASHION_OPEN_METRICS
    assert "tokens are sent unencrypted" not in log_of(tls)
    urls = {"rest": tls.rest.replace("http", "https"), "grpc": f"https://{tls.grpc}"}

    def is_served(protocol: str, ca: str) -> bool:
        try:
            with connect(protocol, urls[protocol], TOKEN, ca) as client:
                return len(client.infer(MODEL, images[:3])[LABELS]) == 3
        except ResponseError:
            return False

    assert [is_served(protocol, ca) for protocol in urls] == [True, True]
    with pytest.raises(ResponseError, match="certificate that is trusted"):
        RestClient(urls["rest"], TOKEN).models()
    old = shutil.copy(ca, tls.log.parent / "old.pem")
    make_certificate(tls.log.parent)
    for protocol in urls:
        wait_until(partial(is_served, protocol, ca), f"the new one over {protocol}")
        assert not is_served(protocol, str(old))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FASHION_TOKEN_FILE", "none", "none: No such file or directory"),
        slow("FASHION_TOKEN", "x", "FASHION_TOKEN is not a setting; expected FASHION_TOKEN_FILE"),
        slow("FASHION_TLS_CERT", "a", "expected FASHION_TLS_CERT and FASHION_TLS_KEY"),
        slow("FASHION_REQUEST_LOG_IMAGES", "7", "FASHION_REQUEST_LOG_IMAGES is '7': Input should"),
        slow("nonsense", "1", "settings.json: nonsense is '1'"),
    ],
)
def test_a_bad_setting_ends_the_start_in_one_line(
    own_repository: Path, tmp_path: Path, name: str, value: str, words: str
):
    setting = {name: value}
    if name.islower():
        set_options(own_repository, **setting)
    with started(own_repository, tmp_path, **setting) as server:
        assert server.guard.wait(60) == 1
        (line,) = log_of(server).strip().splitlines()
        assert line.startswith(f"error: {words}")


def test_a_bad_file_of_tokens_is_one_line(tmp_path: Path):
    readable = private(tmp_path / "readable", TOKEN)
    readable.chmod(0o644)
    for path, words in (
        (readable, f"got mode 644; run: chmod o= {readable}"),
        (private(tmp_path / "empty", ""), "printable characters, got none"),
        (tmp_path, "expected a file"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(SecretError, match=f"^{path}: .*{words}.*$"):
            Tokens(path)


def test_a_bad_certificate_is_one_line(tmp_path: Path):
    chain = Path(make_certificate(tmp_path)["FASHION_TLS_CERT"])
    key = Path(shutil.copy(tmp_path / "key.pem", tmp_path / "old.pem"))
    make_certificate(tmp_path)
    for spoil, words in (
        (lambda: None, "KEY_VALUES_MISMATCH"),
        (lambda: private(key, "x"), "in PEM, got an error"),
        (lambda: key.chmod(0o644), "chmod o="),
    ):
        spoil()
        with pytest.raises(SecretError, match=words):
            Certificate(chain, key)


def test_the_command_line_takes_token_and_certificates(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def printed(*options: str, variable: str = "") -> str:
        monkeypatch.setenv("FASHION_TOKEN_FILE", variable)
        return str(run_client("metadata", "--url", guarded.rest, *options))

    file, empty = str(guarded.log.parent / "tokens"), str(private(tmp_path / "empty", ""))
    assert MODEL in printed("--token-file", file)
    assert MODEL in printed(variable=file)
    assert "expected a token of this server" in printed()
    assert "expected a token, in its first line" in printed("--token-file", empty)
    assert "expected a file of certificates" in printed("--ca", "nowhere")
