"""Variants of a run: equal stages are linked, different ones are made, and every result names its recipe."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from experiments.__main__ import result, write
from experiments.changes import CURVE, LONG_CURVE, beside
from experiments.chart import draw
from experiments.findings import FINDINGS, Cell, Finding, _kl, prediction
from experiments.variants import Variants, merged, seed_changes, share, write_variant
from prm_gym.runs.iteration import Run
from prm_gym.runs.recipe import fill, load

for package in ("alfworld", "trl"):
    pytest.importorskip(package, reason=f"needs the extra '{package}'")

VALUES = {"recipe.yaml": {"labels": {"kind": "value"}}, "prm.yaml": {"loss": "value"}}
SVG = "{http://www.w3.org/2000/svg}"
EMBEDDED = Path(__file__).parent.parent.parent / "recipes" / "embedded"


@pytest.fixture(scope="module")
def variants(miniature: Path, miniature_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Variants:
    """The run of the miniature recipe, and a variant with other labels."""
    root = tmp_path_factory.mktemp("findings")
    shutil.copytree(miniature_run, root / "seed-0", symlinks=True)
    variants = Variants(miniature, root, 0)
    variants.run("values", VALUES)
    return variants


def test_a_variant_links_what_stands_before_the_first_difference(variants: Variants) -> None:
    variant = variants.folder("values")
    shared = [
        "games",
        "base",
        "demonstrations",
        "pi_0",
        "iter1/rollouts",
        "iter1/branches",
        "iter1/eval/pi_0_policy",
    ]
    own = ["iter1/dataset/prm", "iter1/prm", "iter1/eval/prm", "iter1/dataset/prompts", "iter1/policy"]
    assert {place: (variant / place).is_symlink() for place in shared + own} == {
        **dict.fromkeys(shared, True),
        **dict.fromkeys(own, False),
    }


def test_a_stage_that_a_variant_leaves_out_is_no_difference(variants: Variants) -> None:
    run = variants._prepared("unmeasured", merged(VALUES, {"recipe.yaml": {"quality": None}}))
    assert not (run.iter / "eval" / "held_out").exists()
    assert (run.iter / "rollouts").is_symlink()
    assert (run.iter / "branches").is_symlink()


def test_a_variant_of_a_recipe_whose_pi_0_is_given_plays_the_same_pi_0(variants: Variants, tmp_path: Path) -> None:
    given = {"start": {"model": str(variants.folder() / "pi_0"), "demonstrations": None, "sft": None}}
    write_variant(variants.recipe, tmp_path / "recipe", {"recipe.yaml": given})
    (tmp_path / "runs" / "seed-0").mkdir(parents=True)
    (tmp_path / "runs" / "seed-0" / "games").symlink_to(variants.folder() / "games")
    lender = Variants(tmp_path / "recipe", tmp_path / "runs", 0).start("", {})
    borrower = Run(lender.folder, tmp_path / "runs" / "seed-0-other", 1)
    share(borrower.stages(), borrower.root, lender.stages(), lender.root)
    assert (borrower.policy(0) / "config.json").samefile(variants.folder() / "pi_0" / "config.json")


def test_a_variant_is_run_with_its_own_settings(variants: Variants) -> None:
    manifest = json.loads((variants.folder("values") / "iter1" / "prm" / "manifest.json").read_text())
    assert manifest["settings"]["config"]["loss"] == "value"


def test_of_a_q_nothing_after_it_is_made(variants: Variants) -> None:
    run = variants.q("another-q", {"prm.yaml": {"seed": 7}})
    assert (run.iter / "eval" / "prm" / "quality.json").exists()
    assert not (run.iter / "dataset" / "prompts").exists()
    assert not run.policy(1).exists()


def test_of_a_start_nothing_after_pi_0_is_made(variants: Variants) -> None:
    run = variants.start("another-start", {"sft.yaml": {"seed": 7}})
    assert (run.policy(0) / "model.safetensors").exists()
    assert not (run.iter / "eval").exists()
    assert not (run.iter / "rollouts").exists()


def test_a_run_names_the_q_beside_it(variants: Variants) -> None:
    run = variants.q("another-q", {"prm.yaml": {"seed": 7}})
    named = fill(beside(run), variants.folder("values"), 1, "online_dpo.yaml")
    assert Path(named).resolve() == (run.iter / "prm").resolve()


def test_another_seed_has_the_games_and_the_model_to_start_from_and_nothing_else(variants: Variants) -> None:
    other = Variants(variants.recipe, variants._root, 1)
    folder = other.folder()
    write_variant(variants.recipe, folder / "recipe", seed_changes(variants.recipe, 1))
    values = load(folder / "recipe")
    assert values.start.demonstrations is not None
    assert (values.start.demonstrations.seed, values.rollouts.seed) == (1, 1000)
    assert (values.games, values.evaluation) == (load(variants.recipe).games, load(variants.recipe).evaluation)
    assert values.start.model == load(variants.recipe).start.model
    for name in ("sft", "prm", "online_dpo"):
        assert yaml.safe_load((folder / "recipe" / f"{name}.yaml").read_text())["seed"] == 1


def test_episodes_of_a_run_become_rates_gains_and_a_figure(variants: Variants, tmp_path: Path) -> None:
    [run] = variants.run()

    def measure(_: Variants) -> Any:
        yield Cell("policy", 0, variants.evaluated(run, 0))
        yield Cell("policy", 1, variants.evaluated(run, 1))
        yield Cell("Q", 1, value=0.25)

    finding = Finding("loss", "A <claim>.", "n", measure, ((("policy", 1), ("policy", 0), 0.1),))
    entry = result(finding, {0: list(measure(variants))})
    won = {e["policy"]: e["success"] for e in json.loads((run.root / "results.json").read_text())}
    assert [row["mean"] for row in entry["rows"]] == pytest.approx([won["pi_0"], won["pi_1"], 0.25])
    assert entry["gains"][0]["mean"] == pytest.approx(won["pi_1"] - won["pi_0"])
    write(tmp_path, {**entry, "finding": "ranking"})
    write(tmp_path, entry)
    write(tmp_path, entry)
    assert [each["finding"] for each in json.loads((tmp_path / "findings.json").read_text())] == ["loss", "ranking"]
    assert "A &lt;claim&gt;" in (tmp_path / "loss.svg").read_text()


def test_numbers_that_are_not_success_have_an_axis_of_their_own() -> None:
    rows = [
        {"series": "policy", "x": 0, "mean": 0.5, "ci95": [0.4, 0.6]},
        {"series": "policy", "x": 1, "mean": 0.6, "ci95": [0.5, 0.7]},
        {"series": "KL", "x": 0, "mean": 0.0, "ci95": None},
        {"series": "KL", "x": 1, "mean": 30.0, "ci95": None},
    ]
    axes = {"x": "step", "y": "success", "numbers": "nats", "log": False}
    upper, lower = ElementTree.fromstring(draw({"claim": "", "axes": axes, "rows": rows})).findall(f"{SVG}g")
    ticks = [[each.text for each in of.iter(f"{SVG}text") if each.get("class") == "tick"] for of in (upper, lower)]
    assert ticks == [["0.4", "0.5", "0.6", "0.7", "0", "1"], ["0", "10", "20", "30", "0", "1"]]


def test_cells_with_names_are_marks_in_a_line_for_each_name() -> None:
    rows = [
        {"series": series, "x": name, "mean": mean, "ci95": [mean - 0.1, mean + 0.1]}
        for name, mean in (("few", 0.4), ("many", 0.6))
        for series in ("accuracy", "pi_1")
    ]
    axes = {"x": "Q from", "y": "success", "numbers": "", "log": False}
    [panel] = ElementTree.fromstring(draw({"claim": "", "axes": axes, "rows": rows})).findall(f"{SVG}g")
    names = {each.text: float(each.get("y", 0)) for each in panel.iter(f"{SVG}text") if not each.get("class")}
    marks = [each for each in panel.iter(f"{SVG}circle") if float(each.get("cx", 0)) and ":" in each[0].text]
    lines = {name: [m for m in marks if abs(float(m.get("cy", 0)) - y) < 20] for name, y in names.items()}
    assert {name: len(of) for name, of in lines.items()} == {"few": 2, "many": 2}
    assert max(float(m.get("cx", 0)) for m in lines["few"]) < min(float(m.get("cx", 0)) for m in lines["many"])


def test_the_kl_at_a_step_is_what_the_trainer_logged_last(variants: Variants, tmp_path: Path) -> None:
    run = Run(variants.recipe, tmp_path, 1)
    checkpoint = run.iter / "policy" / "checkpoint-10"
    checkpoint.mkdir(parents=True)
    logged = [{"step": 5, "objective/kl": 0.25}, {"step": 10, "objective/kl": 0.5}, {"step": 10, "train_loss": 0.7}]
    (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": logged}))
    assert (_kl(run, 0), _kl(run, 10)) == (0.0, 0.5)


def test_the_prediction_pairs_each_q_with_what_came_of_it() -> None:
    """Three Qs, the better the ranking the better pi_1 and the worse best of 16; without a Q there is no ranking,
    and nothing came of Q_1.
    """
    rows = [
        {"series": series, "x": q, "mean": mean}
        for q, accuracy, success in (("few", 0.6, 0.3), ("many", 0.7, 0.5), ("none", 0.5, 0.1))
        for series, mean in (("ranking accuracy", accuracy), ("pi_1", success), ("best of 16", 1 - accuracy))
    ]
    rows.append({"series": "ranking accuracy", "x": "Q_1", "mean": 0.9})
    rows.append({"series": "pi_1", "x": "no Q", "mean": 0.9})
    assert list(prediction(rows).values()) == [pytest.approx(1.0), pytest.approx(-1.0)]


def test_changes_are_merged_mapping_by_mapping() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": None}) == {"a": {"b": 4, "c": 2}, "d": None}


class Unmade(Exception):
    """Something was asked for that only a run that is made can give."""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """With nothing run: the variants that a finding asks for and their changes, each written and read strictly."""
    wanted: list[tuple[str, Any]] = []

    class Recorded:
        def __init__(self, variant: str, n: int) -> None:
            self.root, self.folder = tmp_path / variant, tmp_path / (variant or "base")
            self.recipe = load(self.folder)
            self.iter = tmp_path / f"iter{n}"

        def policy(self, n: int) -> Path:
            return self.root / f"pi_{n}"

        def scorer(self) -> None:
            raise Unmade

        def quality(self, held_out: Path) -> Any:
            return SimpleNamespace(ranking=SimpleNamespace(accuracy=0.5, pairs=100))

    def run(self: Variants, variant: str = "", changes: Any = None, iterations: int = 1, like: str = "") -> Any:
        wanted.append((variant, changes or {}))
        write_variant(EMBEDDED, tmp_path / (variant or "base"), changes or {})
        load(tmp_path / (variant or "base"))
        return [Recorded(variant, n) for n in range(iterations)]

    monkeypatch.setattr(Variants, "run", run)
    for part in ("q", "start"):
        monkeypatch.setattr(Variants, part, lambda self, variant, changes: run(self, variant, changes)[0])
    monkeypatch.setattr(Variants, "evaluated", lambda *_, **__: {})
    monkeypatch.setattr(Variants, "held_out", lambda *_: tmp_path)
    return wanted


@pytest.mark.parametrize("name", [name for name in FINDINGS if name != "hacking"])
def test_a_finding_has_the_cells_that_its_gains_compare(name: str, asked: Any, tmp_path: Path) -> None:
    cells = list(FINDINGS[name].measure(Variants(EMBEDDED, tmp_path, 0)))
    places = {(cell.series, cell.x) for cell in cells}
    assert len(places) == len(cells), "a cell twice"
    for better, worse, _ in FINDINGS[name].gains:
        assert {better, worse} <= places


def test_trl_reads_the_files_of_stage_3_and_of_dagger(asked: list[tuple[str, Any]], tmp_path: Path) -> None:
    """By its own parser; and as many responses are sampled in every way."""
    import trl

    from prm_gym.hosts.trl.muon import MuonArguments
    from prm_gym.hosts.trl.policy_gradient import PolicyGradientArguments

    for name in ("stage3", "dagger"):
        list(FINDINGS[name].measure(Variants(EMBEDDED, tmp_path, 1)))
    online = yaml.safe_load((EMBEDDED / "online_dpo.yaml").read_text())
    sampled = 2 * online["max_steps"] * online["per_device_train_batch_size"]
    of_sft = (trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig, trl.DatasetMixtureConfig, MuonArguments)
    seen = set()
    for variant, _ in asked:
        of_policy = load(tmp_path / (variant or "base")).stages.of_policy
        for stage, file in of_policy.items():
            if stage == "online_dpo":
                continue
            seen.add(stage)
            parser = trl.TrlParser((PolicyGradientArguments, trl.RLOOConfig) if stage == "policy_gradient" else of_sft)
            arguments = ["--config", str(tmp_path / variant / file)]
            _, training, *_ = parser.parse_args_and_config(arguments, fail_with_unknown_args=True)
            assert training.seed == 1
            if stage == "policy_gradient":
                assert training.max_steps * training.per_device_train_batch_size == sampled
            elif stage == "rejection_sampling":
                values = load(tmp_path / variant)
                assert values.labels.prompts["size"] * values.rejection_sampling.n == sampled
    assert seen == {"policy_gradient", "rejection_sampling", "dagger"}


def test_sft_and_inverse_prm_start_from_one_pi_0_and_read_the_same_demonstrations(asked: Any, tmp_path: Path) -> None:
    list(FINDINGS["inverse"].measure(Variants(EMBEDDED, tmp_path, 0)))
    changes = dict(asked)
    for games in (10, 50, 800):
        start = changes[f"expert-{games}"]["recipe.yaml"]["start"]
        assert start["model"] == str(tmp_path / "pi_0")
        assert start["demonstrations"]["games"] == games
        inverse = changes[f"inverse-{games}"]["recipe.yaml"]
        assert "start" not in inverse
        assert inverse["labels"]["options"]["expert"] == [f"{{run}}/../expert-{games}/demonstrations"]


@pytest.mark.parametrize("curve", [CURVE, LONG_CURVE])
def test_no_checkpoint_of_a_curve_is_deleted(curve: Any, tmp_path: Path) -> None:
    write_variant(EMBEDDED, tmp_path, curve)
    online = yaml.safe_load((tmp_path / "online_dpo.yaml").read_text())
    kept = online["save_total_limit"] or online["max_steps"]
    assert online["max_steps"] // online["save_steps"] <= kept


def test_one_name_is_one_variant_in_all_findings(asked: list[tuple[str, Any]], tmp_path: Path) -> None:
    for finding in FINDINGS.values():
        with contextlib.suppress(Unmade):
            list(finding.measure(Variants(EMBEDDED, tmp_path, 0)))
    assert {"long", "judge", "ensemble", "absolute", "expert", "reset", "value"} <= {name for name, _ in asked}
    for name, changes in asked:
        assert changes == dict(asked)[name], name
