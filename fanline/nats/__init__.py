"""The NATS client of producers and of `fanline pub`: a thin shell on a plain thread over protocol/nats.

It knows neither Trio nor asyncio, so that it runs beside either, and in plain code. `socket`, `select`, `ssl`,
`threading` and `time` are used through their modules and at the time of the call: under gevent the thread is a greenlet
and its waits are cooperative, whether the patch came before or after the import of Fanline.
"""
