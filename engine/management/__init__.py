"""The worker's side of management: verbs over its state, for the control process."""
