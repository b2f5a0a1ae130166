"""The page in a real headless Chromium: it draws, an episode can be chosen, it fits a phone, nothing injected runs.

Needs Debian's `chromium` and `chromium-driver`, or Chrome and chromedriver, on the PATH.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from report_world import EVIL, make_prm, make_run

from prm_gym.report import write

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
if not BROWSER or not DRIVER:
    pytest.skip("no Chromium: apt-get install chromium chromium-driver", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="pip install 'prm-gym[dev]'")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A report with every figure, Q, two runs, and hostile text wherever a run's data can hold it."""
    folder = tmp_path_factory.mktemp("report")
    runs = [
        make_run(folder / "plain", iterations=2, best_of=(2, 4), prompt="compact"),
        make_run(folder / "hostile", best_of=(2, 4), odd=EVIL),
    ]
    make_prm(runs[0] / "iter1" / "prm")
    notes = write(runs, folder / "report.html", episodes=3)
    assert len(notes) == 2  # the second iteration and the hostile run have no PRM
    return f"file://{folder / 'report.html'}"


@pytest.fixture(params=[(1280, 900, "light"), (360, 740, "dark")], ids=["desktop", "phone"])
def page(request, driver, address):
    """The page, opened anew in a window of some size; no message may be left in its console."""
    width, height, scheme = request.param
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    driver.get("about:blank")
    driver.get(address)
    driver.scheme, driver.width = scheme, width
    yield driver
    assert driver.get_log("browser") == []


def all_of(page, selector: str) -> list:
    return page.find_elements(By.CSS_SELECTOR, selector)


def chosen(page) -> tuple[int, str]:
    """Number of the one chosen entry in the list, and the task that the view shows."""
    rows = page.execute_script(
        "return [...document.querySelectorAll('#list [role=option]')].map(row => row.getAttribute('aria-selected'))"
    )
    assert rows.count("true") == 1
    return rows.index("true"), all_of(page, "#episode h3")[0].text


def turns(page) -> list[str]:
    return [turn.text for turn in all_of(page, "#episode .turn")]


def test_figures_are_drawn_with_marks_inside_them(page) -> None:
    figures = page.execute_script(
        """const box = (node) => { const b = node.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
        return [...document.querySelectorAll("figure svg")].map(
            (svg) => [box(svg), [...svg.querySelectorAll(".mark")].map(box)])"""
    )
    assert len(figures) == 8 + 5
    for (left, top, right, bottom), marks in figures:
        assert len(marks) >= 2
        for x1, y1, x2, y2 in marks:
            assert left <= x1 < x2 <= right
            assert top <= y1 <= y2 <= bottom


def test_an_episode_is_chosen_by_a_click(page) -> None:
    before = chosen(page)
    row = all_of(page, "#list [role=option]")[2]
    row.click()
    assert chosen(page)[0] == 2 != before[0]
    assert chosen(page)[1] in row.text
    assert len(turns(page)) == int(row.text.split(" action")[0].rpartition(" ")[2]) + 1


def test_an_episode_is_chosen_by_keyboard(page) -> None:
    all_of(page, "#filters select")[-1].send_keys(Keys.TAB)  # the list is one stop of the Tab key
    assert page.switch_to.active_element == all_of(page, "#list [role=option]")[0]
    assert chosen(page)[0] == 0
    for key, expected in (
        (Keys.ARROW_DOWN, 1),
        (Keys.ARROW_DOWN, 2),
        (Keys.ARROW_UP, 1),
        (Keys.END, -1),
        (Keys.HOME, 0),
    ):
        page.switch_to.active_element.send_keys(key)
        rows = all_of(page, "#list [role=option]")
        assert chosen(page)[0] == expected % len(rows)
        assert page.switch_to.active_element == rows[expected]
        assert chosen(page)[1] in rows[expected].text


def test_a_turn_shows_q_and_the_commands_when_opened(page) -> None:
    first = all_of(page, "#episode .turn")[0]
    assert "Q₀ 0." in first.text
    assert "You are at desk 0." in first.text
    commands = first.find_element(By.CSS_SELECTOR, ".commands")
    assert not commands.is_displayed()
    first.find_element(By.TAG_NAME, "summary").click()
    assert commands.is_displayed()
    scores = [float(q.text) for q in commands.find_elements(By.CSS_SELECTOR, ".q")]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)
    assert len(all_of(page, "#episode .course circle")) == len(turns(page)) - 1


def test_a_filter_leaves_the_episodes_of_a_policy(page) -> None:
    select = all_of(page, "#filters select")[0]
    value = select.find_elements(By.TAG_NAME, "option")[-1].get_attribute("value")
    select.send_keys(value)
    assert page.execute_script("return arguments[0].value", select) == value
    who = [row.text for row in all_of(page, "#list .who")]
    assert len(who) == 3
    assert all(text.startswith(value) for text in who)


def test_nothing_is_wider_than_the_window(page) -> None:
    for details in all_of(page, "details"):
        page.execute_script("arguments[0].open = true", details)
    for row in (0, -1):  # the last episode is of the run with hostile text
        all_of(page, "#list [role=option]")[row].click()
        assert page.execute_script("return document.documentElement.scrollWidth") <= page.width
    tables = all_of(page, ".scroll")
    assert all(table.rect["width"] <= page.width for table in tables)


def test_injected_markup_is_text_and_does_not_run(page) -> None:
    all_of(page, "#list [role=option]")[-1].click()
    assert 'onerror="window.injected=' in turns(page)[0]
    assert "<img src=x" in chosen(page)[1]
    assert all_of(page, "img") == []
    assert page.execute_script("return window.injected") is None


def test_the_page_has_the_colours_that_the_reader_prefers(page) -> None:
    """And its small print stands out from the paper as WCAG asks of text, 4.5 to 1."""

    def luminance(selector: str, name: str) -> float:
        text = all_of(page, selector)[0].value_of_css_property(name)
        parts = [float(part) / 255 for part in text.partition("(")[2].rstrip(")").split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance("body", "background-color")
    assert (paper < 0.1) == (page.scheme == "dark")
    for selector in (".note", "small", ".headline .p0 dt", ".headline .p1 dt", ".headline .p2 dt", ".lost"):
        ink = luminance(selector, "color")
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector
