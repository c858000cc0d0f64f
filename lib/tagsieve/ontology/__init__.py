"""Raw tags become an ontology: frequency filter, rule step; the figures of pools under it, and
groups of its tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagsieve.lazy import lazy
from tagsieve.ontology.config import AnalyzeConfig, ClusterConfig, NormalizeConfig

if TYPE_CHECKING:
    from tagsieve.ontology.clustering import cluster, clustering_name
    from tagsieve.ontology.semantic import tag_vectors
    from tagsieve.ontology.step import analyze, find_version, normalize
    from tagsieve.ontology.updating import names_of

__all__ = [
    "AnalyzeConfig",
    "ClusterConfig",
    "NormalizeConfig",
    "analyze",
    "cluster",
    "clustering_name",
    "find_version",
    "names_of",
    "normalize",
    "tag_vectors",
]

__getattr__ = lazy(
    {
        "analyze": "tagsieve.ontology.step",
        "cluster": "tagsieve.ontology.clustering",
        "clustering_name": "tagsieve.ontology.clustering",
        "find_version": "tagsieve.ontology.step",
        "names_of": "tagsieve.ontology.updating",
        "normalize": "tagsieve.ontology.step",
        "tag_vectors": "tagsieve.ontology.semantic",
    }
)
