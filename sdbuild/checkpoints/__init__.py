"""What a source says: the facts of a checkpoint, its tensors, single files, LoRAs, textual inversions, and the Hub."""
