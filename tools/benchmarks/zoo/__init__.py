"""Networks of many kinds through export, conversion and the stock tool, one row each."""
