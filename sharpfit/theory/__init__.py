"""Pure functions of arrays behind the bounds: no torch here; a docstring is a theorem."""
