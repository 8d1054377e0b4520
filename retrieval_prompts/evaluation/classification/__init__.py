"""Labels and what was predicted: scores, calibration, a linear probe. Knows no text, picture or model."""
