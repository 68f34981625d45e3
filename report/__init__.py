"""The report: one page on the last evaluation, readable anywhere. Made by `make report`."""
