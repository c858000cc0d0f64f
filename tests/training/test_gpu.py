"""A training on a GPU, in bfloat16."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tagsieve.training import sources

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def test_fine_tuning_on_a_gpu(add_selection, make_config, run, tmp_path):
    add_selection(64)
    made = run(make_config(epochs=10), sources.conversations("toys", mixed=False))
    assert made.metrics["loss"] < 0.5
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "models" / "mine", dtype="auto")
    assert model.dtype == torch.bfloat16
