"""Who samples the responses of Stage 3: the policy itself in this process, or a vLLM server that it sends weights to.

Both sample from softmax(logits / temperature) with nothing cut off it, and both return the ids as sampled: up to and
with the end-of-turn token, or exactly `response_length` ids if it did not come.

A current vLLM needs another transformers than the host, so it runs in its own environment and process, on its own GPUs:

    VLLM_SERVER_DEV_MODE=1 CUDA_VISIBLE_DEVICES=3 vllm serve PI_{i-1} --port 8000

New weights go through a file in shared memory that the server reads in place of its own (`reload_weights`), after which
its prefix cache, which holds the old policy's keys and values, is emptied. This works for any number of server GPUs,
and needs vLLM in one environment only.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from prm_gym.errors import UserError


class Generator(Protocol):
    def load(self, model: Any) -> None:
        """Take over the weights of `model`, a causal language model; returns when they are in use."""

    def generate(self, prompts: Sequence[list[int]], seed: int) -> list[list[int]]:
        """One response to each prompt, as token ids."""

    def close(self) -> None: ...


class TransformersGenerator:
    """Samples in this process, with a copy of the policy and a random generator of its own."""

    def __init__(self, path: str, *, dtype: Any, device: Any, temperature: float, length: int, stop_id: int) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=dtype).to(device).eval()
        self.temperature, self.length, self.stop_id = temperature, length, stop_id

    def load(self, model: Any) -> None:
        self.model.load_state_dict(model.state_dict())  # copies into the generator's own tensors

    def generate(self, prompts: Sequence[list[int]], seed: int) -> list[list[int]]:
        import torch

        device = self.model.device
        random = torch.Generator(device).manual_seed(seed)
        longest = max(map(len, prompts))
        ids = torch.tensor([[self.stop_id] * (longest - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        sampled: list[Any] = []
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        cache = None
        with torch.no_grad():
            while len(sampled) < self.length and not ended.all():
                out = self.model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
                )
                cache = out.past_key_values
                probabilities = (out.logits[:, -1].float() / self.temperature).softmax(-1)
                ids = torch.multinomial(probabilities, 1, generator=random)
                sampled.append(ids)
                ended |= ids[:, 0] == self.stop_id
                mask = torch.cat((mask, torch.ones_like(ids)), 1)
                positions = positions[:, -1:] + 1
        rows = torch.cat(sampled, 1).tolist()
        return [row[: row.index(self.stop_id) + 1] if self.stop_id in row else row for row in rows]

    def close(self) -> None:
        pass


class VLLMServer:
    """Samples at a vLLM server started with VLLM_SERVER_DEV_MODE=1; see the module's head."""

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

    def load(self, model: Any) -> None:
        from safetensors.torch import save_file

        weights = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
        save_file(weights, self.folder / "model.safetensors", metadata={"format": "pt"})
        self._reload(str(self.folder))

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

    def _reload(self, folder: str) -> None:
        self._request("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        if not self._request("/reset_prefix_cache", {}).get("success", True):
            raise RuntimeError(f"{self.url} did not empty its prefix cache; is something else sending it requests?")

    def _request(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                remedy = "start the server with VLLM_SERVER_DEV_MODE=1"
                raise UserError(self.url, f"has no {path}", remedy, field="vllm_server") from None
            reason = error.read().decode(errors="replace")[:300]
            raise RuntimeError(f"{self.url}{path}: {error.code} {reason}") from error
        except urllib.error.URLError as error:
            remedy = "start `vllm serve` first, or leave vllm_server out to sample in process"
            raise UserError(self.url, f"no answer ({error.reason})", remedy, field="vllm_server") from None
        result: dict[str, Any] = json.loads(answer) if answer else {}
        return result
