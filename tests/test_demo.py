"""The try-it page, in a real browser.  Run: pytest tests/test_demo.py"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_models import add_models
from PIL import Image
from processes import POLL_SECONDS, ready, started, wait_until
from scratch import Digits, deep, from_npm, private, slow
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import alert_is_present
from selenium.webdriver.support.wait import WebDriverWait
from wire import MODELS, log_of

from serving.client import RestClient
from serving.fashion.contract import LABELS, OUTPUTS, PROBABILITIES, SIDE
from serving.launch import Server
from stages.data.processed import Images

MISSING = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
NO_BROWSER = f"no {' and '.join(MISSING)}: apt-get install chromium chromium-driver"
AXE = "axe-core@4"  # of npm
PHONE, NARROW, DESKTOP = (390, 844), (360, 740), (1280, 900)
DEADLINE_SECONDS = 30
# What the page says of each model: its label, and the shares of the classes.
PREDICTIONS = """
const texts = (root, selector) => [...root.querySelectorAll(selector)].map((e) => e.textContent);
return Object.fromEntries([...document.querySelectorAll(".model")].map((card) => [
  texts(card, "h3")[0],
  {
    label: texts(card, ".label")[0],
    shares: Object.fromEntries([...card.querySelectorAll("li")].map(
      (bar) => texts(bar, "span:not(.track, .bar)"))),
  },
]));
"""


class Page:
    """The page in a browser."""

    def __init__(self, driver: webdriver.Chrome, server: Server) -> None:
        self.driver, self.server = driver, server
        driver.set_window_size(*DESKTOP)
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        self.load()

    def load(self) -> None:
        self.shown: list[WebElement] = []
        self.driver.get(f"{self.server.rest}/demo")
        self.wait(lambda: self.all("#grid button"))

    def emulate(self, size: tuple[int, int], scheme: str = "light") -> None:
        """Be on a screen of this size and colour scheme from now on."""
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})

    def wait(self, happened: Any) -> Any:
        waiting = WebDriverWait(self.driver, DEADLINE_SECONDS, POLL_SECONDS)
        return waiting.until(lambda _: happened())

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def predictions(self) -> dict[str, dict[str, Any]]:
        """By model, once all show a new result: its label, and the shares of the classes."""
        before = self.shown
        self.wait(lambda: len(self.all(".model")) == len(MODELS) and self.all(".model") != before)
        self.shown = self.all(".model")
        return self.run(PREDICTIONS)

    def seen(self) -> np.ndarray:
        """The grey pixels that the page shows as those of the models."""
        script = "return [...arguments[0].getContext('2d').getImageData(0, 0, 28, 28).data]"
        return np.array(self.run(script, self.one("#image"))).reshape(-1, 4)[:, 0]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    if MISSING:
        pytest.skip(NO_BROWSER)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-background-networking"):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        yield driver


@pytest.fixture
def page(driver: webdriver.Chrome, server: Server) -> Page:
    page = Page(driver, server)
    page.predictions()  # of the first image
    return page


def expected(server: Server, test: Images, place: int, is_known: bool = True) -> dict[str, Any]:
    """What the page ought to show of a test image, by the public client. is_known: to the page."""
    found = {}
    for model in MODELS:
        outputs = RestClient(server.rest).infer(model, test.images[[place]], OUTPUTS)
        (label,) = outputs[LABELS]
        verdict = " right" if label == test.labels[place] else " wrong"
        shares = zip(test.class_names, outputs[PROBABILITIES][0], strict=True)
        found[model] = {
            "label": test.class_names[label] + (verdict if is_known else ""),
            "shares": {name: f"{100 * share:.1f} %" for name, share in shares},
        }
    return found


def output_of_command(page: Page, folder: Path, name: str) -> Any:
    """What the command that the page shows gets, run in a folder."""
    command = ["bash", "-c", page.one("#curl").text]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return {o["name"]: o["data"] for o in json.loads(done.stdout)["outputs"]}[name]


def test_an_image_of_the_grid_gets_the_predictions_of_the_api(
    driver: webdriver.Chrome, server: Server, digits: Digits, tmp_path: Path
):
    page, test = Page(driver, server), digits[1]
    assert page.predictions() == expected(server, test, 0)  # as it opens
    assert page.one("#grid button").get_attribute("aria-pressed") == "true"
    page.all("#grid button")[7].click()
    assert page.predictions() == expected(server, test, 7)
    assert np.array_equal(page.seen(), test.images[7])
    assert output_of_command(page, tmp_path, "image") == test.images[7].tolist()
    truth = test.class_names[test.labels[7]]
    assert page.one("#about").text == f"Image 7, true class: {truth}"
    page.run("document.querySelector('#grid button').focus()")
    keys = ActionChains(page.driver)
    keys.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ENTER).perform()
    assert page.predictions() == expected(server, test, 1)
    assert not page.one("#error").is_displayed()


@deep
def test_it_shows_models_of_images_alone(
    driver: webdriver.Chrome, own_repository: Path, tmp_path: Path
):
    add_models(own_repository)
    with ready(own_repository, tmp_path) as server:
        assert set(Page(driver, server).predictions()) == set(MODELS)


def test_it_prompts_for_a_token_once(driver: webdriver.Chrome, repository: Path, tmp_path: Path):
    token = "0123456789abcdef"
    file = private(tmp_path / "tokens", token)
    with ready(repository, tmp_path, FASHION_TOKEN_FILE=str(file)) as server:
        driver.get(f"{server.rest}/demo")
        requested = WebDriverWait(driver, DEADLINE_SECONDS).until(alert_is_present())
        requested.send_keys(token)
        requested.accept()
        page = Page(driver, server)  # loads it again: the token stays
        assert set(page.predictions()) == set(MODELS)
        assert '-H "Authorization: Bearer $TOKEN"' in page.one("#curl").text
        assert token not in page.driver.page_source


def test_on_a_phone_image_and_predictions_stay_on_the_screen(page: Page):
    def are_on_the_screen() -> bool:
        script = "return arguments[0].map((e) => e.getBoundingClientRect().toJSON())"
        boxes = page.run(script, [page.one("#image"), *page.shown])
        return all(box["top"] >= 0 and box["bottom"] <= PHONE[1] for box in boxes)

    page.emulate(PHONE)
    page.load()
    page.predictions()
    assert are_on_the_screen()
    assert page.run("return scrollY") == 0

    page.run("document.querySelector('#canvas').scrollIntoView({block: 'center'})")
    where = page.run("return scrollY")
    assert where > 0
    page.run("document.querySelector('#predict').click()")
    page.predictions()
    assert page.run("return scrollY") == where
    assert are_on_the_screen()


def test_a_picture_is_classified_and_shown_as_the_models_see_it(
    page: Page, server: Server, digits: Digits, tmp_path: Path
):
    image, path = digits[1].images[3], tmp_path / "a picture's.png"
    Image.fromarray(255 - image.reshape(SIDE, SIDE)).save(path)
    page.one("#file").send_keys(str(path))
    assert page.predictions() == expected(server, digits[1], 3, is_known=False)
    assert np.array_equal(page.seen(), image)
    assert output_of_command(page, tmp_path, "image") == image.tolist()
    page.one("#invert").click()
    page.predictions()
    assert np.array_equal(page.seen(), 255 - image)


def test_a_broken_picture_is_rejected_in_the_servers_words(page: Page, tmp_path: Path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    page.one("#file").send_keys(str(path))
    page.wait(lambda: page.one("#error").is_displayed())
    message = (
        "expected a PNG, JPEG, WebP or BMP file, got 10 bytes that begin with b'no pictu', "
        "at image 0"
    )
    assert page.one("#error").text == message
    assert not page.all(".model")


def test_a_drawing_is_classified(page: Page):
    pen = ActionChains(page.driver).move_to_element_with_offset(page.one("#canvas"), 0, -80)
    pen.click_and_hold().move_by_offset(0, 160).release().perform()
    page.one("#predict").click()
    assert page.predictions().keys() == set(MODELS)
    drawn = page.seen().reshape(SIDE, SIDE)
    assert drawn[SIDE // 2, SIDE // 2 - 1 : SIDE // 2 + 1].min() > 200
    assert drawn[:, :8].max() == 0
    page.one("#clear").click()
    page.one("#predict").click()
    page.wait(lambda: page.seen().max() == 0)


@deep
def test_the_keyboard_draws_too(page: Page):
    page.run("document.querySelector('#canvas').focus()")
    keys = ActionChains(page.driver).send_keys(*10 * [Keys.ARROW_LEFT], Keys.SPACE)
    keys.send_keys(*20 * [Keys.ARROW_RIGHT], Keys.SPACE, *9 * [Keys.ARROW_UP]).perform()
    assert page.one("#brush").is_displayed()
    page.one("#predict").send_keys(Keys.ENTER)
    page.predictions()
    drawn = page.seen().reshape(SIDE, SIDE)
    assert drawn[SIDE // 2, 4:24].min() > 200
    assert drawn[: SIDE // 2 - 4].max() < 10


def test_a_server_that_does_not_respond_is_reported(page: Page):
    page.driver.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        page.all("#grid button")[0].click()
        page.wait(lambda: page.one("#error").is_displayed())
        assert page.one("#error").text == "no response from the server; is it still running?"
    finally:
        page.driver.delete_network_conditions()


@deep
def test_a_server_without_a_model_that_is_ready_says_so(
    driver: webdriver.Chrome, own_repository: Path, tmp_path: Path
):
    for path in own_repository.glob("models/*/v1/training.json"):
        path.unlink()
    with started(own_repository, tmp_path) as server:
        wait_until(lambda: log_of(server).count("is not served") == len(MODELS), "both rejected")
        driver.get_log("browser")  # of the tests before
        page = Page(driver, server)
        page.wait(lambda: page.one("#error").is_displayed())
        page.all("#grid button")[0].click()
        assert page.one("#error").text.startswith("no model of this server is ready")
        assert page.driver.get_log("browser") == []


def test_no_request_leaves_the_machine_and_nothing_is_complained_of(page: Page, server: Server):
    for log in ("performance", "browser"):
        page.driver.get_log(log)
    page.load()
    page.predictions()
    events = [json.loads(e["message"])["message"] for e in page.driver.get_log("performance")]
    urls = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert len(urls) >= 9
    assert [url for url in urls if not url.startswith((server.rest, "data:"))] == []
    assert page.driver.get_log("browser") == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that checks accessibility."""
    with from_npm(AXE, tmp_path_factory.mktemp("axe")) as package:
        file = package.extractfile("package/axe.min.js")
        assert file
        return file.read().decode()


@pytest.mark.parametrize(("size", "scheme"), [(NARROW, "dark"), slow(DESKTOP, "light")])
def test_it_can_be_used_by_all_on_any_width_in_light_and_dark(
    page: Page, axe: str, size: tuple[int, int], scheme: str
):
    page.emulate(size, scheme)
    page.load()
    page.predictions()
    assert page.run("return document.documentElement.scrollWidth") <= size[0]
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    bright = max(map(int, re.findall(r"\d+", background))) > 128
    assert bright == (scheme == "light")
    page.run(axe)
    found = page.driver.execute_async_script("axe.run().then(arguments[0])")["violations"]
    assert [(f["id"], f["impact"], f["nodes"][0]["html"]) for f in found] == []
