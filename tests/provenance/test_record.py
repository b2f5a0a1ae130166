"""Settings: compared by content, refused by name with both values, never mixed with unknown ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import prm_gym
from prm_gym import provenance
from prm_gym.errors import UserError


def thing(name: str, fingerprint: str) -> dict[str, str]:
    return {"name": name, "fingerprint": fingerprint}


def settings(**changes: Any) -> dict[str, Any]:
    policy = {"kind": "transformers", "model": thing("m", "aaaa"), "temperature": 0.3, **changes.pop("policy", {})}
    return {"kind": "collect", "policy": policy, "seed": 0, **changes}


def test_the_same_settings_go_on_and_the_second_command_is_noted(tmp_path: Path, monkeypatch: Any) -> None:
    provenance.claim(tmp_path, settings())
    for arguments in (["a"], ["a"], ["b"]):
        monkeypatch.setattr(sys, "argv", ["/usr/bin/prm-gym", *arguments])
        provenance.claim(tmp_path, settings())
    record = provenance.read(tmp_path)
    assert record is not None
    assert record["settings"] == settings()
    assert [run["command"] for run in record["runs"]][1:] == ["prm-gym a", "prm-gym b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: begun with 0, this command says 1; use the same settings to go on"),
        ({"policy": {"temperature": 1.0}}, "policy.temperature: begun with 0.3, this command says 1.0;"),
        (
            {"policy": {"model": thing("m", "bbbb")}},
            r"policy.model: begun with 'm' \(aaaa\), this command says 'm' \(bbbb\);",
        ),
        ({"policy": {"kind": "expert"}}, "policy.kind: begun with 'transformers', this command says 'expert';"),
    ],
)
def test_other_settings_are_refused_with_both_values(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    provenance.claim(tmp_path, settings())
    before = (tmp_path / provenance.FILE).read_text()
    with pytest.raises(UserError, match=f"provenance.json: {message}"):
        provenance.claim(tmp_path, settings(**changes))
    assert (tmp_path / provenance.FILE).read_text() == before


def test_the_same_content_under_another_name_is_the_same(tmp_path: Path) -> None:
    provenance.claim(tmp_path, settings())
    provenance.claim(tmp_path, settings(policy={"model": thing("moved/m", "aaaa")}))


@pytest.mark.parametrize("newer", [{"prompt": thing("compact", "cccc")}, {"top_p": 1.0}])
def test_a_setting_that_the_folder_does_not_say_is_unknown_and_refused(tmp_path: Path, newer: dict[str, Any]) -> None:
    provenance.claim(tmp_path, settings())
    [name] = newer
    with pytest.raises(UserError, match=f"policy.{name}: begun with unknown, this command says "):
        provenance.claim(tmp_path, settings(policy=newer))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 3, "runs": []}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / provenance.FILE).write_text(content)
    with pytest.raises(UserError, match=r"provenance.json: cannot be read"):
        provenance.claim(tmp_path, settings())


def test_digests_are_equal_where_nothing_differs() -> None:
    one = provenance.digest(settings())
    assert one == provenance.digest(settings(policy={"model": thing("moved/m", "aaaa")}))
    others = [{"seed": 1}, {"policy": {"model": thing("m", "bbbb")}}, {"policy": {"temperature": 1.0}}]
    assert len({one, *(provenance.digest(settings(**changes)) for changes in others)}) == 4


@pytest.mark.parametrize(("file", "command"), [("__main__.py", "python -m pkg a"), ("run.py", "python -m pkg.run a")])
def test_a_module_is_named_as_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, command: str
) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    monkeypatch.setattr("sys.argv", [str(tmp_path / "pkg" / file), "a"])
    assert provenance.this_run()["command"] == command


def test_a_run_names_its_command_versions_and_commit(tmp_path: Path) -> None:
    code = "import json; from prm_gym import provenance; print(json.dumps(provenance.this_run()))"
    script = tmp_path / "collect it.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script, "--out", "x y"], capture_output=True, text=True, check=True)
    run = json.loads(done.stdout)
    assert run["command"] == "'collect it.py' --out 'x y'"
    assert run["prm_gym"] == prm_gym.__version__
    assert run["python"] == ".".join(map(str, sys.version_info[:3]))
    root = Path(prm_gym.__file__).parents[2]
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert (run["commit"] or "").removesuffix("-dirty") == head[:12]
