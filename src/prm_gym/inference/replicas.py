"""Servers of one model (vLLM, SGLang), started by a command and kept up until they are stopped.

A server is up when GET /health answers 200. One that dies, or does not answer /health for two minutes, is started again
on the same port, so that clients keep its address; `http_servers` repeats the requests that it took with it. A server
that dies more than `MOST_DEATHS` times in an hour is given up. While others are up they go on; without any, or if one
cannot be started, `error` is set and the main thread is interrupted.

Every server runs under `server_guard`, which ends it with this process.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from typing import Any

from prm_gym.errors import UserError
from prm_gym.inference import server_guard

REPLACED = "server replaced"  # the kind of fault that a rollout counts
MOST_DEATHS = 5
_AN_HOUR = 3600.0
_POLL = 0.2  # seconds
_BETWEEN_CHECKS = 10.0  # of a server that is up
_ANSWER = 5.0  # for /health
_SILENCE = 120.0  # until a server that does not answer /health is killed
# Below Linux's range of ports for outgoing connections, one of which could take the port of a server that is restarted.
_PORTS = range(20_000, 32_000)
_log = logging.getLogger(__name__)


@dataclass
class _Replica:
    command: list[str]
    url: str  # without /v1
    log: Path
    devices: str | None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0  # time.monotonic()
    answered: float | None = None  # the last time since it was started
    checked: float = 0.0
    deaths: deque[float] = field(default_factory=deque)  # of the last hour
    given_up: bool = False


class Replicas:
    """`count` servers of the model in the folder `model`.

    Parameters
    ----------
    command: with {model} and {port}, in a shell's quoting; environment variables are filled in.
    log: the output of server i goes to `log`-i.log.
    devices: CUDA_VISIBLE_DEVICES of the servers, such as ["0,1", "2,3"]; taken in turn if there are more servers.
    wait: seconds that a server may take to come up.
    where, field: the file and key that the command comes from, for errors.
    """

    def __init__(
        self,
        command: str,
        model: Path,
        log: Path,
        *,
        count: int = 1,
        devices: Sequence[str] = (),
        wait: float = 900.0,
        where: str | Path = "command",
        field: str | None = None,
    ) -> None:
        self.name = ""  # of the model at the servers
        self.error: UserError | None = None
        self._wait, self._where, self._field = wait, where, field
        self._end, self._thread = Event(), Thread(target=self._supervise, name="prm_gym-servers", daemon=True)
        self._replicas = []
        for i, port in enumerate(free_ports(count)):
            filled = fill(command, model=str(model.absolute()), port=str(port))
            mine = devices[i % len(devices)] if devices else None
            self._replicas.append(_Replica(filled, f"http://127.0.0.1:{port}", Path(f"{log}-{i}.log"), mine))

    @property
    def urls(self) -> list[str]:
        """The base URLs, such as http://127.0.0.1:20000/v1."""
        return [f"{replica.url}/v1" for replica in self._replicas]

    def start(self) -> None:
        """Start the servers, and return when all are up. Raises `UserError` if one does not come up."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and current_thread() is main_thread():
            # A script's background job ignores SIGINT, by which the supervisor tells of servers that are all gone.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._thread.start()
        try:
            while self.error is None and not all(replica.answered for replica in self._replicas):
                time.sleep(_POLL)
            if self.error is not None:
                raise self.error
            self.name = str(_get(f"{self._replicas[0].url}/v1/models", 30.0)["data"][0]["id"])
        except BaseException:
            self.stop()
            raise

    def wait_for_one(self) -> None:
        """Return when a server answers, which may have died since. Raises `UserError` if all are given up."""
        while not any(_is_up(replica.url) for replica in self._replicas):
            if self.error is not None:
                raise self.error
            time.sleep(_POLL)

    def stop(self) -> None:
        """End the servers, and return when they are gone."""
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _supervise(self) -> None:
        try:
            for replica in self._replicas:
                self._launch(replica)
            while not self._end.wait(_POLL):
                for replica in self._replicas:
                    if not replica.given_up and not self._end.is_set():
                        self._look_after(replica)
        except OSError as error:  # there is no place for a log, or no memory for a process
            self._fail(f"the server cannot be started ({error})", "correct it and run again")
        finally:
            running = [each.process for each in self._replicas if each.process is not None]
            for process in running:
                with suppress(ProcessLookupError):
                    process.terminate()
            for process in running:
                try:
                    process.wait(server_guard.GRACE + 10)
                except subprocess.TimeoutExpired:
                    _kill(process)

    def _launch(self, replica: _Replica) -> None:
        environment = dict(os.environ)
        if replica.devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = replica.devices
        replica.log.parent.mkdir(parents=True, exist_ok=True)
        with replica.log.open("ab") as log:
            log.write(f"\n$ {shlex.join(replica.command)}\n".encode())
            log.flush()
            replica.process = subprocess.Popen(
                [sys.executable, "-I", server_guard.__file__, str(os.getpid()), *replica.command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        replica.started, replica.answered = time.monotonic(), None

    def _look_after(self, replica: _Replica) -> None:
        now = time.monotonic()
        assert replica.process is not None
        if replica.process.poll() is not None:
            self._replace(replica, "died" if replica.answered else "ended before it answered")
        elif replica.answered is None:
            if _is_up(replica.url):
                replica.answered = replica.checked = time.monotonic()
            elif now - replica.started > self._wait:
                self._give_up(replica, f"did not answer within {self._wait:g} s")
        elif now - replica.checked > _BETWEEN_CHECKS:
            if _is_up(replica.url):
                replica.answered = time.monotonic()
            elif now - replica.answered > _SILENCE:
                self._replace(replica, f"did not answer for {_SILENCE:.0f} s")
            replica.checked = time.monotonic()

    def _replace(self, replica: _Replica, why: str) -> None:
        """Start a server again. One that never came up gets a second try: the GPU may still hold a former one."""
        assert replica.process is not None
        _kill(replica.process)  # with the rest of its group, should the guard have been killed
        now = time.monotonic()
        replica.deaths.append(now)
        while now - replica.deaths[0] > _AN_HOUR:
            replica.deaths.popleft()
        if len(replica.deaths) > (MOST_DEATHS if self.name else 1):
            self._give_up(replica, f"{why}, {len(replica.deaths)} times")
            return
        _log.info("server %s %s, it is started again", replica.url, why, extra={"fault": REPLACED})
        if replica.answered is None:
            self._end.wait(10 * _POLL)
        self._launch(replica)

    def _give_up(self, replica: _Replica, why: str) -> None:
        assert replica.process is not None
        _kill(replica.process)
        replica.given_up = True
        _log.warning("server %s %s, it is left out; see %s", replica.url, why, replica.log)
        if not self.name or all(each.given_up for each in self._replicas):
            self._fail(f"the server {why} ({_last_line(replica.log)})", f"see {replica.log}")

    def _fail(self, problem: str, remedy: str) -> None:
        """Set `error`, and interrupt the main thread unless it is in `start`, which raises it."""
        self.error = UserError(self._where, problem, remedy, field=self._field)
        if self.name:
            signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)


def fill(command: str, **values: str) -> list[str]:
    """The words of `command`, with environment variables and {model} and {port} filled in."""
    words = [os.path.expandvars(word) for word in shlex.split(command)]
    for name, value in values.items():
        words = [word.replace(f"{{{name}}}", value) for word in words]
    return words


def check(command: str, where: str | Path, field: str) -> None:
    """Raise `UserError` if there is no such program, before the stages that need it."""
    try:
        program = fill(command)[0]
    except ValueError as error:
        raise UserError(where, f"{command!r} ({error})", "close the quotation", field=field) from None
    if shutil.which(program) is None:
        remedy = "install it (vLLM in an environment of its own), or correct the path"
        raise UserError(where, f"no command {program}", remedy, field=field)


def free_ports(count: int) -> list[int]:
    """`count` different ports of this machine that nothing listens on. Raises `UserError` if there are fewer."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            found.append(port)
    raise UserError("ports", f"{len(found)} of {count} are free from {_PORTS[0]} to {_PORTS[-1]}", "end other servers")


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=_ANSWER) as reply:
            return bool(reply.status == 200)
    except (OSError, HTTPException):
        return False


def _get(url: str, timeout: float) -> Any:
    with urllib.request.urlopen(url, timeout=timeout) as reply:
        return json.load(reply)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the guard's process group, which outlives the guard while a process of it is there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").splitlines()
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no output")
