"""The semantic step (InsTag, section 3.2): tags whose phrases mean the same become one.

The driver holds the distinct tags and their vectors (4 bytes x dimensions x tags, twice where Ray
keeps its own copy) and a label for each; near pairs lie on its disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagsieve.console import Console
from tagsieve.engines.actors import ActorPool, ActorSpec, Counts
from tagsieve.engines.config import RayConfig
from tagsieve.engines.context import Engines
from tagsieve.engines.encoders import Dtype, SentenceEncoder, dtype_of, packaged_minilm
from tagsieve.engines.models import model_digest, model_folder
from tagsieve.engines.ray import gpus_of_each, share_of_cores
from tagsieve.engines.vectors import Array
from tagsieve.errors import RunError
from tagsieve.lake import TABLES, Lake
from tagsieve.ledger import fingerprint
from tagsieve.ontology.config import SemanticConfig
from tagsieve.ontology.dbscan import NOISE, Pairs, RangeSearch, dbscan, distances

CHUNK_TAGS = 4096
"""Tags of one chunk of the encoder, and rows of one block of the search."""

COMMIT_TAGS = 65_536
"""Vectors of one commit to `tag_vectors`."""


def encoder_folder(config: SemanticConfig) -> str:
    """Where the phrase encoder lies; UsageError when it is not there."""
    return model_folder(config.encoder) if config.encoder else packaged_minilm()


def encoder_fingerprint(config: SemanticConfig) -> str:
    """The encoder's name and a hash of its weights and precision, as `tag_vectors` has it."""
    name = Path(config.encoder).name if config.encoder else "minilm"
    digest = model_digest(encoder_folder(config))
    return f"{name}-phrase-{fingerprint(digest, dtype_of(config.dtype))[:12]}"


class PhraseEncoder:
    """A Ray actor. Reads `tag`; gives `tag` and `vector`."""

    def __init__(self, config: SemanticConfig, dtype: Dtype, threads: int) -> None:
        self._config, self._dtype, self._threads = config, dtype, threads

    def start(self, counted: Counts) -> None:  # noqa: ARG002
        """Load the encoder."""
        self._encoder = SentenceEncoder(encoder_folder(self._config), self._dtype, self._threads)

    def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """The vector of each tag."""
        vectors = self._encoder.encode(batch["tag"].to_pylist())
        width = vectors.shape[1]
        offsets = np.arange(0, vectors.size + 1, width, dtype=np.int32)
        lists = pa.ListArray.from_arrays(offsets, vectors.ravel())
        return pa.table({"tag": batch["tag"], "vector": lists}), {}


class NearPairs:
    """A Ray actor. Reads `block`; gives the pairs `i`, `j` of each block of rows."""

    def __init__(self, vectors: Array, eps: float, threads: int) -> None:
        self._vectors, self._eps, self._threads = vectors, eps, threads

    def start(self, counted: Counts) -> None:  # noqa: ARG002
        """Set the threads."""
        import torch

        torch.set_num_threads(self._threads)
        self._search = RangeSearch(self._vectors, self._eps, CHUNK_TAGS)

    def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """The pairs of the blocks."""
        parts = [self._search.pairs_of(block) for block in batch["block"].to_pylist()]
        i, j = (np.concatenate(part) for part in zip(*parts, strict=True))
        return pa.table({"i": i, "j": j}), {}


def tag_vectors(
    lake: Lake,
    tags: pa.Array,
    config: SemanticConfig,
    engines: Engines,
    console: Console,
    step: str = "normalize",
) -> Array:
    """The vectors of distinct tags, float32 [n, d]: those in the table `tag_vectors`, and the
    others by the encoder, which are added to it. Ray is started for these alone."""
    encoder = encoder_fingerprint(config)
    known = _known(lake, encoder, tags)
    lacking = tags.filter(pc.invert(pc.is_in(tags, known["tag"].combine_chunks())))
    if len(lacking):
        engines.ray()
        _encode(lake, encoder, lacking, config, engines.ray_config, console, step)
        known = _known(lake, encoder, tags)
    places = pc.index_in(tags, known["tag"].combine_chunks())
    vectors = known["vector"].combine_chunks().take(places)
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(len(tags), -1), dtype=np.float32)


def _known(lake: Lake, encoder: str, tags: pa.Array) -> pa.Table:
    rows = lake.arrow("tag_vectors", ["tag", "vector"], filters=[("encoder", "=", encoder)])
    return rows.filter(pc.is_in(rows["tag"], tags))


def _encode(
    lake: Lake,
    encoder: str,
    tags: pa.Array,
    config: SemanticConfig,
    ray_config: RayConfig,
    console: Console,
    step: str,
) -> None:
    threads = share_of_cores(ray_config, config.replicas)
    spec = ActorSpec(
        PhraseEncoder,
        {"config": config, "dtype": dtype_of(config.dtype), "threads": threads},
        killed_by=partial(_ends_the_step, step),
        label=step,
        replicas=config.replicas,
        cpus=threads,
        chunk_rows=CHUNK_TAGS,
    )
    progress = console.progress(f"{step}: encoding tags", len(tags), "tags")
    owner = f"encode {encoder}"
    waiting: list[pa.Table] = []

    def commit() -> None:
        rows = pa.concat_tables(waiting).append_column(
            "encoder", pa.array([encoder] * sum(part.num_rows for part in waiting))
        )
        number = lake.commits_of("tag_vectors", owner)
        lake.append_next(
            "tag_vectors", rows.select(TABLES["tag_vectors"].schema.names), owner, number
        )
        waiting.clear()

    for part in _mapped(spec, pa.table({"tag": tags}), progress.show):
        progress.advance(part.num_rows)
        waiting.append(part)
        if sum(each.num_rows for each in waiting) >= COMMIT_TAGS:
            commit()
    if waiting:
        commit()


def _ends_the_step(step: str, row: pa.Table, error: str) -> pa.Table:
    raise RunError(f"{step}: the engine dies of {row.to_pylist()[0]!r:.200}: {error}")


def _mapped(spec: ActorSpec, rows: pa.Table, show: Any) -> Iterator[pa.Table]:
    pool = ActorPool(spec)
    chunks = (
        rows.slice(start, spec.chunk_rows) for start in range(0, rows.num_rows, spec.chunk_rows)
    )
    try:
        pool.start()
        yield from pool.map(chunks, show)
    finally:
        pool.stop()


def group_labels(
    vectors: Array, config: SemanticConfig, ray_config: RayConfig, console: Console
) -> Array:
    """DBSCAN labels of vectors, int64 [n], by actors that search block by block."""
    import ray

    threads = share_of_cores(ray_config, config.replicas)
    spec = ActorSpec(
        NearPairs,
        {"vectors": ray.put(vectors), "eps": config.eps, "threads": threads},
        killed_by=partial(_ends_the_step, "normalize"),
        label="normalize",
        replicas=config.replicas,
        cpus=threads,
        gpus=gpus_of_each(config.replicas),
    )
    blocks = -(-len(vectors) // CHUNK_TAGS)
    progress = console.progress("normalize: near tags", blocks, "blocks")
    with tempfile.TemporaryDirectory(prefix="tagsieve-pairs-") as folder:
        files: list[Path] = []
        # The first blocks have the most pairs to look at; they go first, the last ones fill up.
        for part in _mapped(spec, pa.table({"block": range(blocks)}), progress.show):
            progress.advance(1)
            files.append(Path(folder) / f"{len(files)}.npy")
            np.save(files[-1], np.stack([part["i"].to_numpy(), part["j"].to_numpy()]))

        def pairs() -> Iterator[Pairs]:
            for file in files:
                i, j = np.load(file)
                yield i, j

        return dbscan(len(vectors), pairs, config.min_samples)


def semantic_names(
    tags: pa.Array,
    uses: Array,
    vectors: Array,
    labels: Array,
    max_diameter: float | None = None,
    apart: Sequence[frozenset[str]] = (),
) -> pa.Array:
    """The name of each tag's group: its most used member, then the shortest, then the first by
    code points. `tags` are in code-point order; a tag in no group keeps its own.

    With `max_diameter`, or two tags of one of the sets in `apart`, a cluster is split: in the order
    of names, each member joins the first group of it whose members are all within that distance,
    and none of which it is apart from, or opens one.
    """
    texts: list[str] = tags.to_pylist()
    names = np.array(texts, dtype=object)
    lengths = pc.utf8_length(tags).to_numpy(zero_copy_only=False)
    order = np.lexsort((np.arange(len(tags)), lengths, -uses))
    order = order[labels[order] != NOISE]
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))

    def joins(member: int, group: list[int]) -> bool:
        held = {texts[each] for each in group}
        if any(texts[member] in each and held & each for each in apart):
            return False
        if max_diameter is None:
            return True
        alike = np.full(len(group), member)
        return bool((distances(vectors, np.array(group), alike) <= max_diameter).all())

    for members in np.split(order, starts[1:]) if len(order) else ():
        bound = max_diameter is not None or any(texts[m] in each for each in apart for m in members)
        for group in _split(members.tolist(), joins) if bound else [members.tolist()]:
            names[group] = texts[group[0]]
    return pa.array(names, pa.string())


def _split(members: list[int], joins: Callable[[int, list[int]], bool]) -> list[list[int]]:
    groups: list[list[int]] = []
    for member in members:
        group = next((group for group in groups if joins(member, group)), None)
        if group is None:
            groups.append([member])
        else:
            group.append(member)
    return groups
