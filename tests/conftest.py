"""Hypothesis: a failing example prints the blob that replays it; HYPOTHESIS_EXAMPLES sets how long the search is."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fanline",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
    deadline=None,  # the machine may be busy; no test is about speed
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fanline")
