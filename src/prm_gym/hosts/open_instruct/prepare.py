"""Prepare a checkout of open-instruct: check the commit and a clean tree, apply the patches; and undo that.

Each file in `patches/open-instruct` changes the host for one reason, stated at its top. Those of a commit are applied
together or not at all, and only to those in `commits`; a tree that has the first ones, of an older version, gets the
rest. git decides, with a temporary index, whether a tree is exactly the commit plus patches, so no marker file is
needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from os import PathLike
from pathlib import Path

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct.commits import COMMITS, PIN, Commit
from prm_gym.packages import versions

URL = "https://github.com/allenai/open-instruct"


def patch_files() -> list[Path]:
    """The patches in order: those shipped inside the package, or the source tree's."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "patches", here.parents[4] / "patches" / "open-instruct"):
        files = sorted(folder.glob("*.patch"))
        if files:
            return files
    raise UserError(here.parent / "patches", "no patches found", "reinstall prm-gym")


def prepare(checkout: str | PathLike[str], *, undo: bool = False) -> list[str]:
    """Apply the patches to `checkout`, or remove them with `undo`. Idempotent.

    Returns lines to print: the result, then what this Python environment lacks to run the host.
    Raises `UserError` if it is not a git checkout, not at one of `COMMITS`, or changed by anything but the patches.
    """
    root = Path(checkout).resolve()
    commit, count = checkout_state(root)
    patches = _in_order(commit)
    changes = patches[:count][::-1] if undo else patches[count:]
    if changes:
        _git(root, "apply", *(["--reverse"] if undo else []), *changes)
        done = f"{'took off' if undo else 'applied'} {len(changes)} patches"
    else:
        done = "already without patches" if undo else "already patched"
    return [f"{root}: {done} (commit {commit.sha[:12]})", *([] if undo else environment_problems(commit))]


def require_prepared(checkout: str | PathLike[str], *stages: str) -> Commit:
    """The commit of `checkout`, which is patched and has `stages`; otherwise a `UserError` with the remedy."""
    root = Path(checkout).resolve()
    commit, count = checkout_state(root)
    for stage in stages:
        if stage not in commit.stages:
            problem = f"no {stage} at commit {commit.sha[:12]}, which has {', '.join(commit.stages)} alone"
            raise UserError(root, problem, f"git -C {root} checkout {PIN.sha}")
    if count < len(_in_order(commit)):
        raise UserError(root, "open-instruct is not patched", f"run `prm-gym host prepare {root}`")
    return commit


def checkout_state(root: Path) -> tuple[Commit, int]:
    """The commit, and how many of its patches the tree has, the first ones. Raises `UserError` for other changes."""
    if not (root / ".git").exists() or not (root / "open_instruct").is_dir():
        raise UserError(root, "not a git checkout of open-instruct", f"git clone {URL} and check out {PIN.sha}")
    head = _git(root, "rev-parse", "HEAD").strip()
    commit = next((known for known in COMMITS if known.sha == head), None)
    if commit is None:
        wanted = " or ".join(known.sha[:12] for known in COMMITS)
        raise UserError(root, f"is at commit {head[:12]}, not {wanted}", f"git -C {root} checkout {PIN.sha}")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no").splitlines()
    if not changed:
        return commit, 0
    index = Path(_git(root, "rev-parse", "--path-format=absolute", "--git-path", "index").strip())
    with tempfile.TemporaryDirectory() as folder:
        environment = {"GIT_INDEX_FILE": str(shutil.copy(index, folder))}
        with suppress(UserError):
            _git(root, "diff", "--cached", "--quiet", env=environment)  # nothing staged
            for count, file in enumerate(_in_order(commit), 1):
                _git(root, "apply", "--cached", file, env=environment)
                with suppress(UserError):
                    _git(root, "diff", "--quiet", env=environment)  # the tree is the commit plus these patches
                    return commit, count
    names = ", ".join(line[3:] for line in changed[:3])
    remedy = f"keep your changes elsewhere, then git -C {root} checkout -- ."
    raise UserError(root, f"has changes that are not ours ({names})", remedy)


def environment_problems(commit: Commit) -> list[str]:
    """What this Python environment lacks to run the host at `commit`, a line each."""
    problems = []
    if sys.version_info[:2] not in commit.python:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in commit.python)
        problems.append(f"python {sys.version_info[0]}.{sys.version_info[1]}: the host needs {wanted}")
    there = versions(commit.requirements)
    for name, (first, end) in commit.requirements.items():
        version = there.get(name)
        if version is None:
            problems.append(f"{name}: not installed")
            continue
        numbers = _numbers(version)
        if first is not None and numbers < first:
            problems.append(f"{name} {version}: needs {'.'.join(map(str, first))} or later")
        if end is not None and numbers >= end:
            problems.append(f"{name} {version}: needs a version before {'.'.join(map(str, end))}")
    return problems


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("+")[0].split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _in_order(commit: Commit) -> list[str]:
    return [str(path) for path in patch_files() if int(path.name[:4]) in commit.patches]


def _git(root: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    command = ["git", "-C", str(root), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    if result.returncode:
        reason = (result.stderr.strip() or f"exit status {result.returncode}").splitlines()[0]
        raise UserError(root, f"`git {arguments[0]}` failed: {reason}", "see the state of the checkout with git status")
    return result.stdout
