"""Rows for the host: content-named files, token ids, and rows that are refused before training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from oi_world import World, write_labels

from prm_gym import provenance
from prm_gym.errors import UserError
from prm_gym.hosts import losses
from prm_gym.hosts.open_instruct import (
    checkpoint_format,
    jsonl_data,
    online_dpo,
    preflight,
    reward_modeling,
    tokenized_rows,
)
from prm_gym.hosts.scored_rows import soft_bce_row
from prm_gym.prompts.chat import prompt_ids, sequence_ids

pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
Labels = Callable[..., Path]


def localise(folder: Path, out: Path, split: str = "train", loss: str = "soft_bce") -> Path:
    columns = losses.SOURCE_COLUMNS[loss]
    local, splits, _ = jsonl_data.localise(
        [(str(folder), "1.0")], [split], columns, out, reward_modeling.check_row(loss), "recipe", "mixer"
    )
    assert splits == ["train"]  # the only split of a local file that the host opens
    return Path(local[0][0])


def test_a_file_is_named_after_its_content(tmp_path: Path) -> None:
    """The host caches tokenised data under the name, so other labels must have another."""
    folder = write_labels(tmp_path / "a", "monte_carlo", 8)
    first = localise(folder, tmp_path / "out")
    assert localise(folder, tmp_path / "out") == first
    write_labels(folder, "monte_carlo", 8, seed=1)
    assert localise(folder, tmp_path / "out") != first
    assert localise(folder, tmp_path / "out", "test").name.startswith("test-")


def test_rows_survive_and_are_numbered(tmp_path: Path) -> None:
    folder = write_labels(tmp_path / "a", "monte_carlo", 8)
    world = World()
    wanted = [world.monte_carlo() for _ in range(8)]
    rows = [json.loads(line) for line in localise(folder, tmp_path / "out").read_text("utf-8").splitlines()]
    assert [row["row"] for row in rows] == list(range(8))
    assert [(r["prompt"], r["completion"], r["target"]) for r in rows] == [
        (r["prompt"], r["completion"], r["target"]) for r in wanted
    ]


def edited(tmp_path: Path, kind: str, edit: Callable[[dict[str, Any]], Any]) -> Path:
    rows = [getattr(World(), kind)() for _ in range(3)]
    edit(rows[1])
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "loss", "edit", "field"),
    [
        ("monte_carlo", "soft_bce", lambda row: row.update(target=1.2), "target"),
        ("monte_carlo", "soft_bce", lambda row: row.update(target=None), "target"),
        ("monte_carlo", "soft_bce", lambda row: row.update(prompt=[]), "prompt"),
        ("monte_carlo", "soft_bce", lambda row: row["prompt"].reverse(), "prompt"),
        ("monte_carlo", "soft_bce", lambda row: row["completion"][0].update(role="user"), "completion"),
        ("preferences", "bradley_terry", lambda row: row["rejected"][0].update(content=None), "rejected"),
        ("monte_carlo", "soft_bce", lambda row: row["prompt"][1].update(content=""), "prompt"),
        ("inverse", "inverse", lambda row: row.update(terminated=False, next_prompt=[]), "next_prompt"),
    ],
)
def test_a_bad_row_names_file_and_column(
    tmp_path: Path, kind: str, loss: str, edit: Callable[[dict[str, Any]], Any], field: str
) -> None:
    path = edited(tmp_path, kind, edit)
    with pytest.raises(UserError, match=f"rows.jsonl: {field}: "):
        localise(path, tmp_path / "out", loss=loss)


def test_a_turn_ended_at_once_is_a_response_too(tmp_path: Path) -> None:
    """Stage 3 scores such responses, so Q has to be trained on them."""
    path = edited(tmp_path, "monte_carlo", lambda row: row["completion"][0].update(content=""))
    rows = [json.loads(line) for line in localise(path, tmp_path / "out").read_text("utf-8").splitlines()]
    assert [row["completion"][0]["content"] == "" for row in rows] == [False, True, False]


def test_labels_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder = write_labels(tmp_path / "a", "monte_carlo", 8)
    with pytest.raises(UserError, match="no column chosen, rejected"):
        localise(folder, tmp_path / "out", loss="bradley_terry")


def test_a_folder_or_split_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data set"):
        localise(tmp_path / "none", tmp_path / "out")
    folder = write_labels(tmp_path / "a", "monte_carlo", 8)
    with pytest.raises(UserError, match="cannot read split 'validation'"):
        localise(folder, tmp_path / "out", "validation")


def test_training_shows_q_the_ids_that_stage_3_scores(untrained: Path) -> None:
    """The prompt as the policy is asked and the response as it would be sampled, without the end of the turn."""
    tokenizer = preflight.load_tokenizer(str(untrained), None, "model_name_or_path")
    row = World().monte_carlo()
    sampled = tokenizer.encode(row["completion"][0]["content"], add_special_tokens=False)
    ids = soft_bce_row(row, tokenizer)[losses.FIRST]
    assert ids == prompt_ids(tokenizer, row["prompt"]) + sampled


def test_q_reads_what_the_template_makes_up_to_the_end_of_the_turn(untrained: Path) -> None:
    tokenizer = preflight.load_tokenizer(str(untrained), None, "model_name_or_path")
    world = World()
    for row in [world.monte_carlo() for _ in range(50)]:
        theirs = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        assert [*soft_bce_row(row, tokenizer)[losses.FIRST], tokenizer.eos_token_id] == theirs


def test_sft_has_loss_on_the_response_alone_and_none_on_rows_too_long(untrained: Path) -> None:
    tokenizer = preflight.load_tokenizer(str(untrained), None, "model_name_or_path")
    row = World().sft()
    prompt, whole = (
        prompt_ids(tokenizer, row["prompt"]),
        sequence_ids(tokenizer, row["prompt"], row["completion"][0]["content"]),
    )
    made = tokenized_rows.sft_row(row, tokenizer, max_seq_length=len(whole))
    assert made["input_ids"] == whole
    assert made["labels"] == [-100] * len(prompt) + whole[len(prompt) :]
    assert set(tokenized_rows.sft_row(row, tokenizer, max_seq_length=len(whole) - 1)["labels"]) == {-100}


def test_sft_reads_every_turn_of_an_episode(untrained: Path) -> None:
    """A demonstration under a multi-turn prompt: one row, whose completion is the whole episode."""
    tokenizer = preflight.load_tokenizer(str(untrained), None, "model_name_or_path")
    says = ["go to shelf 1", "take mug 1 from shelf 1", "go to desk 1"]
    seen = ["On the shelf 1, you see a mug 1.", "You pick up the mug 1."]
    turns = [{"role": "assistant", "content": says[0]}]
    for observation, action in zip(seen, says[1:], strict=True):
        turns += [{"role": "user", "content": observation}, {"role": "assistant", "content": action}]
    row = {"prompt": World().sft()["prompt"], "completion": turns}
    theirs = tokenizer.apply_chat_template(row["prompt"] + turns, return_dict=False)  # what TRL trains on
    whole = tokenized_rows.sft_whole_row(row, tokenizer, max_seq_length=512)
    assert whole["input_ids"] == whole["labels"] == theirs
    made = tokenized_rows.sft_row(row, tokenizer, max_seq_length=512)
    assert made["input_ids"] == theirs
    trained = [label for label in made["labels"] if label != -100]
    end = tokenizer.eos_token_id
    assert trained == [i for text in says for i in [*tokenizer.encode(text, add_special_tokens=False), end]]


def test_the_length_filter_sees_the_whole_sequence() -> None:
    row = {tokenized_rows.FIRST: [1] * 10, tokenized_rows.SECOND: [1] * 12}
    assert tokenized_rows.within_length(row, None, max_token_length=12, max_prompt_token_length=3)
    assert not tokenized_rows.within_length(row, None, max_token_length=11, max_prompt_token_length=30)


def test_a_batch_is_padded_on_the_right_to_the_longest_of_both() -> None:
    rows = [
        {tokenized_rows.FIRST: [1, 2], tokenized_rows.SECOND: [3], tokenized_rows.ROW: 16777217, "expert": True},
        {tokenized_rows.FIRST: [4], tokenized_rows.SECOND: [5, 6, 7], tokenized_rows.ROW: 0, "expert": False},
    ]
    batch = tokenized_rows.Collator(pad_token_id=9)(rows)
    assert batch[tokenized_rows.FIRST].tolist() == [[1, 2, 9], [4, 9, 9]]
    assert batch[tokenized_rows.SECOND].tolist() == [[3, 9, 9], [5, 6, 7]]
    assert batch[tokenized_rows.ROW].tolist() == [16777217, 0]  # beyond what float32 holds
    assert batch["expert"].tolist() == [1.0, 0.0]


# --- before Stage 2 and Stage 3 -------------------------------------------------------------------------------------


def stage2(model: Path, labels: Path, out: Path, **changes: Any) -> Any:
    args = SimpleNamespace(
        **{
            "loss": "soft_bce", "max_token_length": 200, "per_device_train_batch_size": 4,
            "dataset_mixer_list": [str(labels), "1.0"], "dataset_mixer_list_splits": ["train"],
            "dataset_mixer_eval_list": [], "dataset_mixer_eval_list_splits": [], **changes,
        }
    )  # fmt: skip
    model_config = SimpleNamespace(model_name_or_path=str(model), model_revision=None)
    return reward_modeling.prepare(args, SimpleNamespace(), model_config, out, Path("prm.yaml"))


def copy_model(model: Path, to: Path, **config: Any) -> Path:
    to.mkdir()
    for file in model.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    values = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**values, **config}))
    return to


def test_an_embedding_smaller_than_the_tokenizer_is_refused(untrained: Path, labels: Labels, tmp_path: Path) -> None:
    """The host would grow it, and Stage 3 would find another vocabulary in the PRM than in the policy."""
    model = copy_model(untrained, tmp_path / "m", vocab_size=100)
    with pytest.raises(UserError, match="embedding 100 rows"):
        stage2(model, labels("monte_carlo", 8), tmp_path / "out")


def test_a_pad_token_is_found_in_the_vocabulary_or_asked_for(untrained: Path, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(untrained)
    size = len(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "spare")
    found = preflight.load_tokenizer(str(tmp_path / "spare"), None, "model_name_or_path")
    assert found.pad_token_id != found.eos_token_id
    assert len(found) == size
    for file in (tmp_path / "spare").glob("*.json"):
        file.write_text(file.read_text("utf-8").replace("<|pad|>", "<|none|>"), "utf-8")
    with pytest.raises(UserError, match="no pad token apart from its end token"):
        preflight.load_tokenizer(str(tmp_path / "spare"), None, "model_name_or_path")


def test_sequences_that_are_all_too_long(untrained: Path, labels: Labels, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_token_length: all of 8"):
        stage2(untrained, labels("monte_carlo", 8), tmp_path / "out", max_token_length=5)
    with pytest.raises(UserError, match="2048 positions"):
        stage2(untrained, labels("monte_carlo", 8), tmp_path / "out", max_token_length=4096)


def test_less_data_than_a_batch(untrained: Path, labels: Labels, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="8 rows do not fill one batch of 16"):
        stage2(untrained, labels("monte_carlo", 8), tmp_path / "out", per_device_train_batch_size=16)


def as_q(model: Path, out: Path) -> Path:
    """A copy of `model` whose config says that it is a Q; its weights are not read here."""
    shutil.copytree(model, out, dirs_exist_ok=True)
    config = json.loads((out / "config.json").read_text("utf-8"))
    config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    (out / "config.json").write_text(json.dumps(config), "utf-8")
    return out


def stage3(
    model: Path, prompts: Path, out: Path, *, prm: Path | None = None, dtype: str = "float32", **changes: Any
) -> Any:
    args = SimpleNamespace(
        **{
            "reward_model_path": str(prm or as_q(model, out.parent / "q")), "reward_model_revision": None,
            "response_length": 8,
            "dataset_mixer_dict": {str(prompts): 1.0}, "dataset_train_splits": ["train"],
            "dataset_eval_mixer_dict": {str(prompts): 1.0}, "dataset_eval_splits": ["test"],
            "stop_token": "eos", "non_stop_penalty": False, "num_generation_per_prompt": 2,
            "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "num_mini_batches": 1,
            "temperature": 0.7, "exploration_probability": 0.0, "checkpoint_every": 0,
            "vllm_server": None, "vllm_command": None, **changes,
        }
    )  # fmt: skip
    dataset_config = SimpleNamespace(max_prompt_token_length=changes.pop("max_prompt_token_length", 100))
    model_config = SimpleNamespace(model_name_or_path=str(model), model_revision=None, torch_dtype=dtype)
    online_dpo.prepare(args, dataset_config, model_config, out, Path("dpo.yaml"))
    return args


def test_stage_3_refuses_a_q_that_read_other_tokens(untrained: Path, labels: Labels, tmp_path: Path) -> None:
    old = as_q(untrained, tmp_path / "old")
    provenance.write(old, {"kind": "training", "stage": "prm"})
    with pytest.raises(UserError, match=r"old/provenance.json: reads: "):
        stage3(untrained, labels("prompts", 8), tmp_path / "out", prm=old)


def test_stage_3_keeps_the_whole_prompt(untrained: Path, labels: Labels, tmp_path: Path) -> None:
    """The host's tokeniser drops the last message of a list, so that system and user would lose the user."""
    args = stage3(untrained, labels("prompts", 8), tmp_path / "out")
    tokenizer = preflight.load_tokenizer(str(untrained), None, "model_name_or_path")
    for line in Path(next(iter(args.dataset_mixer_dict))).read_text("utf-8").splitlines():
        row = json.loads(line)
        assert row["messages"][:-1] == row["prompt"]
        theirs = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=False)
        assert theirs == prompt_ids(tokenizer, row["prompt"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_eval_mixer_dict": None}, "dataset_eval_mixer: missing"),
        ({"dataset_eval_splits": ["test", "test"]}, "dpo.yaml: dataset_eval_mixer: 2 splits for 1 data sets"),
        ({"stop_token": None}, "stop_token"),
        ({"non_stop_penalty": True}, "non_stop_penalty"),
        ({"num_generation_per_prompt": 4}, "num_generation_per_prompt"),
        ({"per_device_train_batch_size": 3}, "per_device_train_batch_size"),
        ({"exploration_probability": 1.5}, "exploration_probability"),
        ({"temperature": 0.0}, "temperature"),
        ({"vllm_command": "no-such-vllm serve"}, "vllm_command: no command no-such-vllm"),
        ({"vllm_server": "http://127.0.0.1:9"}, "vllm_server: no answer"),
        ({"dtype": "bfloat16"}, "torch_dtype: 16-bit weights"),
        ({"response_length": 2000}, "2048 positions"),
    ],
)
def test_settings_that_would_fail_late(
    untrained: Path, labels: Labels, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stage3(untrained, labels("prompts", 8), tmp_path / "out", **changes)


def test_a_prm_of_another_vocabulary_is_refused(untrained: Path, labels: Labels, tmp_path: Path) -> None:
    smaller = copy_model(untrained, tmp_path / "m", vocab_size=999)
    with pytest.raises(UserError, match="reward_model_path: the PRM's embedding has 999 rows"):
        stage3(untrained, labels("prompts", 8), tmp_path / "o", prm=as_q(smaller, tmp_path / "q"))
    prm = as_q(untrained, tmp_path / "swapped")
    tokenizer = transformers.AutoTokenizer.from_pretrained(prm)
    tokenizer.add_tokens(["another piece"])
    tokenizer.save_pretrained(prm)
    with pytest.raises(UserError, match="reward_model_path: the PRM's vocabulary"):
        stage3(untrained, labels("prompts", 8), tmp_path / "o", prm=prm)


def test_a_run_resumes_at_its_newest_checkpoint(tmp_path: Path) -> None:
    """The host takes whichever it finds first."""
    assert online_dpo.step_to_resume(tmp_path) == 1
    for step in (8, 10, 9):
        (tmp_path / f"step_{step}").mkdir()
    (tmp_path / "partial").mkdir()
    assert online_dpo.step_to_resume(tmp_path) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"step_10", "partial"}


# --- checkpoints of transformers 5 ----------------------------------------------------------------------------------


def test_a_checkpoint_of_transformers_5_reads_as_one_of_4(tmp_path: Path) -> None:
    source = tmp_path / "pi_0"
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"weights")
    rope = {"rope_theta": 5e5, "rope_type": "llama3", "factor": 32.0}
    (source / "config.json").write_text(json.dumps({"rope_parameters": rope, "hidden_size": 8}))
    (source / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<|user|>"], "backend": "x"})
    )
    view = Path(checkpoint_format.for_host(str(source), tmp_path / "data") or "")
    config = json.loads((view / "config.json").read_text())
    scaling = {"rope_type": "llama3", "factor": 32.0}
    assert config == {"rope_theta": 5e5, "rope_scaling": scaling, "hidden_size": 8}
    tokenizer = json.loads((view / "tokenizer_config.json").read_text())
    assert tokenizer == {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<|user|>"]}
    assert (view / "model.safetensors").read_bytes() == b"weights"
    assert checkpoint_format.for_host(str(view), tmp_path / "again") == str(view)


@pytest.mark.parametrize("config", ["{", "[]"])
def test_a_config_that_cannot_be_read_is_left_to_the_host(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    assert checkpoint_format.for_host(str(tmp_path), tmp_path / "data") == str(tmp_path)


def test_a_rotary_embedding_for_each_layer_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}))
    with pytest.raises(UserError, match="rope_parameters"):
        checkpoint_format.for_host(str(tmp_path), tmp_path / "data")
