"""What the monitor stores of tasks, and how they are brought back from it: entries, records, and the table."""
