"""Sex: a fair classification task on any cohort, and a check that a pipeline works."""

from headstart.tasks.base import Task

TASKS = (Task("sex", "classification", "sex", classes=("F", "M")),)
