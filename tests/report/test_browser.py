"""The report and MLflow's UI in a real browser, headless: a card sweep is trained, and looked at.

Skipped, with the reason, where there is no chromium with its driver, or MNIST can't be had.
"""

import html
import json
import re
import shutil
from urllib.parse import urlsplit

import mlflow
import pytest
from helpers.clone import Clone
from helpers.servers import QuickServer
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.mnist

CARD = ("model.hidden_dim1=128,256", "optim.lr=1e-2,1e-3")
NAMES = {f"{width} lr={lr}" for width in (128, 256) for lr in (0.01, 0.001)}
WAIT_SECONDS = 20
"""CI's machines are slow: MLflow's UI takes seconds to load there."""


class Browser(webdriver.Chrome):
    """Chromium without a window; what it sends and what its console says can be read."""

    def __init__(self, chromium, driver):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (
            "--headless=new",
            "--no-sandbox",  # root may not use it
            "--disable-dev-shm-usage",
            "--window-size=1400,1000",
            # Of its own accord it asks for nothing, so that what is asked for is the page's doing.
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        super().__init__(options, Service(driver))

    def open(self, address):
        """Load a page anew, in a wide window, in light colours."""
        self.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.prefer("light")
        self.get("about:blank")
        origin = "://".join(urlsplit(address)[:2])  # MLflow's UI keeps there how its table was sorted
        self.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
        for log in ("browser", "performance"):
            self.get_log(log)
        self.get(address)

    def prefer(self, scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def resize(self, width, height):
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def until(self, what):
        return WebDriverWait(self, WAIT_SECONDS).until(what)

    def find(self, xpath):
        """The first such element, once it is there."""
        return self.until(lambda _: self.find_elements(By.XPATH, xpath))[0]

    def drawn(self, selector, n=1):
        """The elements of a chart, once n of them are drawn, which may be after the page is loaded."""

        def found(_):
            elements = self.find_elements(By.CSS_SELECTOR, selector)
            return len(elements) >= n and elements

        return self.until(found)

    def click(self, xpath):
        def clicked(_):
            self.find(xpath).click()
            return True

        WebDriverWait(self, WAIT_SECONDS, ignored_exceptions=[Exception]).until(clicked)

    def requests(self):
        """Addresses that were asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.get_log("performance")]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def errors(self):
        return [entry["message"] for entry in self.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver here (Debian: apt install chromium chromium-driver)")
    with Browser(chromium, driver) as browser:
        yield browser


@pytest.fixture(scope="module")
def card(tmp_path_factory, browser):
    """A card sweep on MNIST, and its report."""
    clone = Clone(tmp_path_factory.mktemp("card"))
    code, out, err = clone.quick("-m", *CARD, "trainer.epochs=2")
    if code == 2 and "MNIST" in err:
        pytest.skip(f"MNIST can't be had here: {err}")
    assert (code, err) == (0, "")
    [report] = (clone.root / "outputs" / "sweeps").rglob("report.html")
    assert f"Report: {report}" in out
    return clone, report, out


@pytest.fixture(scope="module")
def ui(card):
    """MLflow's UI on that sweep's store: its address, the parent run, its runs by name."""
    clone, *_ = card
    server = QuickServer(clone.root, clone.store)
    server.start()
    address = server.uri
    try:
        client = mlflow.MlflowClient(clone.store)
        found = client.search_runs([client.get_experiment_by_name("mnist").experiment_id])
        [parent] = [run for run in found if run.data.tags["lockstep.kind"] == "sweep"]
        runs = {run.info.run_name: run for run in found if run is not parent}
        assert runs.keys() == NAMES
        yield address, parent, runs
    finally:
        server.stop()


def column(browser, position):
    """The leaderboard's texts in a column, from the top."""
    cells = browser.find_elements(By.CSS_SELECTOR, f"#runs tbody td:nth-child({position})")
    return [cell.text for cell in cells]


def ranked(runs):
    """Their names, the best first."""
    return sorted(runs, key=lambda name: -runs[name].data.metrics["test/accuracy"])


def names(browser):
    """Of the runs in MLflow's table, from the top."""
    places = {}
    for row in browser.find_elements(By.XPATH, "//*[@role='row'][.//a[contains(@href, '/runs/')]]"):
        found = [a.text for a in row.find_elements(By.TAG_NAME, "a") if a.text in NAMES]
        places |= dict.fromkeys(found, int(row.get_attribute("row-index")))
    return sorted(places, key=places.get)


def test_the_report_is_drawn_without_an_error_and_asks_for_nothing(browser, card):
    _, report, _ = card
    browser.open(report.as_uri())
    for name, drawn in (
        ("parallel", "g.parcoords"),
        ("curves", "path.js-line"),
        ("importance", ".bars path"),
        ("effects", ".heatmaplayer image"),
    ):
        assert browser.drawn(f"#{name} {drawn}"), name
    lines = browser.drawn("#curves .scatterlayer path.js-line", 2 * len(NAMES))
    assert len(lines) == 8  # 4 runs, 2 metrics
    pictures = browser.find_elements(By.CSS_SELECTOR, ".pictures img")
    for picture in pictures:  # which are loaded as they come into view
        browser.execute_script("arguments[0].scrollIntoView()", picture)
        browser.until(lambda _, picture=picture: picture.get_property("naturalWidth") == 640)
    assert len(pictures) == 9  # three spaces of the best run; of best and worst a space, confusions, mistakes
    assert browser.errors() == []
    sent = browser.requests()
    assert sent[0] == report.as_uri()
    assert [url for url in sent[1:] if not url.startswith(("data:", "blob:"))] == []


def test_its_leaderboard_is_sorted_by_mouse_and_by_keyboard(browser, card):
    browser.open(card[1].as_uri())
    assert column(browser, 2) == sorted(column(browser, 2), reverse=True)  # test accuracy, best first
    assert column(browser, 1) == ["1", "2", "3", "4"]
    links = browser.find_elements(By.CSS_SELECTOR, "#runs td:first-child a")
    assert {link.get_attribute("title") for link in links} == NAMES
    heading = browser.find("//th[normalize-space()='lr']")
    heading.find_element(By.TAG_NAME, "button").click()
    assert column(browser, 4) == ["0.01", "0.01", "0.001", "0.001"]
    assert heading.get_attribute("aria-sort") == "descending"
    heading.find_element(By.TAG_NAME, "button").click()
    assert column(browser, 4) == ["0.001", "0.001", "0.01", "0.01"]
    assert heading.get_attribute("aria-sort") == "ascending"
    browser.find("//th[normalize-space()='test/loss']/button").click()
    assert column(browser, 5) == sorted(column(browser, 5))  # the least loss is the best
    browser.open(card[1].as_uri())
    for _ in range(12):  # to hidden_dim1's heading, from the page's beginning
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element.text == "hidden_dim1":
            break
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert column(browser, 3) == ["256", "256", "128", "128"]
    outlined = browser.switch_to.active_element.value_of_css_property("outline-style")
    assert outlined == "solid"  # where the keyboard is can be seen


@pytest.mark.parametrize("width", [390, 1280])
def test_the_score_is_always_in_sight(browser, card, width):
    browser.open(card[1].as_uri())
    browser.resize(width, 800)
    in_sight = """
        const box = document.querySelector(".scroll"), far = document.createElement("td");
        far.innerHTML = "<div style='width: 90rem'>many swept keys</div>";
        box.querySelector("tbody tr").append(far);
        box.scrollLeft = 1e4;
        const {left, right} = box.querySelector("tbody td:nth-child(2)").getBoundingClientRect();
        const seen = document.elementFromPoint((left + right) / 2, box.getBoundingClientRect().top + 60);
        return [box.scrollLeft > 100, 0 <= left && right <= innerWidth, seen.cellIndex];"""
    assert browser.execute_script(in_sight) == [True, True, 1]


def test_its_curves_tell_their_values_under_the_mouse(browser, card):
    browser.open(card[1].as_uri())
    line = browser.drawn("#curves path.js-line", len(NAMES))[len(NAMES) - 1]  # the best one's loss
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", line)
    on_line = """
        const line = arguments[0], at = line.getPointAtLength(line.getTotalLength() / 2);
        const {x, y} = at.matrixTransform(line.getScreenCTM());
        return [Math.round(x), Math.round(y)];"""

    def hovered(_):
        x, y = browser.execute_script(on_line, line)
        for place in ((x - 5, y), (x, y)):
            mouse = ActionBuilder(browser)
            mouse.pointer_action.move_to_location(*place)
            mouse.perform()
        return browser.find_elements(By.CSS_SELECTOR, "#curves .hovertext")

    assert not browser.find_elements(By.CSS_SELECTOR, "#curves .hovertext")
    texts = [label.text for label in browser.until(hovered)]
    best = browser.find("//*[@id='runs']//tbody//a").get_attribute("title")
    assert any("iterations" in text and best in text for text in texts)


def test_it_is_read_on_a_phone_and_in_the_dark(browser, card):
    browser.open(card[1].as_uri())
    browser.resize(390, 844)
    width = "return [document.documentElement.scrollWidth, document.querySelector('#curves svg').clientWidth]"
    browser.until(lambda _: max(browser.execute_script(width)) <= 390)
    browser.prefer("dark")
    colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    assert browser.execute_script(colours) == ["rgb(232, 232, 232)", "rgb(22, 22, 22)"]
    tick = "return getComputedStyle(document.querySelector('#curves .xtick text')).fill"
    browser.until(lambda _: browser.execute_script(tick) == "rgb(232, 232, 232)")
    assert browser.errors() == []


def test_the_printed_address_shows_the_sweep_in_mlflow(browser, card, ui):
    """The walk that the README describes: the best run on top, curves, and its pictures."""
    (address, _, runs), (_, report, out) = ui, card
    [(at, place)] = re.findall(r"then open (http://127\.0\.0\.1:\d+)(/\S+)", out)
    assert f'href="{html.escape(at + place)}"' in report.read_text()  # "all together, best first"
    browser.open(address + place)
    browser.resize(2000, 1000)  # what is out of sight is not in the page either

    def cell(name, column):
        [row] = browser.find_elements(By.XPATH, f"//*[@role='row'][.//a[normalize-space()='{name}']]")
        row_id = row.get_attribute("row-id")
        return browser.find(f"//*[@role='row'][@row-id='{row_id}']//*[@col-id='{column}']").text

    browser.until(lambda _: names(browser) == ranked(runs))
    for name, run in runs.items():
        params = run.data.params
        assert cell(name, "params.`model.hidden_dim1`") == params["model.hidden_dim1"]
        assert cell(name, "params.`optim.lr`") == params["optim.lr"]
        shown = cell(name, "metrics.`test/accuracy`")
        assert float(shown) == pytest.approx(run.data.metrics["test/accuracy"], abs=1e-3)

    browser.click("//label[.//input[@value='CHART']]")
    drawn = "return [...document.querySelectorAll('.scatterlayer .js-line[d]')].map(l => l.style.stroke)"
    colors = {run.data.tags["mlflow.runColor"] for run in runs.values()}
    rgb = {f"rgb({int(c[1:3], 16)}, {int(c[3:5], 16)}, {int(c[5:], 16)})" for c in colors}
    browser.until(lambda _: set(browser.execute_script(drawn)) == rgb)
    assert len(rgb) == len(NAMES)
    sections = re.findall(r"^(\S+)\n\(\d\)$", browser.find_element(By.TAG_NAME, "body").text, re.M)
    assert sections[:2] == ["test", "train"]  # curves before metrics of one value

    browser.click("//label[.//input[@value='TABLE']]")
    browser.click(f"//a[normalize-space()='{ranked(runs)[0]}']")
    browser.click("//*[@role='tab'][normalize-space()='Artifacts']")
    browser.click("//*[text()='pca']")
    browser.click("//*[text()='hidden2.png']")
    picture = browser.find("//img[contains(@src, 'blob:') or contains(@src, 'hidden2')]")
    browser.until(lambda _: picture.get_property("naturalWidth") > 300)
    sent = browser.requests()
    assert any(url.startswith(address) for url in sent)
    assert [url for url in sent if not url.startswith((address, "data:", "blob:"))] == []


def test_inside_mlflow_a_link_of_the_report_shows_its_address(browser, ui):
    """MLflow's frame is sandboxed: a link that it follows leaves an error page."""
    address, parent, runs = ui
    place = f"/#/experiments/{parent.info.experiment_id}/runs/"
    browser.open(f"{address}{place}{parent.info.run_id}/artifacts/report.html")
    browser.switch_to.frame(browser.find("//iframe"))
    try:
        browser.find("//*[@id='runs']//tbody//a").click()
        copied = browser.find_element(By.ID, "copied")
        best = runs[ranked(runs)[0]].info.run_id
        assert copied.get_attribute("value") == f"{address}{place}{best}?workflowType=machine_learning"
        assert browser.execute_script("return document.activeElement.id") == "copied"
        browser.find("//button[text()='Close']").click()
        assert not copied.is_displayed()
        assert browser.find_elements(By.ID, "runs")  # the report is still there
    finally:
        browser.switch_to.default_content()
