"""The settings of `fanline serve`, from defaults, file, environment and flags."""
