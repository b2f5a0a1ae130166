"""The generator of Stage 3 for GPUs: a vLLM server that receives the policy's weights after each update.

A current vLLM needs another version of transformers than the host, so it runs in its own environment, process and GPUs.
Either this module starts it for the duration of Stage 3 (`vllm_command`), or it is already running (`vllm_server`),
started with

    VLLM_SERVER_DEV_MODE=1 CUDA_VISIBLE_DEVICES=3 vllm serve PI --port 8000

New weights are written to a file in shared memory, which the server loads (`reload_weights`); then its prefix cache,
with keys and values of the previous policy, is emptied. This works for any number of server GPUs and needs vLLM in one
environment only. A check before the first update of each run verifies that weights arrive: vLLM 0.32 on a CPU, for
example, keeps the old output matrix of a model that ties it to its embedding.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from prm_gym.errors import UserError
from prm_gym.hosts.training_process import end_with_parent
from prm_gym.inference.replicas import free_ports

_START = 900.0  # seconds that a server may take to come up


def check(command: str | None, url: str | None) -> None:
    """Raise `UserError` if there is no such command or server, before Stage 3 needs it."""
    if command is not None and shutil.which(shlex.split(command)[0]) is None:
        remedy = "install vLLM in an environment of its own, or leave it out to sample in process"
        raise UserError("recipe", f"no command {shlex.split(command)[0]}", remedy, field="vllm_command")
    if url is not None:
        request(url, "/v1/models", timeout=30.0)


def request(url: str, path: str, body: dict[str, Any] | None = None, *, timeout: float) -> dict[str, Any]:
    """The server's JSON answer to `body` (POST), or to a GET without one."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as response:
            answer = response.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            remedy = "start the server with VLLM_SERVER_DEV_MODE=1"
            raise UserError(url, f"has no {path}", remedy, field="vllm_server") from None
        reason = error.read().decode(errors="replace")[:300]
        raise RuntimeError(f"{url}{path}: {error.code} {reason}") from error
    except urllib.error.URLError as error:
        remedy = "start `vllm serve` first, or leave vllm_server out to sample in process"
        raise UserError(url, f"no answer ({error.reason})", remedy, field="vllm_server") from None
    result: dict[str, Any] = json.loads(answer) if answer else {}
    return result


def start(command: str, devices: str | None, path: str, max_model_len: int) -> str:
    """Start `command PATH` (as in "vllm serve --dtype bfloat16") and wait until it answers; returns its address.

    `devices` is its CUDA_VISIBLE_DEVICES. It ends with this process. Raises `UserError` if it does not start.
    """
    [port] = free_ports(1)
    arguments = [*shlex.split(command), path, "--host", "127.0.0.1", "--port", str(port)]
    ours = ("ACCELERATE_", "RANK", "LOCAL_", "WORLD_", "MASTER_")  # this training run's, not the server's
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["VLLM_SERVER_DEV_MODE"] = "1"
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    try:
        server = subprocess.Popen(
            [*arguments, "--max-model-len", str(max_model_len)],
            env=environment,
            preexec_fn=partial(end_with_parent, signal.SIGTERM),
        )
    except OSError as error:
        raise UserError("vllm_command", f"cannot run ({error})", "install vLLM in an environment of its own") from None
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + _START
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return url
        except OSError:
            time.sleep(0.5)
    server.kill()
    problem = "did not start in time" if server.returncode is None else f"ended with status {server.wait()}"
    raise UserError("vllm_command", problem, f"see its output above; it was {shlex.join(arguments)}")


class VLLMServer:
    """Samples at a vLLM server started with VLLM_SERVER_DEV_MODE=1; see the module."""

    def __init__(
        self,
        url: str,
        path: str,
        *,
        weights_dir: str,
        max_model_len: int,
        temperature: float,
        length: int,
        stop_id: int,
        timeout: float = 600.0,
    ) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        served = self._request("/v1/models")["data"][0]
        self.name = served["id"]
        if served.get("max_model_len", max_model_len) < max_model_len:
            problem = f"its context of {served['max_model_len']} is shorter than prompt and response"
            raise UserError(url, problem, f"start it with --max-model-len {max_model_len}", field="vllm_server")
        self.options = {"max_tokens": length, "temperature": temperature, "top_p": 1.0, "stop_token_ids": [stop_id]}
        # The server may hold another policy, from its start or from an earlier run.
        self._reload(str(Path(path).resolve()) if Path(path).exists() else path)
        self.folder = Path(tempfile.mkdtemp(prefix="prm_gym-", dir=weights_dir))
        self.folder.chmod(0o755)
        self._checked = False

    def load(self, model: Any) -> None:
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        if not self._checked:
            self._check_arrival(model, weights)
            self._checked = True
        self._send(weights)

    def generate(self, prompts: Sequence[list[int]], seed: int) -> list[list[int]]:
        def complete(i: int) -> list[int]:
            body = {
                **self.options,
                "model": self.name,
                "prompt": prompts[i],
                "seed": seed * 100_003 + i,  # its own for each, or equal prompts would get equal responses
                "ignore_eos": True,  # other end tokens of the model are text like any other; stop_token_ids still holds
                "return_token_ids": True,
            }
            ids: list[int] = self._request("/v1/completions", body)["choices"][0]["token_ids"]
            return ids

        with ThreadPoolExecutor(max_workers=256) as pool:
            return list(pool.map(complete, range(len(prompts))))

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_arrival(self, model: Any, weights: dict[str, Any]) -> None:
        """Send weights with noise on the embedding, and compare the server's log-probabilities with those of the
        weights.

        If the server kept any old weights they differ by several nats; kernels and dtypes differ by hundredths.
        """
        import torch

        embedding = model.get_input_embeddings().weight
        name = next(name for name, parameter in model.named_parameters() if parameter is embedding)
        noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(0)).to(embedding)
        noisy = {**weights, name: embedding.detach() + embedding.detach().float().std().to(embedding) * noise}
        self._send(noisy)
        ids = list(range(1, min(64, len(embedding))))
        with torch.no_grad():
            out = torch.func.functional_call(model, noisy, (torch.tensor([ids], device=embedding.device),))
        ours = out.logits[0, :-1].float().log_softmax(-1)[range(len(ids) - 1), ids[1:]].tolist()
        body = {"model": self.name, "prompt": ids, "max_tokens": 1, "prompt_logprobs": 0}
        answer = self._request("/v1/completions", body)["choices"][0]["prompt_logprobs"]
        theirs = [step[str(i)]["logprob"] for i, step in zip(ids[1:], answer[1:], strict=True)]
        off = sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
        if not off < 0.5:
            problem = f"did not take over the weights sent (log-probabilities off by {off:.2f} on average)"
            raise UserError(self.url, problem, "use another vLLM version or device", field="vllm_server")

    def _send(self, weights: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        contiguous = {name: weight.contiguous() for name, weight in weights.items()}
        save_file(contiguous, self.folder / "model.safetensors", metadata={"format": "pt"})
        self._reload(str(self.folder))

    def _reload(self, folder: str) -> None:
        self._request("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        if not self._request("/reset_prefix_cache", {}).get("success", True):
            raise RuntimeError(f"{self.url} did not empty its prefix cache; is something else sending it requests?")

    def _request(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return request(self.url, path, body, timeout=self.timeout)
