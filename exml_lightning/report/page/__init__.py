"""The page to look at, `report.html`: one file, without requests."""
