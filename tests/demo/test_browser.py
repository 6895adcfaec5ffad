"""The page in a browser, used as people do; each control's result is on the page."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lit_mbldm import data
from lit_mbldm.entries.entry import use_index
from lit_mbldm.errors import InputError
from lit_mbldm.zoo import load_pretrained

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromium-driver"),
]
sys.path.append(str(Path(__file__).parent))
browser = importlib.import_module("browser")

from lit_mbldm.demo.page import demo_page  # noqa: E402
from lit_mbldm.demo.serve import start  # noqa: E402
from lit_mbldm.demo.space import write_space  # noqa: E402

TABS = ["Gallery", "Inpaint", "From noise", "Walk", "Grid", "Codec"]
# faults of Gradio's own parts, which it hides from no one who uses the page
_GRADIO = ["nested-interactive", "aria-prohibited-attr"]
_AXE = """
const [rules, done] = arguments;
const options = {resultTypes: ["violations"], rules: Object.fromEntries(
  rules.map(rule => [rule, {enabled: false}]))};
axe.run(document, options).then(found => done(found.violations.map(
  one => `${one.id}: ${one.help}: ${one.nodes.map(node => node.html).join(" ")}`)));
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    model = load_pretrained("eurosat-64")
    use_index(model, model.codec.encode(torch.randint(0, 256, (3, 3, 64, 64)).byte()))
    page = demo_page({"eurosat-64": model})
    yield start(page)
    page.close()


@pytest.fixture
def page(url: str) -> Iterator[Any]:
    used = browser.Browser(1280, 900)
    used.open(url)
    used.type("Steps", 2)
    yield used
    used.driver.quit()


def test_every_control_is_used(page: Any, url: str, tmp_path: Path) -> None:
    page.type("Number of pictures", 2)
    page.press("Draw")
    page.wait_for("2 pictures of 64×64 pixels")
    page.pictures()[0].click()
    page.wait(lambda: len(page.pictures()) == 6)  # two variations, and the nearest beside it
    page.wait_for("nearest of 3 training images")

    page.tab("From noise")
    page.press("Draw the way")
    page.wait_for("3 pictures of 64×64 pixels")
    (last,) = page.wait(page.pictures)
    before = last.get_attribute("src")
    page.type("From noise, 0, to the picture", 0)
    page.wait(lambda: [one.get_attribute("src") for one in page.pictures()] != [before])

    page.tab("Walk")
    page.type("Pictures of the walk", 3)
    page.press("Walk between seeds")
    (last,) = page.wait(page.pictures)
    before = last.get_attribute("src")
    page.press("Walk between labels")
    page.wait(lambda: [one.get_attribute("src") for one in page.pictures()] != [before])

    page.tab("Codec")
    page.upload(Path(data.__file__).parent / "photos" / "chelsea.jpg")
    page.wait_for("PSNR: codec")
    Image.new("1", (10000, 10000)).save(tmp_path / "huge.png")
    page.upload(tmp_path / "huge.png")
    page.wait_for("10000×10000 pixels, more than")
    (tmp_path / "text.png").write_text("no picture")
    page.upload(tmp_path / "text.png")
    page.wait_for("not an image")

    page.tab("Inpaint")
    page.press("Draw again")
    page.wait_for("Expected strokes")
    page.wait(lambda: page.shown("//canvas"))
    page.paint()
    page.type("Number of pictures", 2)
    page.press("Draw again")
    page.wait(lambda: len(page.pictures()) == 2)
    assert {one.split(":")[0] for one in page.addresses() if not one.startswith(url)} <= {
        "blob",
        "data",
    }


def test_two_people_at_once_both_get_their_pictures(page: Any, url: str) -> None:
    first = page.driver.current_window_handle
    page.another(url)
    page.type("Steps", 2)
    for window in (page.driver.current_window_handle, first):
        page.driver.switch_to.window(window)
        page.press("Draw")
    for window in page.driver.window_handles:
        page.driver.switch_to.window(window)
        page.wait_for("8 pictures of 64×64 pixels")


def test_the_page_works_by_keyboard(page: Any) -> None:
    for _ in range(40):
        if page.keys("\ue004") == "Draw":  # the tabulator
            break
    page.keys("\ue007")  # the enter key
    page.wait_for("8 pictures of 64×64 pixels")


def test_nothing_is_wider_than_a_phone(url: str) -> None:
    phone = browser.Browser(390, 844)
    try:
        phone.open(url)
        assert phone.driver.execute_script("return document.documentElement.scrollWidth") <= 390
        phone.press("Draw")
        phone.wait_for("8 pictures of 64×64 pixels")
    finally:
        phone.driver.quit()


def test_everyone_can_use_it(page: Any, tmp_path: Path) -> None:
    """By axe-core, which knows what people with other senses than most need."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm")
    packed = subprocess.run([npm, "pack", "axe-core@4.10.3"], cwd=tmp_path, check=False)
    if packed.returncode:
        pytest.skip("axe-core cannot be fetched")
    shutil.unpack_archive(next(tmp_path.glob("*.tgz")), tmp_path)
    page.driver.execute_script((tmp_path / "package" / "axe.min.js").read_text())
    for tab in TABS:
        page.tab(tab)
        time.sleep(0.5)  # until its colours have faded in
        assert page.driver.execute_async_script(_AXE, _GRADIO) == []


def test_a_port_in_use_is_told(url: str) -> None:
    port = int(url.rstrip("/").rpartition(":")[2])
    with pytest.raises(InputError, match=f"Port {port} is in use"):
        start(demo_page({}), port)


def test_a_space_starts(tmp_path: Path) -> None:
    write_space(["eurosat-64"], tmp_path / "space")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    with subprocess.Popen([sys.executable, tmp_path / "space" / "app.py"], env=environment) as app:
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    page = urllib.request.urlopen(f"http://127.0.0.1:{port}").read()
                    break
                except OSError:
                    assert app.poll() is None
                    assert time.monotonic() < end
                    time.sleep(0.2)
        finally:
            app.terminate()
    assert b"model-based latents" in page
