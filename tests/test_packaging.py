"""The content of the wheel: every file of the package, the host's patches, the licence, and nothing else."""

from __future__ import annotations

import email
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="needs the extra 'dev'")
    [built] = builders.WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")))
    with zipfile.ZipFile(built) as opened:
        yield opened


def in_git(folder: str) -> set[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", folder]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


def test_the_wheel_holds_the_package_and_the_patches_alone(wheel):
    package = {name.removeprefix("src/") for name in in_git("src/prm_gym")}
    patches = {f"prm_gym/hosts/open_instruct/patches/{Path(name).name}" for name in in_git("patches/open-instruct")}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == package | patches
    assert "prm_gym/py.typed" in held
    assert patches


def test_the_wheel_carries_its_licence_and_what_it_needs(wheel):
    [about] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(wheel.read(about))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    core = [need for need in metadata.get_all("Requires-Dist") or [] if "extra ==" not in need]
    assert core
    assert not any(need.startswith(("torch", "transformers", "trl", "alfworld")) for need in core)
    [licence] = [name for name in wheel.namelist() if name.endswith("/LICENSE")]
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
