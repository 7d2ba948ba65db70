"""What an error in each tensor costs at the output of the network or of a block."""
