"""The files of the try-it page, as the server gives them.  Run: pytest tests/test_demo_files.py"""

import base64
from pathlib import Path

import numpy as np
import requests
from processes import is_ready, started, wait_until

from serving.launch import Server
from stages.data.idx import Images


def test_the_samples_are_the_first_evaluation_images(server: Server, digits: tuple[Images, Images]):
    told = requests.get(f"{server.rest}/demo/samples.json", timeout=60).json()
    pixels = [list(base64.b64decode(image["pixels"])) for image in told["images"]]
    assert np.array_equal(pixels, digits[1].images[: len(pixels)])
    assert [image["label"] for image in told["images"]] == digits[1].labels[: len(pixels)].tolist()
    assert told["class_names"] == list(digits[1].class_names)
    assert len(pixels) >= 40


def test_the_address_of_the_server_leads_to_the_page(server: Server):
    page = requests.get(server.rest, timeout=60)
    assert page.url == f"{server.rest}/demo/"
    assert page.headers["content-type"].startswith("text/html")
    assert requests.get(f"{server.rest}/demo/../settings.json", timeout=60).status_code == 404


def test_a_repository_without_samples_says_so(own_repository: Path, tmp_path: Path):
    (own_repository / "models/samples.json").unlink()
    with started(own_repository, tmp_path) as (_, server):
        wait_until(lambda: is_ready(server), "both models")
        answer = requests.get(f"{server.rest}/demo/samples.json", timeout=60)
        assert answer.status_code == 404
        assert answer.json()["error"] == (
            "expected samples.json beside the models, got none; package them again"
        )
