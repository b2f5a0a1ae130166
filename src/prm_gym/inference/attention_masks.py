"""Attention masks for each kind of layer: full attention and sliding windows over the same cached columns.

The cache keeps the keys and values of every column, so a sequence can be cut to any prefix; only the mask limits the
window. Left out: layers with another kind of state, such as state-space models and linear attention.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache, PreTrainedModel

from prm_gym.errors import UserError
from prm_gym.inference.kv_shapes import SERVE

_FULL, _SLIDING = "full_attention", "sliding_attention"  # as in `layer_types` of a transformers config

Masks = dict[str, torch.Tensor]
"""Kind of layer -> [rows, 1, T, columns], added to attention scores: 0 if visible, the dtype's minimum if hidden."""


class LayerMasks:
    """Masks for the kinds of layers in `model`.

    The token at position p sees columns 0 to p; with a sliding window of w tokens, columns p - w + 1 to p.
    Raises `UserError` for a model with layers of other kinds.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._dtype = model.dtype
        self._lowest = torch.finfo(model.dtype).min
        self._windows = _windows(model)

    def at(self, position: torch.Tensor, columns: int) -> Masks:
        """The masks of tokens at `position` [rows, T] over the first `columns` columns."""
        query = position[:, None, :, None]
        column = torch.arange(columns, device=position.device)
        masks = {}
        for kind, window in self._windows.items():
            hidden = column > query
            if window:
                hidden |= column <= query - window
            mask = torch.zeros(hidden.shape, dtype=self._dtype, device=position.device)
            masks[kind] = mask.masked_fill_(hidden, self._lowest)
        return masks

    def advance(self, masks: Masks, position: torch.Tensor) -> None:
        """Update the masks of single tokens (T = 1) in place for the next tokens, at `position` [rows, 1]."""
        position = position[:, None, None]
        for kind, window in self._windows.items():
            masks[kind].scatter_(-1, position, 0.0)
            if window:  # until a column leaves the window, column 0 is rewritten with its own value
                left = position - window
                masks[kind].scatter_(-1, left.clamp(min=0), torch.where(left < 0, 0.0, self._lowest).to(self._dtype))


def model_argument(masks: Masks) -> Masks | torch.Tensor:
    """The form that a transformers model takes: a dict if it has several kinds of layers, else the mask itself."""
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _windows(model: PreTrainedModel) -> dict[str, int | None]:
    """Kind of layer -> window in tokens, None for full attention."""
    config = model.config.get_text_config()
    only = _SLIDING if getattr(config, "sliding_window", None) else _FULL
    kinds = set(getattr(config, "layer_types", None) or [only])
    if other := kinds - {_FULL, _SLIDING}:
        problem = f"has layers of {', '.join(sorted(other))}; in process only full and sliding-window attention can run"
        raise UserError(model.name_or_path, problem, SERVE)
    if _SLIDING not in kinds:
        return {_FULL: None}
    windows = {getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers} - {None}
    if len(windows) > 1:
        raise UserError(model.name_or_path, f"has layers with windows of different lengths ({windows})", SERVE)
    return {kind: None if kind == _FULL else windows.pop() for kind in sorted(kinds)}
