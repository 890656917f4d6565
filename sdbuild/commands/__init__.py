"""What people type: one file a command, and what commands share."""
