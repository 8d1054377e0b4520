"""What is read: BEIR folders, judgements, data sets by name."""
