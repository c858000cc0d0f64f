"""Model folders: what their digest depends on, and what is said when there is none."""

import pytest

from tagsieve.engines import models
from tagsieve.engines.models import everywhere, forget_models, model_digest, model_folder
from tagsieve.errors import UsageError


def test_model_digest_ignores_the_path(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert model_digest(str(tmp_path / "a")) == model_digest(str(tmp_path / "b"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text('{"x": 1}')
    assert model_digest(str(tmp_path / "c")) != model_digest(str(tmp_path / "a"))


def test_model_digest_is_of_the_model_not_of_its_training(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    bare = model_digest(str(tmp_path))
    for name in ("checkpoints/m/config.json", "tensorboard/m/e.txt", "history.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("[]")
    forget_models()
    assert model_digest(str(tmp_path)) == bare
    # A sentence encoder's parts are of the model.
    (tmp_path / "modules.json").write_text('[{"path": ""}, {"path": "1_Pooling"}]')
    forget_models()
    whole = model_digest(str(tmp_path))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    forget_models()
    assert len({bare, whole, model_digest(str(tmp_path))}) == 3


def test_any_machine_finds_a_model(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert everywhere("mine", None) == (str(tmp_path / "mine"), None)
    monkeypatch.setattr(models, "model_folder", lambda model, revision: f"/hub/{model}/c0ffee")
    assert everywhere("some/model", "main") == ("some/model", "c0ffee")


def test_model_folder_that_is_neither_here_nor_on_the_hub_is_refused():
    with pytest.raises(UsageError, match="'no/such-model': no such folder, and not to be had"):
        model_folder("no/such-model")
