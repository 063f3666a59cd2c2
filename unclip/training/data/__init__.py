"""Training data: scenes made on the fly, image folders and webdataset shards."""
