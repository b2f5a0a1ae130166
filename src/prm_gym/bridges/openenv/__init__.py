"""An OpenEnv server of a text environment, and its client.

    python -m prm_gym.bridges.openenv GAMES [--split train] [--port 8000] [--sessions 64]

Each WebSocket is a session with an environment of its own. A client begins a task by its name or a seed, sends one
command a step, reads a snapshot from the state and restores one by `reset`. It gives no path: a task's name is looked
up, never opened. What clients send is at most `MESSAGE_BYTES` long, and a session that idles is closed.

Left out: OpenEnv's MCP tools and web page.
"""

from __future__ import annotations

try:
    from prm_gym.bridges.openenv.client import TextEnvClient
    from prm_gym.bridges.openenv.messages import MESSAGE_BYTES, Command, Shown, TextState
    from prm_gym.bridges.openenv.server import TextEnvironment, app
except ModuleNotFoundError as error:
    _missing = error.name

    def __getattr__(name: str) -> object:  # not at once: `__main__`, which imports this package, says it in one line
        if name not in __all__:
            raise AttributeError(name)
        raise ModuleNotFoundError(f"{_missing} is not installed; pip install 'prm-gym[openenv]'", name=_missing)


__all__ = ["MESSAGE_BYTES", "Command", "Shown", "TextEnvClient", "TextEnvironment", "TextState", "app"]
