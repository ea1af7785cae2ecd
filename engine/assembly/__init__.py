"""The parts of one worker, put together bottom up, as the layers are."""
