"""Servers started for a run come up, are replaced when they die, and end with the process on every kind of exit."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import is_running, until

from prm_gym.errors import UserError
from prm_gym.inference import replicas
from prm_gym.inference.replicas import Replicas, check, free_ports

FAKE = Path(__file__).parent / "fake_vllm.py"
COMMAND = f"{shlex.quote(sys.executable)} {shlex.quote(str(FAKE))} {{model}} --port {{port}}"
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@contextmanager
def serving(folder: Path, command: str = COMMAND, **options: object) -> Iterator[Replicas]:
    servers = Replicas(command, folder / "model", folder / "log", **options)  # type: ignore[arg-type]
    servers.start()
    try:
        yield servers
    finally:
        servers.stop()


def processes(log: Path) -> list[int]:
    """The ids of the servers that have written to a log, first to last."""
    return [int(number) for number in re.findall(r"^process (\d+)$", log.read_text(), re.MULTILINE)]


def models(url: str) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{url}/models", timeout=5) as reply:
        data: list[dict[str, object]] = json.load(reply)["data"]
        return data


def test_each_server_has_its_port_its_devices_and_the_model(tmp_path: Path) -> None:
    with serving(tmp_path, count=2, devices=["0,1", "2,3"]) as servers:
        told = [models(url)[0] for url in servers.urls]
        assert [each["devices"] for each in told] == ["0,1", "2,3"]
        assert servers.name == told[0]["id"] == str(tmp_path / "model")
        assert len(set(servers.urls)) == 2
    for url in servers.urls:
        with pytest.raises(OSError, match="refused"):
            models(url)


@linux
@pytest.mark.parametrize("victim", ["the server", "its guard"])
def test_a_killed_server_is_replaced_at_its_address(tmp_path: Path, victim: str) -> None:
    with serving(tmp_path) as servers:
        [first] = processes(tmp_path / "log-0.log")
        guard = servers._replicas[0].process
        assert guard is not None
        os.kill(first if victim == "the server" else guard.pid, signal.SIGKILL)
        assert until(lambda: len(processes(tmp_path / "log-0.log")) == 2)
        servers.wait_for_one()
        assert models(servers.urls[0])
        assert not is_running(first)


def test_a_server_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_BETWEEN_CHECKS", 0.1)
    monkeypatch.setattr(replicas, "_ANSWER", 0.2)
    monkeypatch.setattr(replicas, "_SILENCE", 0.5)
    with serving(tmp_path) as servers:
        os.kill(processes(tmp_path / "log-0.log")[0], signal.SIGSTOP)
        assert until(lambda: len(processes(tmp_path / "log-0.log")) == 2)
        assert until(lambda: servers._replicas[0].answered is not None)


def _kill_and_wait(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    time.sleep(20)


def test_servers_that_die_again_and_again_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "MOST_DEATHS", 1)
    log = tmp_path / "log-0.log"
    with serving(tmp_path) as servers:
        os.kill(processes(log)[0], signal.SIGKILL)
        assert until(lambda: len(processes(log)) == 2 and servers._replicas[0].answered is not None)
        with pytest.raises(KeyboardInterrupt):
            _kill_and_wait(processes(log)[1])
    assert servers.error is not None
    assert re.search(r"the server died, 2 times \(.*ended with status -9\); see .*log-0.log$", str(servers.error))


def test_without_one_of_two_the_other_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "MOST_DEATHS", 0)
    with serving(tmp_path, count=2) as servers:
        os.kill(processes(tmp_path / "log-1.log")[0], signal.SIGKILL)
        assert until(lambda: servers._replicas[1].given_up)
        assert models(servers.urls[0])
        assert servers.error is None


@pytest.mark.parametrize(
    ("command", "wait", "message"),
    [
        (
            "sh -c 'echo out of memory >&2; exit 3' {model} {port}",
            60.0,
            r"ended before it answered, 2 times \(sh: ended",
        ),
        ("sh -c 'sleep 60' {model} {port}", 0.5, r"the server did not answer within 0.5 s"),
        ("/no/such/program {model} {port}", 60.0, r"/no/such/program: No such file"),
    ],
)
def test_one_that_does_not_come_up_is_an_error(tmp_path: Path, command: str, wait: float, message: str) -> None:
    with pytest.raises(UserError, match=rf"recipe.yaml: sampling.serve: .*{message}"):
        Replicas(command, tmp_path, tmp_path / "log", wait=wait, where="recipe.yaml", field="sampling.serve").start()


def test_a_log_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    servers = Replicas(COMMAND, tmp_path, tmp_path / "file" / "log", where="recipe.yaml", field="sampling.serve")
    with pytest.raises(UserError, match=r"recipe.yaml: sampling.serve: the server cannot be started \(.*File exists"):
        servers.start()


def test_a_server_that_cannot_be_started_again_ends_the_run(tmp_path: Path) -> None:
    log = tmp_path / "log-0.log"
    with serving(tmp_path) as servers:
        [first] = processes(log)
        log.unlink()
        log.mkdir()
        with pytest.raises(KeyboardInterrupt):
            _kill_and_wait(first)
    assert "Is a directory" in str(servers.error)


PARENT = """
import sys, time
from pathlib import Path
from prm_gym.inference.replicas import Replicas
servers = Replicas(sys.argv[1], Path("model"), Path(sys.argv[2]), count=2)
servers.start()
print("up", flush=True)
try:
    if sys.argv[3] == "exception":
        raise ValueError
    time.sleep(0 if sys.argv[3] == "return" else 60)
finally:
    servers.stop()
"""


@linux
@pytest.mark.parametrize("end", ["return", "exception", "SIGINT", "SIGTERM", "SIGKILL"])
def test_servers_and_their_workers_end_with_the_run(tmp_path: Path, end: str) -> None:
    """The server is a child of a shell script, as a worker is of a server."""
    (tmp_path / "serve.sh").write_text(f"{COMMAND.format(model='$1', port='$2')} &\nwait\n")
    arguments = [sys.executable, "-c", PARENT, f"sh {tmp_path}/serve.sh {{model}} {{port}}", str(tmp_path / "log"), end]
    run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    servers = [pid for i in (0, 1) for pid in processes(tmp_path / f"log-{i}.log")]
    assert len(servers) == 2
    if end.startswith("SIG"):
        run.send_signal(getattr(signal, end))
    run.wait(20)
    assert until(lambda: not any(map(is_running, servers)))
    run.stdout.close()


def test_ports_differ_and_nothing_listens_on_them() -> None:
    ports = free_ports(200)
    assert len(set(ports)) == 200
    assert max(ports) < 32_768, "Linux takes ports from there on for connections"


def test_a_command_that_is_not_there_is_found_before_work() -> None:
    with pytest.raises(UserError, match=r"recipe\.yaml: sampling\.serve\.command: no command vlm;"):
        check("vlm serve {model} --port {port}", "recipe.yaml", "sampling.serve.command")
    with pytest.raises(UserError, match=r"sampling\.serve\.command: .*No closing quotation.*; close the quotation"):
        check('vllm "serve {model} --port {port}', "recipe.yaml", "sampling.serve.command")
