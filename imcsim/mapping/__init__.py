"""What goes where and when: plans, and the programs that are written from them."""
