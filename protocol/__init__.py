"""What goes over the wire, without I/O: bytes in, values out, bytes back.

Import order of the house, held by tests/test_layering.py:

    protocol  <-  engine  <-  workers          protocol  <-  fanline, loadtest

`protocol` imports nothing of ours, no trio, no socket and no clock; a time is an argument. Only so can the engine, the
SDK and gevent-run locust users share it.
"""

if __name__ != "fanline.protocol":  # from the root of the repository: a second copy of every class would be loaded
    raise ImportError("this package is imported as fanline.protocol; `protocol` is only the name of its folder")
