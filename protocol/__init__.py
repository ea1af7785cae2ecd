"""What goes over the wire, without I/O: bytes in, values out, bytes back.

Import order of the house, held by tests/test_layering.py:

    protocol  <-  engine  <-  workers          protocol  <-  fanline, loadtest

`protocol` imports no other room, and no trio, socket or clock; time is an argument. That is what lets the engine, the
SDK and locust users under gevent share it.
"""

if __name__ != "fanline.protocol":  # imported from the root of the repository: would load every class twice
    raise ImportError("this package is imported as fanline.protocol; `protocol` is only the name of its folder")
