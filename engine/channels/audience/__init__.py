"""The audience of a message: the subscribers of its channel, those of its whole namespace, and who is left out."""
