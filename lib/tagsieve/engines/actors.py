"""Chunks of rows through Ray actors that hold a model: bounded, and whoever dies is replaced.

Ray Data has an actor pool of its own. This one exists because a step that pays for its rows needs
three things that Ray Data (2.60) does not promise: no more than a known number of rows between
the reader and the commit, so that a killed run repeats a known number of calls; an engine that
keeps dying ends the job with its own error instead of being started for ever; and a row that
kills the engine is found and set aside.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from tagsieve.errors import EngineDied, RunError, TagsieveError

if TYPE_CHECKING:
    from ray import ObjectRef

Counts = Mapping[str, float]
"""What an actor counted while it did a chunk (model calls, tokens), to be summed."""

NOT_ASKED = "not_asked"
"""The count of rows that an actor left undone because a budget is spent: no more are sent."""

TICK_SECONDS = 1.0


class ModelActor(Protocol):
    """What an actor's class has; both methods may be coroutines."""

    def start(self, counted: Counts) -> Any:
        """Load the model; what it raises ends the job. `counted`: the sums so far."""

    def run(self, batch: pa.Table) -> Any:
        """Rows in, rows and counts out. Raises EngineDied when a new engine may do better."""


@dataclass(frozen=True)
class ActorSpec:
    """Actors of one kind.

    `killed_by(row, error)`: the result for a row on which the engine died, and died again when it
    was alone. `cpus`, `gpus`: of each actor.
    `chunk_rows`: rows of a chunk; `in_flight`: chunks at an actor at once; `concurrent`: how many
    of them it works on at once.
    `restarts`: how often an actor that dies is replaced with no chunk done in between.
    """

    cls: type[ModelActor]
    kwargs: dict[str, Any]
    killed_by: Callable[[pa.Table, str], pa.Table]
    label: str
    replicas: int = 1
    cpus: float = 1
    gpus: float = 0
    chunk_rows: int = 1
    in_flight: int = 2
    concurrent: int = 1
    restarts: int = 3

    @property
    def rows_out(self) -> int:
        """Most rows at all actors at once."""
        return self.replicas * self.in_flight * self.chunk_rows

    def rows_per_commit(self, commit_rows: int | None) -> int | None:
        """At how many waiting rows a commit is due, so that with those at the actors they are never
        more than `commit_rows` for each replica."""
        return None if commit_rows is None else max(1, commit_rows * self.replicas - self.rows_out)


def chunks_of(commit_rows: int | None, rows: int, in_flight: int) -> tuple[int, int]:
    """Rows of a chunk, and chunks at an actor: together at most `in_flight` rows and half of
    `commit_rows`."""
    if commit_rows is not None:
        in_flight = min(in_flight, max(1, commit_rows // 2))
    rows = min(rows, max(1, in_flight // 2))
    return rows, max(1, in_flight // rows)


@dataclass
class _Unit:
    """A chunk; `deaths`: of engines that had it."""

    rows: pa.Table
    deaths: int = 0


@dataclass
class _Slot:
    """The place of one actor, whatever actor fills it."""

    actor: Any
    started: ObjectRef[None]
    ready: bool = False
    deaths: int = 0
    units: dict[ObjectRef[Any], _Unit] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether it has a chunk that must not share the engine, so that a death tells of it."""
        return any(unit.deaths for unit in self.units.values())


class ActorPool:
    """Maps chunks to results over `spec.replicas` actors."""

    def __init__(self, spec: ActorSpec) -> None:
        self.spec = spec
        self._status: Callable[[str], None] = lambda text: None  # noqa: ARG005
        self.counted: dict[str, float] = {}
        self.restarts = 0
        self.start_seconds = 0.0
        self._began = 0.0
        self._slots: list[_Slot] = []
        self._again: deque[_Unit] = deque()
        self._suspects: list[tuple[_Unit, str]] = []

    def start(self) -> None:
        """Start the actors, so that they load their models while something else goes on."""
        self._began = time.monotonic()
        self._slots = [self._new_slot() for _ in range(self.spec.replicas)]

    def stop(self) -> None:
        """End the actors."""
        import ray

        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []

    def map(self, chunks: Iterator[pa.Table], status: Callable[[str], None]) -> Iterator[pa.Table]:
        """The results of all chunks, as they are done, from actors that were started; `status` is
        told what is waited for.

        At most `replicas * in_flight` chunks are out at once. Raises RunError when an engine does
        not start, when its settings are wrong, or when every actor has died `restarts` + 1 times
        in a row, with the engine's own error.
        """
        import ray

        self._status = status
        source, more = iter(chunks), True
        while True:
            more = self._fill(source, more)
            if not (more or self._again or any(slot.units for slot in self._slots)):
                break
            waiting = [slot.started for slot in self._slots if not slot.ready]
            waiting += [ref for slot in self._slots for ref in slot.units]
            done, _ = ray.wait(waiting, timeout=TICK_SECONDS)
            if not done and not any(slot.ready for slot in self._slots):
                self._status(self._starting(time.monotonic() - self._began))
            for ref in done:
                yield from self._take(ref)
        yield from self._sentenced()

    def _new_slot(self) -> _Slot:
        import ray

        spec = self.spec
        actor = (
            ray.remote(spec.cls)
            .options(
                num_cpus=spec.cpus,
                num_gpus=spec.gpus,
                max_concurrency=spec.concurrent,
                max_restarts=0,
            )
            .remote(**spec.kwargs)
        )
        return _Slot(actor, actor.start.remote(dict(self.counted)))

    def _starting(self, seconds: float) -> str:
        import ray

        there = ray.cluster_resources()
        lacking = [
            f"{name} {amount:g} of {there.get(name, 0):g}"
            for name, amount in (("CPU", self.spec.cpus), ("GPU", self.spec.gpus))
            if amount > there.get(name, 0)
        ]
        told = f"; an actor asks for {', '.join(lacking)} in the cluster" if lacking else ""
        return f"{self.spec.label}: starting the model, {seconds:.0f} s{told}"

    def _fill(self, source: Iterator[pa.Table], more: bool) -> bool:
        """Hand out chunks; False once the source has no more, or a budget is spent."""
        more = more and not self.counted.get(NOT_ASKED)
        for slot in self._slots:
            if not slot.ready:
                continue
            # Chunks that saw a death go first, each the only one at its actor.
            if self._again and not slot.units:
                self._send(slot, self._again.popleft())
            while more and not self._again and not slot.alone:
                if len(slot.units) >= self.spec.in_flight:
                    break
                rows = next(source, None)
                if rows is None:
                    more = False
                else:
                    self._send(slot, _Unit(rows))
        return more

    @staticmethod
    def _send(slot: _Slot, unit: _Unit) -> None:
        slot.units[slot.actor.run.remote(unit.rows)] = unit

    def _take(self, ref: ObjectRef[Any]) -> Iterator[pa.Table]:
        """The results that a finished call brings."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RaySystemError, RayTaskError

        slot = next((s for s in self._slots if ref == s.started or ref in s.units), None)
        if slot is None:  # of an actor that was given up in this same round
            return
        try:
            result = ray.get(ref)
        except (EngineDied, RayActorError, RaySystemError, OutOfMemoryError) as error:
            self._bury(slot, error)
            return
        except TagsieveError as error:
            kind = type(error.cause) if isinstance(error, RayTaskError) else type(error)
            raise kind(_message(error)) from error
        except RayTaskError as error:
            raise RunError(f"{self.spec.label}: {_message(error)}") from error
        if ref == slot.started:
            slot.ready = True
            self.start_seconds = self.start_seconds or round(time.monotonic() - self._began, 3)
            return
        del slot.units[ref]
        slot.deaths = 0
        # The engine works, so it was those rows that it died of.
        yield from self._sentenced()
        rows, counts = result
        for name, value in counts.items():
            self.counted[name] = self.counted.get(name, 0.0) + value
        yield rows

    def _sentenced(self) -> Iterator[pa.Table]:
        for unit, error in self._suspects:
            yield self.spec.killed_by(unit.rows, error)
        self._suspects.clear()

    def _bury(self, slot: _Slot, error: Exception) -> None:
        """Put a new actor in the place of a dead one; its chunks are done again."""
        import ray

        ray.kill(slot.actor)
        self._slots.remove(slot)
        culprit = slot.alone
        for unit in slot.units.values():
            if not culprit:
                self._again.append(_Unit(unit.rows, 1))
            elif unit.rows.num_rows == 1:
                self._suspects.append((unit, _message(error)))
            else:
                rows = (unit.rows.slice(n, 1) for n in range(unit.rows.num_rows))
                self._again.extendleft(_Unit(row, 1) for row in rows)
        deaths = slot.deaths + 1
        if deaths <= self.spec.restarts:
            self.restarts += 1
            self._status(f"{self.spec.label}: an actor died and is started again")
            self._slots.append(self._new_slot())
            self._slots[-1].deaths = deaths
        elif not self._slots:
            raise RunError(
                f"{self.spec.label}: the engine died {deaths} times in a row "
                f"({self.spec.label}.restarts={self.spec.restarts}), last of: {_message(error)}"
            ) from error


def _message(error: Exception) -> str:
    """An error's own words, without Ray's frame around it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, TagsieveError):
        return str(cause)
    if isinstance(cause, Exception):
        return f"{type(cause).__name__}: {cause}"
    return str(error)
