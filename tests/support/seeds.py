"""Chance that can be replayed: every random test takes its seed from here."""

import os
import random

import trio


def new_seed() -> int:
    """A fresh seed, or the one in FANLINE_TEST_SEED. Printed, so that pytest shows it when the test fails.

    It seeds Trio's scheduler as well, so a test that stays in one process, under a mock clock, repeats step by step.
    Actors that run side by side each need a generator of their own, `random.Random(f"{seed}/{name}")`: what one of
    them draws must not depend on which came first.
    """
    seed = int(os.environ.get("FANLINE_TEST_SEED", random.randrange(2**32)))
    print(f"FANLINE_TEST_SEED={seed}")
    trio._core._run._r.seed(seed)
    return seed
