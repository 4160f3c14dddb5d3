"""The paper's two diagnoses against cognitively normal controls (CN); scans of other groups are left out."""

from headstart.tasks.base import Task

TASKS = (
    Task("ad", "classification", "diagnosis", classes=("CN", "AD")),
    Task("pd", "classification", "diagnosis", classes=("CN", "PD")),
)
