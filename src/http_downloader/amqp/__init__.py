"""The message broker's side of the house: orders in, events out."""
