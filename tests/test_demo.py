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
from PIL import Image
from processes import is_ready, started, wait_until
from scratch import from_npm
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from wire import MODELS

from serving.client import RestClient
from serving.fashion.contract import LABELS, PROBABILITIES, SIDE
from serving.launch import Server
from stages.dataset import Images

MISSING = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
NO_BROWSER = f"no {' and '.join(MISSING)}: apt-get install chromium chromium-driver"
AXE = "axe-core@4"  # of npm
PHONE, DESKTOP = (360, 740), (1280, 900)
DEADLINE_SECONDS = 30


class Page:
    """The page in a browser."""

    def __init__(self, driver: webdriver.Chrome, server: Server) -> None:
        self.driver, self.server = driver, server
        self.load()

    def load(self) -> None:
        self.driver.get(f"{self.server.rest}/demo")
        self.wait(lambda: self.all("#grid button"))

    def wait(self, happened: Any) -> Any:
        return WebDriverWait(self.driver, DEADLINE_SECONDS).until(lambda _: happened())

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def answered(self) -> dict[str, dict[str, Any]]:
        """By model, once all have answered: what it says, and the shares of the classes."""
        self.wait(lambda: len(self.all(".model")) == len(MODELS))
        return {
            card.find_element(By.TAG_NAME, "h3").text: {
                "says": card.find_element(By.CLASS_NAME, "says").text,
                "shares": dict(
                    [span.text for span in bar.find_elements(By.TAG_NAME, "span") if span.text]
                    for bar in card.find_elements(By.TAG_NAME, "li")
                ),
            }
            for card in self.all(".model")
        }

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
    driver.set_window_size(*DESKTOP)
    return Page(driver, server)


def expected(
    server: Server, image: np.ndarray, names: tuple[str, ...], truth: int | None = None
) -> dict[str, Any]:
    """What the page ought to say of an image, by the public client."""
    found = {}
    for model in MODELS:
        answer = RestClient(server.rest).infer(model, image[None], [LABELS, PROBABILITIES])
        (label,) = answer[LABELS]
        verdict = " right" if label == truth else " wrong"
        shares = zip(names, answer[PROBABILITIES][0], strict=True)
        found[model] = {
            "says": names[label] + ("" if truth is None else verdict),
            "shares": {name: f"{100 * share:.1f} %" for name, share in shares},
        }
    return found


def test_an_image_of_the_grid_is_answered_as_the_api_answers(
    page: Page, server: Server, digits: tuple[Images, Images]
):
    test = digits[1]
    page.all("#grid button")[7].click()
    assert page.answered() == expected(server, test.images[7], test.class_names, test.labels[7])
    assert np.array_equal(page.seen(), test.images[7])
    truth = test.class_names[test.labels[7]]
    assert page.one("#about").text == f"Image 7, in truth: {truth}"
    assert not page.one("#error").is_displayed()


def test_the_keyboard_is_enough(page: Page, server: Server, digits: tuple[Images, Images]):
    test = digits[1]
    page.run("document.querySelector('#grid button').focus()")
    keys = ActionChains(page.driver)
    keys.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ENTER).perform()
    assert page.answered() == expected(server, test.images[1], test.class_names, test.labels[1])


@pytest.mark.parametrize("invert", [False, True])
def test_a_picture_is_answered_and_shown_as_the_models_see_it(
    page: Page, server: Server, digits: tuple[Images, Images], tmp_path: Path, invert: bool
):
    image = digits[1].images[3]
    path = tmp_path / "a picture's.png"
    Image.fromarray((255 - image if invert else image).reshape(SIDE, SIDE)).save(path)
    if not invert:
        page.one("#invert").click()
    page.one("#file").send_keys(str(path))
    assert page.answered() == expected(server, image, digits[1].class_names)
    assert np.array_equal(page.seen(), image)


def test_a_broken_picture_is_refused_in_the_servers_words(page: Page, tmp_path: Path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    page.one("#file").send_keys(str(path))
    page.wait(lambda: page.one("#error").is_displayed())
    said = "expected a PNG or JPEG file, got 10 bytes that begin with b'no pictu', at image 0"
    assert page.one("#error").text == said
    assert not page.all(".model")


def test_a_drawing_is_answered(page: Page):
    pen = ActionChains(page.driver).move_to_element_with_offset(page.one("#canvas"), 0, -80)
    pen.click_and_hold().move_by_offset(0, 160).release().perform()
    page.one("#ask").click()
    assert page.answered().keys() == set(MODELS)
    drawn = page.seen().reshape(SIDE, SIDE)
    assert drawn[SIDE // 2, SIDE // 2 - 1 : SIDE // 2 + 1].min() > 200
    assert drawn[:, :8].max() == 0
    page.one("#clear").click()
    page.one("#ask").click()
    page.wait(lambda: page.seen().max() == 0)


def test_the_keyboard_draws_too(page: Page):
    page.run("document.querySelector('#canvas').focus()")
    keys = ActionChains(page.driver).send_keys(*10 * [Keys.ARROW_LEFT], Keys.SPACE)
    keys.send_keys(*20 * [Keys.ARROW_RIGHT], Keys.SPACE, *9 * [Keys.ARROW_UP]).perform()
    assert page.one("#brush").is_displayed()
    page.one("#ask").send_keys(Keys.ENTER)
    page.answered()
    drawn = page.seen().reshape(SIDE, SIDE)
    assert drawn[SIDE // 2, 4:24].min() > 200
    assert drawn[: SIDE // 2 - 4].max() < 10


@pytest.mark.parametrize("chosen", ["of the grid", "of a file"])
def test_the_command_asks_what_the_page_asked(
    page: Page, digits: tuple[Images, Images], tmp_path: Path, chosen: str
):
    if chosen == "of the grid":
        page.all("#grid button")[5].click()
    else:
        path = tmp_path / "it's.png"
        Image.fromarray(255 - digits[1].images[5].reshape(SIDE, SIDE)).save(path)
        page.one("#file").send_keys(str(path))
    says = page.answered()[MODELS[0]]["says"]
    command = page.one("#curl").text
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    outputs = {o["name"]: o["data"] for o in json.loads(done.stdout)["outputs"]}
    assert says.startswith(digits[1].class_names[outputs[LABELS][0]])


def test_a_server_that_has_gone_is_told_in_words(
    driver: webdriver.Chrome, own_repository: Path, tmp_path: Path
):
    with started(own_repository, tmp_path) as (process, server):
        wait_until(lambda: is_ready(server), "both models")
        page = Page(driver, server)
        process.kill()
        process.wait()
        page.all("#grid button")[0].click()
        page.wait(lambda: page.one("#error").is_displayed())
        assert page.one("#error").text == "the server does not answer; is it still running?"


def test_a_server_without_a_model_that_is_ready_says_so(
    driver: webdriver.Chrome, own_repository: Path, tmp_path: Path
):
    for path in own_repository.glob("models/*/v1/training.json"):
        path.unlink()
    with started(own_repository, tmp_path) as (_, server):
        log = server.log.read_text
        wait_until(lambda: log("utf-8").count("is not served") == len(MODELS), "both refused")
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
    page.all("#grid button")[0].click()
    page.answered()
    events = [json.loads(e["message"])["message"] for e in page.driver.get_log("performance")]
    asked = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) >= 9
    assert [url for url in asked if not url.startswith((server.rest, "data:"))] == []
    assert page.driver.get_log("browser") == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that checks accessibility."""
    with from_npm(AXE, tmp_path_factory.mktemp("axe")) as package:
        file = package.extractfile("package/axe.min.js")
        assert file
        return file.read().decode()


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_it_can_be_used_by_all_on_any_width_in_light_and_dark(
    page: Page, axe: str, size: tuple[int, int], scheme: str
):
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.load()
        page.all("#grid button")[0].click()
        page.answered()
        assert page.run("return document.documentElement.scrollWidth") <= width
        ground = page.run("return getComputedStyle(document.body).backgroundColor")
        bright = max(map(int, re.findall(r"\d+", ground))) > 128
        assert bright == (scheme == "light")
        page.run(axe)
        found = page.driver.execute_async_script("axe.run().then(arguments[0])")["violations"]
        assert [(f["id"], f["impact"], f["nodes"][0]["html"]) for f in found] == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
