"""Convert a checkpoint of transformers 5 for the host's transformers 4.

Two names changed. The settings of the rotary embedding moved to `rope_parameters`, which transformers 4 ignores
silently, so it would compute other positions. The tokenizer's class became `TokenizersBackend`, which it does not know.
A folder beside the data has links to all files, and these two rewritten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from socket import gethostname
from typing import Any

from prm_gym.errors import UserError
from prm_gym.provenance.model_config import model_config

_Json = dict[str, Any]


def for_host(path: str | None, folder: Path) -> str | None:
    """`path`, or for a local checkpoint of transformers 5 a converted copy under `folder`."""
    if path is None or not (Path(path) / "config.json").is_file():
        return path
    source = Path(path).resolve()
    rewritten = {}
    rewrites: dict[str, Callable[[_Json, Path], _Json]] = {"config.json": _config, "tokenizer_config.json": _tokenizer}
    for name, rewrite in rewrites.items():
        old = model_config(source, name)
        if old is not None and (new := rewrite(old, source)) != old:
            rewritten[name] = new
    if not rewritten:
        return path
    view = folder / f"{source.parent.name}-{source.name}-transformers-4"
    view.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        partial = (
            view / f".{file.name}.{gethostname()}-{os.getpid()}"
        )  # several processes, or nodes, may do this at once
        if file.name in rewritten:
            partial.write_text(json.dumps(rewritten[file.name], indent=2), "utf-8")
        else:
            partial.symlink_to(file)
        os.replace(partial, view / file.name)
    return str(view)


def _config(config: _Json, source: Path) -> _Json:
    rope = config.get("rope_parameters")
    if rope is None:
        return config
    window = {}
    if config.get("model_type") == "gemma3_text":  # the one model whose window layers transformers 4 names apart
        window = {"rope_local_base_freq": rope["sliding_attention"]["rope_theta"]}
        rope = rope["full_attention"]
    if "rope_theta" not in rope:
        problem = "has a rotary embedding for each kind of layer, which transformers 4 cannot express"
        raise UserError(source / "config.json", problem, "train this model on another host", field="rope_parameters")
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    new = {name: value for name, value in config.items() if name != "rope_parameters"}
    plain = scaling.get("rope_type", "default") == "default"
    return {**new, "rope_theta": rope["rope_theta"], "rope_scaling": None if plain else scaling, **window}


def _tokenizer(config: _Json, source: Path) -> _Json:
    if config.get("tokenizer_class") != "TokenizersBackend":
        return config
    new = {name: value for name, value in config.items() if name not in ("extra_special_tokens", "backend")}
    extra = config.get("extra_special_tokens") or []
    return {**new, "tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": list(extra)}
