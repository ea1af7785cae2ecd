"""What goes over the wire, without I/O: bytes in, values out, bytes back.

Import order of the house, held by tests/test_layering.py:

    protocol  <-  engine  <-  workers          protocol  <-  fanline, loadtest

`protocol` imports nothing of ours, no trio, no socket and no clock; a time is an argument. Only so can the engine, the
SDK and gevent-run locust users share it.
"""
