"""What the control process asks workers, what they answer, and the keys with which backends ask the control process."""
