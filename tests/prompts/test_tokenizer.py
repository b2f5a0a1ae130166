"""A tokenizer that would break Stage 2 or 3 is refused when it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from chat_templates import CASES, tokenizer

from prm_gym.errors import UserError
from prm_gym.hosts.tiny_model import make_tokenizer
from prm_gym.prompts.tokenizer import check_same_vocabulary, load_tokenizer


def test_a_tokenizer_without_a_pad_token_of_its_own_is_refused(tmp_path: Path) -> None:
    saved = tokenizer(CASES["plain"].source, tmp_path)
    saved.pad_token = saved.eos_token
    saved.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model_name_or_path: the tokenizer has no pad token.*; add one with"):
        load_tokenizer(tmp_path, "model_name_or_path")
    assert load_tokenizer(tmp_path, padding=False).pad_token == saved.eos_token


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path}/none: reward_model_path: no tokenizer to load"):
        load_tokenizer(tmp_path / "none", "reward_model_path")


def test_a_prm_with_another_vocabulary_or_template_is_refused(tmp_path: Path) -> None:
    ours = tokenizer(CASES["plain"].source, tmp_path / "a")
    check_same_vocabulary(ours, load_tokenizer(tmp_path / "a"), "prm")
    make_tokenizer(["look at cup 1"] * 20, tmp_path / "b")
    with pytest.raises(UserError, match=r"^prm: the PRM's vocabulary"):
        check_same_vocabulary(ours, load_tokenizer(tmp_path / "b"), "prm")
    theirs = tokenizer(CASES["a line after the end"].source, tmp_path / "c")
    with pytest.raises(UserError, match=r"^prm: field: the PRM's chat template is not the policy's"):
        check_same_vocabulary(ours, theirs, "prm", "field")
