"""The contract of the Swift package of apple/ml-stable-diffusion, as its sources at e12202c read and feed it."""
