"""`fanline.Client` in each of its worlds, for tests that are written once, for Trio."""
