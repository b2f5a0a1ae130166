"""Evaluate Q on held-out games: the loss, and further metrics by kind of label.

| loss | metrics (all under `eval/rm/`) |
|---|---|
| soft_bce, value | AUC of targets above against below their mean, calibration error, mean prediction and target |
| bradley_terry | share of pairs ordered right, mean margin |
| inverse | AUC of expert against learner transitions, separation of their mean advantages |

Rows are gathered from all processes. Each counts once, even if a sampler repeats rows to fill the last batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from prm_gym.hosts.losses import FIRST
from prm_gym.hosts.open_instruct.tokenized_rows import ROW
from prm_gym.prm.metrics import Floats, auc, calibration_bins, calibration_error

if TYPE_CHECKING:
    from torch import Tensor

# The host's names of its four training averages, and their meaning under each loss.
_HOST_NAMES = ("chosen_rewards", "rejected_rewards", "reward_margin", "accuracy")
_VALUES = ("predicted", "target", "bias", "above_target")
LOGGED = {
    "soft_bce": _VALUES,
    "value": _VALUES,
    "bradley_terry": ("chosen", "rejected", "margin", "pair_accuracy"),
    "inverse": ("predicted_expert", "expert", "bias", "above_label"),
}


def log_names(loss: str) -> dict[str, str]:
    """{the host's metric name: ours} for the training log of `loss`."""
    pairs = zip(_HOST_NAMES, LOGGED[loss], strict=True)
    return {f"train/rm/{theirs}": f"train/rm/{ours}" for theirs, ours in pairs}


def metrics(loss: str, first: Floats, second: Floats) -> dict[str, float]:
    """The metrics of the table, from the two columns [rows] that the loss returns beside its value."""
    if loss == "bradley_terry":
        margin = first - second
        # log(1 + exp(-m)) is -log sigmoid(m)
        found = {"loss": np.logaddexp(0, -margin).mean(), "pair_accuracy": (margin > 0).mean(), "margin": margin.mean()}
        return {f"eval/rm/{name}": float(value) for name, value in found.items()}
    safe = np.clip(first, 1e-7, 1 - 1e-7)
    found = {"loss": -(second * np.log(safe) + (1 - second) * np.log(1 - safe)).mean()}
    if loss == "inverse":
        expert = second > 0.5
        advantage = np.log(safe) - np.log(1 - safe)
        separation = advantage[expert].mean() - advantage[~expert].mean() if 0 < expert.sum() < len(expert) else np.nan
        found |= {"auc": _auc(first, expert), "separation": separation}
    else:
        found |= {
            "auc": _auc(first, second > second.mean()),
            "calibration_error": calibration_error(calibration_bins(first, second)),
            "predicted": first.mean(),
            "target": second.mean(),
        }
    return {f"eval/rm/{name}": float(value) for name, value in found.items()}


def _auc(scores: Floats, positive: Any) -> float:
    """`auc`, nan if one class is empty: the host logs numbers alone."""
    found = auc(scores, positive)
    return float("nan") if found is None else found


def make_evaluate(
    loss: str,
    compute_loss: Callable[..., tuple[Tensor, Tensor, Tensor]],
    after: Callable[[Any], None],
) -> Callable[..., tuple[dict[str, float], dict[str, list[Any]]]]:
    """A replacement of the host's `evaluate` that calls `after(model)` at the end."""

    def evaluate(
        model: Any, dataloader: Any, tokenizer: Any, max_sampled_texts: int = 0
    ) -> tuple[dict[str, float], dict[str, list[Any]]]:
        import torch
        from accelerate.utils import gather_object

        model.eval()
        rows: list[tuple[float, float, float]] = []
        table: dict[str, list[Any]] = {"text": [], "first": [], "second": []}
        with torch.no_grad():
            for data in dataloader:
                _, first, second = compute_loss(model, data, tokenizer.pad_token_id)
                columns = [column.tolist() for column in (data[ROW], first, second)]
                rows += zip(*columns, strict=True)
                for ids, q, other in zip(data[FIRST], *columns[1:], strict=True):
                    if len(table["text"]) < max_sampled_texts:
                        kept = ids[ids != tokenizer.pad_token_id]
                        table["text"].append(tokenizer.decode(kept)[-300:])
                        table["first"].append(round(q, 4))
                        table["second"].append(round(other, 4))
        model.train()
        gathered = np.array(sorted({row[0]: row for row in gather_object(rows)}.values()))
        after(model)
        return metrics(loss, gathered[:, 1], gathered[:, 2]), table

    return evaluate
