"""Images on disk and in memory: opening, converting, saving with a record of what made them."""
