"""The command line: arguments become Requests. No tensors here."""
