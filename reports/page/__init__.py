"""What a page is made of: blocks, tables, figures, colours, and their export."""
