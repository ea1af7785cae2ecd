"""The NATS client on Trio, the second shell over protocol/nats/ beside that of producers."""
