"""A connection to NATS for producers and `fanline pub`, without a Fanline server in between."""
