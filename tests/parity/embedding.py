"""Vectors by plain transformers, one text at a time: nothing padded, nothing batched."""

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer


def sentence_vector(folder, text, longest):
    """Mean of the last layer's states, scaled to unit length."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    asked = tokenizer(text, return_tensors="pt", truncation=True, max_length=longest)
    with torch.inference_mode():
        mean = model(**asked).last_hidden_state[0].mean(dim=0)
    return (mean / mean.norm()).numpy()


def causal_vector(folder, text, pooling, longest):
    """The last layer's state at the last token, or the mean of all."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :longest]
    with torch.inference_mode():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
    return (states[-1] if pooling == "last_token" else states.mean(dim=0)).numpy()
