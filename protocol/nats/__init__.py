"""NATS as bytes and names: the client protocol, the subjects of channels, the names of streams and buckets."""
