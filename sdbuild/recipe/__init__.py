"""Recipes and targets: the language, its diagnostics, and the preflight rules."""
