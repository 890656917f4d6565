"""How `shapes` was trained; `python -m sdbuild.shapes.training` does it all again."""
