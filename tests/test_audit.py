"""The audit of the locks, beside a stand-in of OSV's service.  Run: pytest tests/test_audit.py"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scratch import ROOT, run

from deploy.audit import EXPLAINED
from serving.launch import free_ports


@contextmanager
def osv(findings: dict[str, str]) -> Iterator[str]:
    """Answers of each package with the vulnerability given for it, or that there is none."""

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = asked["package"]["name"]
            content = json.dumps({"vulns": [finding(name)]} if name in findings else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    def finding(name: str) -> dict[str, Any]:
        package = {"name": name, "ecosystem": "PyPI"}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
        return {
            "id": findings[name],
            "details": "Something is wrong.",
            "published": "2026-01-01T00:00:00Z",
            "affected": [{"package": package, "ranges": ranges}],
        }

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def audit(url: str, expect: int) -> str:
    options = ("--vulnerability-service", "osv", "--osv-url", url)
    return run(ROOT, sys.executable, "-m", "deploy.audit", *options, expect=expect)


def test_what_is_explained_does_not_count():
    (explained,) = EXPLAINED
    with osv({"mlserver": explained}) as url:
        said = audit(url, expect=0)
    assert f"not counted: {explained}: MLServer unpacks" in said
    assert "No known vulnerabilities found" in said


def test_a_vulnerability_is_named_and_fails():
    with osv({"pillow": "CVE-2099-1"}) as url:
        said = audit(url, expect=1)
    assert "pillow" in said
    assert "CVE-2099-1" in said
    assert said.splitlines()[-1].startswith("error: Found 1 known vulnerabilit")
    assert said.splitlines()[-1].endswith("; upgrade, or explain it in deploy/audit.py")


def test_a_service_that_is_not_reached_is_told_in_one_line():
    (port,) = free_ports(1)
    said = audit(f"http://127.0.0.1:{port}", expect=1).splitlines()
    assert len(said) == len(EXPLAINED) + 1
    assert said[-1].startswith("error: the locks could not be audited: ")
    assert "Connection refused" in said[-1]
