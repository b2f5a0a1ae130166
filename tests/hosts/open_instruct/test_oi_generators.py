"""Sampling in process, and requests to a vLLM server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct.generators import TransformersGenerator
from prm_gym.hosts.open_instruct.vllm_server import VLLMServer, start

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

STOP = 7


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.6, eos_token_id=STOP, bos_token_id=None, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("policy")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def generator(folder: Path, **options: Any) -> TransformersGenerator:
    settings = {"temperature": 1.0, "length": 6, "stop_id": STOP, "dtype": torch.float32, "device": "cpu", **options}
    return TransformersGenerator(str(folder), **settings)


def test_a_response_ends_with_the_stop_token_or_has_full_length(model_folder: Path) -> None:
    responses = generator(model_folder).generate([[1, 2, 3]] * 200, seed=0)
    ended = [r for r in responses if STOP in r]
    assert 0 < len(ended) < len(responses)
    assert all(r.index(STOP) == len(r) - 1 for r in ended)
    assert all(len(r) == 6 for r in responses if STOP not in r)


def test_cold_sampling_is_the_most_likely_sequence_whatever_the_padding(model_folder: Path) -> None:
    sampler = generator(model_folder, temperature=1e-6)
    prompts = [[1, 2, 3, 4, 5, 6], [3], [9, 8]]
    for prompt, response in zip(prompts, sampler.generate(prompts, seed=0), strict=True):
        ids = list(prompt)
        for token in response:  # without a cache, without padding
            assert sampler.model(torch.tensor([ids])).logits[0, -1].argmax().item() == token
            ids.append(token)


def test_samples_follow_the_model_s_probabilities(model_folder: Path) -> None:
    sampler = generator(model_folder, temperature=0.7, length=1)
    drawn = torch.tensor(sampler.generate([[1, 2, 3]] * 20_000, seed=3))[:, 0]
    wanted = (sampler.model(torch.tensor([[1, 2, 3]])).logits[0, -1] / 0.7).softmax(-1)
    found = torch.bincount(drawn, minlength=24) / len(drawn)
    assert (found - wanted).abs().max().item() < 0.02


def test_the_seed_decides(model_folder: Path) -> None:
    sampler = generator(model_folder)
    prompts = [[1, 2]] * 8
    assert sampler.generate(prompts, seed=1) == sampler.generate(prompts, seed=1)
    assert sampler.generate(prompts, seed=1) != sampler.generate(prompts, seed=2)


def test_new_weights_are_copied(model_folder: Path) -> None:
    sampler = generator(model_folder)
    policy = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    with torch.no_grad():
        policy.lm_head.weight.add_(1.0)
    sampler.load(policy)
    assert torch.equal(sampler.model.lm_head.weight, policy.lm_head.weight)
    with torch.no_grad():
        policy.lm_head.weight.add_(1.0)  # the trainer goes on; the generator keeps what it was given
    assert not torch.equal(sampler.model.lm_head.weight, policy.lm_head.weight)


class Server(ThreadingHTTPServer):
    """Speaks vLLM's part: it samples with a real model, reads weights when told, and may be told to forget that."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.deaf = False
        super().__init__(("127.0.0.1", 0), Handler)

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/models":
            return {"data": [{"id": "pi", "max_model_len": 64}]}
        if path == "/collective_rpc" and not self.deaf:
            from safetensors.torch import load_file

            folder = Path(body["kwargs"]["weights_path"])
            self.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        if path == "/reset_prefix_cache":
            return {"success": True}
        if "prompt_logprobs" in body:
            ids = body["prompt"]
            logprobs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            steps = [{str(t): {"logprob": logprobs[i, t].item()}} for i, t in enumerate(ids[1:])]
            return {"choices": [{"prompt_logprobs": [None, *steps]}]}
        return {"choices": [{"token_ids": [*body.get("prompt", []), STOP]}]}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.reply({})

    def do_POST(self) -> None:
        self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def reply(self, body: dict[str, Any]) -> None:
        self.server.asked.append((self.path, body))
        data = json.dumps(self.server.answer(self.path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(model_folder: Path) -> Iterator[Server]:
    with Server(model_folder) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def client(server: Server, folder: Path, tmp_path: Path, max_model_len: int = 64) -> VLLMServer:
    url = f"http://127.0.0.1:{server.server_port}"
    return VLLMServer(
        url,
        str(folder),
        weights_dir=str(tmp_path),
        max_model_len=max_model_len,
        temperature=0.7,
        length=6,
        stop_id=STOP,
    )


def test_the_server_starts_from_this_policy(server: Server, model_folder: Path, tmp_path: Path) -> None:
    """It may have been started with another, or hold what an earlier run left."""
    with torch.no_grad():
        server.model.lm_head.weight.zero_()
    client(server, model_folder, tmp_path)
    assert server.model.lm_head.weight.abs().sum().item() > 0
    assert [path for path, _ in server.asked[-2:]] == ["/collective_rpc", "/reset_prefix_cache"]


def test_weights_reach_the_server_and_its_cache_is_emptied(server: Server, model_folder: Path, tmp_path: Path) -> None:
    vllm = client(server, model_folder, tmp_path)
    policy = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    for _ in range(2):
        with torch.no_grad():
            policy.model.embed_tokens.weight.add_(0.5)
        vllm.load(policy)
        assert torch.equal(server.model.model.embed_tokens.weight, policy.model.embed_tokens.weight)
        assert server.asked[-1][0] == "/reset_prefix_cache"


def test_a_server_that_keeps_its_weights_is_found_out(server: Server, model_folder: Path, tmp_path: Path) -> None:
    vllm = client(server, model_folder, tmp_path)
    server.deaf = True
    with pytest.raises(UserError, match="did not take over"):
        vllm.load(transformers.AutoModelForCausalLM.from_pretrained(model_folder))


def test_ids_go_and_come_and_equal_prompts_get_seeds_of_their_own(
    server: Server, model_folder: Path, tmp_path: Path
) -> None:
    vllm = client(server, model_folder, tmp_path)
    assert vllm.generate([[1, 2], [3], [3]], seed=4) == [[1, 2, STOP], [3, STOP], [3, STOP]]
    asked = [body for path, body in server.asked if path == "/v1/completions"]
    assert len({body["seed"] for body in asked}) == 3
    for body in asked:
        assert body["return_token_ids"]
        assert (body["stop_token_ids"], body["max_tokens"], body["temperature"]) == ([STOP], 6, 0.7)


def test_a_context_too_short_is_an_error_at_once(server: Server, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max-model-len 65"):
        client(server, model_folder, tmp_path, max_model_len=65)


def test_no_server_is_an_error_with_the_remedy(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="vllm serve"):
        VLLMServer(
            "http://127.0.0.1:9", str(model_folder), weights_dir=str(tmp_path), max_model_len=9, temperature=1.0,
            length=1, stop_id=STOP,
        )  # fmt: skip


def test_a_command_that_fails_says_so(model_folder: Path) -> None:
    with pytest.raises(UserError, match="ended with status 3"):
        start("sh -c 'exit 3'", None, str(model_folder), 64)
