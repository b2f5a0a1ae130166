"""The episode store: a folder of Parquet files, one row per turn, an episode whole or not at all.

`episodes` writes and reads a folder, `parquet` one file of it, `metrics` reads the counts of its rollouts,
`check` finds and repairs damage.
"""

from __future__ import annotations

from prm_gym.store.episodes import EpisodeWriter, finished_ids, parts, read_episodes, stores, won_ids

__all__ = ["EpisodeWriter", "finished_ids", "parts", "read_episodes", "stores", "won_ids"]
