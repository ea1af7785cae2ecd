"""What breaks things on purpose: connections, disks, our own code."""
