"""Stage 3 on open-instruct scores responses without the end of their turn, as Q was trained on them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="needs the extra 'trl': the host's get_reward is TRL's")
from tiny_models import classifier  # noqa: E402
from transformers import AutoModelForSequenceClassification  # noqa: E402
from trl.experimental.utils import get_reward  # noqa: E402

from prm_gym.hosts.open_instruct.online_dpo import without_end  # noqa: E402

PAD, END, CONTEXT = 0, 7, 3
RESPONSES = [[11, 12, END], [11, 12, 13], [END, PAD, PAD], [11, END, PAD]]  # ended, cut off, empty, shorter


@torch.no_grad()
def test_the_score_is_that_of_the_sequence_without_its_end() -> None:
    prompts = [[PAD, 9, 10], [8, END, 10], [8, 9, 10], [PAD, PAD, 10]]  # an end in the prompt stays
    batch = torch.tensor([prompt + response for prompt, response in zip(prompts, RESPONSES, strict=True)])
    before = batch.clone()
    model = AutoModelForSequenceClassification.from_pretrained(classifier(), dtype=torch.float32).eval()
    _, scores, _ = without_end(get_reward, END)(model, batch, PAD, CONTEXT)
    wanted = []
    for prompt, response in zip(prompts, RESPONSES, strict=True):
        ids = [i for i in prompt if i != PAD] + [i for i in response if i not in (PAD, END)]
        hidden = model.base_model(torch.tensor([ids])).last_hidden_state
        wanted.append(float(model.score(hidden[0, -1])))
    assert scores.tolist() == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(batch, before)  # the policy is trained on it afterwards
