"""`prm-gym model`: a checkpoint, what it says of itself, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("alfworld")
pytest.importorskip("transformers", reason="needs the extra 'trl'")

import datasets
from bpe_tokenizers import write_model
from transformers import AutoTokenizer

from prm_gym import provenance
from prm_gym.cli import main
from prm_gym.envs.games import find_games
from prm_gym.inference.checkpoint import load_tokenizer
from prm_gym.labels import sft
from prm_gym.policies.expert import ExpertPolicy
from prm_gym.pretrained.checkpoint import CHAT_TEMPLATE, conversations
from prm_gym.prompts.chat import sequence_ids
from prm_gym.rollout import rollout


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    write_model(folder)
    return folder


def test_a_vocabulary_cut_to_a_dataset(
    model: Path, games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout(find_games(games, "train"), ExpertPolicy(), tmp_path / "demonstrations", progress=False)
    sft.label([tmp_path / "demonstrations"], tmp_path / "sft", prompt="full", train_share=0.5)
    capsys.readouterr()
    status = main(["model", str(model), str(tmp_path / "cut"), "--vocabulary-of", str(tmp_path / "sft")])
    shown = capsys.readouterr().out
    whole, cut = AutoTokenizer.from_pretrained(model), load_tokenizer(tmp_path / "cut")
    whole.chat_template = CHAT_TEMPLATE
    assert status == 0
    assert shown.startswith(f"{tmp_path / 'cut'}: ")
    assert shown.endswith(f" parameters, {len(cut):,} tokens of {len(whole):,}\n")
    count = 0
    for conversation in conversations([tmp_path / "sft"]):
        ids = sequence_ids(cut, *conversation)
        assert cut.convert_ids_to_tokens(ids) == whole.convert_ids_to_tokens(sequence_ids(whole, *conversation))
        count += 1
    assert count > 4
    record = provenance.read(tmp_path / "cut")
    assert record is not None
    assert record["settings"]["source"] == str(model)
    assert [each["name"] for each in record["settings"]["vocabulary_of"]] == [str(tmp_path / "sft")]


def test_what_is_there_is_not_written_over(model: Path, refusal) -> None:
    assert refusal("model", "anything", model) == f"{model}: holds a model already; name another folder"


@pytest.fixture
def no_progress_bars() -> Iterator[None]:
    """As in a process of the command, where datasets is imported after `hushed` has said so."""
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.usefixtures("no_progress_bars")
def test_a_dataset_without_responses_is_refused(model: Path, tmp_path: Path, refusal) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"text": "no chat"}\n')
    said = refusal("model", model, tmp_path / "out", "--vocabulary-of", tmp_path / "rows")
    assert said == f"{tmp_path / 'rows'}: has no prompts with responses; name a dataset of `prm-gym label sft`"
    said = refusal("model", model, tmp_path / "out", "--vocabulary-of", tmp_path / "none")
    assert said == f"{tmp_path / 'none'}: no such dataset folder; run `prm-gym label` first"
