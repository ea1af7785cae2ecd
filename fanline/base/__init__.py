"""What the rooms of the SDK share, and no program imports by itself."""
