"""LoRAs and their relatives: which weights a file changes, and to what, one tensor at a time."""
