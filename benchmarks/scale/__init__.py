"""One model over processes: the same losses in every layout, what each step moves, checkpoints."""
