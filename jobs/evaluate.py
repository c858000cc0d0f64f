"""The step `evaluate`: hand this file to python, spark-submit or ray job submit."""

from tagsieve.cli import job

if __name__ == "__main__":
    job("evaluate")
