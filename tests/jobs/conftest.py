"""The sample pool's recipe, with a lake and outputs of the test's own."""

from pathlib import Path

import pytest

from tagsieve.console import Console
from tagsieve.recipe import load_recipe
from tagsieve.runner import run_steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run_demo(engines):
    """Run the demo recipe into a folder; gives the folder."""

    def run(folder, *overrides):
        recipe = load_recipe(
            str(ROOT / "conf/recipes/demo.yaml"),
            [f"lake={folder}/lake", f"export.path={folder}/out", *overrides],
        )
        run_steps(recipe, recipe.steps, Console(quiet=True), engines)
        return folder

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory, run_demo):
    """The demo recipe, run once from the root of the checkout."""
    patch = pytest.MonkeyPatch()
    patch.chdir(ROOT)
    yield run_demo(tmp_path_factory.mktemp("demo"))
    patch.undo()
