"""The page opened in a real headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashrobust.experiments.store import Folder
from hashrobust.reports.page import write_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
EPSILON = 8 / 255
EVIL = "<script>window.broken=1</script>"
EVIL_RULE = "<b>x</b>&lt;"
EVIL_OBJECTIVE = "<img src=x onerror=window.broken=2>"
Make = dict[str, Callable[..., Any]]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    chromedriver = shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        # A browser is no Python package: CI installs one, other machines may have none.
        pytest.skip("no Chromium with chromedriver on this machine: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of runs that have names meant to break out of every place where they stand."""
    root = tmp_path_factory.mktemp("browser") / "</script><script>window.broken=3</script>"
    for rule, gap in (("bp", -0.03), ("usf", 0.1), ("frsf", 0.3)):
        for seed in (0, 1):
            run = make["run"](root, rule, seed)
            made: dict[str, Folder] = {}
            for n, left, share in ((2, 0.6, 0.5), (8, 0.2, 1.0), (16, 0.05, 0.2)):
                for gradient in ("exact", "rule"):
                    score = left + 0.02 * seed + (share * gap if gradient == "rule" else 0)
                    attack = make["attack"](run, score, attack="center", epsilon=n / 255, gradient=gradient)
                    if n == 8:
                        add_evil_examples(attack)
                        made["main" if gradient == "exact" else "by rule"] = attack
            make["attack"](run, 0.8, attack="noise", epsilon=EPSILON, gradient="none")
            make["audit"](run, made)
    settings = {
        **make["run"](root, "frsf", 0, bits=48).config,
        "rule": EVIL_RULE,
        "objective": EVIL_OBJECTIVE,
    }
    del settings["format"]
    odd = Folder.create(root / "odd-run", settings)
    attack = Folder.create(
        odd.path / "attacks" / "center-0",
        {"attack": "center", "epsilon": EPSILON, "gradient": "exact", "params": {"loss": EVIL}},
    )
    attack.write_json("metrics.json", {"map": 0.3, "clean_map": 0.8, "queries": 40, "chance_map": 0.1})
    return write_page(root, tmp_path_factory.mktemp("page") / "page.html")


def add_evil_examples(attack: Folder) -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 200, (2, 8, 8, 3), dtype=np.uint8)
    found = rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    attack.write_arrays(
        "examples/examples.npz",
        {
            "clean": clean,
            "adversarial": clean + 5,
            "retrieved_clean": found,
            "retrieved_adversarial": found,
            "relevant_clean": np.ones((2, 3), bool),
            "relevant_adversarial": np.zeros((2, 3), bool),
            "labels": np.array([EVIL, "bag"]),
        },
    )


@pytest.fixture
def evil() -> dict[str, str]:
    """Names in the results that are meant to become markup."""
    return {"label": EVIL, "rule": EVIL_RULE, "objective": EVIL_OBJECTIVE}


@pytest.fixture
def reader(driver: Any, page: Path) -> Reader:
    return Reader(driver, page)


class Reader:
    """Someone who has just opened the page."""

    def __init__(self, driver: Any, page: Path) -> None:
        self.driver = driver
        self.open(page)

    def open(self, page: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(page.as_uri())
        self.run("document.documentElement.style.scrollBehavior = 'auto'")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 10).until(lambda _: condition())

    def hover(self, element: Any) -> None:
        """Point at an element."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).move_to_element(element).perform()

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def lines(self, figure: str = "score") -> list[str]:
        """Names of the lines that a figure draws, references and bands aside."""
        script = "return document.querySelector(arguments[0]).data.filter(t => t.text).map(t => t.name)"
        drawn = self.run(script, f"#figure-{figure} .plot")
        return [str(name) for name in drawn]

    def check(self, figure: str, label: str) -> Any:
        for place in self.all(f"#figure-{figure} label.check"):
            if place.text.strip() == label:
                return place
        raise AssertionError(f"no check box {label}")

    def select(self, place: str, label: str) -> Any:
        from selenium.webdriver.support.ui import Select

        for choice in self.all(f"{place} label.choice"):
            if choice.find_element("tag name", "span").text == label:
                return Select(choice.find_element("tag name", "select"))
        raise AssertionError(f"no select {label}")

    def column(self, table: str, name: str) -> list[str]:
        heads = [head.text.split("\n")[0].strip(" ↕↑↓") for head in self.all(f"#table-{table} th")]
        place = heads.index(name) + 1
        return [cell.text for cell in self.all(f"#table-{table} tbody td:nth-child({place})")]

    def head(self, table: str, name: str) -> Any:
        return next(b for b in self.all(f"#table-{table} th button") if b.text.strip() == name)

    def show(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
