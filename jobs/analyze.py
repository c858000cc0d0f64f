"""Submit the step `analyze`: `python jobs/analyze.py RECIPE [key=value ...]`, spark-submit or ray job submit."""

from tagsieve.cli import job

if __name__ == "__main__":
    job("analyze")
