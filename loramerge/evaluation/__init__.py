"""Many candidates through one base model together: candidates, passes, tasks, and their statistics."""
