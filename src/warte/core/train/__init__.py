"""Training on any machine: one loop, its layouts over processes, their start and checkpoints."""
