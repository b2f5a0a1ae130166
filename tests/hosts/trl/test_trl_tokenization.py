"""With every chat template, policy and Q read the same ids in all stages on TRL, in rollouts and in best-of-N."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
from chat_templates import CASES, USER, each, models, tokenizer
from datasets import Dataset
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification
from trl import SFTConfig, SFTTrainer
from trl.experimental.online_dpo import OnlineDPOTrainer

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct import preflight, tokenized_rows
from prm_gym.hosts.tiny_model import CHAT_TEMPLATE
from prm_gym.hosts.trl import online_dpo, prm
from prm_gym.hosts.trl.tokenization import check_vllm, on_demonstrations
from prm_gym.policies.transformers import TransformersPolicy
from prm_gym.prm.in_process import PRMScorer
from prm_gym.prompts import load
from prm_gym.prompts.chat import adapted, prompt_ids, sequence_ids, template_of
from prm_gym.types import Message, Response, State

OBSERVATIONS, TASK = ("You see a mug 1.", "You see a desk 3."), "put a mug in desk 3."
STATES = [State("g", TASK, OBSERVATIONS[: t + 1], ("take mug 1",)[:t], ("look",)) for t in (0, 1)]
TEXTS = ["look", "take mug 1 from desk 3", "<think>a mug\n</think>look"]
WORST = (  # no system role, a generation prompt of its own, and more than a token at the end, of which none is eos
    each(USER, "<|assistant|>{{ m.content }}<|turn|>\n", "{{ raise_exception('no system role') }}")
    + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)


@pytest.mark.parametrize("prompt", ["compact", "full"])
@pytest.mark.parametrize("source", [*(case.source for case in CASES.values()), WORST], ids=[*CASES, "worst"])
def test_all_readers_agree(source: str, prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, q = models(source, tmp_path)
    tokens = AutoTokenizer.from_pretrained(policy)
    template = load(prompt)
    asked: list[list[int]] = []
    scored: list[list[int]] = []
    generate, logits_of = TransformersPolicy._generate, PRMScorer._logits_of

    def spy_policy(self: Any, rows: Any) -> Any:
        asked.extend(row.prompt.tolist() for row in rows)
        return generate(self, rows)

    def spy_q(self: Any, texts: Any) -> Any:
        scored.extend(ids.tolist() for ids in texts)
        return logits_of(self, texts)

    monkeypatch.setattr(TransformersPolicy, "_generate", spy_policy)
    monkeypatch.setattr(PRMScorer, "_logits_of", spy_q)

    async def play() -> None:
        player = TransformersPolicy(policy, prompt=prompt, temperature=1.0, max_new_tokens=2)
        scorer = PRMScorer(q, prompt=prompt)
        for state in STATES:
            await player.act(state)
            await scorer.logits([(state, Response(text, "", text)) for text in TEXTS])
        await player.close()
        await scorer.close()

    asyncio.run(play())
    rows = [
        {"prompt": template.messages(state), "completion": [{"role": "assistant", "content": text}]}
        for state in STATES
        for text in TEXTS
    ]
    for loss, read in (("soft_bce", scored), ("value", [ids for ids in asked for _ in TEXTS])):
        made = [prm.to_ids(row, tokens, loss) for row in rows]
        assert [each["chosen_input_ids"] for each in made] == read
        assert [each["length"] for each in made] == list(map(len, read))
    whole = [tokenized_rows.sft_whole_row(row, tokens, 4096)["input_ids"] for row in rows]
    end = tokens.convert_tokens_to_ids(template_of(tokens).end)
    assert [ids[-1] for ids in whole] == [end] * len(rows)
    assert [ids[:-1] for ids in whole] == scored
    assert [ids[: len(before)] for ids, before in zip(scored, [i for i in asked for _ in TEXTS], strict=True)] == [
        ids for ids in asked for _ in TEXTS
    ]
    assert all(ids == tokens.apply_chat_template(
        adapted(tokens, template.messages(state)), add_generation_prompt=True, return_dict=False
    ) for ids, state in zip(asked, STATES, strict=True))  # fmt: skip


def test_online_dpo_samples_from_the_prompt_and_scores_what_q_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, q = models(WORST, tmp_path)
    tokens = AutoTokenizer.from_pretrained(policy)
    chats: dict[str, list[Message]] = {
        name: [{"role": "system", "content": "You act."}, {"role": "user", "content": text}]
        for name, text in (("prompt", "You see a mug 1."), ("exploration_prompt", "Search. You see a mug 1."))
    }
    Dataset.from_list([chats] * 8).to_parquet(str(tmp_path / "prompts" / "train.parquet"))
    seen: dict[str, Any] = {"read": [], "answers": []}
    generate, forward, score = (
        LlamaForCausalLM.generate,
        OnlineDPOTrainer._forward,
        LlamaForSequenceClassification.forward,
    )

    def spy_generate(self: Any, *, input_ids: Any, **options: Any) -> Any:
        seen["sampled from"], seen["ends"] = input_ids.tolist(), options["generation_config"].eos_token_id
        return generate(self, input_ids=input_ids, **options)

    def spy_forward(self: Any, model: Any, prompt: Any, mask: Any, completion: Any, *rest: Any) -> Any:
        seen["trained on"] = prompt.tolist()
        seen["answers"] = tokens.batch_decode(completion, skip_special_tokens=True)
        return forward(self, model, prompt, mask, completion, *rest)

    def spy_score(self: Any, input_ids: Any, attention_mask: Any, **rest: Any) -> Any:
        lengths = attention_mask.sum(1).tolist()
        seen["read"] += [row[:n] for row, n in zip(input_ids.tolist(), lengths, strict=True)]
        return score(self, input_ids=input_ids, attention_mask=attention_mask, **rest)

    monkeypatch.setattr(LlamaForCausalLM, "generate", spy_generate)
    monkeypatch.setattr(OnlineDPOTrainer, "_forward", spy_forward)
    monkeypatch.setattr(LlamaForSequenceClassification, "forward", spy_score)
    options = {
        "model_name_or_path": policy, "reward_model_path": q, "dataset_name": tmp_path / "prompts",
        "output_dir": tmp_path / "out", "max_steps": 1, "per_device_train_batch_size": 2, "max_new_tokens": 4,
        "exploration_probability": 1.0, "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "report_to": "none", "save_strategy": "no",
    }  # fmt: skip
    online_dpo.main([text for name, value in options.items() for text in (f"--{name}", str(value))])
    assert seen["sampled from"] == [prompt_ids(tokens, chats["exploration_prompt"])] * 4
    assert seen["trained on"] == [prompt_ids(tokens, chats["prompt"])] * 4
    assert seen["read"] == [sequence_ids(tokens, chats["prompt"], text)[:-1] for text in seen["answers"]]
    assert tokens.convert_tokens_to_ids("<|turn|>") in seen["ends"]


EPISODE: dict[str, list[Message]] = {
    "prompt": [{"role": "user", "content": "You see a mug 1."}],
    "completion": [
        {"role": "assistant", "content": "take mug 1"}, {"role": "user", "content": "You see a desk 3."},
        {"role": "assistant", "content": "look"},
    ],
}  # fmt: skip


def prepared(trainer: type[Any], folder: Path, **options: Any) -> list[dict[str, Any]]:
    """The rows that an SFT trainer makes of EPISODE."""
    common = {"output_dir": str(folder / "out"), "use_cpu": True, "bf16": False, "report_to": "none"}
    arguments = SFTConfig(**common, **options)
    made = trainer(model=str(folder / "policy"), args=arguments, train_dataset=Dataset.from_list([EPISODE] * 2))
    return [{name: row[name] for name in ("input_ids", "labels")} for row in made.train_dataset]


@pytest.mark.parametrize(
    "options",
    [{}, {"completion_only_loss": False}, {"assistant_only_loss": True}, {"max_length": 20}],
    ids=lambda options: next(iter(options), "default"),
)
def test_the_embedded_recipes_train_on_what_trl_makes_itself(options: dict[str, Any], tmp_path: Path) -> None:
    models(CHAT_TEMPLATE, tmp_path)
    ours, theirs = (prepared(trainer, tmp_path, **options) for trainer in (on_demonstrations(SFTTrainer), SFTTrainer))
    assert ours == theirs
    assert len(ours) == 2


@pytest.mark.parametrize("name", ["plain", "an end that is not eos", "opens reasoning in the generation prompt"])
def test_sft_needs_no_generation_marks_and_shows_each_turn_as_the_policy_meets_it(name: str, tmp_path: Path) -> None:
    policy, _ = models(CASES[name].source, tmp_path)
    tokens = AutoTokenizer.from_pretrained(policy)
    rows = prepared(on_demonstrations(SFTTrainer), tmp_path, assistant_only_loss=True)
    turns = [sequence_ids(tokens, EPISODE["prompt"], "take mug 1")]
    turns.append(sequence_ids(tokens, [*EPISODE["prompt"], *EPISODE["completion"][:2]], "look"))
    assert [row["input_ids"] for row in rows] == (turns[1:] if CASES[name].grows else turns) * 2
    learned = [tokens.decode([label for label in row["labels"] if label != -100]) for row in rows]
    end = CASES[name].end
    assert learned == ([f"take mug 1{end}look{end}"] if CASES[name].grows else [f"take mug 1{end}", f"look{end}"]) * 2


def test_sft_names_a_template_that_cannot_show_a_conversation(tmp_path: Path) -> None:
    policy, _ = models(each(USER, ""), tmp_path)
    with pytest.raises(
        UserError, match=f"^{policy}: chat_template: the chat template leaves out what the assistant said"
    ):
        prepared(on_demonstrations(SFTTrainer), tmp_path)


def test_a_host_that_stops_elsewhere_is_named(tmp_path: Path) -> None:
    tokenizer(CASES["an end that is not eos"].source, tmp_path)
    with pytest.raises(
        UserError, match=r"ends a turn with <\|turn\|>, the host with eos_token <\|end\|>; save the token"
    ):
        preflight.load_tokenizer(str(tmp_path), None, "model_name_or_path")


def test_a_second_bos_through_vllm_is_refused(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokens = tokenizer(CASES["plain"].source, tmp_path)
    check_vllm(tokens, "model")
    tokens.backend_tokenizer.post_processor = TemplateProcessing(single="<|turn|> $A", special_tokens=[("<|turn|>", 9)])
    with pytest.raises(UserError, match="adds special tokens once more"):
        check_vllm(tokens, "model")
