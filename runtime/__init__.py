"""What runs compiled graphs: executables, threads, artifacts, training, data."""
