"""Attention masks by kind of layer: full attention and sliding windows over the same cached columns.

Keys and values are kept for every column, so a cached sequence can be cut to any prefix; the mask alone makes the
window. Left out: layers that keep anything else, such as the state of state-space models and of linear attention.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache, PreTrainedModel

from prm_gym.errors import UserError
from prm_gym.inference.kv_shapes import SERVE

_FULL, _SLIDING = "full_attention", "sliding_attention"  # as in `layer_types` of a transformers config

Masks = dict[str, torch.Tensor]
"""By kind of layer [rows, 1, T, columns], added to the attention scores: 0, or the lowest number for hidden columns."""


class LayerMasks:
    """The masks of the kinds of layers that `model` has.

    The token at position p sees the columns 0 to p, with a sliding window of w tokens p - w + 1 to p.
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
        """Turn the masks of single tokens (T = 1) into those of the tokens after them, at `position` [rows, 1]."""
        position = position[:, None, None]
        for kind, window in self._windows.items():
            masks[kind].scatter_(-1, position, 0.0)
            if window:  # column 0 is written, to the value that it has, until another leaves the window
                left = position - window
                masks[kind].scatter_(-1, left.clamp(min=0), torch.where(left < 0, 0.0, self._lowest).to(self._dtype))


def model_argument(masks: Masks) -> Masks | torch.Tensor:
    """As a transformers model takes them: by kind if its layers are of several, else the mask itself."""
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _windows(model: PreTrainedModel) -> dict[str, int | None]:
    """By kind of layer its window in tokens, None for full attention."""
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
