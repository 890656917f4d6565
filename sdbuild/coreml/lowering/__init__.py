"""Lowering of a torch module without weights to an ML Program whose weights are streamed from a checkpoint."""
