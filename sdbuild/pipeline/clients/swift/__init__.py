"""What Apple's Swift package does (apple/ml-stable-diffusion at e12202c, swift-transformers 0.1.8), in Python.

The rules are written out in docs/reference/client.md, each with the Swift file that shows it.
"""
