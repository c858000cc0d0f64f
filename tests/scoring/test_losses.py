"""Scores by losses against one plain pass for each text, and what cannot be scored."""

import asyncio

import numpy as np
import pytest
from transformers import AutoTokenizer

from parity.losses import Reference
from scored import PAIRS
from tagsieve.engines.logprobs import Losses, NextToken, TransformersLogprobs
from tagsieve.errors import UsageError
from tagsieve.scoring.config import (
    IfdConfig,
    InstructionLossConfig,
    PerplexityConfig,
    ResponseLossConfig,
)
from tagsieve.scoring.losses import LossScorer, loss_identity
from tagsieve.scoring.rows import Asked, Turn, Unscorable
from tagsieve.scoring.tokens import Tokens


@pytest.fixture(scope="module")
def engine(tiny_llama):
    made = TransformersLogprobs(tiny_llama, None, "float32", 1, None)
    asyncio.run(made.start())
    return made


@pytest.fixture(scope="module")
def reference(tiny_llama):
    return Reference(tiny_llama)


def turn(instruction, response, earlier=()):
    return Turn("s", 0, instruction, response, tuple(earlier), frozenset())


TURNS = [turn(*pair) for pair in PAIRS]


def ask(engine, config, turns, longest=None):
    scorer = LossScorer(config, Tokens(engine.tokenizer), longest or engine.max_tokens)
    return scorer, scorer.ask(turns)


def scored(engine, config, turns):
    scorer, asked = ask(engine, config, turns)
    return [scorer.value(asyncio.run(engine.answer(found.questions))) for found in asked]


def wizard(instruction):
    return f"{instruction}\n\n### Response:"


COMMON = {"name": "s", "model": "m"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (IfdConfig(**COMMON), lambda r, t: r.ifd(t.response, wizard(t.instruction))),
        (PerplexityConfig(**COMMON), lambda r, t: r.perplexity(t.response, wizard(t.instruction))),
        (PerplexityConfig(**COMMON, given="nothing"), lambda r, t: r.perplexity(t.response)),
        (ResponseLossConfig(**COMMON), lambda r, t: r.loss(t.response, wizard(t.instruction))),
        (InstructionLossConfig(**COMMON), lambda r, t: r.loss(t.instruction)),
        (
            ResponseLossConfig(**COMMON, prompt="chat"),
            # The template writes BOS, which the reference has already.
            lambda r, t: r.loss(t.response, f"user: {t.instruction}\nassistant: "),
        ),
    ],
    ids=["ifd", "perplexity", "perplexity-alone", "response", "instruction", "chat"],
)
def test_scores_by_losses_equal_a_plain_pass(engine, reference, config, expected):
    wanted = [expected(reference, turn) for turn in TURNS]
    assert scored(engine, config, TURNS) == pytest.approx(wanted, rel=1e-4)


def test_scores_of_a_later_turn_are_given_its_instruction_or_all_before(engine, reference):
    earlier = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello.")]
    later = turn("And a poem?", "Roses are red.", earlier)
    alone, whole = (
        ResponseLossConfig(**COMMON),
        ResponseLossConfig(**COMMON, context="conversation"),
    )
    before = f"Be brief.\n\n{wizard('Hi')}Hello.\n\n{wizard('And a poem?')}"
    wanted = reference.loss("Roses are red.", wizard("And a poem?"))
    assert scored(engine, alone, [later]) == pytest.approx([wanted], rel=1e-4)
    wanted = reference.loss("Roses are red.", before)
    assert scored(engine, whole, [later]) == pytest.approx([wanted], rel=1e-4)
    chat = whole.model_copy(update={"prompt": "chat"})
    before = "system: Be brief.\nuser: Hi\nassistant: Hello.\nuser: And a poem?\nassistant: "
    wanted = reference.loss("Roses are red.", before)
    assert scored(engine, chat, [later]) == pytest.approx([wanted], rel=1e-4)


def test_answers_are_the_same_bits_in_any_company(engine):
    random = np.random.default_rng(0)
    texts = [
        tuple(random.integers(2, 250, n).tolist()) for n in (3, 30, 40, 90, 200, *range(5, 45))
    ]
    questions = [Losses(text, 1 + len(text) // 3) for text in texts]
    questions += [NextToken(text, (7, 9, 11)) for text in texts]
    together = asyncio.run(engine.answer(questions))
    backwards = asyncio.run(engine.answer(questions[::-1]))[::-1]
    alone = [asyncio.run(engine.answer([question]))[0] for question in questions]
    assert all(map(np.array_equal, together, backwards))
    assert all(map(np.array_equal, together, alone))
    assert [len(losses) for losses in together[:2]] == [1, 19]


def test_scorers_ask_the_same_of_a_model_in_the_same_words(engine):
    _, ifd = ask(engine, IfdConfig(**COMMON), TURNS)
    _, given = ask(engine, PerplexityConfig(**COMMON), TURNS)
    _, alone = ask(engine, PerplexityConfig(**COMMON, given="nothing"), TURNS)
    assert [a.questions for a in ifd] == [
        (*b.questions, *c.questions) for b, c in zip(given, alone, strict=True)
    ]


def test_what_has_no_response_or_no_token_is_told_apart(engine):
    turns = [turn("Hi", None), turn("Hi", ""), turn("", "x")]
    _, (none, empty, scored) = ask(engine, IfdConfig(**COMMON), turns)
    assert (none.reason, empty.reason) == ("no_response", "empty_text")
    assert isinstance(scored, Asked)
    _, (there, _, nothing) = ask(engine, InstructionLossConfig(**COMMON), turns)
    assert isinstance(there, Asked)
    assert nothing.reason == "empty_text"


def test_a_text_over_the_models_length_is_set_aside_or_cut_by_setting(engine):
    long = turn("Say it", "word " * 100)
    tokens = len(engine.tokenizer(long.response)["input_ids"])
    _, (asked,) = ask(engine, IfdConfig(**COMMON), [long], longest=64)
    assert isinstance(asked, Unscorable)
    assert asked.reason == "overlong"
    assert f"{tokens} of it; the model takes 64" in asked.error
    _, (cut,) = ask(engine, IfdConfig(**COMMON, overlong="truncate"), [long], longest=64)
    given, alone = cut.questions
    assert len(given.tokens) == 64
    assert given.tokens[given.start :] == alone.tokens[1:]  # the same tokens in both
    assert (cut.flags, cut.tokens) == (("truncated",), 64 - given.start)
    no_room = turn("word " * 100, "x")
    _, (asked,) = ask(engine, IfdConfig(**COMMON, overlong="truncate"), [no_room], longest=64)
    assert asked.reason == "overlong"


def test_a_chat_template_that_refuses_a_conversation_sets_it_aside(engine, monkeypatch):
    strict = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(engine.tokenizer, "chat_template", strict)
    _, (asked,) = ask(engine, IfdConfig(**COMMON, prompt="chat"), TURNS[:1])
    assert asked.reason == "refused"
    assert "roles must alternate" in asked.error


def test_a_tokenizer_without_a_first_token_or_chat_template_is_refused(tiny_llama):
    tokens = Tokens(AutoTokenizer.from_pretrained(tiny_llama))
    tokens.tokenizer.chat_template = None
    with pytest.raises(UsageError, match=r"score\.scorers s: .* no chat template"):
        LossScorer(IfdConfig(**COMMON, prompt="chat"), tokens, 64)
    tokens.tokenizer.bos_token = None
    (asked,) = LossScorer(InstructionLossConfig(**COMMON), tokens, 64).ask(TURNS[:1])
    assert asked.questions[0].tokens[0] == tokens.tokenizer.eos_token_id
    tokens.tokenizer.eos_token = None
    with pytest.raises(UsageError, match="neither BOS nor EOS"):
        LossScorer(InstructionLossConfig(**COMMON), tokens, 64)


def test_identity_has_what_decides_the_score_and_no_more():
    one = loss_identity(IfdConfig(**COMMON))
    assert loss_identity(IfdConfig(name="other", model="m")) == one
    changed = [{"prompt": "chat"}, {"context": "conversation"}, {"overlong": "truncate"}]
    assert all(loss_identity(IfdConfig(**COMMON, **change)) != one for change in changed)
    # A perplexity given nothing has no prompt.
    alone = [PerplexityConfig(**COMMON, given="nothing", prompt=p) for p in ("wizardlm", "chat")]
    assert loss_identity(alone[0]) == loss_identity(alone[1])
