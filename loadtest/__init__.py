"""Load: locust users (locustfile.py) and the side-by-side benchmarks (bench/). Of ours it imports only `protocol`."""
