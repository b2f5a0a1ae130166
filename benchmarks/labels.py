"""The cost of labels: targets by SQL against a plain Python dictionary, at the size of the paper's largest collection.

    python benchmarks/labels.py --episodes 70000                # about 1 GB of disk in a temporary folder
    python benchmarks/labels.py --episodes 7000                 # a tenth: a minute or two
    python benchmarks/labels.py --episodes 70000 --copies 10    # 700,000 episodes: 7 GB of disk, 12 GB of memory

Episodes of 30 turns with texts of ALFWorld's size are generated into a store, 20 to a game, so that early states
repeat. With `--copies` each part is stored several times, with other episodes, games and states. Then, each in a
process of its own, on the same files:

- targets: open the store, Eq. 1 for every (s, a), the statistics; no text is read or written.
- the same on a tenth of the episodes (of one copy), which shows how time and memory grow.
- a Python dictionary from hashed (s, a) to the returns through it, as the paper describes it, reading only the columns
  it needs.
- emission: the whole `monte_carlo` dataset of some episodes (`--emit`), rendered by each prompt and written.
- loading: `datasets.load_dataset` of that folder into an empty cache, and the size of the cache.

Emission and loading go row by row, so their time and sizes are proportional to the rows; `--scale` prints them for
another number of episodes.

The last lines are ratios. CPU time says what the work costs on a machine that others use too. Memory is the peak of
the process (resident set), the imports in it.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import disable_progress_bars, load_dataset

from prm_gym.labels import monte_carlo
from prm_gym.labels.sql_views import Rollouts
from prm_gym.labels.statistics import of_states, of_targets
from prm_gym.store import EpisodeWriter, parts
from prm_gym.types import Episode, StopReason, Turn, extend_key, state_key

TURNS = 30
ROLLOUTS_PER_GAME = 20
GAMMA = 0.95


def generate(folder: Path, episodes: int) -> None:
    """Random walks whose observations are a function of the state: equal histories are equal states."""
    draw = random.Random(0)
    letters = "".join(draw.choices("eeeettaaooinnsshrdlu    ", k=1 << 20))
    objects = [
        f"{name} {n}" for name in ("mug", "apple", "drawer", "countertop", "cabinet", "shelf") for n in range(20)
    ]
    verbs = ("go to", "open", "examine", "take")
    menus = [sorted(f"{draw.choice(verbs)} {draw.choice(objects)}" for _ in range(40)) for _ in range(500)]
    sights = [f"You arrive at {draw.choice(objects)}. On it, you see {_list(draw, objects, 6)}." for _ in range(5000)]
    rooms = [f"You are in a room. Looking around you, you see {_list(draw, objects, 31)}." for _ in range(3553)]
    with EpisodeWriter(folder, flush_episodes=1000) as writer:
        for number in range(episodes):
            if f"e{number:07d}" in writer.finished:
                continue
            draw = random.Random(number)
            game = number // ROLLOUTS_PER_GAME
            key = state_key(f"game-{game}", [rooms[game % len(rooms)]], [])
            observation, turns = rooms[game % len(rooms)], []
            won = draw.random() < 0.6
            for turn in range(TURNS):
                place = int.from_bytes(key[:4], "little")
                menu = menus[place % len(menus)]
                action = menu[min(int(draw.expovariate(0.8)), 39)]
                start = draw.randrange(1 << 19)
                reason = letters[start : start + 180]
                last = won and turn == TURNS - 1
                turns.append(
                    Turn(
                        turn=turn,
                        observation=observation,
                        admissible_commands=menu,
                        response=f"REASON: {reason}\nACTION: {action}",
                        reason=reason,
                        action=action,
                        action_valid=True,
                        reward=float(last),
                        terminated=last,
                        state_key=key,
                        prompt_tokens=900,
                        response_tokens=60,
                    )
                )
                observation = sights[(place + len(action)) % len(sights)]
                key = extend_key(key, action, observation)
            turns.append(Turn(turn=TURNS, observation=observation, admissible_commands=menus[0], state_key=key))
            stop = StopReason.WON if won else StopReason.STEP_LIMIT
            task = f"put some {objects[game % len(objects)]} in cabinet"
            writer.add(Episode(f"e{number:07d}", f"game-{game}", "train", task, "pick", "pi_0", 1, number, stop, turns))


def copy(folder: Path, to: Path, copies: int) -> None:
    """Every part `copies` times: the same texts in other episodes of other games, and so at other states."""
    to.mkdir(exist_ok=True)
    for part in parts(folder):
        table = pq.read_table(part)
        keys = np.frombuffer(b"".join(table["state_key"].to_pylist()), np.uint8).reshape(len(table), -1)
        for number in range(copies):
            file = to / f"{part.stem}-{number}.parquet"
            if file.exists():
                continue
            columns = {name: table[name] for name in table.schema.names}
            for name in ("episode_id", "game_id"):
                columns[name] = pc.binary_join_element_wise(table[name], str(number), "-")
            moved = pa.py_buffer((keys ^ np.uint8(number)).tobytes())
            columns["state_key"] = pa.Array.from_buffers(pa.binary(keys.shape[1]), len(table), [None, moved])
            pq.write_table(
                pa.table(columns, schema=table.schema), to / "unfinished", compression="zstd", row_group_size=8192
            )
            (to / "unfinished").rename(file)


def targets(folder: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder.parent) as work, Rollouts([folder], Path(work)) as source:
        monte_carlo.action_values(source, GAMMA)
        found = {**of_targets(source, "action_values"), **of_states(source, "action_values")}
        (rows, checksum) = source.one("SELECT count(*), sum(target * count) FROM action_values")
    return {"rows": rows, "sum": checksum, "visits": found["visits"]}


def dictionary(folder: Path) -> dict[str, float]:
    """G(s, a) as a dictionary of lists, filled episode by episode."""
    returns: dict[tuple[bytes, str], list[float]] = defaultdict(list)
    columns = ["episode_id", "turn", "state_key", "action", "reward"]
    for part in parts(folder):
        for batch in pq.ParquetFile(part).iter_batches(columns=columns):
            rows = list(zip(*(batch[name].to_pylist() for name in columns), strict=True))
            waiting: list[tuple[bytes, str, float]] = []
            for _, _, key, action, reward in rows:
                if reward is not None:
                    waiting.append((key, action, reward))
                    continue
                g = 0.0
                while waiting:
                    key, action, reward = waiting.pop()
                    g = reward + GAMMA * g
                    returns[key, action].append(g)
    q = {pair: (sum(found) / len(found), len(found)) for pair, found in returns.items()}
    return {"rows": len(q), "sum": sum(target * n for target, n in q.values()), "visits": sum(n for _, n in q.values())}


def emission(folder: Path, prompt: str) -> dict[str, float]:
    out = folder.parent / f"out-{prompt}"
    report = monte_carlo.label([folder], out, prompt=prompt)
    return {"rows": sum(report.rows.values()), "megabytes": _megabytes(out, "*.parquet")}


def loading(folder: Path, prompt: str) -> dict[str, float]:
    out, cache = folder.parent / f"out-{prompt}", folder.parent / "cache"
    rows = sum(map(len, load_dataset(str(out), cache_dir=str(cache)).values()))
    found = {"rows": rows, "megabytes": _megabytes(cache, "*.arrow")}
    shutil.rmtree(out)
    shutil.rmtree(cache)
    return found


def _megabytes(folder: Path, pattern: str) -> float:
    return sum(file.stat().st_size for file in folder.rglob(pattern)) / 1e6


def measure(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float, float]:
    """Result, seconds, CPU seconds and peak gigabytes of a call in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measured, args=(queue, work, arguments))
    process.start()
    answer: tuple[Any, float, float, float] = queue.get()
    process.join()
    return answer


def _measured(queue: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    disable_progress_bars()
    start, busy = time.perf_counter(), time.process_time()
    result = work(*arguments)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    queue.put((result, seconds, busy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))


def _told(what: str, label: str, episodes: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> None:
    _, seconds, busy, peak = measure(work, *arguments)
    size = sum(part.stat().st_size for part in parts(folder / label)) / 1e6
    cost = f"{seconds:.1f} s ({busy:.1f} s CPU), {size:.0f} MB, peak {peak:.2f} GB"
    print(f"{what} {episodes:,} episodes: {cost}", flush=True)


def _list(draw: random.Random, objects: list[str], most: int) -> str:
    return ", ".join(f"a {name}" for name in draw.sample(objects, draw.randint(most // 2, most)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=70_000)
    parser.add_argument("--emit", type=int, default=2_000, help="episodes whose dataset is written; 0: none")
    parser.add_argument("--scale", type=int, default=70_000, help="episodes for which emission and loading are told")
    parser.add_argument("--no-targets", dest="targets", action="store_false", help="measure emission and loading alone")
    parser.add_argument("--folder", type=Path, help="keep the stores here, and go on with those that are there")
    parser.add_argument("--copies", type=int, default=1, help="copies of the episodes from which targets are computed")
    options = parser.parse_args()
    small, large = ("tenth", "whole") if options.copies == 1 else ("whole", "copies")
    sizes = {"tenth": options.episodes // 10, "whole": options.episodes, "copies": options.episodes * options.copies}
    with contextlib.nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.mkdir(exist_ok=True)
        made = [("emit", options.emit)] if options.emit else []
        made += [(label, sizes[label]) for label in dict.fromkeys((small, "whole"))] if options.targets else []
        for label, episodes in made:
            _told("generated", label, episodes, folder, generate, folder / label, episodes)
        if options.targets and large == "copies":
            _told("copied", large, sizes[large], folder, copy, folder / "whole", folder / large, options.copies)
        results = {}
        for what, work, label in (
            (
                (f"targets of {sizes[small]:,}", targets, small),
                ("targets", targets, large),
                ("dictionary", dictionary, large),
            )
            if options.targets
            else ()
        ):
            result, seconds, busy, peak = measure(work, folder / label)
            results[what] = result, seconds, busy, peak
            turns = sizes[label] * TURNS
            print(
                f"{what}: {seconds:.1f} s ({busy:.1f} s CPU), peak {peak:.2f} GB, {turns / seconds:,.0f} turns/s, "
                f"{result['rows']:,} rows from {result['visits']:,} visits",
                flush=True,
            )
        for prompt in ("full", "compact") if options.emit else ():
            for name_of, work in (("emission", emission), ("loading", loading)):
                result, seconds, busy, peak = measure(work, folder / "emit", prompt)
                rows, size, times = result["rows"], result["megabytes"], options.scale / options.emit
                print(
                    f"{name_of}, {prompt}: {seconds:.1f} s ({busy:.1f} s CPU), peak {peak:.2f} GB, {rows:,} rows, "
                    f"{size:.0f} MB; {options.scale:,} episodes: {times * busy / 60:.0f} min CPU, "
                    f"{times * rows:,.0f} rows, {times * size / 1e3:.1f} GB",
                    flush=True,
                )
        if not options.targets:
            return
    whole, seconds, busy, peak = results["targets"]
    _, small_seconds, small_busy, small_peak = results[f"targets of {sizes[small]:,}"]
    plain, plain_seconds, plain_busy, plain_peak = results["dictionary"]
    assert plain["rows"] == whole["rows"]
    assert abs(plain["sum"] - whole["sum"]) < 1e-6 * whole["sum"]
    for name, time_ratio, busy_ratio, peak_ratio in (
        (
            f"targets, {sizes[large]:,} / {sizes[small]:,} episodes",
            seconds / small_seconds,
            busy / small_busy,
            peak / small_peak,
        ),
        ("dictionary / targets", plain_seconds / seconds, plain_busy / busy, plain_peak / peak),
    ):
        print(f"{name}: time x{time_ratio:.1f}, CPU time x{busy_ratio:.1f}, memory x{peak_ratio:.1f}")


if __name__ == "__main__":
    main()
