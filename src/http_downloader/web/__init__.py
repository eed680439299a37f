"""What the service answers over HTTP. All but `address` is imported by `serve` only: no other command pays for it."""
