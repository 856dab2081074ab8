"""One section a file: a function from what was found to the section, or None where there is nothing to show."""
