"""Side-by-side benchmarks of the real `fanline serve`: `python -m loadtest.bench --help`."""
