"""What every action of a chip costs, and where the number comes from."""
