"""Model folders: what their digest depends on, and what is said when there is none."""

import pytest

from tagsieve.engines.models import model_digest, model_folder
from tagsieve.errors import UsageError


def test_model_digest_ignores_the_path(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert model_digest(str(tmp_path / "a")) == model_digest(str(tmp_path / "b"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text('{"x": 1}')
    assert model_digest(str(tmp_path / "c")) != model_digest(str(tmp_path / "a"))


def test_model_folder_that_is_neither_here_nor_on_the_hub_is_refused():
    with pytest.raises(UsageError, match="'no/such-model': no such folder, and not to be had"):
        model_folder("no/such-model")
