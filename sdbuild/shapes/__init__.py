"""How `sdbuild.builtin.shapes` was trained, and how well it draws: a workshop that no build enters."""
