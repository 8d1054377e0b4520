"""What is read: pictures with classes or captions, published layouts, templates."""
