"""Writing of published layouts: what their exports share."""
