"""A real vLLM server for a benchmark or a test, in an environment of its own that PRM_GYM_VLLM_PYTHON names."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "tiny"  # of the model
PYTHON = os.environ.get("PRM_GYM_VLLM_PYTHON")
START_SECONDS = 480


@contextmanager
def serving(model: Path, log: Path, *options: str) -> Iterator[str]:
    """The base URL of a server for the model in a folder, on the CPU; it ends with the block.

    Raises `RuntimeError` with the end of `log` if it does not come up.
    """
    assert PYTHON, "PRM_GYM_VLLM_PYTHON names no interpreter with vLLM"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", NAME]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager", *options]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        environment = {**os.environ, **settings}
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"vLLM did not come up:\n{log.read_text()[-3000:]}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
