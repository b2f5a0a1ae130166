"""The in-process policy: real tiny model, real tokenizer, many episodes at once."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest
from chat_templates import CASES, models
from tiny_models import language_model, loaded, state, stock_greedy, stock_logprobs
from transformers import AutoTokenizer

from prm_gym import prompts
from prm_gym.errors import UserError
from prm_gym.policies.transformers import TransformersPolicy
from prm_gym.types import PromptTooLong

NEW = 6


def policy(**options):
    return TransformersPolicy(
        language_model(), **{"prompt": "compact", "temperature": 1.0, "max_new_tokens": NEW, "max_batch": 8} | options
    )


def ask(policy, *calls):
    """The responses to `calls`, (state, options of `act`), all under way at once."""

    async def all_calls():
        responses = await asyncio.gather(*(policy.act(s, **options) for s, options in calls))
        await policy.close()
        return responses

    return asyncio.run(all_calls())


def ids(responses):
    return [response.token_ids for response in responses]


def test_greedy_responses_are_those_of_generate():
    tokenizer = AutoTokenizer.from_pretrained(language_model())
    states = [state(turns, odd="?" * i) for i in range(4) for turns in (0, 3, 6)]
    answers = ask(policy(temperature=0), *((s, {}) for s in states))
    for s, (response,) in zip(states, answers, strict=True):
        chat = prompts.load("compact").messages(s)
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert list(response.token_ids) == stock_greedy(prompt, NEW)
        assert response.prompt_tokens == len(prompt)
        assert response.response_tokens == len(response.token_ids)


@pytest.mark.parametrize(
    "name",
    ["drops earlier reasoning", "opens reasoning in the generation prompt", "system before the last user", "no end"],
)
def test_responses_are_those_of_generate_where_a_prompt_does_not_extend_the_turn_before(name, tmp_path):
    """The cache keeps what two prompts share by their ids, whatever the chat template did in between."""
    model = shutil.copytree(language_model(), tmp_path / "model")
    (model / "chat_template.jinja").write_text(CASES[name].source)
    tokenizer = AutoTokenizer.from_pretrained(model)
    thinking = tmp_path / "thinking.jinja"
    thinking.write_text(
        "{%- set multi_turn = true -%}{%- macro system() -%}Be brief.{%- endmacro -%}"
        "{%- macro user(task, history, observation, admissible_commands, turn, explore) -%}"
        "{{ observation }}{%- endmacro -%}"
        "{%- macro response(reason, action) -%}<think>{{ reason }}</think>{{ action }}{%- endmacro -%}"
    )
    player = TransformersPolicy(model, prompt=str(thinking), temperature=0, max_new_tokens=NEW, max_batch=2)

    async def play():
        said = [await asyncio.gather(*(player.act(state(turn, odd=odd)) for odd in ("?", "!"))) for turn in range(6)]
        await player.close()
        return said

    prompts_read = []
    for turn, both in enumerate(asyncio.run(play())):
        for odd, (response,) in zip(("?", "!"), both, strict=True):
            chat = prompts.load(str(thinking)).messages(state(turn, odd=odd))
            prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            assert list(response.token_ids) == stock_greedy(prompt, NEW)
            assert response.prompt_tokens == len(prompt)
            prompts_read.append(prompt + list(response.token_ids))
    assert any(later[: len(before)] != before for before, later in zip(prompts_read, prompts_read[2:], strict=False))


def test_a_turn_ends_where_the_template_ends_it(tmp_path):
    """Though neither the tokenizer's eos nor the generation config name that token."""
    model, _ = models(CASES["an end that is not eos"].source, tmp_path)
    end = AutoTokenizer.from_pretrained(model).convert_tokens_to_ids("<|turn|>")
    player = TransformersPolicy(model, prompt="compact", temperature=50.0, max_new_tokens=200)
    (responses,) = ask(player, (state(1), {"n": 64}))
    ended = [response for response in responses if end in response.token_ids]
    assert ended
    assert all(response.finished and response.token_ids.index(end) == len(response.token_ids) - 1 for response in ended)


def test_a_seed_gives_the_same_response_whoever_else_is_in_the_batch():
    mine = (state(3), {"seed": 5})
    alone = ask(policy(), mine)[0]
    mates = [(state(turns, odd="!" * turns), {"seed": turns, "n": 3}) for turns in (0, 8, 2, 5)]
    crowded = ask(policy(), *mates, mine)[-1]
    assert ids(alone) == ids(crowded)


def test_samples_and_seeds_and_states_differ():
    sampler = policy(max_batch=64, temperature=3.0)
    many = ask(
        sampler, (state(2), {"n": 8, "seed": 0}), (state(2), {"n": 8, "seed": 1}), (state(3), {"n": 8, "seed": 0})
    )
    responses = [response for answer in many for response in ids(answer)]
    assert len(set(responses)) > 20


def test_more_samples_keep_the_first_ones():
    few, more = ask(policy(), (state(2), {"n": 2, "seed": 4}), (state(2), {"n": 20, "seed": 4}))
    assert ids(few) == ids(more)[:2]


def test_the_end_token_is_in_the_ids_and_not_in_the_text():
    tokenizer = AutoTokenizer.from_pretrained(language_model())
    ends = loaded().generation_config.eos_token_id
    (responses,) = ask(policy(temperature=2.0), (state(1), {"n": 40}))
    finished = [r for r in responses if r.finished]
    cut = [r for r in responses if not r.finished]
    assert finished
    assert cut
    assert all(r.token_ids[-1] in ends and not set(ends) & set(r.token_ids[:-1]) for r in finished)
    assert all(r.text == tokenizer.decode(r.token_ids[:-1], skip_special_tokens=True) for r in finished)
    assert all(len(r.token_ids) == NEW and not set(ends) & set(r.token_ids) for r in cut)
    assert all((r.reason, r.action) == prompts.parse(r.text) for r in responses)


def test_responses_carry_the_log_probability_of_their_tokens():
    tokenizer = AutoTokenizer.from_pretrained(language_model())
    states = [state(turns) for turns in range(4)]
    for s, responses in zip(states, ask(policy(temperature=0.5), *((s, {"n": 5}) for s in states)), strict=True):
        chat = prompts.load("compact").messages(s)
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        for response in responses:
            expected = stock_logprobs(prompt, response.token_ids, 0.5)
            assert (response.logprob, response.sampling_logprob) == pytest.approx(expected, abs=5e-4)


def test_a_prompt_over_the_context_is_an_error_of_its_own():
    async def both():
        policies = policy()
        fits, over = await asyncio.gather(policies.act(state(1)), policies.act(state(60)), return_exceptions=True)
        await policies.close()
        return fits, over

    fits, over = asyncio.run(both())
    assert len(fits) == 1
    assert isinstance(over, PromptTooLong)


def test_two_event_loops_one_after_the_other():
    sampler = policy()
    first = asyncio.run(sampler.act(state(2), seed=1))
    assert ids(first) == ids(asyncio.run(sampler.act(state(2), seed=1)))


@pytest.mark.parametrize(("key", "value"), [("pad_token", None), ("pad_token", "<|end|>")])
def test_a_tokenizer_without_a_pad_token_of_its_own_is_refused(tmp_path, key, value):
    folder = tmp_path / "policy"
    shutil.copytree(language_model(), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match=f"{folder}: pad_token: "):
        TransformersPolicy(folder, prompt="compact", temperature=0, max_new_tokens=1)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        TransformersPolicy(tmp_path, prompt="compact", temperature=0, max_new_tokens=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: got 0; must be at least 1"),
        ({"temperature": -1.0}, "temperature: got -1.0; must be at least 0"),
        ({"temperature": float("nan")}, "temperature: got nan; must be at least 0"),
    ],
)
def test_sampling_out_of_range_is_refused_before_the_model_is_loaded(options, said):
    with pytest.raises(UserError, match=said):
        TransformersPolicy("/nope", **{"prompt": "compact", "temperature": 1.0, "max_new_tokens": NEW} | options)
