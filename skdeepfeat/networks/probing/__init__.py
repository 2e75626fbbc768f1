"""What a network is: its layers and stages, what it computes, and what is wrong."""
