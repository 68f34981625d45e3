"""Make the pictures of README and docs from the models that are served: make pictures.

Reads   dvc.lock, metrics/, serving/
Writes  docs/demo.png    the try-it page, in Chromium
        docs/plots.png   recall and reliability of each model, as `dvc plots show` draws them

Each file names the models that it is of, by their hashes in dvc.lock.
"""

import shutil
from io import BytesIO
from pathlib import Path

import vl_convert
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from report.drawings import drawings
from serving.launch import running
from stages.console import StageError, run
from stages.data.arrays import atomic_write
from stages.data.strict_yaml import read_yaml

DOCS, MODELS = Path("docs"), "models"  # the latter: key of a picture's text
SHOWN = "recall", "reliability"
SIZE, CHOSEN, SECONDS = (1000, 680), 4, 30  # pixels; image of the page; to wait for it
SCALE = 1.25


def models_of_lock(lock: Path = Path("dvc.lock")) -> str:
    """The folders of models that are packaged, with their hashes, a line each."""
    deps = read_yaml(lock)["stages"]["package"]["deps"]
    found = {dep["path"]: dep["md5"] for dep in deps if dep["path"].startswith("models/")}
    return "\n".join(f"{path} {md5}" for path, md5 in sorted(found.items()))


def demo() -> Image.Image:
    """The try-it page of a real server, with the predictions for one image."""
    options = webdriver.ChromeOptions()
    for option in ("headless=new", "no-sandbox", "hide-scrollbars"):
        options.add_argument(f"--{option}")
    try:
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    except WebDriverException as error:
        raise StageError(f"no Chromium with its driver: {error.msg}") from None
    with running(Path("serving")) as server, driver:
        screen = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.get(f"{server.rest}/demo")
        wait = WebDriverWait(driver, SECONDS)
        wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "#grid button"))
        driver.find_elements(By.CSS_SELECTOR, "#grid button")[CHOSEN].click()
        wait.until(lambda d: f"Image {CHOSEN}" in d.find_element(By.TAG_NAME, "body").text)
        wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, ".model"))
        return Image.open(BytesIO(driver.get_screenshot_as_png()))


def plots() -> Image.Image:
    """Some of DVC's plots, one below the other."""
    drawn = drawings()
    parts = [
        Image.open(BytesIO(vl_convert.svg_to_png(drawn[name].svg, scale=SCALE))) for name in SHOWN
    ]
    picture = Image.new("RGB", (max(p.width for p in parts), sum(p.height for p in parts)), "white")
    top = 0
    for part in parts:
        picture.paste(part, (0, top), part)
        top += part.height
    return picture


def main() -> None:
    text = PngInfo()
    text.add_text(MODELS, models_of_lock())
    for name, picture in (("demo.png", demo()), ("plots.png", plots())):
        with atomic_write(DOCS / name) as tmp:
            picture.convert("RGB").quantize(64).save(tmp, pnginfo=text, optimize=True)
        print(DOCS / name)


if __name__ == "__main__":
    run(main)
