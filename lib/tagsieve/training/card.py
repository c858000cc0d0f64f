"""The card of a model: what it was made of and how, and its figures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import tagsieve
from tagsieve.drawing import loss_curves
from tagsieve.page import MODEL_NOTE, RUN_NOTE
from tagsieve.training.base import Base
from tagsieve.training.config import SftConfig, TrainConfig

CARD, HISTORY, CURVES = "README.md", "history.json", "loss.svg"


def write_card(
    files: Any,
    folder: str,
    made: Mapping[str, Any],
    config: TrainConfig,
    source: str,
    base: Base,
) -> None:
    """Write the history of figures of a row of `models`, their curves, and last the card."""
    curves = loss_curves(made["history"])
    texts = {
        HISTORY: json.dumps(made["history"], indent=1) + "\n",
        CURVES: curves,
        CARD: _card(made, config, source, base, curves is not None),
    }
    for name, text in texts.items():
        if text is not None:
            with files.open(f"{folder}/{name}", "w", encoding="utf-8") as stream:
                stream.write(text)


def _card(
    made: Mapping[str, Any], config: TrainConfig, source: str, base: Base, drawn: bool
) -> str:
    """The card; `drawn`: whether there are curves."""
    figures = [f"| {name} | {_shown(value)} |" for name, value in sorted(made["metrics"].items())]
    tables = [
        f"| `{name}` | {version} |" for name, version in sorted(made["read_versions"].items())
    ]
    template = (
        f" Conversations are in the template `{config.template}`, which is its chat template."
        if isinstance(config, SftConfig)
        else ""
    )
    curves = [f"![loss]({CURVES})", ""] if drawn else []
    lines = [
        "---",
        f"base_model: {json.dumps(config.model)}",
        "library_name: transformers" if config.lora is None or config.lora.merge
        else "library_name: peft",
        f"tags: [tagsieve, {config.task}]",
        f"{MODEL_NOTE}: {made['model_id']}",
        f"{RUN_NOTE}: {made['run_id']}",
        "---",
        "",
        f"# {config.name}",
        "",
        f"Trained (`{config.task}`) by tagsieve {tagsieve.__version__}, run `{made['run_id']}`, on "
        f"{made['rows']:,} rows of {source}, from {config.model} (files of hash `{base.digest}`)."
        + template,
        "",
        *curves,
        "| figure | value |",
        "|---|---:|",
        f"| rows | {made['rows']:,} |",
        *figures,
        "",
        "## Lineage",
        "",
        f"Git commit of the folder it was run in: {_commit()}.",
        "",
        *(["| table | version |", "|---|---:|", *tables, ""] if tables else []),
        "## Recipe",
        "",
        "```json",
        json.dumps(json.loads(made["recipe"]), indent=2, ensure_ascii=False),
        "```",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _commit() -> str:
    """The git commit of the working directory, and whether files differ from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
        except OSError:  # no git here
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return "none, it is no repository"
    return f"`{commit}`" + (" with changes" if git("status", "--porcelain") else "")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"
