"""What the methods compute beside what their authors' code computes, on the same tensors; see `run`."""
