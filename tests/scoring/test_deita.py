"""DEITA's scorers: the expected value over six tokens, by hand."""

import asyncio

import numpy as np
import pytest
from transformers import AutoTokenizer

from parity.losses import DEITA, Reference
from scored import PAIRS
from tagsieve.engines.config import RayConfig
from tagsieve.engines.logprobs import TransformersLogprobs
from tagsieve.errors import UsageError
from tagsieve.scoring import ScoreConfig, check_scorers
from tagsieve.scoring.config import DeitaConfig
from tagsieve.scoring.deita import DeitaScorer, deita_prompt
from tagsieve.scoring.rows import Turn


@pytest.fixture(scope="module")
def engine(tiny_llama):
    made = TransformersLogprobs(tiny_llama, None, "float32", 1, None)
    asyncio.run(made.start())
    return made


def config_of(what, **settings):
    return DeitaConfig(name="c", model="m", what=what, **settings)


def turn(instruction, response):
    return Turn("s", 0, instruction, response, (), frozenset())


@pytest.mark.parametrize("what", ["complexity", "quality"])
def test_deita_score_is_the_expected_digit_of_one_plain_pass(engine, tiny_llama, what):
    scorer = DeitaScorer(config_of(what), engine.tokenizer, engine.max_tokens)
    asked = scorer.ask([turn(*pair) for pair in PAIRS])
    found = [scorer.value(asyncio.run(engine.answer(one.questions))) for one in asked]
    reference = Reference(tiny_llama)
    wanted = [reference.deita(what, *pair) for pair in PAIRS]
    assert found == pytest.approx(wanted, rel=1e-5)
    assert len({round(score, 6) for score in found}) == len(PAIRS)


def test_deita_value_by_hand():
    scorer = DeitaScorer.__new__(DeitaScorer)
    even = [np.zeros(6, np.float32)]
    assert scorer.value(even) == pytest.approx(3.5)
    # Shares 1/4 and 3/4 of "2" and "5", whatever is added to all six.
    odds = np.log(np.array([1e-30, 1, 1e-30, 1e-30, 3, 1e-30])).astype(np.float32)
    assert scorer.value([odds - 16]) == pytest.approx(0.25 * 2 + 0.75 * 5)
    assert np.isnan(scorer.value([np.full(6, np.nan, np.float32)]))


def test_deita_templates_are_those_of_the_model_cards():
    for what, text in DEITA.items():
        assert deita_prompt(config_of(what)).text.replace("{response}", "{output}") == text


def test_deita_quality_without_a_response_is_set_aside(engine):
    scorer = DeitaScorer(config_of("quality"), engine.tokenizer, engine.max_tokens)
    (asked,) = scorer.ask([turn("Hi", None)])
    assert asked.reason == "no_response"
    complexity = DeitaScorer(config_of("complexity"), engine.tokenizer, engine.max_tokens)
    (asked,) = complexity.ask([turn("Hi", None)])
    assert asked.questions


def test_deita_prompt_over_the_models_length_is_set_aside_or_loses_its_middle(engine):
    long = [turn("start " + "word " * 300 + "finish", "x")]
    scorer = DeitaScorer(config_of("complexity"), engine.tokenizer, 200)
    assert scorer.ask(long)[0].reason == "overlong"
    scorer = DeitaScorer(config_of("complexity", overlong="truncate"), engine.tokenizer, 200)
    (asked,) = scorer.ask(long)
    text = engine.tokenizer.decode(asked.questions[0].tokens)
    assert asked.tokens <= 200
    assert asked.flags == ("truncated",)
    assert "start" in text
    assert text.endswith("finish  \n##Complexity: ")


def test_a_checkpoint_without_one_of_the_six_tokens_is_refused_before_an_engine_starts(
    tiny_llama, tmp_path
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"4":', '"four":'), encoding="utf-8")
    config = ScoreConfig(
        scorers=[{"kind": "deita", "name": "c", "what": "complexity", "model": str(tmp_path)}]
    )
    with pytest.raises(UsageError, match=rf'scorers c: .*{tmp_path.name} has no token "4"'):
        check_scorers(config, RayConfig())
