"""The torch side: checkpoints, modules that suit the Neural Engine, and each component's interface.

This file imports nothing, so that the generator of tiny checkpoints, which needs no torch, does not wait for it.
"""
