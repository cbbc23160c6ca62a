"""The bitline as a circuit: its voltage against the number of discharging cells, and how often a count is misread."""
