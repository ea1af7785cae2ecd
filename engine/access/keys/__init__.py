"""Keys of the management API, and clients that show one."""
