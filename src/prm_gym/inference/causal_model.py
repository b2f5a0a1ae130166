"""A causal transformer on `KVCache`: outputs at the last token of ragged prompts, and sampled continuations.

Rows of a batch are never padded on the left: a row with fewer new tokens than the others feeds some cached tokens
again, which rewrites the same values. What prompts of a batch have in common is computed once. Sampling inverts the
cumulative distribution at one uniform number per token, given by the caller, so a response depends on its own prompt
and numbers and not on the rest of the batch. One exception: matrix products of other shapes round differently (about
1e-6 in float32, 1e-2 in bfloat16), which can decide a near tie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache, PreTrainedModel

from prm_gym.inference.attention_masks import LayerMasks, Masks, model_argument
from prm_gym.inference.kv_cache import Index, KVCache, Placement, Tokens
from prm_gym.inference.kv_shapes import cached_shapes

_PREFILL_TOKENS = 8192  # per forward pass, to bound its memory
_SHARED = 16  # tokens not cached yet: fewer are not worth a forward pass of their own
_LONG = 1.5  # times the third quartile of new tokens: longer rows are prefilled before the batch runs


class Sampled(NamedTuple):
    """One continuation: its token ids, and its log-probability in nats under softmax(logits) and under softmax(logits /
    temperature). Greedy sampling (temperature 0) is certain: its log-probability is 0.
    """

    ids: list[int]
    logprob: float
    sampling_logprob: float


class CausalModel:
    """`forward(**inputs)` calls the model and returns its output at the last position, [rows, outputs].

    Up to `max_rows` sequences run together and twice as many are cached, within `memory_bytes` (by default 1 GiB, or
    half of a GPU's free memory). Not thread safe. Raises `UserError` for a model that needs more than cached keys and
    values.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        forward: Callable[..., torch.Tensor],
        *,
        max_rows: int,
        max_length: int,
        memory_bytes: int | None,
    ) -> None:
        self._forward = forward
        renamed = "cache" in signature(model.forward).parameters  # in transformers 5; the old name goes with 5.40
        self._cache_argument = "cache" if renamed else "past_key_values"
        self._max_rows = max_rows
        self._device = model.device
        self._masks = LayerMasks(model)
        self._cache = KVCache(
            cached_shapes(model, self._feed_first),
            max_slots=2 * max_rows,
            max_length=max_length,
            memory_bytes=_default_memory(model.device) if memory_bytes is None else memory_bytes,
            device=model.device,
            dtype=model.dtype,
        )

    @torch.inference_mode()
    def outputs(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        """The output at the last token of each prompt, [len(prompts), outputs]; the prompts stay cached."""
        order = sorted(range(len(prompts)), key=lambda i: _lexical(prompts[i]))  # common prefixes come in one batch
        ordered, found = [prompts[i] for i in order], []
        for rows in self._batches(ordered, 0):
            self._prefill_shared(ordered[rows])
            found.append(self._outputs(ordered[rows]))
        return torch.cat(found)[self._tensor(np.argsort(order))]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Tokens], uniforms: NDArray[np.float32], *, temperature: float, stop: frozenset[int]
    ) -> list[Sampled]:
        """Continue each prompt up to and including a token in `stop`, or by `uniforms.shape[1]` tokens.

        `uniforms` [len(prompts), tokens] in [0, 1) determine the samples; temperature 0 takes the likeliest token.
        """
        batches = self._batches(prompts, uniforms.shape[1])
        return [
            response
            for rows in batches
            for response in self._generate(prompts[rows], uniforms[rows], temperature, stop)
        ]

    def _batches(self, prompts: Sequence[Tokens], room: int) -> Iterator[slice]:
        """Slices of prompts that run together, each prompt with room for `room` more tokens."""
        size = min(self._max_rows, self._cache.reserve(max(map(len, prompts)) + room))
        return (slice(first, first + size) for first in range(0, len(prompts), size))

    def _outputs(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        place = self._cache.place(prompts)
        output = self._prefill(place, prompts)
        for i in place.leaders:
            self._cache.commit(place.start + place.row[i], prompts[i])
        return output[self._tensor(place.source[place.row])]

    def _generate(
        self, prompts: Sequence[Tokens], uniforms: NDArray[np.float32], temperature: float, stop: frozenset[int]
    ) -> list[Sampled]:
        self._prefill_shared(prompts)
        place = self._cache.place(prompts)
        output = self._prefill(place, prompts)[self._tensor(place.source)]
        lengths = np.array([len(prompt) for prompt in prompts])
        self._cache.copy_to(place.start + len(place.leaders), place.start + place.copied_from, lengths.max())

        responses: list[list[int]] = [[] for _ in prompts]
        logprobs = np.zeros((len(prompts), 2))  # at temperature 1 and at `temperature`
        slot = place.start + place.row  # of each item
        item = np.argsort(place.row)  # in each row
        end = self._tensor(lengths[item])
        noise = self._tensor(uniforms[item])
        masks = self._masks.at(end[:, None] - 1, int(lengths.max()) + uniforms.shape[1])
        running = np.ones(len(item), bool)
        for step in range(uniforms.shape[1]):
            tokens, scored = _sample(output, noise[:, step], temperature)
            sampled = tokens.tolist()
            logprobs[item[running]] += scored.cpu().numpy()[running]
            for row, token in enumerate(sampled):
                if running[row]:
                    responses[item[row]].append(token)
                    running[row] = token not in stop
            if not running.any() or step + 1 == uniforms.shape[1]:
                break
            width = int(lengths[item].max()) + step + 1
            if 2 * running.sum() <= len(running):  # drop finished rows: the running ones move to the front
                order = self._running_first(place.start, running, width)
                slot[item[order]] = place.start + np.arange(len(order))
                kept = order[: running.sum()]
                item, running = item[kept], running[kept]
                rows = self._tensor(kept)
                end, noise, tokens = end[rows], noise[rows], tokens[rows]
                masks = {kind: mask[rows] for kind, mask in masks.items()}
            position = (end + step)[:, None]
            self._masks.advance(masks, position)
            seen = {kind: mask[..., :width] for kind, mask in masks.items()}
            output = self._step(tokens[:, None], position, _slice(place.start, len(item)), seen, width)
        for i, prompt in enumerate(prompts):  # the last token sampled was never fed
            self._cache.commit(slot[i], np.append(prompt, np.array(responses[i][:-1], prompt.dtype)))
        return [Sampled(ids, *sums) for ids, sums in zip(responses, logprobs.tolist(), strict=True)]

    def _prefill_shared(self, prompts: Sequence[Tokens]) -> None:
        """Cache prefixes of `_SHARED` tokens or more that different prompts share, where they are over half of one.

        Prompts with a common prefix are neighbours in lexical order. What prefixes share comes first.
        """
        shared: dict[bytes, Tokens] = {}
        for one, other in pairwise(sorted(prompts, key=_lexical)):
            least = min(len(one), len(other))
            differing = np.flatnonzero(one[:least] != other[:least])
            prefix = other[: differing[0] if len(differing) else least]
            if len(other) < 2 * len(prefix) < 2 * len(other):
                shared[prefix.tobytes()] = prefix
        if shared:
            self._prefill_shared(list(shared.values()))
            if new := [prefix for prefix in shared.values() if len(prefix) - self._cache.cached(prefix) >= _SHARED]:
                self._outputs(new)

    def _prefill(self, place: Placement, prompts: Sequence[Tokens]) -> torch.Tensor:
        """Compute the uncached tokens of the leaders; returns the output at their last tokens, [leaders, outputs]."""
        texts = [prompts[i] for i in place.leaders]
        length = np.array([len(text) for text in texts])
        new = length - place.cached
        shared = int(np.quantile(new, 0.75, method="higher"))  # last tokens that all rows feed together
        if new.max() <= _LONG * shared:
            shared = int(new.max())
        shared = min(shared, int(length.min()), max(1, _PREFILL_TOKENS // len(texts)))

        for group, most in _groups(new - shared):
            columns = place.cached[group, None] + np.arange(most)
            real = columns < (length - shared)[group, None]
            ids = np.zeros_like(columns)
            ids[real] = np.concatenate([texts[r][place.cached[r] : length[r] - shared] for r in group])
            position = self._tensor(np.where(real, columns, 0))
            width = int(length[group].max())
            self._step(
                self._tensor(ids),
                position,
                self._tensor(place.start + group),
                self._masks.at(position, width),
                width,
                self._tensor(np.where(real, columns, self._cache.spare_column)),
            )

        ids = np.stack([text[-shared:] for text in texts])
        position = self._tensor(length[:, None] - shared + np.arange(shared))
        width = int(length.max())
        masks = self._masks.at(position, width)
        return self._step(self._tensor(ids).long(), position, _slice(place.start, len(texts)), masks, width)

    def _step(
        self,
        ids: torch.Tensor,
        position: torch.Tensor,
        slots: slice | torch.Tensor,
        masks: Masks,
        width: int,
        column: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Feed `ids` [rows, T] at `position` [rows, T] to `slots`; returns the output at the last one, [rows, outputs].

        The tokens see the first `width` columns as far as `masks` allow. Keys and values are written to `column`
        [rows, T], by default the position; padding goes elsewhere.
        """
        self._cache.point_at(slots, position if column is None else column, width)
        return self._feed(ids, position, masks, self._cache)

    def _feed(self, ids: torch.Tensor, position: torch.Tensor, masks: Masks, cache: Cache) -> torch.Tensor:
        return self._forward(
            input_ids=ids,
            position_ids=position,
            attention_mask=model_argument(masks),
            use_cache=True,
            **{self._cache_argument: cache},
        )

    @torch.inference_mode()
    def _feed_first(self, cache: Cache) -> torch.Tensor:
        token = torch.zeros(1, 1, dtype=torch.long, device=self._device)
        return self._feed(token, token, self._masks.at(token, 1), cache)

    def _running_first(self, start: int, running: NDArray[np.bool_], columns: int) -> Index:
        """Swap slots so that running rows come first; returns the old index of each new row."""
        order = np.arange(len(running))
        rows = int(running.sum())
        late, holes = rows + np.flatnonzero(running[rows:]), np.flatnonzero(~running[:rows])
        self._cache.swap(start + late, start + holes, columns)
        order[late], order[holes] = holes, late
        return order

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _lexical(prompt: Tokens) -> bytes:
    return prompt.astype(">i4").tobytes()


def _default_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 1 << 30


def _slice(start: int, rows: int) -> slice:
    return slice(start, start + rows)


def _groups(ahead: Index) -> Iterator[tuple[Index, int]]:
    """Groups of rows that have tokens ahead, longest first and of bounded size, each with its longest row's number."""
    rows = np.argsort(-ahead)[: int((ahead > 0).sum())]
    while len(rows):
        most = int(ahead[rows[0]])
        size = max(1, _PREFILL_TOKENS // most)
        yield rows[:size], most
        rows = rows[size:]


def _sample(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row, [rows], the first whose cumulative probability exceeds `uniform`, and its log-probability at
    temperature 1 and at `temperature`, [rows, 2].
    """
    logits = logits.float()
    if temperature == 0:
        token = logits.argmax(-1, keepdim=True)
    else:
        probabilities = torch.softmax(logits / temperature, -1)
        cumulative = probabilities.cumsum(-1)
        token = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
        token.clamp_(max=logits.shape[-1] - 1)
    if temperature == 1:
        plain = sampling = probabilities.gather(-1, token).log()
    else:
        plain = logits.gather(-1, token) - logits.logsumexp(-1, keepdim=True)
        sampling = probabilities.gather(-1, token).log() if temperature else torch.zeros_like(plain)
    return token.squeeze(1), torch.cat([plain, sampling], -1)
