"""Ray actors that keep a part of the data between calls, for work that takes many rounds.

Calls carry all that an actor needs to come back from nothing: Ray starts one that died again and
repeats its call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tagsieve.engines.config import RayConfig
from tagsieve.engines.ray import cores, gpus_of_each, share_of_cores
from tagsieve.errors import RunError

if TYPE_CHECKING:
    from ray import ObjectRef

RESTARTS = 3
AHEAD = 2

Task = TypeVar("Task")


class Workers:
    """`count` actors of `cls(*arguments, threads)`, each with its share of the cores and a GPU
    where the cluster has one for each. Usable as a context, which ends them.

    `setting`: what sets `count` in the recipe, for messages.
    """

    def __init__(
        self,
        cls: type,
        arguments: list[tuple[Any, ...]],
        config: RayConfig,
        label: str,
        setting: str = "select.workers",
    ) -> None:
        import ray

        threads = share_of_cores(config, len(arguments))
        options = {
            # More actors than cores still find a place.
            "num_cpus": min(threads, cores(config) / len(arguments)),
            "num_gpus": gpus_of_each(len(arguments)),
            "max_restarts": RESTARTS,
            "max_task_retries": RESTARTS,
        }
        remote = ray.remote(cls).options(**options)
        self.actors = [remote.remote(*each, threads) for each in arguments]
        self._label, self._setting = label, setting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor)

    def in_order(
        self, tasks: Iterable[Task], call: Callable[[Any, Task], ObjectRef[Any]]
    ) -> Iterator[tuple[Task, Any]]:
        """Each task with the result of `call(actor, task)`, in the order of tasks.

        `AHEAD` calls are at each actor; a call is made only when there is room for it.
        """
        waiting: deque[tuple[Task, ObjectRef[Any]]] = deque()
        for number, task in enumerate(tasks):
            waiting.append((task, call(self.actors[number % len(self.actors)], task)))
            if len(waiting) == AHEAD * len(self.actors):
                first, ref = waiting.popleft()
                yield first, self.result(ref)
        for task, ref in waiting:
            yield task, self.result(ref)

    def result(self, ref: ObjectRef[Any]) -> Any:
        """The result of a call. Raises RunError when the actor died too often, or of its own
        error."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        try:
            return ray.get(ref)
        except RayTaskError as error:
            raise RunError(f"{self._label}: {type(error.cause).__name__}: {error.cause}") from error
        except RayActorError as error:
            raise RunError(
                f"{self._label}: a worker died {RESTARTS + 1} times (out of memory? more of "
                f"{self._setting} hold less each): {error}"
            ) from error
