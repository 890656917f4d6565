"""The contract with a bundle's client, in one place: names, shapes, types, files. Nothing here knows of networks."""
