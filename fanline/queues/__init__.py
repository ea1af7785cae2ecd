"""What the adapters to task queues have in common: a job of a queue is a task, its runs are the task's attempts."""
