"""The search for a model: on this machine first, on the Hub once and last."""

from __future__ import annotations

import pytest

pytest.importorskip("huggingface_hub")

import huggingface_hub

from prm_gym.errors import UserError
from prm_gym.inference.model_location import check_model, check_policy


@pytest.fixture
def hub(monkeypatch):
    """The names that the Hub is asked for; it knows `owner/model` alone."""
    from huggingface_hub.errors import RepositoryNotFoundError

    asked = []

    class Api:
        def model_info(self, name, timeout):
            asked.append(name)
            if name == "off/line":
                raise ConnectionError
            if name != "owner/model":
                raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda name, file: "/c" if name == "cached/m" else None
    )
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return asked


@pytest.mark.parametrize("name", ["/nope", "./nope", "../nope", "a/b/c", "~/model", "a b", "runs/pi_1"])
def test_what_looks_like_a_path_is_refused_without_the_hub(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match=f"^{name}: is no folder; check the path$"):
        check_model(name)
    assert hub == []


def test_a_folder_comes_before_a_model_of_the_hub_with_its_name(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no model"):
        check_model("owner/model")
    (tmp_path / "owner" / "model" / "config.json").write_text("{}")
    check_model("owner/model")
    assert hub == []


def test_the_hub_is_asked_once(hub):
    check_model("owner/model")
    for name, said in (("owner/other", "has no such model"), ("off/line", "cannot be reached")):
        with pytest.raises(UserError, match=rf"{name}: is no folder here, and .*{said}.*HF_HUB_OFFLINE=1"):
            check_model(name)
    assert hub == ["owner/model", "owner/other", "off/line"]


def test_offline_only_folders_and_the_cache_count(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check_model("cached/m")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        check_model("owner/model")
    assert hub == []


@pytest.mark.parametrize("config", ["", "{", "[]", "3", '{"architectures": 3}', '{"architectures": [null]}', "\udcff"])
def test_a_config_that_cannot_be_read_is_left_to_those_who_load_the_model(tmp_path, config):
    (tmp_path / "config.json").write_bytes(config.encode(errors="surrogateescape"))
    check_policy(tmp_path)


def test_a_q_is_no_policy(tmp_path):
    """transformers loads it as a language model, whose embeddings are its head, without a word."""
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForSequenceClassification"]}')
    with pytest.raises(UserError, match=r"is a Q \(LlamaForSequenceClassification\), not a policy"):
        check_policy(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    check_policy(tmp_path)
