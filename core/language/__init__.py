"""The languages in which this program speaks: English is in the source, `it.po` has the Italian."""
