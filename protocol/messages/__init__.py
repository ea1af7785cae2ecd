"""The data (`d`) of the control messages: what `welcome`, `sub` and its answer, `gap`, `err` and the others carry.

A sender writes `Welcome(...).fields()`, a receiver calls `read(Welcome, envelope)`. Where the data is not a map, or may
be something else as well, a function beside it reads it: `message_id_of`, `error_of`. `unsub` carries no data; `ping`
and the answer to `call` carry whatever the client or the producer said.

What clients send is checked strictly: unknown keys are refused, except in a `call`, whose verb may be the application's
own. What the server sends is read leniently: unknown keys are ignored, so that an old client understands a newer
server. The section "Data of control messages" in docs/reference/protocol.md lists the same keys; a test compares them.
"""
