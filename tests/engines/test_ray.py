"""What is said of a cluster's GPUs."""

import pytest

from tagsieve.engines.ray import check_precision
from tagsieve.errors import RunError


def test_a_precision_that_the_machine_without_gpus_would_choose_for_gpus():
    with pytest.raises(RunError, match=r"embed.dtype=auto is float32 .* set it to bfloat16"):
        check_precision("embed.dtype", "auto", "float32", 1)
    check_precision("embed.dtype", "float32", "float32", 1)
    check_precision("embed.dtype", "auto", "bfloat16", 1)
    check_precision("embed.dtype", "auto", "float32", 0)
