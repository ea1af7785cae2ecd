"""What a worker answers when it is managed: verbs over what it holds, for the control process."""
