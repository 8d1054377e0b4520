"""What a prompt says and does, every figure beside its null."""
