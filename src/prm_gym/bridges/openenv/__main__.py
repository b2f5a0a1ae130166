"""`python -m prm_gym.bridges.openenv GAMES`: serve the ALFWorld games in a folder."""

from __future__ import annotations

import argparse

from prm_gym.bridges.world import alfworld
from prm_gym.errors import UserError, run_program


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m prm_gym.bridges.openenv", description=__doc__)
    parser.add_argument("games")
    parser.add_argument("--split", default="train")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--sessions", type=int, default=64)
    options = parser.parse_args()
    try:
        import uvicorn

        from prm_gym.bridges.openenv import MESSAGE_BYTES, app
    except ModuleNotFoundError:
        raise UserError(
            "prm_gym.bridges.openenv", "openenv is not installed", "pip install 'prm-gym[openenv]'"
        ) from None
    served = app(alfworld(options.games, options.split), options.sessions)
    uvicorn.run(served, host=options.host, port=options.port, ws_max_size=MESSAGE_BYTES, log_level="warning")


if __name__ == "__main__":
    run_program(main)
