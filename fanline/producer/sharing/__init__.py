"""A task that several processes report to: one of them runs it, the others have handles."""
