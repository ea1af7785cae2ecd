"""What reports to the current task for the job: its log records and its progress bars."""
