"""Models that write text: loading them, and decoding from them."""
