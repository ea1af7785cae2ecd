"""The management API under load: what its callers cost all other clients."""
