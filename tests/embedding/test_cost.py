"""What `describe` says of the embed step, and what a recipe may say of it."""

import pytest

from handmade import put
from tagsieve.embedding import CausalEmbedConfig, SentenceEmbedConfig, encoder_fingerprint
from tagsieve.embedding.cost import embed_cost
from tagsieve.errors import UsageError
from tagsieve.plan import plan
from tagsieve.recipe import DEFAULT_STEPS, STEPS, load_recipe
from talks import TALKS, add_talks


def test_cost_counts_what_has_no_vector_of_this_encoder(lake):
    config = SentenceEmbedConfig()
    add_talks(lake, TALKS)
    assert (embed_cost(lake, config, 105).samples, embed_cost(lake, config, 0).samples) == (105, 0)
    encoder = encoder_fingerprint(config)
    row = {"encoder": encoder, "vector": [1.0], "tokens": 1, "truncated": False, "run_id": "r1"}
    put(lake, "embeddings", [row | {"sample_id": str(n)} for n in range(5)])
    put(lake, "embeddings", [row | {"sample_id": "0", "encoder": "another"}])
    told = {"model_calls": 5.0, "seconds": 9.0, "rows_per_second": 50.0}
    put(lake, "runs", [{"run_id": "r1", "step": "embed", "metrics": list(told.items()), "kept": 5}])
    cost = embed_cost(lake, config, 105)
    assert (cost.samples, cost.seconds) == (100, 2.0)
    assert "100 calls of minilm-instruction" in cost.told


def test_cost_of_a_model_that_never_ran_here_has_no_time(lake, tiny_llama):
    cost = embed_cost(lake, CausalEmbedConfig(model=tiny_llama), 10)
    assert (cost.samples, cost.seconds) == (10, None)
    assert "no run of this encoder yet" in cost.told


def test_recipe_runs_embed_only_where_it_is_listed(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(f"lake: {tmp_path}/lake\nsteps: [embed]\n")
    recipe = load_recipe(str(file))
    assert "embed" not in DEFAULT_STEPS
    assert STEPS.index("analyze") < STEPS.index("embed") < STEPS.index("select")
    assert recipe.embed == SentenceEmbedConfig()
    (step,) = plan(recipe, recipe.steps)
    assert (step.step, step.rows, step.unit) == ("embed", 0, "samples")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["embed.kind=causal"], r"embed.model: missing"),
        (["embed.kind=causl"], "embed: .*sentence.*causal"),
        (["embed.pooling=max"], r"embed.pooling: .*mean"),
        (["embed.template=vicuna"], "embed.template: unknown key"),
        (["embed.txt=query"], r"embed.txt: unknown key; did you mean 'text'"),
    ],
)
def test_recipe_with_a_wrong_embed_is_refused(tmp_path, overrides, message):
    file = tmp_path / "r.yaml"
    file.write_text(f"lake: {tmp_path}/lake\nsteps: [embed]\n")
    with pytest.raises(UsageError, match=message):
        load_recipe(str(file), overrides)
