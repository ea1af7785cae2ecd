"""Load: locust users (locustfile.py) and the side-by-side benchmarks (bench/). Of ours it imports only `protocol`."""

if __name__ != "fanline.loadtest":  # from the root of the repository: a second copy of every class would be loaded
    raise ImportError("this package is imported as fanline.loadtest; `loadtest` is only the name of its folder")
