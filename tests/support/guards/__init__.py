"""What every test is held to: a bound on its time, and staying inside its process."""
