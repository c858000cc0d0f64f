"""The card of a model: what it was made of and how, and its figures."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import tagsieve
from tagsieve.drawing import loss_curves
from tagsieve.training.base import Base
from tagsieve.training.config import SftConfig, TrainConfig

CARD, HISTORY, CURVES = "README.md", "history.json", "loss.svg"


def model_in(files: Any, folder: str) -> str | None:
    """The id of the model whose card lies in a folder; None where there is none."""
    if not files.exists(f"{folder}/{CARD}"):
        return None
    with files.open(f"{folder}/{CARD}", "r", encoding="utf-8") as stream:
        found = re.search(r"tagsieve-model: (\S+)", stream.read(4096))
    return found.group(1) if found else None


def write_card(files: Any, folder: str, card: str, history: Sequence[Mapping[str, Any]]) -> None:
    """Write the history of figures, their curves, and last the card."""
    texts = {
        HISTORY: json.dumps(list(history), indent=1) + "\n",
        CURVES: loss_curves(history),
        CARD: card,
    }
    for name, text in texts.items():
        if text is not None:
            with files.open(f"{folder}/{name}", "w", encoding="utf-8") as stream:
                stream.write(text)


def card_of(
    made: Mapping[str, Any], config: TrainConfig, source: str, base: Base, read: Mapping[str, int]
) -> str:
    """The card of a row of `models`."""
    figures = [f"| {name} | {_shown(value)} |" for name, value in sorted(made["metrics"].items())]
    tables = [f"| `{name}` | {version} |" for name, version in sorted(read.items())]
    template = (
        f" Conversations are in the template `{config.template}`, which is its chat template."
        if isinstance(config, SftConfig)
        else ""
    )
    curves = ["![loss](loss.svg)", ""] if loss_curves(made["history"]) else []
    lines = [
        "---",
        f"base_model: {json.dumps(config.model)}",
        "library_name: transformers" if config.lora is None or config.lora.merge
        else "library_name: peft",
        f"tags: [tagsieve, {config.task}]",
        f"tagsieve-model: {made['model_id']}",
        f"tagsieve-run: {made['run_id']}",
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
