"""`fanline.publish`: messages from any Python program, carried to NATS by a thread."""
