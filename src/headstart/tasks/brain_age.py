"""Brain age: how old does this brain look?"""

from headstart.tasks.base import Task

TASKS = (Task("brain-age", "regression", "age", unit="years"),)
