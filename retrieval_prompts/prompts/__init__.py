"""What is learned: prompt encoders, where they start, the folder they are kept in."""
