"""What each operation means: its types, chain rule and NumPy reference."""
