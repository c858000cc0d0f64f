"""tagsieve: tag, normalise, score, select and mix supervised fine-tuning data at any size."""

__version__ = "0.1.0"
