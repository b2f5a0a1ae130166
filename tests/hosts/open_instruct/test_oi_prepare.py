"""Preparing a checkout: on a small stand-in repository, and on a real checkout if there is one."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from prm_gym import packages
from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct.commits import COMMITS, MAIN, PIN
from prm_gym.hosts.open_instruct.prepare import checkout_state, environment_problems, prepare, require_prepared

module = import_module("prm_gym.hosts.open_instruct.prepare")  # the package exports the function of that name


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two files, with two patches on one of them that count as ours."""
    root, patches = tmp_path / "host", tmp_path / "patches"
    (root / "open_instruct").mkdir(parents=True)
    patches.mkdir()
    source = root / "open_instruct" / "a.py"
    source.write_text("".join(f"line {i}\n" for i in range(20)))
    (root / "README.md").write_text("hello\n")
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -q -m one"):
        git(root, *command.split())
    for i, line in enumerate((3, 15), 1):
        source.write_text(source.read_text().replace(f"line {line}\n", f"other {line}\n"))
        (patches / f"{i:04d}-x.patch").write_text(f"Why.\n\n{git(root, 'diff', '-U1')}")
        git(root, "add", "-A")
    git(root, "reset", "-q", "--hard")
    monkeypatch.setattr(module, "COMMITS", (replace(MAIN, sha=git(root, "rev-parse", "HEAD").strip()),))
    monkeypatch.setattr(module, "patch_files", lambda: sorted(patches.glob("*.patch")))
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


def test_applies_once_and_undoes(repository: Path) -> None:
    before = (repository / "open_instruct" / "a.py").read_text()
    assert "applied 2 patches" in prepare(repository)[0]
    after = (repository / "open_instruct" / "a.py").read_text()
    assert "other 3" in after
    assert "other 15" in after
    assert "already patched" in prepare(repository)[0]
    assert (repository / "open_instruct" / "a.py").read_text() == after
    assert "took off 2 patches" in prepare(repository, undo=True)[0]
    assert "already without patches" in prepare(repository, undo=True)[0]
    assert (repository / "open_instruct" / "a.py").read_text() == before
    assert git(repository, "status", "--porcelain") == ""


def test_untracked_files_do_not_matter(repository: Path) -> None:
    (repository / "output").mkdir()
    (repository / "output" / "model.bin").write_text("x")
    prepare(repository)
    assert checkout_state(repository)[1] == 2


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("file", ["open_instruct/a.py", "README.md"])
def test_refuses_changes_that_are_not_ours(repository: Path, patched: bool, file: str) -> None:
    if patched:
        prepare(repository)
    (repository / file).write_text((repository / file).read_text() + "mine\n")
    for undo in (False, True):
        with pytest.raises(UserError, match="not ours"):
            prepare(repository, undo=undo)
    assert "mine" in (repository / file).read_text()


def test_a_tree_with_the_patches_of_an_older_version_gets_the_rest(repository: Path) -> None:
    git(repository, "apply", str(module.patch_files()[0]))
    with pytest.raises(UserError, match="prm-gym host prepare"):
        require_prepared(repository)
    assert "applied 1 patches" in prepare(repository)[0]
    assert checkout_state(repository)[1] == 2


def test_an_older_version_s_patches_come_off(repository: Path) -> None:
    git(repository, "apply", str(module.patch_files()[0]))
    assert "took off 1 patches" in prepare(repository, undo=True)[0]
    assert git(repository, "status", "--porcelain") == ""


def test_refuses_patches_without_those_before_them(repository: Path) -> None:
    git(repository, "apply", str(module.patch_files()[1]))
    with pytest.raises(UserError, match="not ours"):
        prepare(repository)


def test_refuses_another_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMITS", COMMITS)
    with pytest.raises(UserError, match=f"not {PIN.sha[:12]} or {MAIN.sha[:12]}"):
        prepare(repository)


def test_refuses_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a git checkout"):
        prepare(tmp_path)


def test_the_launcher_wants_a_patched_tree(repository: Path) -> None:
    with pytest.raises(UserError, match="prm-gym host prepare"):
        require_prepared(repository)
    prepare(repository)
    assert require_prepared(repository, "reward_modeling").sha == git(repository, "rev-parse", "HEAD").strip()


def test_a_stage_that_the_commit_does_not_have_is_an_error(repository: Path) -> None:
    prepare(repository)
    with pytest.raises(UserError, match=rf"no online_dpo at .* checkout {PIN.sha}"):
        require_prepared(repository, "online_dpo")


def test_says_what_the_environment_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "deepspeed":
            raise packages.PackageNotFoundError
        return {"transformers": "5.1.0", "datasets": "4.8.5", "torch": "2.13.0+cpu"}.get(name, "99.0")

    monkeypatch.setattr(packages, "version", version)
    problems = "\n".join(environment_problems(PIN))
    assert "transformers 5.1.0: the host needs <5,>=4.50" in problems
    assert "deepspeed: not installed" in problems
    assert "torch" not in problems
    assert "datasets" not in problems


@pytest.mark.parametrize(
    ("transformers", "accepted"), [("4.50.0", True), ("4.49.9", False), ("5.0.0rc1", False), ("4.50.0a0+git1", True)]
)
def test_a_pre_release_counts_as_its_release(
    transformers: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "version", lambda name: transformers if name == "transformers" else "99.0")
    assert any(line.startswith("transformers ") for line in environment_problems(PIN)) is not accepted


def test_the_real_checkout(checkout: Path, tmp_path: Path) -> None:
    """Patches apply to its commit, and undoing them gives it back."""
    commit, _ = checkout_state(checkout)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--shared", "--no-checkout", str(checkout), str(clone)], check=True)
    git(clone, "sparse-checkout", "set", "--no-cone", "/open_instruct/")
    git(clone, "checkout", "-q", commit.sha)
    assert f"applied {len(commit.patches)} patches" in prepare(clone)[0]
    for name in ("reward_modeling", "model_utils", *(["online_dpo_vllm_thread"] if commit is PIN else [])):
        compile((clone / "open_instruct" / f"{name}.py").read_text("utf-8"), name, "exec")
    assert checkout_state(clone) == (commit, len(commit.patches))
    prepare(clone, undo=True)
    assert git(clone, "status", "--porcelain") == ""
