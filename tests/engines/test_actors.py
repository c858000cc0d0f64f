"""The pool of actors, with actors that die, lie in wait for a row, or do not start."""

import os
import time

import pyarrow as pa
import pytest

from tagsieve.engines.actors import NOT_ASKED, ActorPool, ActorSpec
from tagsieve.errors import EngineDied, RunError, UsageError


class Doubler:
    """Doubles `x`; dies, hangs or complains as its settings say. `marks`: a folder for notes."""

    def __init__(self, marks, poison=(), die_at=(), start_fails=None, budget=None, slow=()):
        self.marks, self.poison, self.die_at = marks, set(poison), set(die_at)
        self.start_fails, self.budget, self.slow = start_fails, budget, set(slow)

    def start(self, counted):
        self.spent = counted.get("rows", 0)
        if self.start_fails:
            raise self.start_fails

    def run(self, batch):
        values = batch["x"].to_pylist()
        with open(f"{self.marks}/{time.monotonic_ns()}-{os.getpid()}", "w") as note:
            note.write(str(values))
        if self.poison & set(values):
            os._exit(1)
        for value in self.die_at & set(values):
            try:
                os.mkdir(f"{self.marks}/died-{value}")
            except FileExistsError:
                continue  # once only
            raise EngineDied("out of breath")
        if self.slow & set(values):
            time.sleep(0.5)
        if self.budget is not None:
            left = max(0, self.budget - int(self.spent))
            self.spent += min(left, len(values))
            done = values[:left]
            counts = {"rows": float(len(done)), NOT_ASKED: float(len(values) - len(done))}
            return pa.table({"x": [2 * v for v in done]}), counts
        return pa.table({"x": [2 * v for v in values]}), {"rows": float(len(values))}


def killed(row, error):
    return pa.table({"x": [-row["x"][0].as_py()]})


@pytest.fixture
def run_pool(engines, tmp_path):
    engines.ray()

    def run(rows=20, chunk=4, settings=None, **spec):
        notes = tmp_path / "notes"
        notes.mkdir(exist_ok=True)
        actors = ActorSpec(
            Doubler,
            {"marks": str(notes)} | (settings or {}),
            killed_by=killed,
            label="double",
            cpus=0.1,
            chunk_rows=chunk,
            **spec,
        )
        pool = ActorPool(actors)
        chunks = (pa.table({"x": list(range(n, n + chunk))}) for n in range(1, rows, chunk))
        try:
            pool.start()
            results = [x for table in pool.map(chunks, print) for x in table["x"].to_pylist()]
        finally:
            pool.stop()
        said = [path.read_text() for path in sorted(notes.glob("*-*")) if path.is_file()]
        return sorted(results), pool, said

    return run


def doubled(*numbers):
    return sorted(2 * n for n in numbers)


def test_pool_maps_every_chunk_once_whatever_order_they_end_in(run_pool):
    found, pool, said = run_pool(settings={"slow": [1]}, replicas=2)
    assert found == doubled(*range(1, 21))
    assert len(said) == len(set(said)) == 5
    assert (pool.counted, pool.restarts) == ({"rows": 20.0}, 0)


def test_pool_replaces_an_actor_that_dies_and_repeats_its_chunks(run_pool):
    found, pool, said = run_pool(settings={"die_at": [6, 15]})
    assert found == doubled(*range(1, 21))
    assert pool.restarts == 2
    assert len(said) <= 5 + 2 * 2  # at most what was out, each time


def test_pool_sets_aside_the_one_row_that_kills_its_engine(run_pool):
    found, pool, _ = run_pool(settings={"poison": [7]}, replicas=2)
    assert found == sorted([-7, *doubled(*(n for n in range(1, 21) if n != 7))])
    # With its neighbours, with its chunk alone, alone.
    assert pool.restarts == 3


def test_pool_stops_with_the_engines_own_error_when_it_keeps_dying(run_pool):
    settings = {"poison": range(1, 100)}
    with pytest.raises(
        RunError, match=r"engine died 3 times in a row \(double\.restarts=2\), last"
    ):
        run_pool(settings=settings, restarts=2)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (RunError("set x to 1"), RunError, "^set x to 1$"),
        (UsageError("no such model"), UsageError, "^no such model$"),
        (KeyError("a bug"), RunError, "double: KeyError: 'a bug'"),
    ],
)
def test_pool_stops_at_once_when_an_engine_does_not_start(run_pool, error, kind, told):
    with pytest.raises(kind, match=told):
        run_pool(settings={"start_fails": error})


def test_pool_stops_sending_when_a_budget_is_spent_and_a_new_actor_knows_what_was(run_pool):
    found, pool, _ = run_pool(settings={"budget": 10, "die_at": [6]}, in_flight=1)
    assert found == doubled(*range(1, 11))
    assert pool.restarts == 1
    assert pool.counted[NOT_ASKED] >= 2
