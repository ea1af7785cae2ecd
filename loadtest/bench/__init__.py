"""Side-by-side benchmarks of the real `fanline serve`: `python -m fanline.loadtest.bench --help`."""
