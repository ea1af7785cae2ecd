"""`fanline progress`, `log`, `ask` and `result`: a process for each line that a script reports."""
