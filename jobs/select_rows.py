"""The step `select`: hand this file to python, spark-submit or ray job submit.

Not select.py: that name would hide the standard library's module from all files of this folder.
"""

from tagsieve.cli import job

if __name__ == "__main__":
    job("select")
