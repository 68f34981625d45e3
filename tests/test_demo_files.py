"""The files of the try-it page, as the server gives them.  Run: pytest tests/test_demo_files.py"""

import base64

import numpy as np
import requests
from scratch import Digits

from serving.launch import Server


def test_the_samples_are_the_first_evaluation_images(server: Server, digits: Digits):
    response = requests.get(f"{server.rest}/demo/samples.json", timeout=60).json()
    pixels = [list(base64.b64decode(image["pixels"])) for image in response["images"]]
    assert np.array_equal(pixels, digits[1].images[: len(pixels)])
    assert [image["label"] for image in response["images"]] == digits[1].labels[
        : len(pixels)
    ].tolist()
    assert response["class_names"] == list(digits[1].class_names)
    assert len(pixels) >= 40


def test_the_address_of_the_server_leads_to_the_page(server: Server):
    page = requests.get(server.rest, timeout=60)
    assert page.url == f"{server.rest}/demo/"
    assert page.headers["content-type"].startswith("text/html")
    assert requests.get(f"{server.rest}/demo/../settings.json", timeout=60).status_code == 404
