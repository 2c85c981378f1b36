"""The page and the REST interface over one workspace: they read what core recorded, and ask the runner for work."""
