"""What the variants of the findings change in a recipe, as `Changes` or as functions that give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.variants import Changes, Variants, merged
from prm_gym.config import read_yaml
from prm_gym.runs.iteration import Run

LONG = 160  # steps of an overlong Stage 3
FEW, PASSES = 16, 10  # games of rollouts for `shaping`; in one pass over them Q learns nothing, shaped or not


def beside(run: Run, place: str = "iter1/prm") -> str:
    """The path of `run`'s `place` (by default its Q) for the recipe of another run of the same Variants."""
    return f"{{run}}/../{run.root.name}/{place}"


# The findings have four times the rollouts of the demo: best-of-N and ranking ask more of Q than Stage 3 does.
ALL_GAMES: Changes = {"recipe.yaml": {"rollouts": {"games": 1000}}}
# With a row per visit instead of a pair there are many more rows, each read once. On less than a third of them (4,480)
# InversePRM gains almost nothing; a second epoch of soft BCE does not improve Q on valid_seen. A batch has four
# episodes, about 32 visits: with 16 episodes V has a BCE of 0.480 on 10,406 test rows, with 4 of 0.454.
ONCE: dict[str, Any] = {"num_train_epochs": 1, "per_device_train_batch_size": 4}
# Stage 3 beyond the recipe's number of steps, with all checkpoints. Its rate is constant, so a shorter run is a prefix.
CURVE: Changes = {"online_dpo.yaml": {"max_steps": 40, "save_total_limit": None}}
LONG_CURVE: Changes = {"online_dpo.yaml": {"max_steps": LONG, "save_total_limit": None}}
STEERED: Changes = {"online_dpo.yaml": {"exploration_probability": 0.5}}
EXPERT: Changes = {
    "recipe.yaml": {"start": {"demonstrations": dict.fromkeys(("dawdling", "mistakes", "random_actions"), 0.0)}}
}
INVERSE: Changes = {
    "recipe.yaml": {"branches": None, "labels": {"kind": "inverse"}},
    "prm.yaml": {"loss": "inverse", **ONCE},
}
# Demonstrations for SFT and InversePRM; the passes of a Q over its transitions, which are as many as theirs, twice; and
# the groups in a batch, for about 32 rows: learner transitions are drawn alone where they are few.
DEMONSTRATIONS = {10: (16, 16), 50: (4, 16), 800: (1, 4)}
ABSOLUTE: Changes = {"recipe.yaml": {"labels": {"kind": "monte_carlo"}}, "prm.yaml": {"loss": "soft_bce", **ONCE}}
INDEPENDENT: Changes = merged(ABSOLUTE, {"recipe.yaml": {"branches": None}})
# V of pi_0, on the rollouts of the recipe's first iteration.
VALUE: Changes = {
    "recipe.yaml": {"labels": {"kind": "value"}, "quality": None},
    "prm.yaml": {"loss": "value", **ONCE},
}
# As many branches as the recipe's, from a fifth of the states.
FEWER_STATES: Changes = {"recipe.yaml": {"branches": {"states_per_episode": 1, "continuations": 5}}}
# What Stage 3 does with a reward that knows nothing: the head is as it was drawn, on pi_0's own states.
UNTRAINED: Changes = {"prm.yaml": {"learning_rate": 0.0, "max_steps": 1}}
JUDGE: Changes = {"recipe.yaml": {"rollouts": {"seed": 500}}}
_OF_ANY_TRAINING = ("logging_steps", "use_cpu", "bf16", "gradient_checkpointing", "report_to")


def online_stage3(run: Run) -> dict[str, Any]:
    """The host's file of the recipe's online DPO."""
    assert run.recipe.stages.online_dpo is not None
    return read_yaml(run.folder / run.recipe.stages.online_dpo)


def sampled_by_online_dpo(run: Run) -> int:
    """The number of responses: two to each prompt of a batch."""
    config = online_stage3(run)
    return int(2 * config["max_steps"] * config["per_device_train_batch_size"])


def by(stage: str, config: Mapping[str, Any], **recipe: Any) -> dict[str, Any]:
    """Stage 3 by `stage` with the host's settings `config`, instead of online DPO."""
    stages = {"online_dpo": None, stage: f"{stage}.yaml"}
    return {"recipe.yaml": {"stages": stages, **recipe}, f"{stage}.yaml": dict(config)}


def rejection_sampling(run: Run, seed: int, responses: int, n: int) -> dict[str, Any]:
    """The best of `n` at responses / n states, and SFT on them: two epochs of batches of 16 rows."""
    config = {
        "model_name_or_path": "{run}/pi_{iter-1}",
        "dataset_name": "{run}/iter{iter}/dataset/rejection_sampling",
        "output_dir": "{run}/iter{iter}/policy",
        "num_train_epochs": 2,
        "per_device_train_batch_size": 16,
        "learning_rate": 2.5e-4,
        "lr_scheduler_type": "constant",
        "max_length": online_stage3(run)["max_length"],
        "eval_strategy": "no",
        "save_strategy": "no",
        **{key: value for key, value in online_stage3(run).items() if key in _OF_ANY_TRAINING},
        "seed": seed,
    }
    chosen = {"n": n, "temperature": online_stage3(run)["temperature"]}
    prompts = {"size": responses // n, "train_share": 1.0}
    return by("rejection_sampling", config, rejection_sampling=chosen, labels={"prompts": prompts})


def policy_gradient(run: Run, seed: int, responses: int, n: int) -> dict[str, Any]:
    """As many steps as online DPO, with as many responses in each: `n` at each prompt."""
    online = online_stage3(run)
    shared = (*_OF_ANY_TRAINING, "model_name_or_path", "reward_model_path", "dataset_name", "output_dir", "temperature")
    config = {
        **{key: online[key] for key in (*shared, "beta", "max_steps", "learning_rate", "lr_scheduler_type")},
        "num_generations": n,
        "max_completion_length": online["max_new_tokens"],
        "per_device_train_batch_size": responses // online["max_steps"],
        "save_strategy": "no",
        "seed": seed,
    }
    return by("policy_gradient", config)


def dagger_from(run: Run, seed: int) -> dict[str, Any]:
    """Rows are single turns, of which an episode of SFT has about eight: eight times as many in a batch."""
    assert run.recipe.start.sft is not None
    sft = read_yaml(run.folder / run.recipe.start.sft)
    config = {
        **sft,
        "dataset_name": "{run}/iter{iter}/dataset/dagger",
        "output_dir": "{run}/iter{iter}/policy",
        "per_device_train_batch_size": 8 * sft["per_device_train_batch_size"],
        "seed": seed,
    }
    labels = {"kind": "dagger", "options": {"search": "as_listed"}}
    without_q = {"branches": None, "quality": None, "labels": labels, "evaluation": {"best_of": 1}}
    changes = by("dagger", config, **without_q)
    return merged(changes, {"recipe.yaml": {"stages": {"prm": None}}})


def sft_from_pi_0(variants: Variants, games: int) -> Run:
    """Three passes of SFT, but at least 20 steps, from pi_0 on one demonstration of the expert for each of `games`."""
    [run] = variants.run()
    assert run.recipe.start.sft is not None
    batch = read_yaml(run.folder / run.recipe.start.sft)["per_device_train_batch_size"]
    start = {"model": str(run.policy(0)), "demonstrations": {"games": games, "rollouts_per_game": 1}}
    steps = max(20, 3 * games // batch)
    sft = {"max_steps": steps, "warmup_steps": steps // 10, "save_strategy": "no"}
    changes = merged(EXPERT, {"recipe.yaml": {"start": start}, run.recipe.start.sft: sft})
    return variants.start(f"expert-{games}", changes)


def inverse_of(variants: Variants, games: int) -> dict[str, Any]:
    """InversePRM on the demonstrations of `sft_from_pi_0`."""
    expert = {"expert": [beside(sft_from_pi_0(variants, games), "demonstrations")]}
    passes, batch = DEMONSTRATIONS[games]
    prm = {"num_train_epochs": passes, "per_device_train_batch_size": batch}
    return merged(INVERSE, {"recipe.yaml": {"labels": {"options": expert}}, "prm.yaml": prm})


def reset_to_the_expert(variants: Variants) -> dict[str, Any]:
    """Half of the prompts of Stage 3 at states of the expert."""
    expert = [beside(variants.start("expert", EXPERT), "demonstrations")]
    return {"recipe.yaml": {"labels": {"prompts": {"expert": expert, "expert_fraction": 0.5}}}}


def other_q(variants: Variants, seed: int) -> dict[str, Any]:
    """The recipe's Q, trained with another seed."""
    return {"prm.yaml": {"seed": 1000 * variants.seed + seed}}


def fewer(games: int) -> dict[str, Any]:
    return {"recipe.yaml": {"rollouts": {"games": games}}}


def shaped(variants: Variants, alpha: float) -> dict[str, Any]:
    """Few rollouts, with targets shaped by V of pi_0, which is fitted on all of the recipe's rollouts."""
    few = merged(merged(ABSOLUTE, CURVE), {**fewer(FEW), "prm.yaml": {"num_train_epochs": PASSES}})
    if not alpha:
        return few
    options = {"alpha": alpha, "value_fn": beside(variants.q("value", VALUE))}
    return merged(few, {"recipe.yaml": {"labels": {"kind": "shaping", "options": options}}})
