"""Kinds of tasks, one a file: the file's name is the kind's."""
