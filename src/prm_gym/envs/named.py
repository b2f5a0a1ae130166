"""Environments by name, so that recipes and commands can state them and every worker process can construct them.

NamedEnvironment(id="package:Name-v0", kwargs={...})                   as `gymnasium.make`; imports package first
NamedEnvironment(factory="package.module:factory", kwargs={...})       calls factory(**kwargs)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from numbers import Real
from os import PathLike
from typing import Any, cast

import gymnasium

from prm_gym.envs.contract import RAISED, CheckedEnvironment, Environment, Task, method
from prm_gym.envs.games import SPLITS
from prm_gym.errors import UserError, first_line

SEEDS = 10_000  # per split, as tasks of an environment without `tasks`; splits share none
_METHODS = ("reset", "step", "close")  # of an environment
_NO_LIMIT = -1  # in gymnasium.make; the rollout sets the step limit


@dataclass(frozen=True)
class NamedEnvironment:
    """A text environment by its gymnasium `id` or its `factory`, with the arguments `kwargs`. `reward_range` holds the
    bounds of an episode's return, which is needed if rewards do not sum to [0, 1] (see `contract`). Calling the object
    constructs the environment.
    """

    id: str | None = None
    factory: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    reward_range: list[float] | None = None

    @property
    def name(self) -> str:
        return str(self.id or self.factory)

    @property
    def settings(self) -> dict[str, Any]:
        """For provenance.json."""
        return asdict(self)

    def check(self, where: str | PathLike[str], prefix: str = "") -> None:
        """Raise `UserError` for the first field that cannot be used; `prefix` comes before its name in `where`."""
        if (self.id is None) is (self.factory is None):
            problem = "neither id nor factory" if self.id is None else "both id and factory"
            raise UserError(where, problem, "give one of them", field=f"{prefix}id")
        if self.factory is not None and not all(part for part in self.factory.partition(":")):
            problem = f"{self.factory!r} names no factory"
            raise UserError(where, problem, "say package.module:factory", field=f"{prefix}factory")
        bounds = self.reward_range
        if bounds is not None and not _is_range(bounds):
            problem = f"got {bounds}"
            raise UserError(where, problem, "give [low, high] with low < high", field=f"{prefix}reward_range")
        try:
            dict(**self.kwargs)
            json.dumps(self.kwargs, allow_nan=False)
        except (TypeError, ValueError) as error:
            problem = f"no arguments of JSON values ({error})"
            remedy = "give a mapping of names to texts, numbers, lists and mappings"
            raise UserError(where, problem, remedy, field=f"{prefix}kwargs") from None

    def __call__(self) -> CheckedEnvironment:
        return CheckedEnvironment(self.make(), self.name, self.reward_range)

    def make(self) -> Environment:
        """The environment. Raises `UserError` as `check`, and if its name is unknown, a module or an argument is
        missing, its code is faulty, or a factory makes something else.
        """
        self.check("env")
        module = self.name.partition(":")[0] if ":" in self.name else None
        try:
            if module is not None:
                import_module(module)
            if self.factory is not None:
                made = _find(self.name)(**self.kwargs)
                if absent := [name for name in _METHODS if not callable(getattr(made, name, None))]:
                    problem = f"made a {type(made).__name__}, which has no method {absent[0]}"
                    raise UserError(self.name, problem, "return a gymnasium.Env")
                return cast(Environment, made)
            options: Mapping[str, Any] = {"max_episode_steps": _NO_LIMIT, "disable_env_checker": True}
            return cast(Environment, gymnasium.make(self.name, **options, **self.kwargs))
        except UserError:
            raise
        except ImportError as error:
            if not isinstance(error, ModuleNotFoundError) or error.name is None:
                raise UserError(self.name, first_line(error), "correct the import, or install its package") from error
            if f"{module}.".startswith(f"{error.name}."):
                remedy = "correct the name, put its folder on PYTHONPATH, or pip install -e its project"
                raise UserError(self.name, f"module {error.name} not found", remedy) from error
            problem = f"{module or self.name} is there, but it imports {error.name}, which is missing"
            raise UserError(self.name, problem, "install the package of that module") from error
        except gymnasium.error.DependencyNotInstalled as error:
            raise UserError(self.name, first_line(error), "install it") from error
        except gymnasium.error.Error as error:
            raise UserError(self.name, first_line(error), "correct the id, or import its package: module:id") from error
        except RAISED as error:
            problem = f"cannot be made ({type(error).__name__}: {first_line(error)})"
            remedy = "correct its code" if isinstance(error, SyntaxError | NameError) else "correct its kwargs or code"
            raise UserError(self.name, problem, remedy) from error

    def tasks(self, split: str) -> list[Task]:
        """The tasks of `split`: those of the environment's own `tasks(split)`, or else 10,000 seeds.

        Raises `UserError` as `make`, and for an unknown split.
        """
        env = self.make()
        try:
            named = method(env, "tasks")
            if named is None:
                return self._seeds(split)
            found = list(named(split))
        except UserError:
            raise
        except RAISED as error:
            problem = f"tasks({split!r}) raised {type(error).__name__}: {first_line(error)}"
            raise UserError(self.name, problem, "correct the environment") from error
        finally:
            env.close()
        if not found or not all(isinstance(task, Task) for task in found):
            problem = f"tasks({split!r}) gave no tasks"
            raise UserError(self.name, problem, "return a list of prm_gym.envs.contract.Task")
        if twice := [name for name, count in Counter(task.game_id for task in found).items() if count > 1]:
            problem = f"tasks({split!r}) names {twice[0]!r:.80} twice"
            raise UserError(self.name, problem, "give each task a game_id of its own")
        return found

    def _seeds(self, split: str) -> list[Task]:
        if split not in SPLITS:
            raise UserError(self.name, f"has no split {split!r}", f"say {', '.join(SPLITS)}", field="split")
        first = SPLITS.index(split) * SEEDS
        return [Task(f"{self.name}/{split}/{seed}", split, seed=seed) for seed in range(first, first + SEEDS)]


def _is_range(bounds: object) -> bool:
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        return False
    return all(isinstance(each, Real) for each in bounds) and bool(-1e300 < bounds[0] < bounds[1] < 1e300)


def named_by(name: str) -> NamedEnvironment:
    """The environment of `package.module:factory`, or of a gymnasium id: `Name-v0` or `module:Name-v0`."""
    is_factory = name.partition(":")[2].replace(".", "").isidentifier()
    return NamedEnvironment(factory=name) if is_factory else NamedEnvironment(id=name)


def _find(factory: str) -> Callable[..., object]:
    module, _, attribute = factory.partition(":")
    found: Any = import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        raise UserError(factory, f"{module} has no function {attribute}", "say package.module:factory")
    return cast(Callable[..., object], found)
