"""One module a view: `show()` draws it."""
