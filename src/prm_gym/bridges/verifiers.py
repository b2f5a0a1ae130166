"""A taskset of text environments for verifiers (0.4), and the environment in which its tasks are played.

verifiers finds a taskset by the name of a top-level module, so make one, say `alfworld_tasks.py`:

    from prm_gym.bridges.verifiers import OneReply, TextTasks, TextTurns

    __all__ = ["OneReply", "TextTasks", "TextTurns"]

    vf-eval alfworld_tasks --env.taskset.games games --env.taskset.prompt my_prompt.jinja

The model's whole reply is parsed for its action, the observation comes back as the user's turn, and the episode ends
with the environment's. Rewards on the trace: `outcome`, the return, and `q`, Q's mean over the steps, where the taskset
names a PRM. `OneReply` asks the model in this process; verifiers' own chat harness starts a program for every turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from statistics import fmean

try:
    import httpx
    import verifiers.v1 as vf
    from verifiers.v1.types import content_text
except ModuleNotFoundError as error:
    message = f"{error.name} is not installed; pip install 'prm-gym[verifiers]'"
    raise ModuleNotFoundError(message, name=error.name) from None

from prm_gym.bridges import step_q, world
from prm_gym.bridges.text_episode import TextEpisode
from prm_gym.envs import MAX_EPISODE_STEPS


class TextTasksConfig(vf.TasksetConfig):
    games: str = ""
    """Folder of ALFWorld's games."""
    env: str = ""
    """Another text environment in place of ALFWorld: its gymnasium id, or module:factory."""
    split: str = "train"
    max_episode_steps: int = MAX_EPISODE_STEPS
    prompt: str = "compact"
    """A prompt that shows each turn in a message of its own, by name or path."""
    prm: str = ""
    """Folder of a process reward model; none without one."""
    weight: float = 1.0
    """Of the reward `q`."""


class TextTaskData(vf.TaskData):
    task: str


class TextTask(vf.Task[TextTaskData]):
    pass


class TextTasks(vf.Taskset[TextTask, TextTasksConfig]):
    """The tasks of the world that the configuration names."""

    def world(self) -> world.World:
        c = self.config
        return world.configured(c.games, c.env, c.split, c.max_episode_steps)

    def load(self) -> Iterator[TextTask]:
        for task in self.world().tasks:
            yield TextTask(TextTaskData(name=task, prompt=None, task=task), self.config.task)


class OneReply(vf.Harness[vf.HarnessConfig]):
    """An agent without tools: the conversation goes to the model, and its reply ends the turn."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        system, conversation = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": message.role, "content": content_text(message.content)} for message in conversation]
        async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
            url, headers = f"{endpoint}/chat/completions", {"Authorization": f"Bearer {secret}"}
            reply = await client.post(url, headers=headers, json={"model": ctx.model, "messages": messages})
        failed = not reply.is_success
        return vf.ProgramResult(exit_code=int(failed), stdout="", stderr=reply.text if failed else "")


class TextTurnsConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class TextTurns(vf.Env[TextTurnsConfig]):
    """One episode: the environment plays the user."""

    taskset: TextTasks

    async def start(self) -> None:
        config = self.taskset.config
        self._world = self.taskset.world()
        self._q = _q(config.prm)

    async def run(self, task: TextTask, agents: vf.Agents) -> None:
        with closing(TextEpisode(self._world, self.taskset.config.prompt)) as episode:
            *system, first = await asyncio.to_thread(episode.begin, task.data.task)  # a game may have to be compiled
            played = task.with_system_prompt(system[0]["content"]) if system else task
            async with agents.player.interaction(played) as interaction:
                segment = await interaction.turn(first["content"])
                while not segment.terminated and (following := episode.respond(segment.last_reply)):
                    segment = await interaction.turn(following["content"])
        trace = interaction.trace
        trace.record_reward("outcome", sum(episode.rewards))
        if self._q is not None and episode.pairs:
            trace.record_reward("q", fmean(await self._q.rewards_async(episode.pairs)), self.taskset.config.weight)
        trace.record_metric("won", float(episode.won))


@cache
def _q(prm: str) -> step_q.StepQ | None:
    return step_q.configured(prm, weight=1.0)


__all__ = ["OneReply", "TextTasks", "TextTurns"]
