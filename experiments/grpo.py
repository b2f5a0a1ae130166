"""AgentPRM against GRPO, by outcome and with Q as a reward of steps, at equal numbers of sampled tokens:

    python -m experiments.grpo recipes/embedded [--seeds 3] [--reward outcome q] [--tokens N] [--run runs/gain/embedded]

AgentPRM's pi_1 has cost the rollouts and branches behind Q_0, and the responses of Stage 3; it is also trained on parts
of the games, which cost less. GRPO (TRL, through `bridges.trl`) starts from the same pi_0 and plays the same training
games, by default until it has sampled as many tokens as AgentPRM on all games. With `--reward q` its reward is the
outcome plus Q_0's mean over the steps, and the tokens behind Q_0 count too. Its checkpoints are evaluated as pi_1 is,
on the recipe's held-out games. Seeds differ as those of `experiments.gain`, whose runs this one shares. It resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.changes import fewer, sampled_by_online_dpo
from experiments.gain import percent, place
from experiments.variants import Variants, complete
from prm_gym.errors import UserError, run_program
from prm_gym.evaluation import intervals
from prm_gym.evaluation.intervals import Outcome, outcome
from prm_gym.runs import recipe
from prm_gym.runs.iteration import Run
from prm_gym.runs.stage import MANIFEST, Stage

EPISODES, GROUP = 32, 8  # in a step; of one game
PARTS = (1 / 16, 1 / 4, 1 / 2, 1)  # of the budget, after which a checkpoint is evaluated
LONGEST = 1024  # tokens of an episode, the environment's too: longer than any
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": EPISODES,
    "num_generations": GROUP,
    "temperature": 0.7,  # as Stage 3 of the embedded recipe, and its rate
    "learning_rate": 2.5e-4,
    "lr_scheduler_type": "constant",
    "max_completion_length": LONGEST,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="experiments.grpo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, help="on the TRL host, with online DPO")
    parser.add_argument("--seeds", type=int, default=3, help="0 .. SEEDS - 1")
    parser.add_argument("--reward", nargs="+", choices=("outcome", "q"), default=["outcome", "q"])
    parser.add_argument("--tokens", type=int, help="to sample, by default as many as AgentPRM")
    parser.add_argument("--run", type=Path, help="by default runs/gain/<name of the recipe>")
    options = parser.parse_args(arguments)
    if recipe.load(options.recipe).stages.online_dpo is None:
        problem, remedy = "missing", "compare a recipe by online DPO"
        raise UserError(options.recipe / "recipe.yaml", problem, remedy, field="stages.online_dpo")
    root = options.run or place(options.recipe)
    seeds = [
        list(compared(Variants(options.recipe, root, seed), options.reward, options.tokens))
        for seed in range(options.seeds)
    ]
    show(list(zip(*seeds, strict=True)))


@dataclass(frozen=True)
class Cost:
    """Sampled tokens, and seconds on the machine that ran the stages."""

    tokens: int
    seconds: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.tokens + other.tokens, self.seconds + other.seconds)


@dataclass(frozen=True)
class Trained:
    """One seed of a policy, and what it has cost."""

    name: str
    cost: Cost
    outcome: Outcome


def compared(variants: Variants, rewards: Sequence[str], tokens: int | None) -> Iterator[Trained]:
    [run] = variants.run()
    yield Trained("pi_0", Cost(0, 0), variants.evaluated(run, 0))
    for part in PARTS:
        games = round(part * run.recipe.rollouts.games)
        [less] = variants.run(f"games-{games}", fewer(games)) if part < 1 else [run]
        cost = cost_of_q(less) + cost_of_stage3(less)
        yield Trained(f"AgentPRM, pi_1 on {games} games", cost, variants.evaluated(less, 1))
    q, stage3 = cost_of_q(run), cost_of_stage3(run)
    for reward in rewards:
        trained = training(run, reward, tokens or (q + stage3).tokens, variants.seed)
        complete([trained], trained.out)
        before, name = (q, "GRPO, outcome and Q") if reward == "q" else (Cost(0, 0), "GRPO, outcome")
        for part, (step, cost) in zip(PARTS, checkpoints(trained.out), strict=True):
            evaluation = evaluated(run, trained.out / f"checkpoint-{step}")
            yield Trained(f"{name}, {part:.0%} of its tokens", before + cost, evaluation)


def cost_of_q(run: Run) -> Cost:
    """Of Q_0, with its rollouts and branches."""
    stages = [manifest(run.iter / name) for name in ("rollouts", "branches", "dataset/prm", "prm")]
    return Cost(sum(stage.get("response_tokens", 0) for stage in stages), sum(stage["seconds"] for stage in stages))


def cost_of_stage3(run: Run) -> Cost:
    """Two responses to each prompt, of the rollouts' mean length."""
    rollouts = manifest(run.iter / "rollouts")
    tokens = round(sampled_by_online_dpo(run) * rollouts["response_tokens"] / rollouts["actions"])
    return Cost(tokens, sum(manifest(run.iter / name)["seconds"] for name in ("dataset/prompts", "policy")))


def manifest(stage: Path) -> dict[str, Any]:
    """The facts of a stage; none of one that the recipe does not have."""
    if not stage.exists():
        return {"seconds": 0.0}
    found: dict[str, Any] = json.loads((stage / MANIFEST).read_text("utf-8"))
    return found


def training(run: Run, reward: str, budget: int, seed: int) -> Stage:
    """GRPO from pi_0 until `budget` tokens are sampled."""
    out = run.root / "grpo" / f"{reward}-{seed}-{budget}"
    settings = {"reward": reward, "tokens": budget, "seed": seed, **SETTINGS}
    inputs = run.made_from(run.policy(0), *([run.iter / "prm"] if reward == "q" else []))
    return Stage(f"GRPO by {reward}", out, settings, partial(train, run, reward, budget, seed, out), inputs)


def train(run: Run, reward: str, budget: int, seed: int, out: Path) -> None:
    from transformers import AutoModelForCausalLM, TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint
    from trl import GRPOConfig, GRPOTrainer

    from prm_gym.bridges.step_q import StepQ
    from prm_gym.bridges.trl import environment_factory, rows, text_turns
    from prm_gym.bridges.world import alfworld
    from prm_gym.prompts.tokenizer import load_tokenizer

    class Budget(TrainerCallback):  # type: ignore[misc]
        """Saves a checkpoint at each of `PARTS` of the budget, and ends at the last."""

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            lengths = token_counts(state.log_history)
            control.should_save |= any(sum(lengths[:-1]) < part * budget <= sum(lengths) for part in PARTS)
            control.should_training_stop = sum(lengths) >= budget

    r = run.recipe
    world = alfworld(run.root / "games", max_episode_steps=r.max_episode_steps)
    q = StepQ(run.scorer(), weight=1.0) if reward == "q" else None
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(run.policy(0)),
        args=GRPOConfig(
            **SETTINGS,
            output_dir=str(out),
            seed=seed,
            max_steps=10**6,
            max_tool_calling_iterations=r.max_episode_steps,
            logging_steps=1,
            save_steps=20,
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=rows(world, r.prompt),
        processing_class=text_turns(load_tokenizer(run.policy(0))),
        environment_factory=environment_factory(world, prompt=r.prompt, max_completion_length=LONGEST, q=q),
        callbacks=[Budget()],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if out.exists() else None)


def token_counts(history: Sequence[dict[str, Any]]) -> list[float]:
    """Tokens that each step has sampled."""
    return [EPISODES * entry["completions/mean_length"] for entry in history if "completions/mean_length" in entry]


def checkpoints(out: Path) -> list[tuple[int, Cost]]:
    """The (step, cost) of the checkpoint nearest to each of `PARTS` of all tokens."""
    found = []
    for folder in out.glob("checkpoint-*"):
        history = json.loads((folder / "trainer_state.json").read_text("utf-8"))["log_history"]
        seconds = sum(entry.get("step_time", 0.0) for entry in history)
        found.append((int(folder.name.rpartition("-")[2]), Cost(round(sum(token_counts(history))), seconds)))
    most = max(cost.tokens for _, cost in found)
    return [min(found, key=lambda each: abs(each[1].tokens - part * most)) for part in PARTS]


def evaluated(run: Run, checkpoint: Path) -> Outcome:
    """The outcome of a checkpoint on the games, and with the seed, of the recipe's evaluation."""
    e = run.recipe.evaluation
    out = checkpoint.parent / "eval" / checkpoint.name
    policy = run.sampler(0, e.temperature, checkpoint)
    run.collect(run.games(e.split, e.games), policy, out, max_games=e.games, iteration=0, seed=e.seed)
    return outcome(out)


def show(policies: Sequence[Sequence[Trained]]) -> None:
    """`policies` has an entry per seed for each policy, the first of which is pi_0."""
    title = "success on held-out games, in %, and the gain on pi_0; tokens and seconds are means over the seeds"
    table = Table(title=title, title_justify="left")
    for column in ("policy", "tokens sampled", "seconds", "success", "95%", "seeds", "gain", "95%", "seeds"):
        table.add_column(column)
    start = [seed.outcome for seed in policies[0]]
    for seeds in policies:
        found = [seed.outcome for seed in seeds]
        gained = percent(intervals.gain(found, start), "+") if found != start else ("", "", "")
        tokens, seconds = mean(seed.cost.tokens for seed in seeds), mean(seed.cost.seconds for seed in seeds)
        success = percent(intervals.success(found))
        table.add_row(seeds[0].name, f"{tokens:,.0f}", f"{seconds:,.0f}", *success, *gained)
    Console().print(table)


if __name__ == "__main__":
    run_program(main)
