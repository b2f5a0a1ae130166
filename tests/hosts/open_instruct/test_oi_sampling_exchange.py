"""The exchange between trainer and generator: weights arrive after each update, waits are bounded, errors end it."""

from __future__ import annotations

import subprocess
import sys
import threading
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from prm_gym.hosts.open_instruct.sampling_exchange import Exchange
from prm_gym.hosts.open_instruct.steering import Steering

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

TOKENIZER = SimpleNamespace(pad_token_id=9)


class Accelerator:
    is_main_process = True

    def wait_for_everyone(self) -> None:
        pass


class Echo:
    """A generator whose responses say which weights they came from, and which prompt."""

    weights: Any = 0

    def load(self, model: Any) -> None:
        self.weights = model.version

    def generate(self, prompts: list[list[int]], seed: int) -> list[list[int]]:
        return [[self.weights, *prompt] for prompt in prompts]

    def close(self) -> None:
        pass


def train(
    steps: int, *, asynchronous: bool, first: int = 1, evaluation: list[list[int]] | None = None, **options: Any
) -> list[Any]:
    """The host's loop around an exchange; the policy counts its updates. Returns the responses of each step."""
    exchange = Exchange(Echo, seed=0, asynchronous=asynchronous, first_step=first, **options)
    responses: Queue[Any] = Queue(1)
    prompts: Queue[Any] = Queue(1)
    arguments = ["", None, 0, "", 0.0, None, responses, prompts, steps, evaluation, Queue(1), 1, first]
    thread = threading.Thread(target=exchange.serve, args=arguments, daemon=True)
    thread.start()
    policy = SimpleNamespace(version=first - 1)

    def send(model: Any, batch: int) -> None:
        exchange.send(Accelerator(), model, TOKENIZER, prompts, torch.tensor([[9, batch], [batch, batch]]))

    def loop() -> None:
        send(None, first if asynchronous or first == 1 else -1)
        for step in range(first, steps + 1):
            if asynchronous:
                send(policy, step + 1)
            elif step > 1:
                send(policy, step)
            got.append(responses.get())
            policy.version += 1

    got: list[Any] = []
    trainer = threading.Thread(target=loop, daemon=True)
    trainer.start()
    trainer.join(timeout=60)
    assert not trainer.is_alive(), "the trainer waits for ever"
    thread.join(timeout=60)
    assert not thread.is_alive(), "the generator waits for ever"
    return got


def test_weights_arrive_after_every_update() -> None:
    """In step with the trainer, the responses of step n come from the weights after n - 1 updates."""
    assert [step[0][0] for step in train(5, asynchronous=False)] == [0, 1, 2, 3, 4]


def test_asynchronous_is_one_update_late() -> None:
    assert [step[0][0] for step in train(5, asynchronous=True)] == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_step_gets_its_own_prompts_without_padding(asynchronous: bool) -> None:
    got = train(4, asynchronous=asynchronous)
    assert [[response[1:] for response in step] for step in got] == [[[n], [n, n]] for n in range(1, 5)]


@pytest.mark.parametrize(("asynchronous", "versions"), [(False, [3, 4, 5]), (True, [3, 3, 4])])
def test_a_resumed_run_goes_on_with_its_own_prompts_and_weights(asynchronous: bool, versions: list[int]) -> None:
    """At step 4 the policy has had 3 updates. The host sends prompts before its first step whichever that is."""
    got = train(6, asynchronous=asynchronous, first=4)
    assert [step[0][0] for step in got] == versions
    assert [[response[1:] for response in step] for step in got] == [[[n], [n, n]] for n in range(4, 7)]


def test_evaluations_that_nobody_fetches_do_not_hold_it_up() -> None:
    assert len(train(6, asynchronous=True, evaluation=[[1]])) == 6


def test_a_checkpoint_is_named_after_the_step_to_begin_with() -> None:
    """The host resumes at the step in the name; before step n there were n - 1 updates, and none before the first."""
    for asynchronous in (False, True):
        steps: list[int] = []
        train(4, asynchronous=asynchronous, checkpoint=lambda _, step, steps=steps: steps.append(step))
        assert steps == [2, 3, 4]


def test_an_error_in_the_generator_ends_the_process() -> None:
    program = """
import threading
from queue import Queue
from prm_gym.hosts.open_instruct.sampling_exchange import Exchange
def broken(): raise ValueError("no generator")
exchange = Exchange(broken, seed=0)
arguments = ["", None, 0, "", 0.0, None, Queue(1), Queue(1), 3, None, Queue(1), 1, 1]
threading.Thread(target=exchange.serve, args=arguments).start()
threading.Event().wait()  # the trainer, waiting for responses
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no generator" in done.stderr


class Tokenizer:
    """Ids are the characters of the messages; an open prompt ends with 0."""

    chat_template = "yes"

    def apply_chat_template(self, messages: Any, *, tokenize: bool = True, **_: Any) -> Any:
        text = "".join(message["content"] for message in messages) + "\0"
        return self.encode(text) if tokenize else text

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(map(ord, text))


def steering(probability: float, max_length: int = 100) -> tuple[Steering, list[list[int]]]:
    tokenizer, texts = Tokenizer(), [f"prompt {i}" for i in range(400)]
    rows = [
        {"prompt": [{"role": "user", "content": t}], "exploration_prompt": [{"role": "user", "content": t + "!"}]}
        for t in texts
    ]
    plain = [tokenizer.apply_chat_template(row["prompt"]) for row in rows]
    return Steering(rows, tokenizer, probability=probability, max_length=max_length, seed=0), plain


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 160, 240), (1.0, 400, 400)])
def test_steering_takes_the_prompt_s_own_exploration_prompt(probability: float, low: int, high: int) -> None:
    steer, plain = steering(probability)
    sampled = [steer(ids, 1) for ids in plain]
    assert all(s == ids or s == [*ids[:-1], ord("!"), 0] for s, ids in zip(sampled, plain, strict=True))
    assert low <= sum(s != ids for s, ids in zip(sampled, plain, strict=True)) <= high


def test_both_responses_of_a_prompt_are_steered_alike_and_steps_differ() -> None:
    steer, plain = steering(0.5)
    first = [steer(ids, 1) for ids in plain]
    assert first == [steer(ids, 1) for ids in plain]
    assert first != [steer(ids, 2) for ids in plain]


def test_an_exploration_prompt_too_long_for_the_context_is_not_used() -> None:
    steer, plain = steering(1.0, max_length=10)  # "prompt 9!" with its end is 10 ids, "prompt 10!" 11
    assert [steer(ids, 1) != ids for ids in plain] == [i < 10 for i in range(400)]


def test_steering_changes_what_is_sampled_from_alone() -> None:
    """The exchange sends steered ids to the generator; the queries that the host scores and trains on are its own."""
    got = train(1, asynchronous=False, steer=lambda ids, step: [100 * step, *ids])
    assert got == [[[0, 100, 1], [0, 100, 1, 1]]]
