"""What a run may be for: each task owns its data, model, metric and words."""

from qpa_hf.training.tasks.chat import ChatTask
from qpa_hf.training.tasks.classify import ClassifyTask
from qpa_hf.training.tasks.image import ImageTask
from qpa_hf.training.tasks.task import Task
from qpa_hf.training.tasks.text import TextTask

TASKS: dict[str, Task] = {task.name: task for task in (TextTask(), ClassifyTask(), ChatTask(), ImageTask())}

__all__ = ["TASKS", "Task"]
