"""NATS as bytes and names: the client protocol, and the subjects that channels travel on."""
