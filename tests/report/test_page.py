"""The page as text: everything is escaped, nothing is fetched, and no figure is drawn without data."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_world import EVIL, add_evaluation, make_run, page_data

from prm_gym.cli import main
from prm_gym.evaluation.results_file import add_result, read_results
from prm_gym.report import display_names, write
from prm_gym.report.page import as_json


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    run = make_run(folder / "run", iterations=2, best_of=(2, 4, 8), odd=EVIL)
    out = folder / "deep" / "report.html"
    write([run], out, episodes=3)
    return out.read_text("utf-8")


@settings(max_examples=50, deadline=None)
@given(st.recursive(st.text() | st.just(EVIL), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_the_page_is_inert_and_comes_back(value) -> None:
    text = as_json(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == value


def test_text_of_a_run_stays_text(page) -> None:
    assert "<img" not in page
    assert page.count("</script>") == 2  # of the data and of the page's script
    assert page_data(page)["episodes"][0]["turns"][0]["o"].endswith(EVIL)


def test_names_of_a_run_are_escaped(tmp_path) -> None:
    run = make_run(tmp_path / "<b>&run")
    add_result(run / "results.json", {**read_results(run / "results.json")[0], "policy": EVIL, "split": "<i>"})
    write([run], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert not re.search(r"<(b|i|img)>", re.sub(r"<b>[\d.]+</b>", "", page))
    assert "&lt;b&gt;&amp;run" in page
    assert "&lt;i&gt;" in page


def test_the_page_may_load_nothing_and_run_only_its_own_script(page) -> None:
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        pin = b64encode(sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{pin}'" in policy
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert set(re.findall(r"https?://[^\"]*", page)) <= {"http://www.w3.org/2000/svg"}


def headings(page: str) -> list[str]:
    return re.findall(r"<h[23][^>]*>([^<]*)</h[23]>", page)


def test_every_section_that_has_data_is_there(page) -> None:
    assert headings(page) == [
        "Success by task type",
        "Learning",
        "Success by iteration, valid_unseen",
        "Best of N, valid_unseen",
        "Training π₁ on Q₀, valid_unseen",
        "Training π₂ on Q₁, valid_unseen",
        "Process reward model",
        "Targets of Q₀",
        "Targets of Q₁",
        "Calibration of Q₀",
        "Calibration of Q₁",
        "Episodes",
        "How it was made",
        "Policies at play",
        "Stages",
    ]


def test_what_a_run_lacks_is_left_out(tmp_path) -> None:
    results = make_run(tmp_path / "whole") / "results.json"
    (tmp_path / "bare").mkdir()
    add_result(tmp_path / "bare" / "results.json", read_results(results)[0])
    write([tmp_path / "bare"], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert headings(page) == ["Success by task type"]
    assert "<figure" not in page


def test_runs_are_told_apart(tmp_path) -> None:
    runs = [make_run(tmp_path / name) for name in ("sft", "inverse")]
    write(runs, tmp_path / "r.html", episodes=2)
    page = (tmp_path / "r.html").read_text("utf-8")
    assert headings(page).count("sft") == headings(page).count("inverse") > 2
    assert {e["run"] for e in page_data(page)["episodes"]} == {"sft", "inverse"}


def test_a_checkpoint_evaluated_in_training_is_a_point_of_the_hacking_curve_alone(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    before = {**read_results(run / "results.json")[0], "policy": "pi_1/checkpoint-10", "success": 0.125}
    add_result(run / "results.json", before)
    write([run], tmp_path / "r.html", episodes=0)
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "<td>10</td><td>-1.500</td><td>0.100</td><td>12.5</td>" in page
    assert page.count("12.5<") == 1  # in no table


def test_the_best_of_a_column_is_bold_where_it_is_more_than_noise(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    entries = read_results(run / "results.json")
    for shares, bold in (((0.25, 0.75), ["75.0"]), ((0.25, 0.5), []), ((0.75, 0.75), [])):
        for entry, share in zip(entries, shares, strict=True):  # of 12 games; the spread of the actions is unknown
            add_result(run / "results.json", {**entry, "success": share, "by_task_type": {}})
        write([run], tmp_path / "r.html", episodes=0)
        assert re.findall(r"<b>([\d.]+)</b>(?!<span)", (tmp_path / "r.html").read_text("utf-8")) == bold


def test_returns_are_shown_where_they_are_not_the_success(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    write([run], tmp_path / "r.html", episodes=0)
    assert ">Return<" not in (tmp_path / "r.html").read_text("utf-8")
    entries = read_results(run / "results.json")
    add_result(run / "results.json", {**entries[0], "return": 0.125})
    write([run], tmp_path / "r.html", episodes=0)
    page = (tmp_path / "r.html").read_text("utf-8")
    assert ">Return<" in page
    assert page.count('<td class="number">0.125</td>') == 1


def test_every_way_of_best_of_n_has_a_row_a_line_and_episodes_of_its_own(tmp_path) -> None:
    run = make_run(tmp_path / "run", iterations=2, best_of=(2, 4))
    for mode in ("best_of_2_weight1", "best_of_4_weight1", "best_of_4_weight0.5_admissible"):
        add_evaluation(run, 2, 2, mode)
    write([run], tmp_path / "r.html", episodes=1)
    page = (tmp_path / "r.html").read_text("utf-8")
    table = page.partition("<tbody>")[2].partition("</tbody>")[0]
    rules = ["", ", weight 1", ", weight 0.5, admissible"]
    for rule in rules:
        assert table.count(f"π₂, best of 4 by Q₁{rule}</") == 1
        for line in ("best of 4" + rule).split(", "):
            assert re.search(rf">{line}(, [\d.]+)?</text>", page)  # at its own end in the figure of iterations
    assert all(f">π₂, Q₁{rule}</" in page for rule in rules[:2])  # a line against N: two N or more
    assert f">π₂, Q₁{rules[2]}</" not in page
    shown = {episode["policy"] for episode in page_data(page)["episodes"]}
    assert {f"π₂, best of 4{rule}" for rule in rules} <= shown


def test_an_unknown_mode_is_not_taken_for_the_policy_alone() -> None:
    assert display_names.label({"policy": "pi_1", "prm": None, "mode": "greedy"}) == "π₁, greedy"


def test_the_command_writes_into_the_first_run(tmp_path, capsys) -> None:
    run = make_run(tmp_path / "run")
    assert main(["report", str(run), "--episodes", "1"]) == 0
    assert (run / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert "report.html" in capsys.readouterr().out


def test_the_same_runs_give_the_same_bytes(tmp_path) -> None:
    run = make_run(tmp_path / "run", best_of=(2, 4))
    add_evaluation(run, 1, 0, "best_of_2")
    pages = []
    for name in ("a", "b"):
        write([run], tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
