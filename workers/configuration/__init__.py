"""What `fanline serve` can be told: settings from defaults, file, environment and flags."""
