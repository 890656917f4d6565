"""What is in the box: checkpoints that need no network, by the names that recipes call them."""
