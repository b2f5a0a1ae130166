"""The page in a real headless Chromium: it draws, an episode can be chosen, it fits a phone, nothing injected runs.

Needs Debian's `chromium` and `chromium-driver`, or Chrome and chromedriver, on the PATH.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

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
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

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
    notes: list[str] = []
    write(runs, folder / "report.html", episodes=12, tell=notes.append)
    assert len(notes) == 2  # the second iteration and the hostile run have no PRM
    return f"file://{folder / 'report.html'}"


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "dark")], ids=["desktop", "phone"])
def page(request, driver, address):
    """The page, opened anew in a window of some size; no message may be left in its console."""
    width, height, scheme = request.param
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    driver.get("about:blank")
    driver.get(address)
    driver.scheme, driver.width, driver.height = scheme, width, height
    yield driver
    assert driver.get_log("browser") == []


def all_of(page, selector: str) -> list:
    return page.find_elements(By.CSS_SELECTOR, selector)


def rows(page) -> list:
    return all_of(page, "#list [role=option]")


def marked(page) -> list[int]:
    states = page.execute_script(
        "return [...document.querySelectorAll('#list [role=option]')].map(row => row.getAttribute('aria-selected'))"
    )
    return [number for number, state in enumerate(states) if state == "true"]


def task(page) -> str:
    return all_of(page, "#episode h3")[0].text.removesuffix(" link")


def turns(page) -> list[str]:
    return [turn.text for turn in all_of(page, "#episode .turn")]


def choose(page, number: int) -> None:
    """Click on a game; a phone goes back to the list before."""
    if page.width < 600 and all_of(page, ".back") and all_of(page, ".back")[0].is_displayed():
        all_of(page, ".back")[0].click()
    rows(page)[number].click()


def pick(page, label: str, words: str) -> None:
    """Choose an option of a filter by its words."""
    [select] = [of for of in all_of(page, "#filters label") if of.text.startswith(label)]
    Select(select.find_element(By.TAG_NAME, "select")).select_by_visible_text(words)


def data(page) -> dict:
    return json.loads(page.execute_script("return document.getElementById('data').textContent"))


def episodes_of(page, run: str) -> dict[str, dict[str, bool]]:
    """{task: {policy: won}} of a run, from the page's data."""
    found: dict[str, dict[str, bool]] = {}
    for episode in data(page)["episodes"]:
        if episode["run"] == run:
            found.setdefault(episode["task"], {})[episode["policy"]] = episode["won"]
    return found


def test_figures_are_drawn_with_marks_inside_them(page) -> None:
    figures = page.execute_script(
        """const box = (node) => { const b = node.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
        return [...document.querySelectorAll("figure svg")].map(
            (svg) => [box(svg), [...svg.querySelectorAll(".mark, .place, .label, .tick")].map(box)])"""
    )
    figures = [(box, marks) for box, marks in figures if box[2] > box[0]]  # drawn for this width
    assert len(figures) == 8 + 5
    for (left, top, right, bottom), marks in figures:
        assert len(marks) >= 2
        for x1, y1, x2, y2 in marks:
            assert left - 8 <= x1 < x2 <= right + 1
            assert top - 1 <= y1 <= y2 <= bottom + 1


def test_a_desk_has_no_voids_beside_figures(page) -> None:
    """Text of a figure has its size at any width, and each row of figures spans the page."""
    sizes = page.execute_script(
        """return [...document.querySelectorAll("figure svg")].filter((svg) => svg.clientWidth)
            .map((svg) => svg.clientWidth / svg.viewBox.baseVal.width)"""
    )
    assert all(0.85 <= size <= 1.15 for size in sizes)
    if page.width > 600:
        ends = page.execute_script(
            """return [...document.querySelectorAll(".figures")].map((of) => [of.getBoundingClientRect().right,
                ...[...of.children].filter((_, i) => i % 2 || i === of.children.length - 1)
                    .map((figure) => figure.getBoundingClientRect().right)])"""
        )
        assert all(right - end <= 24 for right, *of in ends for end in of)


def test_a_game_that_the_policies_decide_differently_is_open_first(page) -> None:
    won = episodes_of(page, "plain")
    differ = [name for name, of in won.items() if of["π₀"] != of["π₂"]]
    assert 0 < len(differ) < len(won)
    assert len(marked(page)) == 1
    shown = rows(page)[marked(page)[0]].text.splitlines()[0]
    assert shown == differ[0]
    if page.width > 600:
        assert task(page) == shown
    else:
        assert not all_of(page, "#episode")[0].is_displayed()


def test_a_choice_shows_the_episode_and_a_phone_has_a_way_back(page) -> None:
    wanted = rows(page)[2].text.splitlines()[0]
    rows(page)[2].click()
    assert marked(page) == [2]
    assert task(page) == wanted
    heading = all_of(page, "#episode h3")[0]
    top = page.execute_script("return arguments[0].getBoundingClientRect().top", heading)
    if page.width > 600:
        assert all_of(page, "#list")[0].is_displayed()
        return
    assert heading.is_displayed()
    assert 0 <= top < 200
    assert not all_of(page, "#list")[0].is_displayed()
    all_of(page, ".back")[0].click()
    WebDriverWait(page, 5).until(lambda page: all_of(page, "#list")[0].is_displayed())
    assert not heading.is_displayed()
    row = rows(page)[2]  # where the reader was
    assert page.switch_to.active_element == row
    assert 0 <= page.execute_script("return arguments[0].getBoundingClientRect().top", row) < page.height
    rows(page)[0].click()
    page.back()  # the browser's own way back does the same
    WebDriverWait(page, 5).until(lambda page: all_of(page, "#list")[0].is_displayed())


def test_games_are_chosen_by_keyboard(page) -> None:
    all_of(page, "#filters select")[-1].send_keys(Keys.TAB)  # the list is one stop of the Tab key
    at = rows(page).index(page.switch_to.active_element)
    assert [at] == marked(page)
    page.switch_to.active_element.send_keys(Keys.HOME)
    for key, expected in ((Keys.ARROW_DOWN, 1), (Keys.ARROW_DOWN, 2), (Keys.ARROW_UP, 1), (Keys.END, -1)):
        page.switch_to.active_element.send_keys(key)
        assert page.switch_to.active_element == rows(page)[expected]
        if page.width > 600:
            assert marked(page) == [expected % len(rows(page))]
    wanted = page.switch_to.active_element.text.splitlines()[0]
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert task(page) == wanted


def test_an_address_leads_to_an_episode_and_to_a_turn_of_it(page, address) -> None:
    wanted = data(page)["episodes"][7]
    page.get("about:blank")
    page.get(f"{address}#episode-{wanted['id']}-turn-1")
    assert task(page) == wanted["task"]
    assert wanted["policy"] in all_of(page, "#episode .facts")[0].text
    turn = all_of(page, f"#episode-{wanted['id']}-turn-1")[0]
    assert turn.is_displayed()
    assert page.execute_script("return arguments[0].getBoundingClientRect().top", turn) < page.height
    choose(page, 0)
    link = all_of(page, "#episode .link")[0].get_attribute("href")
    assert page.current_url == link != f"{address}#episode-{wanted['id']}-turn-1"


@pytest.mark.parametrize(
    ("words", "wins"),
    [
        ("decided differently", [(True, False), (False, True)]),
        ("won by π₂, lost by π₀", [(False, True)]),
        ("won by π₀, lost by π₂", [(True, False)]),
        ("won by both", [(True, True)]),
        ("lost by both", [(False, False)]),
    ],
)
def test_games_are_filtered_by_who_won_them(page, words, wins) -> None:
    pick(page, "Games", words)
    won = episodes_of(page, "plain")
    expected = [name for name, of in won.items() if (of["π₀"], of["π₂"]) in wins]
    assert [row.text.splitlines()[0] for row in rows(page)] == expected
    assert all_of(page, "#count")[0].text == f"{len(expected)} of {len(won)} games"


def test_any_two_policies_are_compared(page) -> None:
    pick(page, "Compare", "π₁")
    pick(page, "with", "π₂, best of 4")
    pick(page, "Games", "won by π₂, best of 4, lost by π₁")
    won = episodes_of(page, "plain")
    expected = [name for name, of in won.items() if of["π₂, best of 4"] and not of["π₁"]]
    assert [row.text.splitlines()[0] for row in rows(page)] == expected


def test_a_search_leaves_the_games_with_the_words(page) -> None:
    box = all_of(page, "#filters input")[0]
    box.send_keys("Mug desk 3")
    shown = [row.text.splitlines()[0] for row in rows(page)]
    texts = {episode["task"]: "" for episode in data(page)["episodes"] if episode["run"] == "plain"}
    for episode in data(page)["episodes"]:
        if episode["run"] == "plain":
            said = [text for turn in episode["turns"] for text in (turn["o"], turn.get("a", ""), turn.get("r", ""))]
            texts[episode["task"]] += " ".join([episode["task"], *said]).lower()
    assert shown == [name for name, text in texts.items() if all(word in text for word in ("mug", "desk", "3"))]
    box.send_keys(" zebra")
    assert rows(page) == []


def test_the_episodes_of_another_run_are_shown(page) -> None:
    pick(page, "Run", "hostile")
    shown = [row.text.splitlines()[0] for row in rows(page)]
    assert shown == [name.replace("\u2028", " ") for name in episodes_of(page, "hostile")]


def test_a_turn_shows_q_and_the_commands_when_opened(page) -> None:
    pick(page, "with", "π₁")  # of the iteration with a PRM
    choose(page, 0)
    for tab in all_of(page, "#episode .same button"):
        if tab.text.startswith("π₁ "):
            tab.click()
            break
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


def downloaded(page, folder: Path, button) -> tuple[str, str]:
    """Name and content of the file that a button gives."""
    for file in folder.iterdir():
        file.unlink()
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    done = lambda _: [file for file in folder.iterdir() if file.suffix in (".csv", ".svg")]  # noqa: E731
    [file] = WebDriverWait(page, 10).until(done)
    return file.name, file.read_text("utf-8")


def test_a_table_comes_as_csv_with_the_numbers_of_the_page(page, tmp_path) -> None:
    button = all_of(page, "section .get button")[0]
    name, text = downloaded(page, tmp_path, button)
    assert name == "success-valid-unseen.csv"
    found = list(csv.DictReader(io.StringIO(text)))
    shown = [
        row.find_elements(By.CSS_SELECTOR, "td.number")[0] for row in all_of(page, ".results tbody tr:not(.group)")
    ]
    numbers = [page.execute_script("return arguments[0].firstChild.textContent", cell) for cell in shown]
    assert [f"{float(row['success %']):.1f}" for row in found] == numbers


def test_every_figure_comes_as_an_svg_file_of_its_own(page, tmp_path) -> None:
    buttons = all_of(page, "figure .get button[data-as=svg]")
    assert len(buttons) == 8 + 5
    name, text = downloaded(page, tmp_path, buttons[0])
    assert name == "plain-success-by-iteration-valid-unseen.svg"
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    [curve, *_] = root.findall("{http://www.w3.org/2000/svg}path")
    assert curve.get("stroke", "none").startswith("rgb")  # needs no style sheet
    paper = root.find("{http://www.w3.org/2000/svg}rect")
    [words, *_] = root.findall("{http://www.w3.org/2000/svg}text")
    assert (paper.get("fill"), words.get("fill")) == ("#fdfdfb", "rgb(93, 96, 102)")  # light in a dark page too
    assert all_of(page, ".light") == []
    assert "class=" not in text.partition(">")[2]


def test_every_table_has_its_numbers_as_csv(page) -> None:
    files = data(page)["files"]
    names = [place.get_attribute("data-file") for place in all_of(page, ".get")]
    assert sorted(names) == sorted(files)
    assert len(all_of(page, "main table")) == len(names)


def test_nothing_is_wider_than_the_window(page) -> None:
    for details in all_of(page, "details"):
        page.execute_script("arguments[0].open = true", details)
    for run in ("plain", "hostile"):
        if page.width < 600 and all_of(page, ".back") and all_of(page, ".back")[0].is_displayed():
            all_of(page, ".back")[0].click()
        pick(page, "Run", run)
        choose(page, 0)
        assert page.execute_script("return document.documentElement.scrollWidth") <= page.width
    tables = all_of(page, ".scroll")
    assert all(table.rect["width"] <= page.width for table in tables)


def test_a_table_that_goes_on_says_so(page) -> None:
    hint, box = all_of(page, ".hint")[0], all_of(page, ".scroll")[0]
    wide = page.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", box)
    assert wide == (page.width < 600) == hint.is_displayed()
    if wide:
        assert "more" in box.get_attribute("class")
        page.execute_script("arguments[0].scrollLeft = 9999", box)
        WebDriverWait(page, 5).until(lambda _: "more" not in box.get_attribute("class"))


def test_injected_markup_is_text_and_does_not_run(page) -> None:
    pick(page, "Run", "hostile")
    choose(page, 0)
    assert 'onerror="window.injected=' in turns(page)[0]
    assert "<img src=x" in task(page)
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
