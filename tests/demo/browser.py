"""A page in headless Chromium, which reaches no address but this machine's."""

import base64
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # Chromium refuses to run as root with it
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--enable-unsafe-swiftshader",  # the brush paints with WebGL
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_PATIENCE = 120  # seconds


class Browser:
    """Uses a page as people do: by the names of tabs, buttons and controls."""

    def __init__(self, width: int, height: int) -> None:
        options = webdriver.ChromeOptions()
        for flag in _FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        # a window is never narrower than 500 pixels, a device may be
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.wait(lambda: self.shown("//button[normalize-space()='Draw']"))

    def another(self, url: str) -> None:
        """Open the page once more, in a tab of the browser that is used from now on."""
        self.driver.switch_to.new_window("tab")
        self.open(url)

    def keys(self, *keys: str) -> str:
        """Press keys where the focus is; the text of what has it then."""
        self.driver.switch_to.active_element.send_keys(*keys)
        return str(self.driver.switch_to.active_element.text)

    def paint(self) -> None:
        """A stroke over the middle of the picture in the editor."""
        (canvas,) = self.wait(lambda: self.shown("//canvas"))
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        mouse = ActionChains(self.driver).move_to_element_with_offset(canvas, -30, -30)
        mouse.click_and_hold().move_by_offset(30, 20).move_by_offset(30, 20).release().perform()

    def wait(self, found: Callable[[], Any]) -> Any:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if result := found():
                return result
            time.sleep(0.1)
        raise AssertionError(f"{_PATIENCE} s passed. The page says: {self.text[:2000]}")

    def wait_for(self, text: str) -> None:
        """Until text is on the page, which it was not before."""
        self.wait(lambda: text in self.text)

    def shown(self, xpath: str) -> list[Any]:
        return [one for one in self.driver.find_elements(By.XPATH, xpath) if one.is_displayed()]

    @property
    def text(self) -> str:
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def tab(self, name: str) -> None:
        self.press(name, "[@role='tab']")

    def press(self, name: str, more: str = "") -> None:
        (button,) = self.wait(lambda: self.shown(f"//button[normalize-space()='{name}']{more}"))
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def type(self, label: str, value: object) -> None:
        """Type into the shown control of this label."""
        field = (
            f"//input[@aria-label='number input for {label}']"
            f" | //label[normalize-space()='{label}']//input"
        )
        (box, *_) = self.wait(lambda: self.shown(field))
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(str(value), Keys.TAB)

    def upload(self, path: Path) -> None:
        """Give a file to the shown tab."""
        field = "//div[@role='tabpanel']//input[@type='file']"
        panel = "./ancestor::div[@role='tabpanel'][1]"
        for box in self.driver.find_elements(By.XPATH, field):
            if box.find_element(By.XPATH, panel).is_displayed():
                box.send_keys(str(path))
                return
        raise AssertionError("There is nowhere to upload to.")

    def pictures(self) -> list[Any]:
        """Those shown that are loaded."""
        loaded = "return arguments[0].complete && arguments[0].naturalWidth > 0"
        return [one for one in self.shown("//img") if self.driver.execute_script(loaded, one)]

    def addresses(self) -> set[str]:
        """Where the page's requests since the last call went."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        requests = [m for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {m["params"]["request"]["url"] for m in requests}

    def picture(self, path: Path) -> None:
        """Take one of the whole page."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = {"captureBeyondViewport": True, "clip": clip}
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", shot)["data"]
        path.write_bytes(base64.b64decode(data))
