"""Prints what terminals choke on: bytes that are not UTF-8, a 5 MB line, no line end at the end."""

import sys

out = sys.stdout.buffer
out.write(b"caf\xe9 and \xff\xfe here\n")
out.write(b"x" * 5_000_000 + b" END OF LONG LINE\n")
out.write("画像 ✓\n".encode())
out.write(b"last words without a line end")
out.flush()
sys.exit(3)
