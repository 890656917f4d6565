"""What building and running a bundle will need, told before any work."""
