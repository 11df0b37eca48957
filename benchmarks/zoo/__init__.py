"""A folder of experts as a stranger might have one, and what the default makes of it (docs/zoo.md)."""
