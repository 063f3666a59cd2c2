"""An independent check of an image: which sprites it shows, where, and on which background."""
