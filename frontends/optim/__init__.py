"""How training moves the parameters: optimizers and learning-rate schedules, as descriptions."""
