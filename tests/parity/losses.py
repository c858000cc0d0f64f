"""Losses of a causal LM, IFD, perplexity and DEITA's scores: one plain pass for each text."""

import math

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DEITA = {
    "complexity": "You are a helpful assistant. Please identify the complexity score of the "
    "following user query. \n##Query: {instruction}  \n##Complexity: ",
    "quality": "You are a helpful assistant. Please identify the quality score of the Response "
    "corresponding to the Question. \n #Question#:\n{instruction}\n#Response#:\n{output} "
    "\n##Quality: ",
}


class Reference:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def loss(self, text, before=""):
        """Mean loss of a text after BOS and what is before it."""
        prompt = [self.tokenizer.bos_token_id, *self.ids(before)]
        ids = torch.tensor([prompt + self.ids(text)])
        labels = ids.clone()
        labels[0, : len(prompt)] = -100
        with torch.inference_mode():
            return self.model(input_ids=ids, labels=labels).loss.item()

    def ifd(self, response, before):
        return self.loss(response, before) / self.loss(response)

    def perplexity(self, response, before=""):
        return math.exp(self.loss(response, before))

    def deita(self, what, instruction, output=""):
        """The six probabilities one by one, and their expected value."""
        text = DEITA[what].replace("{instruction}", instruction).replace("{output}", output)
        ids = torch.tensor([self.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            logits = self.model(input_ids=ids).logits[0, -1].double().tolist()
        weights = [math.exp(logits[self.tokenizer.convert_tokens_to_ids(d)]) for d in "123456"]
        return sum(n * w for n, w in enumerate(weights, 1)) / sum(weights)
