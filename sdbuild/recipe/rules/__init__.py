"""Preflight rules, with their documentation: a file for each subject, found by `sdbuild.recipe.rules.registry`."""
