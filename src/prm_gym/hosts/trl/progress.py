"""The output of a training: a progress bar on a terminal and about twenty short lines, instead of a dict per step.

`checkpoint-*/trainer_state.json` has every logged metric, and so has TensorBoard or another `report_to`. A recipe with
`disable_tqdm: true` gets the dicts.
"""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm
from transformers import trainer
from transformers.trainer_callback import ProgressCallback

LINES = 20  # per training, for any `logging_steps`
_SHOWN = {  # in this order, where they are logged
    "loss": "loss",
    "eval_loss": "loss on test",
    "objective/scores": "process reward",
    "objective/kl": "KL",
    "kl": "KL per token",
    "mean_token_accuracy": "token accuracy",
    "learning_rate": "learning rate",
}


def install() -> None:
    """Make every `Trainer` of this process use `Progress`."""
    trainer.DEFAULT_PROGRESS_CALLBACK = Progress  # as transformers does in a notebook


class Progress(ProgressCallback):  # type: ignore[misc]
    """`ProgressCallback` with readable lines that begin with the step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.current_step = self._next_line = 0
        if state.is_world_process_zero:
            self.training_bar = tqdm(total=state.max_steps, initial=state.global_step, dynamic_ncols=True, disable=None)
            self.current_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.training_bar is None or not (text := line(logs or {})):
            return
        if "loss" in (logs or {}):  # evaluations and the end are always printed
            if state.global_step < self._next_line:
                return
            self._next_line = state.global_step + state.max_steps // LINES
        self.training_bar.write(f"step {state.global_step:,} of {state.max_steps:,}: {text}")


def line(logs: dict[str, Any]) -> str:
    """The main metrics, such as `loss 0.69, KL 0.012`; empty if `logs` has none of them."""
    if "train_runtime" in logs:
        return f"trained in {logs['train_runtime']:,.0f} s, {logs['train_samples_per_second']:,.3g} rows/s"
    return ", ".join(f"{name} {float(logs[key]):.3g}" for key, name in _SHOWN.items() if key in logs)
