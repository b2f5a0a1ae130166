"""A recipe with `serve` and `serve_prm` on real vLLM servers, which PRM_GYM_VLLM_PYTHON runs: minutes long."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from miniature import write_miniature
from vllm_serving import PYTHON
from waiting import until

from prm_gym.policies.best_of_n import BestOf
from prm_gym.runs.iteration import Run
from prm_gym.runs.start import games
from prm_gym.store import read_episodes
from prm_gym.types import Response

pytest.importorskip("alfworld")
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="PRM_GYM_VLLM_PYTHON names no interpreter with vLLM"),
]
COMMAND = (
    f"{PYTHON} -m vllm.entrypoints.openai.api_server --model {{model}} --port {{port}} --host 127.0.0.1 "
    "--dtype float32 --enforce-eager --max-model-len 512"
)


def listed(pids: list[int]) -> list[str]:
    """Those that `ps` lists, zombies too."""
    found = subprocess.run(["ps", "-o", "pid=", "-p", ",".join(map(str, pids))], capture_output=True, text=True)
    return found.stdout.split()


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]
    return found + [below for child in found for below in children(child)]


def test_a_policy_and_its_q_on_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q's logits are those in process; a server that is killed comes back and best-of-N goes on; none is left over."""
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
        monkeypatch.setenv(name, value)
    folder = write_miniature(tmp_path / "recipe")
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    model = values["start"]["model"]
    values["start"] = {"model": model}
    values["games"]["splits"] = {"train": 6, "valid_seen": 2, "valid_unseen": 2}
    values["sampling"] |= {"serve": {"command": COMMAND, "wait": 1500}, "serve_prm": {"command": COMMAND, "wait": 1500}}
    values["evaluation"]["games"] = 2
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))

    run = Run(folder, tmp_path / "run", 1)
    games(run).make()
    run.policy(0).symlink_to(model)
    torch.manual_seed(0)
    q = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    q.score.weight.data.normal_()
    q.save_pretrained(run.iter / "prm")
    transformers.AutoTokenizer.from_pretrained(model).save_pretrained(run.iter / "prm")

    with run.servers:
        scoring, chosen = run.scoring(), run.games("valid_unseen", 2)
        policy = run.best_of(run.sampler(0, 0.7), BestOf(4))
        guards = [replicas._replicas[0].process for _, replicas in run.servers._up.values()]
        started = [pid for guard in guards if guard for pid in children(guard.pid)]
        assert len(started) >= 4, "each server has a worker"
        run.collect(chosen, policy, tmp_path / "first", max_games=1, iteration=0, seed=0)
        [episode] = read_episodes(tmp_path / "first")
        pairs = [
            (episode.state_at(t), Response(f"ACTION: {action}", "", action))
            for t in range(min(3, episode.actions))
            for action in ("look", "inventory")
        ]

        async def logits(scorer):
            try:
                return await scorer.logits(pairs)
            finally:
                await scorer.close()

        served, ours = asyncio.run(logits(scoring())), asyncio.run(logits(run.scorer()))
        print("largest difference of a logit:", max(abs(a - b) for a, b in zip(served, ours, strict=True)))
        assert served == pytest.approx(ours, abs=1e-3)
        assert max(ours) - min(ours) > 0.05

        guard = run.servers._up["serve"][1]._replicas[0].process
        assert guard is not None
        os.kill(children(guard.pid)[0], signal.SIGKILL)
        policy = run.best_of(run.sampler(0, 0.7), BestOf(4))  # waits until it is back
        run.collect(chosen, policy, tmp_path / "second", max_games=2, iteration=0, seed=0)
        replaced = run.servers._up["serve"][1]._replicas[0].process
        assert replaced is not None
        assert replaced.pid != guard.pid
        started += children(replaced.pid)
    second = list(read_episodes(tmp_path / "second"))
    assert len(second) == len({each.episode_id for each in second}) == 2
    assert episode.episode_id in {each.episode_id for each in second}
    assert until(lambda: not listed(started))  # a killed process of gigabytes takes a moment to end
