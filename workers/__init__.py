"""Processes: the supervisor, its workers, the embedded nats-server, listening sockets, settings. Linux only.

`python -m fanline.workers` is what `fanline serve` runs.
"""

if __name__ != "fanline.workers":  # from the root of the repository: a second copy of every class would be loaded
    raise ImportError("this package is imported as fanline.workers; `workers` is only the name of its folder")
