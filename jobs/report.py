"""Submit the step `report`: `python jobs/report.py RECIPE [key=value ...]`, spark-submit or ray job submit."""

from tagsieve.cli import job

if __name__ == "__main__":
    job("report")
