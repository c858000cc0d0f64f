"""Tokenizers whose tokens can be read: made of bytes, with the merges that a test names."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


def byte_level(merges=(), begin=None, chat_template=None, trim=False):
    """A token for each byte, and for each merge ("Ġ", "3") of two; `begin`: the sign that it puts
    before a text; `trim`: offsets without spaces, as GPT-2 has them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["</s>", *([begin] if begin else []), *alphabet, *("".join(pair) for pair in merges)]
    raw = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, list(merges)))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    steps = [processors.ByteLevel(trim_offsets=trim)]
    if begin:
        signs = [(begin, names.index(begin))]
        steps.append(processors.TemplateProcessing(single=f"{begin} $A", special_tokens=signs))
    raw.post_processor = processors.Sequence(steps)
    found = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", bos_token=begin)
    found.chat_template = chat_template
    return found


def sentence_piece(words):
    """As Llama 2's: `▁` for a space, one before the first word of a text, a beginning sign."""
    letters = sorted({sign for word in words for sign in word} | {"▁"})
    pieces = {"<unk>": 0, "<s>": 1, "</s>": 2}
    merges = []
    for sign in letters:
        pieces[sign] = len(pieces)
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                merges.append((word[: end - 1], word[end - 1]))
                pieces[word[:end]] = len(pieces)
    raw = Tokenizer(models.BPE(pieces, merges, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([])
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
