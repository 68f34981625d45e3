"""The client over REST."""

import operator
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from serving.client.base import PAUSES, RESPONSE_SECONDS, SHOWN, Client, ResponseError, rejection

DIRECT = {"http": "", "https": ""}  # a proxy that the environment names is for downloads
CONNECT_SECONDS = 5.0
REST_URL = "http://localhost:8080"
JSON_LENGTH = "Inference-Header-Content-Length"


class RestClient(Client):
    """Over HTTP; threads may share it. url: as http://localhost:8080; token, ca: see `connect`.

    tritonclient.http writes and reads the bodies, requests sends them: tritonclient's own
    connections keep a hub of gevent for each thread, cannot be shared by threads, and do not tell
    a timeout of connecting, which may be tried again, from that of a response.
    """

    _field = staticmethod(operator.getitem)  # of JSON

    def __init__(self, url: str = REST_URL, token: str = "", ca: str = "") -> None:
        # Not at the top: it imports gevent, which takes long.
        import tritonclient.http as triton  # noqa: PLC0415

        session = requests.Session()
        session.trust_env = False  # no proxy, no password of the environment
        session.verify = ca or True
        if token:
            session.headers["Authorization"] = f"Bearer {token}"
        retries = Retry(len(PAUSES), read=0, status=0, other=0, backoff_factor=PAUSES[0])
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        super().__init__(url.rstrip("/"), triton, session)

    def ready(self, model: str = "", version: str = "") -> bool:
        path = f"{_path(model, version)}/ready" if model else "/v2/health/ready"
        response = self._send("GET", path)
        if response.status_code == HTTPStatus.NOT_FOUND:
            _check_status(response)
        return response.ok

    def _metadata(self, model: str, version: str) -> dict[str, Any]:
        return _parse(self._send("GET", _path(model, version) if model else "/v2"))

    def _index(self) -> list[dict[str, Any]]:
        return _parse(self._send("POST", "/v2/repository/index", json={}))

    def _infer(self, model: str, version: str, images: np.ndarray, request: dict[str, Any]) -> Any:
        client, path = self._triton.InferenceServerClient, f"{_path(model, version)}/infer"
        body, length = client.generate_request_body(**request)
        response = self._send("POST", path, data=body, headers={JSON_LENGTH: str(length)})
        if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY and images.dtype != object:
            # A server without the protocol's binary tensor extension, such as MLServer alone.
            request["inputs"][0].set_data_from_numpy(images, binary_data=False)
            response = self._send("POST", path, data=client.generate_request_body(**request)[0])
        length = response.headers.get(JSON_LENGTH)
        return _parse(
            response, lambda r: client.parse_response_body(r.content, header_length=length)
        )

    def _send(self, method: str, path: str, **body: Any) -> requests.Response:
        timeout = (CONNECT_SECONDS, RESPONSE_SECONDS)
        try:
            return self._connection.request(method, self.url + path, timeout=timeout, **body)
        except requests.exceptions.SSLError as error:
            why = "expected TLS and a certificate that is trusted, got another; name those that may"
            raise ResponseError(f"{self.url}: {why} have signed it: --ca") from error
        except requests.exceptions.InvalidSchema as error:
            why = "expected a URL like http://localhost:8080"
            raise ResponseError(f"{self.url}: {why}") from error
        except requests.RequestException as error:
            raise ResponseError(f"{self.url}{path}: no answer: {type(error).__name__}") from error


def _path(model: str, version: str) -> str:
    return f"/v2/models/{model}" + (f"/versions/{version}" if version else "")


def _check_status(response: requests.Response) -> None:
    if response.ok:
        return
    try:
        text = response.json()["error"]
    except (requests.JSONDecodeError, KeyError, TypeError):
        text = response.text
    raise rejection(response.url, f"HTTP {response.status_code}", text)


def _parse(response: requests.Response, parse: Callable[..., Any] = requests.Response.json) -> Any:
    _check_status(response)
    try:
        return parse(response)
    except ValueError:
        text = response.content[:SHOWN].decode(errors="replace")
        raise ResponseError(f"{response.url}: expected JSON, got {text!r}") from None
