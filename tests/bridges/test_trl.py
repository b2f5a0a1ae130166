"""GRPO in TRL over the bridge: the conversation that the model was trained on, rewards, one training on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs the extra 'trl'")
pytest.importorskip("transformers", minversion="5.13", reason="needs response templates")

import transformers
from bridge_world import LengthQ, replayed, winning_actions

from prm_gym import prompts
from prm_gym.bridges.step_q import StepQ
from prm_gym.bridges.trl import environment_factory, rows, text_turns
from prm_gym.prompts.chat import prompt_ids
from prm_gym.types import State

MODEL = Path(__file__).parents[2] / "models" / "alfworld-small"
LONGEST = 600  # tokens of a completion


@pytest.fixture
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(MODEL)


def trainer(world, tokenizer, folder, model=None, reward_funcs=(), q=None, **options):
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=2,
        temperature=1.0,
        max_completion_length=LONGEST,
        max_tool_calling_iterations=30,
        save_strategy="no",
        **options,
    )
    factory = environment_factory(world, prompt="compact", max_completion_length=LONGEST, q=q)
    model = model or transformers.AutoModelForCausalLM.from_pretrained(MODEL)
    return GRPOTrainer(
        model,
        reward_funcs=list(reward_funcs),
        args=args,
        train_dataset=rows(world, "compact"),
        processing_class=text_turns(tokenizer),
        environment_factory=factory,
    )


def test_a_rows_prompt_and_its_reset_are_the_first_prompt_of_a_rollout(world):
    [row, *_] = rows(world, "compact")
    observations, _, info = replayed(world, row["task"], [])
    environment = environment_factory(world, prompt="compact", max_completion_length=LONGEST)()
    shown = environment.reset(**row)
    state = State(row["task"], info["task"], tuple(observations), (), ())
    *system, last = row["prompt"]
    assert [*system, {**last, "content": last["content"] + shown}] == prompts.load("compact").messages(state)


def test_each_whole_response_is_one_call_of_act(tokenizer):
    from trl.chat_template_utils import is_chat_template_prefix_preserving, parse_response, supports_tool_calling

    turns = text_turns(tokenizer)
    assert supports_tool_calling(turns)
    assert is_chat_template_prefix_preserving(turns)
    prefix = turns.apply_chat_template([{"role": "user", "content": "go"}], add_generation_prompt=True)["input_ids"]
    response = turns.encode("take mug 1 from desk 2<|end|>", add_special_tokens=False)
    [call] = parse_response(turns, response, prefix=prefix)["tool_calls"]
    assert call["function"] == {"name": "act", "arguments": {"response": "take mug 1 from desk 2"}}


def encoded(tokenizer, action):
    return tokenizer.encode(f"{action}<|end|>", add_special_tokens=False)


class Script:
    """Stands for `GRPOTrainer._generate_single_turn`: says the next of the expert's actions."""

    def __init__(self, tokenizer, plans):
        self.tokenizer, self.plans, self.prompts = tokenizer, plans, []

    def __call__(self, ids, *_, **__):
        self.prompts += ids
        said = []
        for prompt in ids:
            [plan] = [plan for first, plan in self.plans.items() if prompt[: len(first)] == list(first)]
            turn = prompt.count(self.tokenizer.convert_tokens_to_ids("<|assistant|>")) - 1
            said.append(encoded(self.tokenizer, plan[turn]))
        return said, None


@pytest.fixture
def scripted(world, tokenizer, tmp_path, request):
    """A trainer whose policy is the expert, and the conversation of each task."""
    q = StepQ(LengthQ(), 0.5) if request.param else None
    made = trainer(world, tokenizer, tmp_path, q=q)
    plans, conversations = {}, {}
    original = transformers.AutoTokenizer.from_pretrained(MODEL)
    for task in world.tasks:
        actions = winning_actions(world, task)
        observations, _, info = replayed(world, task, actions)
        first = State(task, info["task"], tuple(observations[:1]), (), ())
        last = State(task, info["task"], tuple(observations[:-1]), tuple(actions[:-1]), ())
        opening, whole = (prompt_ids(original, prompts.load("compact").messages(state)) for state in (first, last))
        plans[tuple(opening)] = actions
        conversations[task] = (opening, [*whole, *encoded(original, actions[-1])], actions)
    made._generate_single_turn = Script(original, plans)
    return made, conversations


@pytest.mark.parametrize("scripted", [False], indirect=True)
def test_the_tokens_trained_on_are_those_of_a_rollout_and_end_with_the_winning_action(world, scripted):
    made, conversations = scripted
    tasks = list(world.tasks)
    inputs = [{"prompt": row["prompt"], "task": row["task"]} for row in made.train_dataset for _ in range(2)]
    batch = made._generate_and_score_completions(inputs)
    for i, task in enumerate(task for task in tasks for _ in range(2)):
        opening, whole, actions = conversations[task]
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
        completion = batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist()
        assert prompt == opening
        assert prompt + completion == whole
        trained = batch["tool_mask"][i][: len(completion)].bool()
        said = [token for token, own in zip(completion, trained.tolist(), strict=True) if own]
        assert said == [token for action in actions for token in encoded(made.processing_class, action)]


@pytest.mark.parametrize("scripted", [False, True], indirect=True)
def test_the_reward_is_the_outcome_and_the_mean_of_q(world, scripted):
    made, conversations = scripted
    inputs = [{"prompt": row["prompt"], "task": row["task"]} for row in made.train_dataset for _ in range(2)]
    made._generate_and_score_completions(inputs)
    rewards = [environment.get_reward() for environment in made.environments]
    expected = []
    for _, _, actions in conversations.values():
        one_word = sum(len(action.split()) == 1 for action in actions)
        expected += 2 * [1.0 + (0.5 * 0.5 * one_word / len(actions) if made.environments[0]._q else 0.0)]
    assert rewards == pytest.approx(expected)


class SpreadQ(LengthQ):
    """Two episodes have the same mean only if they are the same."""

    async def logits(self, pairs):
        return [float(sum(map(ord, response.text)) % 97) / 97 for _, response in pairs]


@pytest.mark.parametrize("q", [None, StepQ(SpreadQ(), 1.0)], ids=["outcome", "outcome and Q"])
def test_grpo_trains_the_small_model(world, tokenizer, tmp_path, q):
    made = trainer(world, tokenizer, tmp_path, q=q, learning_rate=1e-3)
    before = {name: weight.detach().clone() for name, weight in made.model.named_parameters()}
    made.train()
    [line] = [line for line in made.state.log_history if "reward" in line]
    assert 0 <= line["reward"] <= (2 if q else 1)
    assert line["tools/failure_frequency"] == 0
    assert line["tools/call_frequency"] > 1
    changed = any((weight != before[name]).any() for name, weight in made.model.named_parameters())
    assert changed == (line["frac_reward_zero_std"] < 1)
    assert changed or q is None
