"""Load: locust users (locustfile.py) and side-by-side benchmarks (bench/). It imports no other room than `protocol`."""

if __name__ != "fanline.loadtest":  # imported from the root of the repository: would load every class twice
    raise ImportError("this package is imported as fanline.loadtest; `loadtest` is only the name of its folder")
