"""The exchange between the host's training loop and the generator: prompts and weights out, responses back.

The host runs `serve` in a thread and calls `send` at the start of each training step with the current policy. `send`
returns when the generator has loaded the weights. No process updates them meanwhile, so every response comes from a
consistent set of weights. In the host's asynchronous mode, responses are sampled from the weights before the last
update: one update late, never more.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from queue import Empty, Full, Queue
from typing import Any

from prm_gym.errors import UserError
from prm_gym.hosts.open_instruct.generators import Generator

Prompts = list[list[int]]


class Exchange:
    """`serve` and `send` replace the host's `vllm_generate` and `send_queries`; one instance per process.

    `first_step` is the first training step of the host. `steer(prompt ids, step)` returns the ids to sample from
    instead of a prompt's own (Steered Exploration). All processes call `checkpoint(accelerator, step)` before each step
    except the first.
    """

    def __init__(
        self,
        make_generator: Callable[[], Generator],
        *,
        seed: int,
        first_step: int = 1,
        asynchronous: bool = True,
        steer: Callable[[list[int], int], list[int]] | None = None,
        checkpoint: Callable[[Any, int], None] | None = None,
    ) -> None:
        self._make_generator, self._seed = make_generator, seed
        self._steer, self._checkpoint = steer, checkpoint
        self._first_step, self._asynchronous = first_step, asynchronous
        self._held: Any = None
        # The host sends the first prompts before its first step; in asynchronous mode it stays one batch ahead.
        self._step = first_step - 1 if asynchronous else first_step
        self._loaded, self._ended = threading.Event(), threading.Event()

    def serve(
        self,
        model_name_or_path: str,
        model_revision: str | None,
        max_model_len: int,
        vllm_device: str,
        vllm_gpu_memory_utilization: float,
        generation_config: Any,
        response_ids_Q: Queue[Prompts],
        param_prompt_Q: Queue[tuple[Any, Prompts] | None],
        num_training_steps: int,
        sample_evaluation_prompt_token_ids: Prompts | None,
        evaluation_Q: Queue[Prompts],
        eval_freq: int,
        resume_training_step: int,
    ) -> None:
        """The generation thread, with the host's signature. An error in it ends the process."""
        try:
            generator = self._make_generator()
            for step in range(resume_training_step, num_training_steps + 1):
                item = param_prompt_Q.get()
                if item is None:
                    break
                model, prompts = item
                if model is not None:
                    generator.load(model)
                self._loaded.set()
                response_ids_Q.put(generator.generate(prompts, self._seed + step))
                if sample_evaluation_prompt_token_ids and (step - 1) % eval_freq == 0:
                    _replace(evaluation_Q, generator.generate(sample_evaluation_prompt_token_ids, self._seed))
            generator.close()
        except BaseException as error:
            if isinstance(error, UserError):
                print(f"error: {error}", file=sys.stderr, flush=True)
            else:
                traceback.print_exc()
            os._exit(1)
        self._ended.set()

    def send(self, accelerator: Any, model: Any, tokenizer: Any, queue: Queue[Any], queries: Any) -> None:
        """Called by all processes with their own prompts: `queries` [samples x prompts, length], padded on the left."""
        if model is None and self._first_step > 1:
            # A resumed run: the host sends prompts without weights, and the generator still has those of pi_{i-1}. In
            # synchronous mode the first step sends its own prompts. In asynchronous mode these are the first step's,
            # and wait for the policy that comes with the next.
            self._held = queries if self._asynchronous else None
            self._step += self._asynchronous
            return
        if self._checkpoint is not None and model is not None and self._step > self._first_step:
            self._checkpoint(accelerator, self._step)
        if self._held is not None:
            held, self._held = self._held, None
            self._hand_over(accelerator, model, tokenizer, queue, held, self._step - 1)
        self._hand_over(accelerator, model, tokenizer, queue, queries, self._step)
        accelerator.wait_for_everyone()  # the weights are loaded; every process may update them
        self._step += 1

    def _hand_over(
        self, accelerator: Any, model: Any, tokenizer: Any, queue: Queue[Any], queries: Any, step: int
    ) -> None:
        """Send the prompts of all processes to the generator; returns when it has loaded the weights."""
        from accelerate.utils import gather_object

        prompts: Prompts = gather_object(queries.tolist())
        if not accelerator.is_main_process:
            return
        prompts = [[i for i in ids if i != tokenizer.pad_token_id] for ids in prompts]
        if self._steer is not None:
            prompts = [self._steer(ids, step) for ids in prompts]
        self._loaded.clear()
        queue.put((model, prompts))
        # The last prompts of asynchronous mode are for a step that never runs; they get no answer.
        while not self._loaded.wait(0.1) and not self._ended.is_set():
            pass


def _replace(queue: Queue[Prompts], item: Prompts) -> None:
    """Put `item` into the queue, in place of one that was not fetched, so a full queue does not block the thread."""
    try:
        queue.put_nowait(item)
    except Full:
        with contextlib.suppress(Empty):
            queue.get_nowait()
        queue.put_nowait(item)
