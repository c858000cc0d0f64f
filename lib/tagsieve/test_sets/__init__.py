"""Test sets: what they are in a recipe, and their questions. Imports no engine."""
