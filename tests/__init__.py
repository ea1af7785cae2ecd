import os
import sys

# Where it is set, each of hundreds of test processes would compile all modules again.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.dont_write_bytecode = False
